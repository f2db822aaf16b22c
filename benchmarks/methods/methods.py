"""The methods that can be compared, by the name that tables and figures give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from pytorch_metric_learning import losses, miners
from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.regularizers import LpRegularizer
from torch import Tensor, nn

from pml_symm import (
    SymmAngularLoss,
    SymmLiftedStructureLoss,
    SymmLoss,
    SymmMiner,
    SymmNPairsLoss,
    SymmSynthesizer,
    SymmTripletMarginLoss,
)

from .base_loss_first import BaseLossFirst
from .cross_batch_memory import CrossBatchMemory

TRIPLET_MARGIN = 0.1
CONTRASTIVE_MARGIN = 0.5
MEMORY_BATCHES = 8


class AllNormalizedAngularLoss(losses.AngularLoss):
    """PML's AngularLoss with the negatives normalized, too, as SymmAngularLoss has them.

    It tells how much of a difference between these two is synthesis.
    """

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> dict[str, Any]:
        """PML's hook."""
        points = self.distance.normalize(embeddings)
        reference = points if ref_emb is embeddings else self.distance.normalize(ref_emb)
        return super().compute_loss(points, labels, indices_tuple, reference, ref_labels)


Loss = Callable[..., losses.BaseMetricLossFunction]


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """The options that the paper's ablations vary; only Symm methods use them.

    Attributes:
        alpha: similarity ratio of SymmSynthesizer.
        beta: norm ratio of SymmSynthesizer.
        pairing: of SymmSynthesizer.
        hardness: "hardest", or k for the k-th hardest candidate.
        candidates: of SymmNPairsLoss and SymmAngularLoss.
        base_steps: train on the base loss for so many steps first.
    """

    alpha: float = 2.0
    beta: float = 1.0
    pairing: Literal["all", "ring", "none"] = "all"
    hardness: int | str = "hardest"
    candidates: Literal["all", "official"] = "all"
    base_steps: int = 0

    def loss_arguments(self) -> dict[str, Any]:
        """Arguments of a Symm loss; candidates only if they are not the default."""
        arguments: dict[str, Any] = {
            "synthesizer": SymmSynthesizer(self.alpha, self.beta, self.pairing),
            "hardness": self.hardness,
            "collect_stats": True,
        }
        if self.candidates != "all":
            arguments["candidates"] = self.candidates
        return arguments


@dataclass(frozen=True)
class Method:
    """How a method trains.

    Attributes:
        loss: makes the metric loss.
        miner: makes the tuple miner, if the method has one.
        is_symm: loss, or else miner, takes what Synthesis.loss_arguments gives.
        base: the method that this one is compared with.
        control: another one: the same loss on originals alone.
        sizes: which sizes the loss takes, of those that make has.
        loss_factor: the learning rate of the loss's own parameters in units of the
            trunk's; None for that of the embedder.
        trainer: a name in trainers.TRAINERS.
        sampler: a name in samplers.SAMPLERS.
        trainer_options: for the trainer; see there.
        searched: of these, what is searched for beside the learning rate -> its values.
        needs_pairs: a batch of one item per class, or of one class, gives no gradient.
    """

    loss: Loss
    miner: Callable[..., nn.Module] | None = None
    is_symm: bool = False
    base: str | None = None
    control: str | None = None
    sizes: tuple[str, ...] = ()
    loss_factor: float | None = None
    trainer: str = "metric loss only"
    sampler: str = "m per class"
    trainer_options: dict[str, Any] = field(default_factory=dict)
    searched: Mapping[str, Sequence[float]] = field(default_factory=dict)
    needs_pairs: bool = True

    @property
    def bases(self) -> tuple[str, ...]:
        """What it is compared with: base and control, those that it has."""
        return tuple(x for x in (self.base, self.control) if x is not None)

    def make(
        self, synthesis: Synthesis, **sizes: int
    ) -> tuple[nn.Module, nn.Module | None]:
        """The loss, and the miner if there is one.

        Args:
            synthesis: what a Symm method looks at.
            sizes: num_classes, embedding_size and batch_size, for methods that name them.

        Raises:
            ValueError: base_steps is given, and the method or its base has a miner.
        """
        arguments = synthesis.loss_arguments() if self.is_symm else {}
        arguments |= {name: sizes[name] for name in self.sizes}
        base_steps = synthesis.base_steps if self.is_symm else 0
        if self.miner is None:
            loss: nn.Module = self.loss(**arguments)
            if base_steps == 0:
                return loss, None
            assert self.base is not None
            base, miner = METHODS[self.base].make(synthesis, **sizes)
            if miner is None:
                return BaseLossFirst(base, loss, base_steps), None
        elif base_steps == 0:
            return self.loss(), self.miner(**arguments)
        raise ValueError(f"base_steps does not fit methods with miners, got {base_steps}")


