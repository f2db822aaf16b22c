"""Test embeddings of a few classes, saved with their images for the report's map."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..data.files import written_whole
from ..data.stem_features import without_stem

NAME = "map.npz"
_CLASSES = 24
_PIXELS = 48


class EmbeddingMap(NamedTuple):
    """Embeddings and their images.

    Attributes:
        embeddings: shape (N, D), float32.
        labels: shape (N,), int64.
        images: shape (N, height, width) or (N, height, width, 3), uint8.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    images: np.ndarray


def save(path: Path, dataset: Dataset, embeddings: Tensor, labels: Tensor) -> None:
    """Save the first classes of a dataset of pictures; nothing for texts.

    Args:
        path: of the file.
        dataset: its items are an image tensor, (channels, height, width), and a label; or
            StemFeatures of such items.
        embeddings: shape (N, D), of its images in their order.
        labels: shape (N,), of its images in their order.
    """
    dataset = without_stem(dataset)
    if dataset[0][0].dim() != 3:
        return
    classes = torch.unique(labels)[:_CLASSES]
    rows = torch.where(torch.isin(labels, classes))[0].tolist()
    images = np.stack([_small(dataset[row][0]) for row in rows])
    with written_whole(path) as file:
        np.savez_compressed(
            file,
            embeddings=embeddings[rows].float().cpu().numpy(),
            labels=labels[rows].cpu().numpy(),
            images=images,
        )


def load(path: Path) -> EmbeddingMap:
    """What save wrote.

    Raises:
        ValueError: the file is damaged, or another one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return EmbeddingMap(file["embeddings"], file["labels"], file["images"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged ({error}): without this file, the report has no map of it"
        ) from error


def _small(image: Any) -> np.ndarray:
    """A small image, (height, width) or (height, width, 3), uint8, with full contrast."""
    largest = max(image.shape[1:])
    if largest > _PIXELS:
        scale = _PIXELS / largest
        image = torch.nn.functional.interpolate(
            image[None], scale_factor=scale, mode="area"
        )[0]
    low, high = torch.aminmax(image)
    levels = (image - low) / (high - low).clamp_min(1e-6) * 255
    return levels.byte().permute(1, 2, 0).squeeze(2).cpu().numpy()
