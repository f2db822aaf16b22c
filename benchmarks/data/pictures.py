"""Picture files as tensors: decoded by Pillow, prepared by torch alone, and checked."""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.contrib.concurrent import thread_map

from .files import kept, sha256, states_of
from .splits import Items

Augmentation = Literal["none", "crop", "center crop", "resized crop"]
"""Which part of a picture to use.

none: all of it, resized to a square; crop: the paper's random crop, from a square with
255 / 227 of its side; center crop: the middle of that square; resized crop: a random
rectangle of half of its area or more, clipped to the picture, so less of a long one. The
random ones also mirror half of the pictures.
"""

BORDER = 255 / 227  # as in the paper, which crops 227 of 255 pixels
MIN_AREA, MAX_RATIO = 0.5, 4 / 3  # of a resized crop
Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of a picture, in pixels; like slices, from 0 and
without right and bottom."""

ERRORS = (OSError, ValueError, SyntaxError, struct.error)
"""Pillow's for a damaged picture, the last for one that cannot be turned upright."""

_SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of 16-bit PNG


class UnknownRangeError(ValueError):
    """Pixels without a known value for black and for white."""


@dataclass(frozen=True)
class Preparation:
    """Turns picture files into a trunk's input; its repr names all that this depends on.

    Args:
        size: pixels of the square, both ways.
        mean: of each channel, on a scale where 1 is white.
        deviation: of each channel, on the same scale.
        channels: 3, or 1 for grey.
        augmentation: which part of a picture to use; random with torch's global generator.

    Raises:
        ValueError: size is below 1, channels is not 1 or 3, mean or deviation has another
            length, a deviation is not positive, or augmentation is unknown.

    >>> grey = Preparation(32, mean=(0.1,), deviation=(0.3,), channels=1)
    >>> grey.prepare(torch.zeros(1, 40, 50, dtype=torch.uint8)).shape
    torch.Size([1, 32, 32])
    """

    size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    channels: int = 3
    augmentation: Augmentation = "none"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        for name in ("mean", "deviation"):
            values = getattr(self, name)
            if len(values) != self.channels:
                raise ValueError(
                    f"{name} must have {self.channels} numbers, as many as there are "
                    f"channels, got {values}"
                )
        if min(self.deviation) <= 0:
            raise ValueError(f"deviation must be positive, got {self.deviation}")
        known = get_args(Augmentation)
        if self.augmentation not in known:
            raise ValueError(
                f"augmentation must be one of {', '.join(known)}, got {self.augmentation!r}"
            )

    @property
    def is_random(self) -> bool:
        """Whether the same picture gives another tensor each time."""
        return self.augmentation in ("crop", "resized crop")

    @property
    def evaluation(self) -> Preparation:
        """The preparation for evaluation: not random, and on average the same part."""
        is_cropped = self.augmentation in ("crop", "center crop")
        return replace(self, augmentation="center crop" if is_cropped else "none")

    def __call__(self, path: str | os.PathLike[str], box: Box | None = None) -> Tensor:
        """Read a picture, or a part of it: float32, shape (channels, size, size).

        Raises:
            OSError, ValueError, SyntaxError: it is missing or cannot be read, or the box is
                outside of it.
        """
        if box is None:
            # Twice as many pixels as needed, so that JPEG's draft mode costs no sharpness.
            return self.prepare(decode(path, self.channels, 2 * self._resized))
        left, top, right, bottom = box
        picture = decode(path, self.channels)
        part = picture[:, top:bottom, left:right]
        if part.numel() == 0:
            _, height, width = picture.shape
            raise ValueError(f"box {box} is outside of its {width} x {height} pixels")
        return self.prepare(part)

    def prepare(self, picture: Tensor) -> Tensor:
        """Cut, resize and normalize a picture of uint8, shape (channels, H, W)."""
        if self.augmentation == "resized crop":
            picture = _resize(_random_rectangle(picture), self.size)
        else:
            picture = _resize(picture, self._resized)
            free = self._resized - self.size
            top, left = free // 2, free // 2
            if self.is_random:
                top, left = torch.randint(free + 1, (2,)).tolist()
            picture = picture[:, top : top + self.size, left : left + self.size]
        if self.is_random and torch.rand(()) < 0.5:
            picture = picture.flip(2)
        mean, deviation = self._levels
        return picture.contiguous().float().sub_(mean).div_(deviation)

    @cached_property
    def _levels(self) -> Tensor:
        """The mean and the deviation on the scale of uint8, shape (2, channels, 1, 1)."""
        return torch.tensor([self.mean, self.deviation]).view(2, -1, 1, 1) * 255

    @property
    def _resized(self) -> int:
        is_cropped = self.augmentation in ("crop", "center crop")
        return round(self.size * BORDER) if is_cropped else self.size