def _dot_products() -> dict[str, Any]:
    # Un-normalized dot products, held together by the mean squared norm with the
    # weight of the authors' code: a quarter of 0.002, for anchors and for positives.
    return {
        "distance": DotProductSimilarity(normalize_embeddings=False),
        "embedding_regularizer": LpRegularizer(p=2, power=2),
        "embedding_reg_weight": 2 * 0.25 * 0.002,
    }


def _n_pairs(make: Loss, **arguments: Any) -> losses.BaseMetricLossFunction:
    return make(**_dot_products(), **arguments)


def _wrapped(
    make: Loss,
    synthesizer: SymmSynthesizer,
    hardness: str | int = "hardest",
    collect_stats: bool | None = None,
) -> SymmLoss:
    loss = make()
    miner = SymmMiner(
        hardness=hardness,  # type: ignore[arg-type]
        synthesizer=synthesizer,
        index_space="pool",
        distance=loss.distance,
    )
    return SymmLoss(loss, miner, collect_stats=collect_stats)


_N_PAIRS = partial(_n_pairs, losses.NPairsLoss)
# What N-pairs is for a triplet with its own negative, in PML's terms.
_N_PAIRS_OF_TUPLES = partial(_n_pairs, losses.NTXentLoss, temperature=1.0)
_TRIPLET = partial(losses.TripletMarginLoss, margin=TRIPLET_MARGIN)
_SYMM_TRIPLET = partial(SymmTripletMarginLoss, margin=TRIPLET_MARGIN)
_CONTRASTIVE = partial(
    losses.ContrastiveLoss, pos_margin=0.0, neg_margin=CONTRASTIVE_MARGIN
)
_SEMIHARD = partial(
    miners.TripletMarginMiner, margin=TRIPLET_MARGIN, type_of_triplets="semihard"
)


def _hardest_originals(make: Loss) -> losses.BaseMetricLossFunction:
    """The control: every class competes with one term only, its hardest original."""
    return make(synthesizer=SymmSynthesizer(pairing="none"))


def _with_memory(make: Loss, embedding_size: int, batch_size: int) -> CrossBatchMemory:
    return CrossBatchMemory(make(), embedding_size, MEMORY_BATCHES * batch_size)


def _semihard_symm_triplet(
    hardness: str | int, **arguments: Any
) -> losses.BaseMetricLossFunction:
    return _SYMM_TRIPLET(hardness="semihard", **arguments)


def _daml(tuple_loss: Loss) -> dict[str, Any]:
    """Method's arguments for DAML."""
    return {
        "trainer": "DAML",
        "trainer_options": {"tuple_loss": tuple_loss, "generator_weight": 1.0},
        "searched": {"generator_weight": (0.1, 1.0, 10.0)},
    }


def _hdml(tuple_loss: Loss, alpha: float) -> dict[str, Any]:
    """Method's arguments for HDML; alpha is in units of the loss."""
    return {
        "trainer": "HDML",
        "trainer_options": {"tuple_loss": tuple_loss, "alpha": alpha},
        "searched": {"alpha": (alpha / 10, alpha, 10 * alpha)},
    }


