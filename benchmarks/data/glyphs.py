"""Glyphs: images of Unicode characters, drawn from the fonts that matplotlib ships.

A dataset for metric learning that needs no download: every character is a class, and
its images show it in up to sixteen fonts. They are drawn once and cached.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import matplotlib
import numpy as np
import PIL
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from .files import default_root, keep_in_cache

LOGGER = logging.getLogger(__name__)

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
SHARES = {"train": 0.4, "val": 0.1, "test": 0.5}  # of the classes
MAX_ROTATION, MAX_SHEAR, MAX_SCALING, MAX_SHIFT = 0.15, 0.1, 0.1, 0.1


class Drawings(NamedTuple):
    """All images of the dataset.

    Attributes:
        images: shape (N, 32, 32), uint8, 0 is the background.
        labels: shape (N,), int64, the characters' code points.
    """

    images: np.ndarray
    labels: np.ndarray

    def digest(self) -> str:
        """SHA-256 of the contents, in hexadecimal."""
        digest = hashlib.sha256(self.images.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


class Glyphs(Dataset):
    """All glyphs; a character's code point is its class.

    Args:
        root: the folder of the cache; by default pml-symm in the user's cache folder.
        transform: applied to an image, a float32 tensor of shape (1, 32, 32) with mean
            near 0 and standard deviation near 1, at random.

    Attributes:
        labels: shape (N,), int64 array, the label of each image.
        images: shape (N, 32, 32), uint8 tensor, 0 is the background.
        is_random: whether there is a transform.
    """

    def __init__(
        self,
        root: Path | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        drawings = load(default_root() if root is None else root)
        self.labels = drawings.labels
        self.images = torch.from_numpy(drawings.images)
        self.transform = transform
        self.is_random = transform is not None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        # About 0.1 and 0.3 are the mean and the standard deviation of all pixels.
        image = (self.images[index].unsqueeze(0).float() / 255 - 0.1) / 0.3
        if self.transform is not None:
            image = self.transform(image)
        return image, int(self.labels[index])

    def fingerprint(self) -> str:
        """SHA-256 of its images, labels and transform, in hexadecimal."""
        digest = hashlib.sha256(repr(getattr(self.transform, "__name__", None)).encode())
        drawings = Drawings(self.images.numpy(), self.labels)
        digest.update(drawings.digest().encode())
        return digest.hexdigest()


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


def load(root: Path) -> Drawings:
    """The drawings, from the cache in root; drawn if that is missing or damaged."""
    recipe = (SIZE, FONT_SIZE, BASELINE, MIN_FACES, CATEGORIES, FACES)
    versions = (matplotlib.__version__, PIL.__version__, unicodedata.unidata_version)
    key = hashlib.sha256(repr((recipe, versions)).encode()).hexdigest()[:12]
    path = root / f"glyphs-{key}.npz"
    if os.path.exists(path):  # also False without permission to read
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            LOGGER.warning("%s is damaged and is drawn again: %s", path, error)
    drawings = draw()

    def write(file: BinaryIO) -> None:
        np.savez_compressed(file, **drawings._asdict(), digest=drawings.digest())

    keep_in_cache(path, write)
    return drawings


def _read(path: Path) -> Drawings:
    with np.load(path, allow_pickle=False) as file:
        drawings = Drawings(file["images"], file["labels"])
        if drawings.digest() != str(file["digest"]):
            raise ValueError("its digest does not match its contents")
    return drawings


@cache
def draw() -> Drawings:
    """Draw every character of the dataset in every font that has it.

    The result is cached in memory, because there may be no folder to keep it in.
    """
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
    images, labels, dropped = [], [], set()
    for code in tqdm(codes, desc="drawing glyphs", unit="char"):
        for font, repertoire in zip(fonts, repertoires, strict=True):
            if code in repertoire:
                image = _draw_one(chr(code), font)
                # Drop characters that look like an earlier one, such as Greek Alpha and
                # Latin A: they would be label noise.
                if owner.setdefault(image.tobytes(), code) != code:
                    dropped.add(code)
                images.append(image)
                labels.append(code)
    kept = ~np.isin(labels, list(dropped))
    return Drawings(np.stack(images)[kept], np.array(labels, dtype=np.int64)[kept])


def _draw_one(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    image = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).text(
        (SIZE // 2, BASELINE), character, font=font, fill=255, anchor="ms"
    )
    return np.asarray(image)
