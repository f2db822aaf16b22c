"""SymmLoss: any tuple-based PML loss, on originals and synthetic points."""

from __future__ import annotations

from pytorch_metric_learning import losses
from torch import Tensor

from .functional.precision import finite_or_nan
from .pml import IndicesTuple, c_f, given_reference, pairs_of_tuple
from .symm_miner import SymmMiner
from .symm_mixin import SymmMixin
from .validation import check_batch

# What to use instead of losses that cannot use the synthetic points. The first row that
# matches counts. Losses that PML adds later, and a user's own, are not checked: one that
# does not take ref_emb or indices_tuple fails at its first batch.
_REFUSED: dict[str, tuple[str, ...]] = {
    "CrossBatchMemory(loss, ..., miner=SymmMiner())": ("CrossBatchMemory",),
    "MultipleLosses of SymmLoss(loss)": ("MultipleLosses",),
    "SymmNPairsLoss": ("NPairsLoss",),
    "SymmAngularLoss": ("AngularLoss",),
    "a loss that takes an indices_tuple, such as MultiSimilarityLoss": (
        *("P2SGradLoss", "InstanceLoss", "ManifoldLoss"),
        *("PNPLoss", "RankedListLoss", "VICRegLoss"),
    ),
    "SymmMiner(), whose tuple weights this loss's samples": (
        *("WeightRegularizerMixin", "ProxyAnchorLoss", "FastAPLoss"),
        *("SmoothAPLoss", "NCALoss"),
    ),
    "SymmMiner()": ("HistogramLoss", "ThresholdConsistentMarginLoss"),
}


class SymmLoss(losses.BaseMetricLossFunction):
    """Wraps a tuple-based PML loss so that its negatives include synthetic points.

    Calls ``loss(embeddings, labels, indices, pool.embeddings, pool.labels)`` with the
    pool of a SymmSynthesizer and the indices of a SymmMiner into that pool. Reducer,
    distance and regularizer are the wrapped loss's own.

    Args:
        loss: a PML loss that computes on the pairs or triplets of an indices_tuple.
        miner: a SymmMiner with index_space="pool", which brings its own distance; by
            default one with the wrapped loss's distance.
        collect_stats: record synthetic_ratio, the share of negatives that are
            synthetic; by default as the wrapped loss does.

    Raises:
        TypeError: loss is not a PML loss, or one that SymmLoss cannot wrap (the
            message names what to use instead); miner is not a SymmMiner.
        ValueError: the miner's index_space is not "pool".

    Source: docs/mathematics.md, "The wrapper".

    Examples:
        >>> import torch
        >>> from pml_symm import SymmLoss
        >>> from pytorch_metric_learning import losses
        >>> loss_func = SymmLoss(losses.MultiSimilarityLoss())
        >>> embeddings = torch.randn(8, 16, requires_grad=True)
        >>> loss_func(embeddings, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).backward()
    """

    def __init__(
        self,
        loss: losses.BaseMetricLossFunction,
        miner: SymmMiner | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        _check_served(loss)
        super().__init__(
            collect_stats=loss.collect_stats if collect_stats is None else collect_stats,
            distance=loss.distance,
        )
        if miner is None:
            miner = SymmMiner(index_space="pool", distance=loss.distance)
        elif not isinstance(miner, SymmMiner):
            raise TypeError(f"miner must be a SymmMiner, got {type(miner).__name__}")
        elif miner.index_space != "pool":
            raise ValueError(
                'miner must have index_space="pool", so that the loss sees the '
                f"synthetic points, got index_space={miner.index_space!r}"
            )
        self.loss = loss
        self.reducer = loss.reducer
        self.miner = miner
        self.add_to_recordable_attributes(name="synthetic_ratio", is_stat=True)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: IndicesTuple | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Compute the wrapped loss on the pool.

        Args:
            embeddings: shape (B, D), floating.
            labels: shape (B,).
            indices_tuple: selects the positive pairs; the negatives are Symm's own.
            ref_emb: shape (R, D): positives and the pool come from here if given.
            ref_labels: shape (R,), required with ref_emb and not allowed without.

        Returns:
            What the wrapped loss's reducer returns, usually a scalar; NaN if embeddings
            or ref_emb are not finite.

        Raises:
            TypeError: embeddings are not floating-point.
            ValueError: shapes do not match, or labels are missing.
        """
        self.reset_stats()
        self.miner.reset_stats()
        c_f.labels_required(labels)
        ref_emb, ref_labels = given_reference(embeddings, labels, ref_emb, ref_labels)
        labels, ref_labels = check_batch(embeddings, labels, ref_emb, ref_labels)
        labels = c_f.to_device(labels, embeddings)
        ref_emb, ref_labels = c_f.set_ref_emb(embeddings, labels, ref_emb, ref_labels)
        pool = self.miner.synthesizer(ref_emb, ref_labels)
        pairs = pairs_of_tuple(indices_tuple)
        indices = self.miner.mine(embeddings, labels, ref_emb, ref_labels, pairs, pool)
        self.miner.output_assertion(indices)  # counts them
        if self.collect_stats:
            self.synthetic_ratio = pool.synthetic_ratio(indices[-1])
        loss = self.loss(embeddings, labels, indices, pool.embeddings, pool.labels)
        return finite_or_nan(loss, embeddings, ref_emb)


def _check_served(loss: object) -> None:
    name = type(loss).__name__
    if isinstance(loss, (SymmLoss, SymmMixin)):
        raise TypeError(f"SymmLoss cannot wrap {name}, which synthesizes by itself")
    for instead, names in _REFUSED.items():
        # By name, because not every version of PML 2.x has all of these losses.
        if isinstance(loss, tuple(getattr(losses, x) for x in names if hasattr(losses, x))):
            raise TypeError(f"SymmLoss cannot serve {name}; use {instead} instead")
    if not isinstance(loss, losses.BaseMetricLossFunction):
        raise TypeError(f"loss must extend PML's BaseMetricLossFunction, got {name}")
