"""Datasets of picture files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import PIL
from torch import Tensor
from torch.utils.data import Dataset

from .fingerprints import state_of
from .images import Box, Preparation


class Files(NamedTuple):
    """Picture files and their classes.

    Attributes:
        paths: of N files.
        labels: shape (N,), int64.
    """

    paths: list[str]
    labels: np.ndarray


class Pictures(Dataset):
    """A dataset of picture files, with errors that name the file.

    Args:
        files: paths and labels.
        preparation: turns a file into a tensor.
        boxes: path -> the part of the file to use; without one, all of it.

    Attributes:
        paths: of the files.
        labels: shape (N,), int64.
        is_random: whether the preparation is.
    """

    def __init__(
        self,
        files: Files,
        preparation: Preparation,
        boxes: Mapping[str, Box] | None = None,
    ) -> None:
        self.paths = files.paths
        self.labels = files.labels
        self.preparation = preparation
        self.boxes = boxes or {}
        self.is_random = preparation.is_random

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.paths[index]
        try:
            picture = self.preparation(path, self.boxes.get(path))
        except (OSError, ValueError, SyntaxError) as error:
            raise OSError(
                f"{path} cannot be read as an image ({error}); unpack or download the "
                "dataset again"
            ) from error
        return picture, int(self.labels[index])

    def fingerprint(self) -> str:
        """SHA-256 of the preparation, and of the files' states, labels and boxes."""
        digest = hashlib.sha256(repr((self.preparation, PIL.__version__)).encode())
        for path in self.paths:
            digest.update(state_of(path))
        digest.update(self.labels.tobytes())
        if self.boxes:
            digest.update(repr([self.boxes.get(path) for path in self.paths]).encode())
        return digest.hexdigest()
