"""H(u, v) of all classes of a batch, by the Gram matrix of its originals."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pytorch_metric_learning.distances import (
    BaseDistance,
    CosineSimilarity,
    DotProductSimilarity,
    LpDistance,
)
from torch import Tensor

from .class_layout import ClassLayout, member_pairs
from .gram import Selected, hardest_between, hardest_within
from .kinds import Kinds, Setting, look_up, winners
from .pairs import hardest_of_pairs, supports
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
        euclidean = not normalize and not distance.is_inverted
        self.setting = Setting(synthesizer.alpha, beta, normalize, euclidean, rank)
        self.unit: Tensor | float = 1.0

    @property
    def pairs_on_diagonal(self) -> bool:
        """Whether hardest_within of classes of two has their own dot products there."""
        return self.distance.is_inverted and supports(self.kinds(2), self.setting)

    @staticmethod
    def supports(
        distance: BaseDistance, synthesizer: SymmSynthesizer, hardness: object
    ) -> bool:
        """Whether dot products are enough: else the points have to be made.

        A subclass may compute anything, so it does not count. What divides by the
        length of a synthetic point, or subtracts it, needs to know it: it is that of
        the source, times beta, if the point is a mirror image.
        """
        if type(synthesizer) is not SymmSynthesizer:
            return False
        if hardness == "semihard" or distance.p != 2:
            return False
        if type(distance) is LpDistance:
            return synthesizer.alpha == 2
        if type(distance) not in (DotProductSimilarity, CosineSimilarity):
            return False
        is_mirrored = synthesizer.alpha == 2 or not distance.normalize_embeddings
        return is_mirrored and distance.power == 1

    def scaled(self, embeddings: Tensor) -> Tensor:
        """The embeddings in a unit of length in which their squares do not overflow.

        Only Euclidean distances need one: a distance may be small where the dot products
        that it is made of are not. Until the next call, values are in the old unit.
        """
        if not self.setting.euclidean or embeddings.numel() == 0:
            return embeddings
        largest = embeddings.detach().abs().amax()
        # Powers of two are exact. Not the largest one: gradients are in this unit, too.
        exponent = (torch.frexp(largest).exponent - 32).clamp_min(-64)
        self.unit = torch.ldexp(torch.ones_like(largest), exponent)
        return embeddings / self.unit

    def values(self, similarity: Tensor) -> Tensor:
        """What Selected calls similarity, as the distance's own values."""
        if self.distance.is_inverted:
            return similarity
        squared = -2 * similarity if self.setting.euclidean else 2 - 2 * similarity
        # The root has no gradient at 0: there, as torch.cdist does, none is sent.
        root = squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt()
        if self.setting.euclidean:
            root = root * self.unit
        return root if self.distance.power == 1 else root**self.distance.power

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

    def hardest_within(
        self, embeddings: Tensor, group: Tensor, keep_winners: bool
    ) -> Selected:
        """H(u, v) of classes of one size, within as ClassHardness has it.

        Args:
            embeddings: shape (B, D), floating; scaled.
            group: shape (C, m), int64: the rows of each class.
            keep_winners: tell which candidates were selected.
        """
        m = group.shape[1]
        kinds, distances = self.kinds(m), not self.distance.is_inverted
        if supports(kinds, self.setting):
            of_pairs = hardest_of_pairs(
                embeddings, group, self.setting, distances, keep_winners=keep_winners
            )
            similarity = of_pairs.similarity
            within = of_pairs.distance if distances else similarity.diagonal()
            within = within.unsqueeze(1).expand(-1, 2)
            selected = Selected(similarity, within, of_pairs.winner)
        else:
            selected = hardest_within(
                rows_of(embeddings, group), kinds, self.setting, distances, keep_winners
            )
            first, second = member_pairs(m, True, group.device)
            within = selected.within.flatten(1).index_select(1, first * m + second)
        if self.setting.euclidean:
            within = within * self.unit
        if distances and self.distance.power != 1:
            within = within**self.distance.power
        return selected._replace(within=within)

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
        within: for each group of the row classes, shape (C_g, m (m-1)), the distance's
            values of their positive pairs, as ClassLayout.positive_pairs has them, with
            gradients.
        similarity: shape (R, C), as Selected has it, with gradients.
        original: shape (R, C), int64: the row of the column's point, or of its axis;
            empty, if it was not asked for.
        is_synthetic: shape (R, C), bool: whether either point is; empty likewise.
    """

    within: list[Tensor]
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
    embeddings = gram.scaled(embeddings)
    kinds = [gram.kinds(group.shape[1]) for group in layout.groups]
    blocks: dict[tuple[int, int], Selected] = {}
    members: list[Tensor] = []
    for g, group in enumerate(layout.groups):
        blocks[g, g] = gram.hardest_within(embeddings, group, details)
        if len(layout.groups) == 1:
            break
        members.append(rows_of(embeddings, group))
        for h in range(g):
            block = hardest_between(
                members[h], members[g], kinds[h], kinds[g], gram.setting
            )
            blocks[h, g] = block
            mirrored = winners(kinds[h], kinds[g], group.device).mirrored
            blocks[g, h] = Selected(
                block.similarity.t(),
                block.within,
                look_up(mirrored, block.winner.t().int()),
            )
    within = [blocks[g, g].within for g in range(len(kinds))]
    return _assemble(within, blocks, layout, kinds, kinds, details)


def rows_of(embeddings: Tensor, index: Tensor) -> Tensor:
    """embeddings[index], with a far cheaper backward pass."""
    return embeddings.index_select(0, index.flatten()).unflatten(0, index.shape)


def hardest_sums_of_classes(
    gram: Gram, embeddings: Tensor, layout: ClassLayout, details: bool = False
) -> ClassHardness | None:
    """As hardest_sums, if each class has two members, which are its pair; else None."""
    (group, *others) = layout.groups
    kinds = gram.kinds(group.shape[1])
    if others or not supports(kinds, gram.setting):
        return None
    found = hardest_of_pairs(
        embeddings, group, gram.setting, sums=True, keep_winners=details
    )
    within = [found.similarity.diagonal().unsqueeze(1)]
    row_kinds = Kinds(2, gram.pairing, are_sums=True)
    blocks = {(0, 0): Selected(found.similarity, within[0], found.winner)}
    return _assemble(within, blocks, layout, [row_kinds], [kinds], details)


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
        pairs: shape (P, 2, D), floating.
        embeddings: shape (B, D).
        layout: of their labels.
        details: tell which points they are.
    """
    row_kinds = Kinds(2, gram.pairing, are_sums=True)
    kinds = [gram.kinds(group.shape[1]) for group in layout.groups]
    blocks = {
        (0, h): hardest_between(
            pairs, rows_of(embeddings, group), row_kinds, kinds[h], gram.setting
        )
        for h, group in enumerate(layout.groups)
    }
    within = [blocks[0, 0].within[:, 0, 1:]]
    return _assemble(within, blocks, layout, [row_kinds], kinds, details)


