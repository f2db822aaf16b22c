"""H(u, v) of all classes of a batch, by the Gram matrix of its originals."""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import torch
from pytorch_metric_learning.distances import (
    BaseDistance,
    CosineSimilarity,
    DotProductSimilarity,
    LpDistance,
)
from torch import Tensor

from .class_layout import ClassLayout
from .gram import (
    Kinds,
    Selected,
    Setting,
    axis_of_kind,
    hardest_between,
    hardest_within,
    has_synthetic,
)
from .symm_synthesizer import SymmSynthesizer


class Gram:
    """How dot products of originals give what a distance says of all points.

    Args:
        distance: a PML distance that `supports` accepts.
        synthesizer: the synthesizer of the points.
        rank: which candidate to select, 1 for the hardest.
    """

    def __init__(
        self, distance: BaseDistance, synthesizer: SymmSynthesizer, rank: int = 1
    ) -> None:
        self.distance = distance
        self.pairing = synthesizer.pairing
        normalize = bool(distance.normalize_embeddings)
        # Normalizing takes out a positive factor again.
        beta = 1.0 if normalize else synthesizer.beta
        self.setting = Setting(synthesizer.alpha, beta, normalize, rank)

    @staticmethod
    def supports(
        distance: BaseDistance, synthesizer: SymmSynthesizer, hardness: object
    ) -> bool:
        """Whether dot products are enough: else the points have to be made.

        A subclass may compute anything, so it does not count. Normalized synthetic
        points have the length of their sources only if they are mirror images.
        """
        if type(synthesizer) is not SymmSynthesizer:
            return False
        if hardness == "semihard" or distance.p != 2:
            return False
        if distance.normalize_embeddings and synthesizer.alpha != 2:
            return False
        if type(distance) is LpDistance:
            return bool(distance.normalize_embeddings)
        is_dot_product = type(distance) in (DotProductSimilarity, CosineSimilarity)
        return is_dot_product and distance.power == 1

    def values(self, similarity: Tensor) -> Tensor:
        """Dot products as the distance's own values."""
        if self.distance.is_inverted:
            return similarity
        squared = 2 - 2 * similarity
        # The root has no gradient at 0: there, as torch.cdist does, none is sent.
        is_apart = squared > 0
        root = torch.where(is_apart, squared, 1).sqrt()
        return torch.where(is_apart, root, 0) ** self.distance.power

    def within(self, within: Tensor) -> Tensor:
        """Shape (m (m-1) C,): the distance's values of all ordered pairs of members.

        Args:
            within: shape (C, m, m), as Selected has it.
        """
        pairs = list(permutations(range(within.shape[1]), 2))
        if not pairs:
            return within.new_empty(0)
        values = torch.stack([within[:, i, j] for i, j in pairs]).flatten()
        return values if self.distance.is_inverted else values**self.distance.power

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        """Shape (P,): the distance's values of rows of query and of reference."""
        query = self.distance.maybe_normalize(query)
        reference = self.distance.maybe_normalize(reference)
        if self.distance.is_inverted:
            return (query * reference).sum(1)
        # Not from the dot product, which cannot tell near points from equal ones.
        return torch.linalg.vector_norm(query - reference, dim=1) ** self.distance.power

    def kinds(self, num_members: int) -> Kinds:
        """The kinds of points of a class of so many members."""
        return Kinds(num_members, self.pairing)

    def hardest_within(self, members: Tensor, keep_kinds: bool) -> Selected:
        """As gram.hardest_within, for the members of classes of one size."""
        return hardest_within(
            members,
            self.kinds(len(members)),
            self.setting,
            distances=not self.distance.is_inverted,
            keep_kinds=keep_kinds,
        )

    def record_norms(self, embeddings: Tensor, ref_emb: Tensor) -> None:
        """Record what the distance records when it is called, if stats are on."""
        self.distance.reset_stats()
        if self.distance.collect_stats:
            self.distance.set_default_stats(
                embeddings,
                ref_emb,
                self.distance.maybe_normalize(embeddings),
                self.distance.maybe_normalize(ref_emb),
            )