def decode(path: str | os.PathLike[str], channels: int = 3, pixels: int = 0) -> Tensor:
    """Read a picture, upright, on white where it is transparent: uint8, (channels, H, W).

    Args:
        path: of a file that Pillow can read; of several frames, the first is used.
        channels: 3 for red, green and blue, 1 for grey.
        pixels: how many are enough on each side, or 0 for all; makes JPEG faster.

    Raises:
        OSError, ValueError, SyntaxError: it is missing or cannot be read.
        UnknownRangeError: its pixels are floats or 32-bit integers.
    """
    with Image.open(path) as image:
        if pixels:
            image.draft(None, (pixels, pixels))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        array = np.array(opaque(image).convert("RGB" if channels == 3 else "L"))
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).permute(2, 0, 1)


def opaque(image: Image.Image) -> Image.Image:
    """An image with eight bits for each channel, on white where it is transparent."""
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnknownRangeError("has 32-bit pixels, which have no known range")
        values[values == image.info.get("transparency", -1)] = 65535
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise UnknownRangeError("has pixels that are floats, which have no known range")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _resize(picture: Tensor, size: int) -> Tensor:
    if picture.shape[1:] == (size, size):
        return picture
    return torch.nn.functional.interpolate(
        picture.unsqueeze(0), (size, size), mode="bilinear", antialias=True
    ).squeeze(0)


def _random_rectangle(picture: Tensor) -> Tensor:
    _, height, width = picture.shape
    area, ratio, down, right = torch.rand(4).tolist()
    area = (MIN_AREA + (1 - MIN_AREA) * area) * height * width
    ratio = MAX_RATIO ** (2 * ratio - 1)
    # Clip the rectangle to the picture.
    tall = min(height, max(1, round(math.sqrt(area / ratio))))
    wide = min(width, max(1, round(math.sqrt(area * ratio))))
    top, left = int(down * (height - tall + 1)), int(right * (width - wide + 1))
    return picture[:, top : top + tall, left : left + wide]


class Files(NamedTuple):
    """Picture files, their classes (int64) and whether to test on them; these are last."""

    paths: list[str]
    labels: np.ndarray
    is_test: np.ndarray

    def where(self, rows: np.ndarray) -> Files:
        """Some of them, by a mask or by their numbers."""
        paths = np.array(self.paths, dtype=object)[rows].tolist()
        return Files(paths, self.labels[rows], self.is_test[rows])


class Pictures(Items):
    """A dataset of picture files, with errors that name the file.

    Boxes say which part of a file to use; without one it is all of it.
    """

    def __init__(
        self, files: Files, preparation: Preparation, boxes: Mapping[str, Box]
    ) -> None:
        self.paths, self.labels, _ = files
        self.preparation = preparation
        self.boxes = boxes
        self.is_random = preparation.is_random

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.paths[index]
        try:
            picture = self.preparation(path, self.boxes.get(path))
        except ERRORS as error:
            raise OSError(
                f"{path} cannot be read as an image ({error}); unpack or download the "
                "dataset again"
            ) from error
        return picture, int(self.labels[index])

    def fingerprint(self) -> str:
        """Of the preparation, and of the files' states, labels and boxes."""
        recipe = repr((self.preparation, PIL.__version__))
        boxes = repr([self.boxes.get(path) for path in self.paths]) if self.boxes else ""
        states, labels = states_of(self.paths), self.labels.tobytes()
        return sha256([recipe.encode(), states, labels, boxes.encode()])


def bad_images(files: Files) -> dict[str, str]:
    """Path -> what is wrong, of all that are unreadable or repeated, or alone in a class.

    Reading takes a while: the result is kept in the cache, for as long as names, sizes and
    times of the files stay the same.
    """
    paths, labels, _ = files
    bad = {path: "is missing" for path in paths if not os.path.isfile(path)}
    bad |= _unreadable([path for path in dict.fromkeys(paths) if path not in bad])
    bad |= {path: f"is named {n} times" for path, n in Counter(paths).items() if n > 1}
    good = np.array([path not in bad for path in paths], dtype=bool)
    _, inverse, counts = np.unique(labels[good], return_inverse=True, return_counts=True)
    for row in np.flatnonzero(good)[counts[inverse] == 1]:
        bad[paths[row]] = f"is the only image of class {labels[row]}"
    return bad


def _unreadable(paths: Sequence[str]) -> dict[str, str]:
    def make() -> dict[str, str]:
        reasons = thread_map(_what_is_wrong, paths, desc="reading images", unit="image")
        return {path: x for path, x in zip(paths, reasons, strict=True) if x is not None}

    return kept(
        f"images-{sha256([PIL.__version__.encode(), states_of(paths)])[:16]}.json",
        "made",
        lambda path: json.loads(path.read_text(encoding="utf-8")),
        make,
        lambda bad, file: file.write(json.dumps(bad).encode()),
    )


def _what_is_wrong(path: str) -> str | None:
    try:
        decode(path, pixels=1)  # JPEG: to an eighth of its size, but reads the whole file
    except UnknownRangeError as error:
        return str(error)
    except (*ERRORS, Image.DecompressionBombError) as error:
        # Pillow's own message would repeat the path.
        return f"cannot be read as an image ({type(error).__name__})"
    return None