def hardest_points(
    gram: Gram,
    queries: Tensor,
    embeddings: Tensor,
    layout: ClassLayout,
    sources: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The point of each class that is hardest for each query.

    Args:
        gram: the distance and the synthesizer.
        queries: shape (Q, D), floating.
        embeddings: shape (B, D).
        layout: of their labels.
        sources: tell the sources, too.

    Returns:
        axis and, if it was asked for, source, shape (Q, C), int64: the rows of
        embeddings that the point is made of, source = axis for an original.
    """
    embeddings = gram.scaled(embeddings)
    if gram.setting.euclidean:
        queries = queries / gram.unit
    single = Kinds(1)
    axes, of_sources = [], []
    for group in layout.groups:
        kinds = gram.kinds(group.shape[1])
        selected = hardest_between(
            queries.unsqueeze(1), rows_of(embeddings, group), single, kinds, gram.setting
        )
        table = winners(single, kinds, group.device)
        winner, members = selected.winner.int(), group.t().contiguous()
        del selected  # as large as what is made of it now
        axes.append(members.gather(0, look_up(table.nearest, winner)))
        if sources:
            of_sources.append(members.gather(0, look_up(table.source, winner)))
    return _beside(axes), _beside(of_sources) if sources else None


def _beside(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _assemble(
    within: list[Tensor],
    blocks: dict[tuple[int, int], Selected],
    layout: ClassLayout,
    row_kinds: list[Kinds],
    column_kinds: list[Kinds],
    details: bool,
) -> ClassHardness:
    def whole(parts: dict[tuple[int, int], Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0, 0]
        rows = [
            [parts[g, h] for h in range(len(column_kinds))] for g in range(len(row_kinds))
        ]
        return torch.cat([torch.cat(row, dim=1) for row in rows])

    similarity = whole({place: block.similarity for place, block in blocks.items()})
    if not details:
        nothing = similarity.new_empty(0)
        return ClassHardness(within, similarity, nothing.long(), nothing.bool())
    originals: dict[tuple[int, int], Tensor] = {}
    synthetic: dict[tuple[int, int], Tensor] = {}
    for (g, h), block in blocks.items():
        table = winners(row_kinds[g], column_kinds[h], block.winner.device)
        winner, members = block.winner.int(), layout.groups[h].t().contiguous()
        originals[g, h] = members.gather(0, look_up(table.nearest, winner))
        synthetic[g, h] = look_up(table.is_synthetic, winner)
    return ClassHardness(within, similarity, whole(originals), whole(synthetic))