class ClassHardness(NamedTuple):
    """The selected pair of points for every row class and column class.

    Attributes:
        within: shape (P,), the distance's values of the rows' positive pairs, in the
            order of ClassLayout.positive_pairs, with gradients.
        similarity: shape (R, C), their dot product, with gradients.
        original: shape (R, C), int64: the row of the column's point, or of its axis;
            empty, if it was not asked for.
        is_synthetic: shape (R, C), bool: whether either point is; empty likewise.
    """

    within: Tensor
    similarity: Tensor
    original: Tensor
    is_synthetic: Tensor


def class_hardness(
    gram: Gram, embeddings: Tensor, layout: ClassLayout, details: bool = False
) -> ClassHardness:
    """H(u, v) of every two classes; the diagonal is undefined.

    Args:
        gram: the distance and the synthesizer.
        embeddings: shape (B, D), floating.
        layout: of their labels.
        details: tell which points they are.
    """
    members = [_rows(embeddings, group) for group in layout.groups]
    kinds = [gram.kinds(len(group)) for group in layout.groups]
    blocks: dict[tuple[int, int], Selected] = {}
    for g, rows in enumerate(members):
        blocks[g, g] = gram.hardest_within(rows, details)
        for h in range(g):
            block = hardest_between(
                members[h], rows, kinds[h], kinds[g], gram.setting, details
            )
            blocks[h, g] = block
            mirrored = None if block.kinds is None else block.kinds.flip(0).mT
            blocks[g, h] = Selected(block.similarity.t(), block.within, mirrored)
    within = torch.cat([gram.within(blocks[g, g].within) for g in range(len(members))])
    return _assemble(within, blocks, layout, kinds, kinds)


def _rows(embeddings: Tensor, group: Tensor) -> Tensor:
    # index_select has a far cheaper backward pass than indexing.
    return embeddings.index_select(0, group.flatten()).unflatten(0, group.shape)


def hardest_sums(
    gram: Gram,
    pairs: Tensor,
    embeddings: Tensor,
    layout: ClassLayout,
    details: bool = False,
) -> ClassHardness:
    """The largest (X + Y).z of each pair's points X != Y and each class's points z.

    Args:
        gram: the distance and the synthesizer.
        pairs: shape (2, P, D), floating.
        embeddings: shape (B, D).
        layout: of their labels.
        details: tell which points they are.
    """
    row_kinds = Kinds(2, gram.pairing, are_sums=True)
    kinds = [gram.kinds(len(group)) for group in layout.groups]
    blocks = {
        (0, h): hardest_between(
            pairs,
            _rows(embeddings, group),
            row_kinds,
            kinds[h],
            gram.setting,
            details,
        )
        for h, group in enumerate(layout.groups)
    }
    return _assemble(gram.within(blocks[0, 0].within), blocks, layout, [row_kinds], kinds)


def _assemble(
    within: Tensor,
    blocks: dict[tuple[int, int], Selected],
    layout: ClassLayout,
    row_kinds: list[Kinds],
    column_kinds: list[Kinds],
) -> ClassHardness:
    def whole(parts: dict[tuple[int, int], Tensor]) -> Tensor:
        rows = [
            [parts[g, h] for h in range(len(column_kinds))] for g in range(len(row_kinds))
        ]
        return torch.cat([torch.cat(row, dim=1) for row in rows])

    similarity = whole({place: block.similarity for place, block in blocks.items()})
    originals: dict[tuple[int, int], Tensor] = {}
    synthetic: dict[tuple[int, int], Tensor] = {}
    for (g, h), block in blocks.items():
        if block.kinds is None:
            nothing = similarity.new_empty(0)
            return ClassHardness(within, similarity, nothing.long(), nothing.bool())
        row, column = block.kinds.long()
        axes = axis_of_kind(column_kinds[h], column.device)
        originals[g, h] = layout.groups[h].gather(0, axes[column])
        synthetic[g, h] = (
            has_synthetic(row_kinds[g], row.device)[row]
            | has_synthetic(column_kinds[h], column.device)[column]
        )
    return ClassHardness(within, similarity, whole(originals), whole(synthetic))
