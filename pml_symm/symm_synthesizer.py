"""SymmSynthesizer: the synthetic points of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from .functional.class_groups import class_groups
from .functional.comparison import Comparison
from .functional.distances import Distance
from .functional.reflect import reflect
from .functional.rules import Hardness
from .functional.synthesis import Synthesis, make_pool
from .functional.synthetic_batch import SyntheticBatch
from .pml import IndicesTuple, ModuleWithRecords, pairs_of_tuple
from .validation import check_batch, checked_pairs


class SymmSynthesizer(ModuleWithRecords):
    """Mirrors the points of a class in each other and appends the images to the batch.

    Autograd flows through the synthetic points to source and axis.

    Args:
        alpha: similarity ratio, positive.
        beta: norm ratio, positive. No effect under a distance that normalizes.
        pairing: "all" mirrors every ordered pair of a class, m(m-1) synthetic points
            for m members; "ring" mirrors each member about the next one in batch
            order, m synthetic points. For m = 2 they are the same. "none" mirrors
            nothing: a control in which the losses and the miner select only among
            originals.

    Raises:
        ValueError: alpha, beta or pairing is out of range.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Synthesis".

    Examples:
        >>> import torch
        >>> from pml_symm import SymmSynthesizer
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> pool = SymmSynthesizer()(embeddings, torch.tensor([5, 5, 7]))
        >>> pool.synthetic
        tensor([[ 0.,  1.],
                [ 1., -1.]])
        >>> pool.source, pool.axis, pool.labels
        (tensor([0, 1]), tensor([1, 0]), tensor([5, 5, 7, 5, 5]))
    """

    def __init__(self, alpha: float = 2.0, beta: float = 1.0, pairing: str = "all") -> None:
        super().__init__()
        Synthesis(alpha, beta, pairing)  # type: ignore[arg-type]  # checks them
        self.alpha = alpha
        self.beta = beta
        self.pairing = pairing
        self.add_to_recordable_attributes(list_of_names=["alpha", "beta"])

    def forward(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: IndicesTuple | None = None
    ) -> SyntheticBatch:
        """Make the pool of originals and synthetic points.

        Args:
            embeddings: shape (B, D), floating.
            labels: shape (B,).
            indices_tuple: what a PML tuple miner returned for this batch. Then only its
                positive pairs are mirrored, each point about the other.

        Returns:
            SyntheticBatch; a class with one member adds nothing to it.

        Raises:
            TypeError: embeddings are not floating-point.
            ValueError: shapes do not match, or pairs do not match the labels.
        """
        labels = check_batch(embeddings, labels)[0].to(embeddings.device)
        ends = self.source_and_axis(labels, indices_tuple)
        return make_pool(embeddings, labels, *ends, self.reflect)

    def source_and_axis(
        self, labels: Tensor, indices_tuple: IndicesTuple | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sources and axes, int64 of shape (S,), that forward mirrors."""
        pairs = pairs_of_tuple(indices_tuple)
        if pairs is None or self.pairing == "none":
            return class_groups(labels).source_and_axis(self.pairing)
        one, other = checked_pairs(pairs, labels, labels)
        both_ways = torch.stack([torch.cat([one, other]), torch.cat([other, one])])
        source, axis = torch.unique(both_ways[:, both_ways[0] != both_ways[1]], dim=1)
        return source, axis

    def reflect(self, source: Tensor, axis: Tensor) -> Tensor:
        """`functional.reflect` with this synthesizer's alpha and beta, row by row."""
        return reflect(source, axis, self.alpha, self.beta)

    def comparison(self, distance: Distance, hardness: Hardness) -> Comparison:
        """How points of this synthesizer are compared; a subclass may make any points."""
        synthesis = Synthesis(self.alpha, self.beta, self.pairing)  # type: ignore[arg-type]
        pool = None if type(self) is SymmSynthesizer else self
        return Comparison(distance, synthesis, hardness, pool)

    def extra_repr(self) -> str:
        """Show the arguments in the module's repr."""
        return f"alpha={self.alpha}, beta={self.beta}, pairing={self.pairing!r}"
