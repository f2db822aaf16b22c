"""Samplers of training batches: PML's, and one for offline hard negatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions as c_f
from torch import Tensor
from torch.utils.data import Sampler

from . import processes


class HardClassSampler(MPerClassSampler):
    """Samples m images per class, of classes that the model confuses.

    A batch consists of groups: a class drawn at random, and the classes nearest to it
    that are not in the batch yet. The images of each class are from the half that is
    nearest to the group's first class. Until the first refresh it is an
    MPerClassSampler.

    Args:
        labels: shape (N,), of the images.
        m: images per class; divides batch_size.
        batch_size: images per batch.
        length_before_new_iter: as for MPerClassSampler.
        group_size: classes in a group.

    Raises:
        ValueError: group_size is below 2.
    """

    def __init__(
        self,
        labels: Any,
        m: int,
        batch_size: int,
        length_before_new_iter: int = 100000,
        group_size: int = 4,
    ) -> None:
        if group_size < 2:
            raise ValueError(f"group_size must be at least 2, got {group_size}")
        super().__init__(labels, m, batch_size, length_before_new_iter)
        self.group_size = group_size
        self.classes = np.array(sorted(self.labels))
        self._similarity: np.ndarray | None = None
        self._to_classes: np.ndarray | None = None

    def refresh(self, embeddings: Tensor) -> None:
        """Compute from embeddings which classes the model confuses.

        Args:
            embeddings: shape (N, D), of the images, in the order of the labels.

        Raises:
            ValueError: the number of embeddings is not the number of labels.
        """
        number = sum(len(rows) for rows in self.labels_to_indices.values())
        if len(embeddings) != number:
            raise ValueError(
                f"embeddings must have a row for each of {number} labels, got shape "
                f"{tuple(embeddings.shape)}"
            )
        points = torch.nn.functional.normalize(embeddings.float().cpu())
        means = torch.stack(
            [points[self.labels_to_indices[label]].mean(0) for label in self.classes]
        )
        means = torch.nn.functional.normalize(means)
        self._similarity = (means @ means.t()).numpy()
        self._to_classes = (points @ means.t()).numpy()

    def __iter__(self) -> Iterator[int]:
        if self._similarity is None:
            yield from super().__iter__()
            return
        for _ in range(self.list_size // self.batch_size):
            yield from self._batch()

    def _batch(self) -> list[int]:
        similarity, to_classes = self._similarity, self._to_classes
        assert similarity is not None and to_classes is not None
        free = np.ones(len(self.classes), dtype=bool)
        rows: list[int] = []
        while len(rows) < self.batch_size:
            wanted = min(self.group_size, (self.batch_size - len(rows)) // self.m_per_class)
            first = c_f.NUMPY_RANDOM.choice(np.flatnonzero(free))
            free[first] = False
            order = np.argsort(-similarity[first], kind="stable")
            group = [first, *order[free[order]][: wanted - 1]]
            free[group] = False
            for number in group:
                images = np.asarray(self.labels_to_indices[self.classes[number]])
                nearest = np.argsort(-to_classes[images, first], kind="stable")
                half = images[nearest][: max(self.m_per_class, len(images) // 2)]
                chosen = c_f.safe_random_choice(half, size=self.m_per_class)
                rows.extend(int(x) for x in chosen)
        return rows


class OwnPart(Sampler[int]):
    """This process's part of each batch that a sampler draws.

    The first process draws, so that all processes have parts of the same batches.

    Args:
        sampler: draws batches of the size of all parts together.
        batch_size: of all parts together.

    Raises:
        ValueError: batch_size is not a multiple of the world size.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        if batch_size % processes.world_size():
            raise ValueError(
                f"batch_size must be a multiple of the {processes.world_size()} processes, "
                f"got {batch_size}"
            )
        self.sampler, self.batch_size = sampler, batch_size

    def __len__(self) -> int:
        return len(self.sampler) // processes.world_size()  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        rows = processes.from_first(lambda: list(self.sampler))
        size = self.batch_size // processes.world_size()
        first = processes.rank() * size
        for start in range(first, len(rows), self.batch_size):
            yield from rows[start : start + size]


SAMPLERS = {"m per class": MPerClassSampler, "hard classes": HardClassSampler}
"""Name -> sampler."""
