"""Runs that diverge: their loss or an embedding is not finite."""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from torch import Tensor


class DivergedError(ValueError):
    """Training cannot go on.

    Args:
        what: what is not finite.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not finite")
        self.what = what


class FiniteTester(GlobalEmbeddingSpaceTester):
    """PML's tester, which raises DivergedError for embeddings that are not finite."""

    def get_all_embeddings(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As PML."""
        embeddings, labels = super().get_all_embeddings(*args, **kwargs)
        if not embeddings.isfinite().all():
            raise DivergedError("an embedding")
        return embeddings, labels
