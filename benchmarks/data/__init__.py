"""The kinds of datasets: glyphs, photographs, folders of pictures, and texts.

Another kind is a subclass of splits.Kind in a module of its own, and a line in KINDS.
"""

from .glyphs import DrawnGlyphs
from .photographs import CARS, CUB, SOP, Folder
from .splits import Kind
from .texts import TextFile

KINDS: dict[str, Kind] = {
    "glyphs": DrawnGlyphs(),
    "cub": CUB,
    "cars": CARS,
    "sop": SOP,
    "folder": Folder(),
    "texts": TextFile(),
}
"""The setting dataset -> its kind."""