METHODS: dict[str, Method] = {
    "Contrastive": Method(_CONTRASTIVE),
    "Contrastive, memory": Method(
        partial(_with_memory, _CONTRASTIVE),
        base="Contrastive",
        sizes=("embedding_size", "batch_size"),
    ),
    "Triplet": Method(_TRIPLET),
    "Triplet, semi-hard": Method(_TRIPLET, _SEMIHARD, base="Triplet"),
    "Triplet, batch-hard": Method(_TRIPLET, miners.BatchHardMiner, base="Triplet"),
    "Triplet, offline hard": Method(_TRIPLET, base="Triplet", sampler="hard classes"),
    "N-pairs": Method(_N_PAIRS),
    "N-pairs, offline hard": Method(_N_PAIRS, base="N-pairs", sampler="hard classes"),
    "Lifted": Method(losses.LiftedStructureLoss),
    "Angular": Method(losses.AngularLoss),
    "Angular, all normalized": Method(AllNormalizedAngularLoss, base="Angular"),
    "Multi-similarity": Method(losses.MultiSimilarityLoss),
    "Multi-similarity, mined": Method(
        losses.MultiSimilarityLoss, miners.MultiSimilarityMiner, base="Multi-similarity"
    ),
    "Margin": Method(losses.MarginLoss),
    "NT-Xent": Method(losses.NTXentLoss),
    # The temperature that trainers of sentence encoders have: a scale of 20.
    "NT-Xent, 0.05": Method(partial(losses.NTXentLoss, temperature=0.05)),
    # Its authors train the proxies at a hundred times the trunk's rate.
    "Proxy-anchor": Method(
        losses.ProxyAnchorLoss,
        sizes=("num_classes", "embedding_size"),
        loss_factor=100,
        needs_pairs=False,
    ),
    "Triplet, hardest originals": Method(
        partial(_hardest_originals, _SYMM_TRIPLET), base="Triplet"
    ),
    "N-pairs, hardest originals": Method(
        partial(_hardest_originals, partial(_n_pairs, SymmNPairsLoss)), base="N-pairs"
    ),
    "Lifted, hardest originals": Method(
        partial(_hardest_originals, SymmLiftedStructureLoss), base="Lifted"
    ),
    "Angular, hardest originals": Method(
        partial(_hardest_originals, SymmAngularLoss), base="Angular"
    ),
    "Multi-similarity, hardest originals": Method(
        partial(_hardest_originals, partial(_wrapped, losses.MultiSimilarityLoss)),
        base="Multi-similarity",
    ),
    "Contrastive, hardest originals": Method(
        partial(_hardest_originals, partial(_wrapped, _CONTRASTIVE)), base="Contrastive"
    ),
    "DAML + Triplet": Method(_TRIPLET, base="Triplet", **_daml(_TRIPLET)),
    "DAML + N-pairs": Method(_N_PAIRS, base="N-pairs", **_daml(_N_PAIRS_OF_TUPLES)),
    "HDML + Triplet": Method(_TRIPLET, base="Triplet", **_hdml(_TRIPLET, 0.05)),
    "HDML + N-pairs": Method(_N_PAIRS, base="N-pairs", **_hdml(_N_PAIRS_OF_TUPLES, 1.0)),
    "Symm + Triplet": Method(
        _SYMM_TRIPLET, is_symm=True, base="Triplet", control="Triplet, hardest originals"
    ),
    "Symm + Triplet, semi-hard": Method(
        _semihard_symm_triplet, is_symm=True, base="Triplet, semi-hard"
    ),
    "Symm + N-pairs": Method(
        partial(_n_pairs, SymmNPairsLoss),
        is_symm=True,
        base="N-pairs",
        control="N-pairs, hardest originals",
    ),
    "Symm + N-pairs, official": Method(
        partial(_n_pairs, SymmNPairsLoss, candidates="official"),
        is_symm=True,
        base="N-pairs",
        control="N-pairs, hardest originals",
    ),
    "Symm + Angular": Method(
        SymmAngularLoss,
        is_symm=True,
        base="Angular",
        control="Angular, hardest originals",
    ),
    "Symm + Angular, official": Method(
        partial(SymmAngularLoss, candidates="official"),
        is_symm=True,
        base="Angular",
        control="Angular, hardest originals",
    ),
    "Symm + Lifted": Method(
        SymmLiftedStructureLoss,
        is_symm=True,
        base="Lifted",
        control="Lifted, hardest originals",
    ),
    "SymmLoss(Contrastive)": Method(
        partial(_wrapped, _CONTRASTIVE),
        is_symm=True,
        base="Contrastive",
        control="Contrastive, hardest originals",
    ),
    "SymmLoss(Multi-similarity)": Method(
        partial(_wrapped, losses.MultiSimilarityLoss),
        is_symm=True,
        base="Multi-similarity",
        control="Multi-similarity, hardest originals",
    ),
    "SymmLoss(Margin)": Method(
        partial(_wrapped, losses.MarginLoss), is_symm=True, base="Margin"
    ),
    "SymmLoss(NT-Xent)": Method(
        partial(_wrapped, losses.NTXentLoss), is_symm=True, base="NT-Xent"
    ),
    "SymmMiner + Triplet": Method(_TRIPLET, SymmMiner, is_symm=True, base="Triplet"),
    "SymmMiner + Multi-similarity": Method(
        losses.MultiSimilarityLoss, SymmMiner, is_symm=True, base="Multi-similarity"
    ),
}
"""Name -> method."""
