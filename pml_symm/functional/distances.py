"""How two points are compared: dot products, Euclidean distances, or any function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..validation import check_positive

_EPS = 1e-12  # as torch.nn.functional.normalize has it


class Distance:
    """The base class: values of pairs of points, and which of two values is nearer.

    Attributes:
        larger_is_nearer: whether a larger value means nearer points.
        normalize: whether points are normalized before they are compared.
    """

    larger_is_nearer: bool
    normalize: bool

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape (N, M), the values of points of shape (N, D) and (M, D), normalized."""
        raise NotImplementedError

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape (...), the values of points of shape (..., D), normalized, row by row."""
        raise NotImplementedError

    def prepared(self, x: Tensor) -> Tensor:
        """Points as they are compared: normalized or not."""
        return normalized(x) if self.normalize else x

    def similarity(self, values: Tensor) -> Tensor:
        """The values, with the sign by which larger is nearer; or back."""
        return values if self.larger_is_nearer else -values

    def margin(self, x: Any, y: Any) -> Any:
        """How much farther apart x is than y, values of this distance."""
        return self.similarity(y - x)


def normalized(x: Tensor) -> Tensor:
    """As torch.nn.functional.normalize, with a backward pass in half the time."""
    squared = torch.linalg.vecdot(x, x).clamp_min(_EPS**2)
    return x * squared.rsqrt().unsqueeze(-1)


@dataclass(frozen=True)
class DotProduct(Distance):
    """Dot products; cosine similarities if it normalizes.

    Args:
        normalize: whether points are normalized first.
    """

    normalize: bool = True
    larger_is_nearer = True

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape (N, M)."""
        return x @ y.t()

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape (...)."""
        return torch.linalg.vecdot(x, y)


@dataclass(frozen=True)
class Euclidean(Distance):
    """A power of the Euclidean distance.

    Args:
        normalize: whether points are normalized first.
        power: of the distance, positive; 2 for squared distances.

    Raises:
        ValueError: power is not a finite positive number.
    """

    normalize: bool = True
    power: float = 1.0
    larger_is_nearer = False

    def __post_init__(self) -> None:
        check_positive(power=self.power)

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape (N, M)."""
        return self.of_root(torch.cdist(x, y))

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape (...); not from dot products, which cannot tell near points from equal."""
        return self.of_root(torch.linalg.vector_norm(x - y, dim=-1))

    def of_root(self, root: Tensor) -> Tensor:
        """The power of distances."""
        if self.power == 1:
            return root
        # A power below 1 has an infinite derivative at 0.
        return root.clamp_min(torch.finfo(root.dtype).tiny) ** self.power


@dataclass(frozen=True)
class ByFunction(Distance):
    """Any other distance, by a function that compares all points with all others.

    Its synthetic points are made as tensors. It need not be symmetric.

    Args:
        function: of points of shape (N, D) and (M, D); returns shape (N, M).
        larger_is_nearer: whether a larger value means nearer points.

    Examples:
        >>> import torch
        >>> from pml_symm.functional import ByFunction, triplet_margin_loss
        >>> manhattan = ByFunction(lambda x, y: torch.cdist(x, y, p=1))
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> triplet_margin_loss(embeddings, torch.tensor([0, 0, 1, 1]), distance=manhattan)
        tensor(0.5300)
    """

    function: Callable[[Tensor, Tensor], Tensor]
    larger_is_nearer: bool = False
    normalize = False

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape (N, M); raises ValueError if the function returns anything else."""
        found, shape = self.function(x, y), (len(x), len(y))
        if isinstance(found, Tensor) and found.shape == shape:
            return found
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"distance must return a matrix of shape {shape}, got {shown}")
