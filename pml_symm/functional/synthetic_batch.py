"""SyntheticBatch: the points that a synthesizer returns."""

from typing import NamedTuple

import torch
from torch import Tensor


class SyntheticBatch(NamedTuple):
    """A pool of points: the batch's originals first, then the synthetic points.

    Attributes:
        embeddings: shape (B + S, D), floating.
        labels: shape (B + S,).
        source: shape (S,), int64, the original that each synthetic point mirrors.
        axis: shape (S,), int64, the original about which it is mirrored.
    """

    embeddings: Tensor
    labels: Tensor
    source: Tensor
    axis: Tensor

    @property
    def num_originals(self) -> int:
        """B, the number of points that come first and are not synthetic."""
        return len(self.embeddings) - len(self.source)

    @property
    def synthetic(self) -> Tensor:
        """Shape (S, D): the synthetic points, a view of embeddings."""
        return self.embeddings[self.num_originals :]

    @property
    def synthetic_labels(self) -> Tensor:
        """Shape (S,): their labels, a view of labels."""
        return self.labels[self.num_originals :]

    @property
    def nearest_original(self) -> Tensor:
        """Shape (B + S,), int64: each original itself, each synthetic point's axis."""
        originals = torch.arange(self.num_originals, device=self.axis.device)
        return torch.cat([originals, self.axis])

    def synthetic_ratio(self, index: Tensor) -> float:
        """The share of the points in index that are synthetic, 0 where it is empty."""
        is_synthetic = index >= self.num_originals
        return is_synthetic.float().mean().item() if len(index) > 0 else 0.0
