"""Glyphs: images of Unicode characters, drawn from the fonts that matplotlib ships.

A dataset for metric learning that needs no download: every character is a class, and
its images show it in up to sixteen fonts. They are drawn once and cached.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import PIL
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from . import splits
from .files import kept, sha256
from .splits import Items, Kind, Reading, SplitOptions, Splits

SIZE = 32  # pixels, both ways
FONT_SIZE = 22  # pixels; larger ones are cut off at the edge
BASELINE = 23  # pixels from the top
MIN_FACES = 8
CATEGORIES = "LNS"  # Unicode letters, numbers and symbols
FACES = (
    *("DejaVuSans" + x for x in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *("DejaVuSansMono" + x for x in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *("DejaVuSerif" + x for x in ("", "-Bold", "-Italic", "-BoldItalic")),
    *("STIXGeneral" + x for x in ("", "Bol", "Italic", "BolIta")),
)
SHARES = (0.4, 0.1, 0.5)  # of the classes, to train, validate and test on
MAX_ROTATION, MAX_SHEAR, MAX_SCALING, MAX_SHIFT = 0.15, 0.1, 0.1, 0.1


class DrawnGlyphs(Kind):
    """The glyphs, which are drawn where they are needed."""

    inputs = ("grey pictures",)
    in_files = False

    def fingerprint(self, root: Path, download: bool, test_classes: str | None) -> str:
        """Of the drawings: another Pillow or matplotlib draws others."""
        return _digest()

    def splits(self, reading: Reading) -> Splits:
        """As glyphs has it."""
        return glyphs(reading.options, reading.augment)


def glyphs(options: SplitOptions, augment: bool = False) -> Splits:
    """The glyphs, which need no download and have no test_classes.

    With augment the images of the training split are moved a little, at random; those to
    pre-train on are always moved.
    """
    drawn, moved = Glyphs(), Glyphs(transform=random_affine)
    classes = splits.split_all_classes(drawn.labels, SHARES, options)
    trained = moved if augment else drawn
    return splits.make_splits(classes, options, drawn, trained, moved, {})


class Drawings(NamedTuple):
    """All images, uint8 with 0 for the background, and their characters' code points."""

    images: np.ndarray
    labels: np.ndarray

    def digest(self) -> str:
        """SHA-256 of the contents, in hexadecimal."""
        return sha256([self.images.tobytes(), self.labels.tobytes()])


class Glyphs(Items):
    """All glyphs, whose classes are code points, perhaps with a transform at random.

    An image is a float32 tensor of shape (1, 32, 32), with a mean near 0 and a standard
    deviation near 1.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        drawings = load()
        self.labels = drawings.labels
        self.images = torch.from_numpy(drawings.images)
        self.transform = transform
        self.is_random = transform is not None

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        # About 0.1 and 0.3 are the mean and the standard deviation of all pixels.
        image = (self.images[index].unsqueeze(0).float() / 255 - 0.1) / 0.3
        if self.transform is not None:
            image = self.transform(image)
        return image, int(self.labels[index])

    def fingerprint(self) -> str:
        """Of its images, labels and transform."""
        transform = repr(getattr(self.transform, "__name__", None))
        drawings = Drawings(self.images.numpy(), self.labels)
        return sha256([transform.encode(), drawings.digest().encode()])


def random_affine(image: Tensor) -> Tensor:
    """Turn, shear, scale and shift an image of shape (C, H, W) a little, at random.

    >>> random_affine(torch.zeros(1, 32, 32)).shape
    torch.Size([1, 32, 32])
    """
    turn, shear, scale, right, down = (2 * torch.rand(5) - 1).tolist()
    angle, factor = MAX_ROTATION * turn, 1 + MAX_SCALING * scale
    cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
    slant = MAX_SHEAR * shear
    matrix = torch.tensor(
        [
            [cosine, slant * cosine - sine, MAX_SHIFT * right],
            [sine, slant * sine + cosine, MAX_SHIFT * down],
        ]
    )
    grid = torch.nn.functional.affine_grid(
        matrix.unsqueeze(0), [1, *image.shape], align_corners=False
    )
    return torch.nn.functional.grid_sample(
        image.unsqueeze(0), grid, padding_mode="border", align_corners=False
    ).squeeze(0)


@cache
def load() -> Drawings:
    """The drawings, from the cache; drawn if they are missing there or damaged.

    They stay in memory, too: all runs use them, and there may be no folder to keep them in.
    """
    recipe = (SIZE, FONT_SIZE, BASELINE, MIN_FACES, CATEGORIES, FACES)
    versions = (matplotlib.__version__, PIL.__version__, unicodedata.unidata_version)
    key = sha256([repr((recipe, versions)).encode()])[:12]
    return kept(
        f"glyphs-{key}.npz",
        "drawn",
        _read,
        draw,
        lambda made, file: np.savez_compressed(
            file, **made._asdict(), digest=made.digest()
        ),
    )


@cache
def _digest() -> str:
    return load().digest()


def _read(path: Path) -> Drawings:
    with np.load(path, allow_pickle=False) as file:
        drawings = Drawings(file["images"], file["labels"])
        if drawings.digest() != str(file["digest"]):
            raise ValueError("its digest does not match its contents")
    return drawings


def draw() -> Drawings:
    """Draw every character of the dataset in every font that has it."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    paths = [str(folder / f"{face}.ttf") for face in FACES]
    fonts = [ImageFont.truetype(path, FONT_SIZE) for path in paths]
    repertoires = [set(FT2Font(path).get_charmap()) for path in paths]
    num_faces = Counter(code for repertoire in repertoires for code in repertoire)
    codes = [
        code
        for code, faces in sorted(num_faces.items())
        if faces >= MIN_FACES and unicodedata.category(chr(code))[0] in CATEGORIES
    ]
    owner: dict[bytes, int] = {bytes(SIZE * SIZE): -1}  # nobody owns the empty drawing
    images, labels, dropped = [], [], []
    for code in tqdm(codes, desc="drawing glyphs", unit="char"):
        for font, repertoire in zip(fonts, repertoires, strict=True):
            if code in repertoire:
                drawing = Image.new("L", (SIZE, SIZE))
                ImageDraw.Draw(drawing).text(
                    (SIZE // 2, BASELINE), chr(code), font=font, fill=255, anchor="ms"
                )
                # Drop characters that look like an earlier one, such as Greek Alpha and
                # Latin A: they would be label noise.
                if owner.setdefault(drawing.tobytes(), code) != code:
                    dropped.append(code)
                images.append(np.asarray(drawing))
                labels.append(code)
    is_kept = ~np.isin(labels, dropped)
    return Drawings(np.stack(images)[is_kept], np.array(labels, dtype=np.int64)[is_kept])
