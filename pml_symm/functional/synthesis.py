"""Which points of a class are mirrored about which, and the pool of all points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..validation import check_batch, check_choice, check_kind, check_positive
from .class_groups import class_groups
from .reflect import reflect
from .synthetic_batch import SyntheticBatch


@dataclass(frozen=True)
class Synthesis:
    """Which mirror images the points of a class have.

    Args:
        alpha: similarity ratio, positive.
        beta: norm ratio, positive. No effect under a distance that normalizes.
        pairing: "all" mirrors every ordered pair of a class, m(m-1) synthetic points
            for m members; "ring" mirrors each member about the next one in batch
            order, m synthetic points; "none" mirrors nothing.

    Raises:
        ValueError: alpha, beta or pairing is out of range.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Synthesis".

    Examples:
        >>> Synthesis(pairing="ring")
        Synthesis(alpha=2.0, beta=1.0, pairing='ring')
    """

    alpha: float = 2.0
    beta: float = 1.0
    pairing: Literal["all", "ring", "none"] = "all"

    def __post_init__(self) -> None:
        check_positive(alpha=self.alpha, beta=self.beta)
        check_choice("pairing", self.pairing, ("all", "ring", "none"))

    def pool(self, embeddings: Tensor, labels: Tensor) -> SyntheticBatch:
        """The batch's originals and synthetic points, sorted by source, then by axis."""
        mirror = partial(reflect, alpha=self.alpha, beta=self.beta)
        ends = class_groups(labels).source_and_axis(self.pairing)
        return make_pool(embeddings, labels, *ends, mirror)


def make_pool(
    embeddings: Tensor,
    labels: Tensor,
    source: Tensor,
    axis: Tensor,
    mirror: Callable[[Tensor, Tensor], Tensor],
) -> SyntheticBatch:
    """A batch's originals, and the mirror images of sources about axes, its rows."""
    # Autocast would change dtypes, and cannot concatenate float16 on CPU.
    with torch.autocast(embeddings.device.type, enabled=False):
        points = torch.cat([embeddings, mirror(embeddings[source], embeddings[axis])])
    return SyntheticBatch(points, torch.cat([labels, labels[source]]), source, axis)


def synthesize(
    embeddings: Tensor, labels: Tensor, synthesis: Synthesis | None = None
) -> SyntheticBatch:
    """Append the mirror images of a batch to it.

    Args:
        embeddings: shape (B, D), floating.
        labels: shape (B,).
        synthesis: which mirror images; by default Synthesis().

    Returns:
        SyntheticBatch: the originals first, then the synthetic points by source, then by
        axis. Autograd flows through them. A class with one member adds nothing.

    Raises:
        TypeError: embeddings are not floating-point, or synthesis is no Synthesis.
        ValueError: shapes do not match.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Synthesis".

    Examples:
        >>> import torch
        >>> from pml_symm.functional import synthesize
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> synthesize(embeddings, torch.tensor([5, 5, 7])).synthetic
        tensor([[ 0.,  1.],
                [ 1., -1.]])
    """
    labels, _ = check_batch(embeddings, labels)
    synthesis = Synthesis() if synthesis is None else synthesis
    check_kind("synthesis", synthesis, Synthesis)
    return synthesis.pool(embeddings, labels.to(embeddings.device))
