"""SymmTripletMarginLoss: the triplet margin loss on the hardest points of each class."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import AvgNonZeroReducer, MultipleReducers
from torch import Tensor

from .class_hardness import Gram
from .class_layout import one_way, other_classes
from .mixins import SymmMixin
from .pml import IndicesTuple, lmu, positive_pairs


class SymmTripletMarginLoss(SymmMixin, TripletMarginLoss):
    """Triplet margin loss with one triplet for each positive pair and other class.

    With Z_u all points of class u, originals and synthetic:

        L_ijv = max(0, d(i, j) - H(u, v) + margin)    every positive pair (i, j), v != u

    for a distance; for a similarity the difference is the other way round.

    Args:
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates
            Z_u x Z_v; "semihard" for the hardest one farther apart than i and j,
            dropping the term where there is none.
        samples_per_class: m, as PML's MPerClassSampler has it, as a promise that every
            batch has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph.
        **kwargs: PML's TripletMarginLoss's: margin, smooth_loss, triplets_per_anchor
            (an int: that many random terms for each anchor), distance, reducer,
            embedding_regularizer, embedding_reg_weight, collect_stats; and swap, which
            changes nothing, because H(u, v) already is the hardest from either end.

    Raises:
        ValueError: an unknown hardness.

    Default distance: LpDistance(normalize_embeddings=True, p=2, power=1). Default
    reducer: AvgNonZeroReducer. Unless statistics are collected, its average is taken
    without a list of all triplets, and without waiting for a GPU.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm import SymmTripletMarginLoss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> SymmTripletMarginLoss(margin=0.2)(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.5496)
    """

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> dict:
        """PML's hook: one term for each positive pair and other class."""
        given, drawn = None, None
        if indices_tuple is not None:
            given = positive_pairs(indices_tuple, labels, ref_labels)
        elif self.triplets_per_anchor != "all":
            *given, drawn = lmu.convert_to_triplets(
                None, labels, ref_labels, t_per_anchor=self.triplets_per_anchor
            )
        elif ref_emb is embeddings and self._only_averages():
            return self._average(embeddings, labels)
        (anchors, positives), values, negatives = self.compare(
            given, embeddings, labels, ref_emb, ref_labels
        )
        row = negatives.row
        if drawn is None and self.hardness != "semihard":
            # One term for every pair and other class: no need to look which.
            other = other_classes(len(negatives.classes), row.device)
            hardness = negatives.hardness.gather(1, other).index_select(0, row)
            original = negatives.original.gather(1, other).index_select(0, row)
            values = values.unsqueeze(1).expand_as(hardness)
            anchors = anchors.unsqueeze(1).expand_as(original)
            positives = positives.unsqueeze(1).expand_as(original)
        else:
            keep = negatives.keep[row]
            if drawn is not None:
                keep = keep & (negatives.classes == ref_labels[drawn].unsqueeze(1))
            pair, other = torch.where(keep)
            hardness = negatives.hardness[row[pair], other]
            original = negatives.original[row[pair], other]
            values, anchors, positives = values[pair], anchors[pair], positives[pair]
        if hardness.numel() == 0:
            return self.zero_losses()
        violation = self.margin + self.distance.margin(values, hardness).flatten()
        return {
            "loss": {
                "losses": self._activation(violation),
                "indices": (anchors.flatten(), positives.flatten(), original.flatten()),
                "reduction_type": "triplet",
            }
        }

    def _activation(self, violation: Tensor) -> Tensor:
        if self.smooth_loss:
            return torch.nn.functional.softplus(violation)
        return torch.relu_(violation)

    def _only_averages(self) -> bool:
        """Whether nobody asks which triplet a term belongs to."""
        reducer = self.reducer
        if isinstance(reducer, MultipleReducers):
            reducer = reducer.reducers["loss"]
        return (
            type(reducer) is AvgNonZeroReducer
            and not (reducer.collect_stats or self.collect_stats)
            and Gram.supports(self.distance, self.synthesizer, self.hardness)
        )

    def _average(self, embeddings: Tensor, labels: Tensor) -> dict:
        """The mean of the terms above zero, as AvgNonZeroReducer has it.

        Each pair is there once, and competes with its own class for a zero.
        """
        layout = self.layout(labels)
        gram, selected = self.class_hardness(embeddings, layout, originals=False)
        hardness = gram.values(selected.similarity)
        own = torch.eye(len(hardness), dtype=torch.bool, device=hardness.device)
        first, terms = 0, []
        for group, values in zip(layout.groups, selected.within, strict=True):
            here = slice(first, first + len(group))
            first = here.stop
            # The loss of a pair is the same both ways.
            values = values.index_select(1, one_way(group.shape[1], group.device))
            violation = self.distance.margin(
                values.unsqueeze(2), hardness[here].unsqueeze(1)
            )
            violation.add_(self.margin).masked_fill_(own[here, None], -torch.inf)
            terms.append(self._activation(violation).flatten())
        every = terms[0] if len(terms) == 1 else torch.cat(terms)
        if every.numel() == 0 or len(hardness) == 1:
            return self.zero_losses()
        return {
            "loss": {
                "losses": every.sum() / torch.count_nonzero(every).clamp_min(1),
                "indices": None,
                "reduction_type": "already_reduced",
            }
        }
