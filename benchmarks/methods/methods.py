"""The methods that can be compared, by the name that tables and figures give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
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

TRIPLET_MARGIN = 0.1
CONTRASTIVE_MARGIN = 0.5
MEMORY_BATCHES = 8


class AllNormalizedAngularLoss(losses.AngularLoss):
    """PML's AngularLoss with the negatives normalized, too, as SymmAngularLoss has them.

    It tells how much of a difference between these two is synthesis.
    """

    def forward(self, embeddings: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As PML's; a reference, which no trainer gives, has to be normalized before."""
        return super().forward(self.distance.normalize(embeddings), *args, **kwargs)


class CrossBatchMemory(losses.CrossBatchMemory):
    """PML's CrossBatchMemory, so that a resumed run continues with its queue.

    Source: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.
    """

    def get_extra_state(self) -> dict[str, Any]:
        """The position in the queue, which state_dict has in addition to the buffers."""
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from what get_extra_state returned."""
        self.queue_idx = state["queue_idx"]
        self.has_been_filled = state["has_been_filled"]


class BaseLossFirst(nn.Module):
    """A base loss for some steps, and then Symm: its terms are hardest at the start."""

    def __init__(self, base: nn.Module, symm: nn.Module, steps: int) -> None:
        super().__init__()
        self.base, self.symm, self.steps = base, symm, steps
        self.done: Tensor
        self.register_buffer("done", torch.tensor(0))  # a run continues there

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of a step."""
        loss = self.base if self.done < self.steps else self.symm
        self.done += 1
        return loss(*args, **kwargs)


Loss = Callable[..., losses.BaseMetricLossFunction]


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """The options that the paper's ablations vary, of Symm methods.

    Attributes:
        alpha: similarity ratio of SymmSynthesizer.
        beta: norm ratio of SymmSynthesizer.
        pairing: of SymmSynthesizer.
        hardness: "hardest", or k for the k-th hardest candidate.
        candidates: of SymmNPairsLoss and SymmAngularLoss.
        base_steps: train on the base loss for so many steps first; controls do, too.
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
        is_control: it has the loss of a Symm method, on originals alone.
        base: the method that this one is compared with.
        normalized_base: another one: the base on normalized points, which this one has.
        control: another one: the same loss on originals alone.
        sizes: which sizes the loss takes, of those that make has.
        loss_factor: the learning rate of the loss's own parameters in units of the
            trunk's; None for that of the embedder.
        trainer: a name in trainers.TRAINERS.
        sampler: a name in trainers.SAMPLERS.
        trainer_options: for the trainer; see there.
        searched: of these, what is searched for beside the learning rate -> its values.
        needs_pairs: a batch of one item per class, or of one class, gives no gradient.
    """

    loss: Loss
    miner: Callable[..., nn.Module] | None = None
    is_symm: bool = False
    is_control: bool = False
    base: str | None = None
    normalized_base: str | None = None
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
        """What it is compared with: bases and control, those that it has."""
        named = self.base, self.normalized_base, self.control
        return tuple(x for x in named if x is not None)

    def make(
        self, synthesis: Synthesis, **sizes: int
    ) -> tuple[nn.Module, nn.Module | None]:
        """The loss, and the miner if there is one.

        Sizes are num_classes, embedding_size and batch_size, for methods that name them.

        Raises:
            ValueError: base_steps is given, and the method or its base has a miner.
        """
        arguments = synthesis.loss_arguments() if self.is_symm else {}
        arguments |= {name: sizes[name] for name in self.sizes}
        loss: nn.Module = self.loss(**({} if self.miner else arguments))
        miner = self.miner(**arguments) if self.miner else None
        if (self.is_symm or self.is_control) and synthesis.base_steps:
            assert self.base is not None
            base, base_miner = METHODS[self.base].make(synthesis, **sizes)
            if miner is not None or base_miner is not None:
                raise ValueError(
                    "base_steps does not fit methods with miners, got "
                    f"{synthesis.base_steps} for one with the base {self.base}"
                )
            loss = BaseLossFirst(base, loss, synthesis.base_steps)
        return loss, miner


def _n_pairs(make: Loss, **arguments: Any) -> losses.BaseMetricLossFunction:
    # Un-normalized dot products, held together by the mean squared norm with the
    # weight of the authors' code: a quarter of 0.002, for anchors and for positives.
    return make(
        distance=DotProductSimilarity(normalize_embeddings=False),
        embedding_regularizer=LpRegularizer(p=2, power=2),
        embedding_reg_weight=2 * 0.25 * 0.002,
        **arguments,
    )


def _wrapped(
    make: Loss, synthesizer: SymmSynthesizer, hardness: Any = "hardest", **stats: bool
) -> SymmLoss:
    loss = make()
    miner = SymmMiner(hardness, synthesizer, "pool", distance=loss.distance)
    return SymmLoss(loss, miner, **stats)


_N_PAIRS = partial(_n_pairs, losses.NPairsLoss)
_TRIPLET = partial(losses.TripletMarginLoss, margin=TRIPLET_MARGIN)
_SEMIHARD = partial(
    miners.TripletMarginMiner, margin=TRIPLET_MARGIN, type_of_triplets="semihard"
)
_CONTRASTIVE = partial(
    losses.ContrastiveLoss, pos_margin=0.0, neg_margin=CONTRASTIVE_MARGIN
)
# Base loss -> the loss that its Symm method and its control have.
_SYMM_LOSSES: dict[str, Loss] = {
    "Triplet": partial(SymmTripletMarginLoss, margin=TRIPLET_MARGIN),
    "N-pairs": partial(_n_pairs, SymmNPairsLoss),
    "N-pairs, normalized": SymmNPairsLoss,
    "Lifted": SymmLiftedStructureLoss,
    "Angular": SymmAngularLoss,
    "Multi-similarity": partial(_wrapped, losses.MultiSimilarityLoss),
    "Contrastive": partial(_wrapped, _CONTRASTIVE),
}
_NORMALIZED_BASES = {"Angular": "Angular, all normalized"}
# Base loss -> the loss, and its form for triplets with negatives of their own, PML's.
_WITH_TUPLE_LOSS = {
    "Triplet": (_TRIPLET, _TRIPLET),
    "N-pairs": (_N_PAIRS, partial(_n_pairs, losses.NTXentLoss, temperature=1.0)),
}


def _control(base: str) -> Method:
    """Every class competes with one term only, its hardest original."""
    return Method(
        partial(_SYMM_LOSSES[base], synthesizer=SymmSynthesizer(pairing="none")),
        is_control=True,
        base=base,
        normalized_base=_NORMALIZED_BASES.get(base),
    )


def _symm(base: str, **arguments: Any) -> Method:
    """A Symm method that has a control beside its base."""
    return Method(
        partial(_SYMM_LOSSES[base], **arguments),
        is_symm=True,
        base=base,
        normalized_base=_NORMALIZED_BASES.get(base),
        control=f"{base}, hardest originals",
    )


def _generating(trainer: str, base: str, **option: float) -> Method:
    """A method that trains a generator, with an option to search for."""
    loss, tuple_loss = _WITH_TUPLE_LOSS[base]
    return Method(
        loss,
        base=base,
        trainer=trainer,
        trainer_options={"tuple_loss": tuple_loss, **option},
        searched={name: (x / 10, x, 10 * x) for name, x in option.items()},
    )


METHODS: dict[str, Method] = {
    "Contrastive": Method(_CONTRASTIVE),
    "Contrastive, memory": Method(
        lambda embedding_size, batch_size: CrossBatchMemory(
            _CONTRASTIVE(), embedding_size, MEMORY_BATCHES * batch_size
        ),
        base="Contrastive",
        sizes=("embedding_size", "batch_size"),
    ),
    "Triplet": Method(_TRIPLET),
    "Triplet, semi-hard": Method(_TRIPLET, _SEMIHARD, base="Triplet"),
    "Triplet, batch-hard": Method(_TRIPLET, miners.BatchHardMiner, base="Triplet"),
    "Triplet, offline hard": Method(_TRIPLET, base="Triplet", sampler="hard classes"),
    "N-pairs": Method(_N_PAIRS),
    "N-pairs, offline hard": Method(_N_PAIRS, base="N-pairs", sampler="hard classes"),
    "N-pairs, normalized": Method(losses.NPairsLoss),  # PML's default
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
    **{f"{base}, hardest originals": _control(base) for base in _SYMM_LOSSES},
    "DAML + Triplet": _generating("DAML", "Triplet", generator_weight=1.0),
    "DAML + N-pairs": _generating("DAML", "N-pairs", generator_weight=1.0),
    # Alpha is in units of the loss.
    "HDML + Triplet": _generating("HDML", "Triplet", alpha=0.05),
    "HDML + N-pairs": _generating("HDML", "N-pairs", alpha=1.0),
    "Symm + Triplet": _symm("Triplet"),
    "Symm + Triplet, semi-hard": Method(
        lambda hardness, **rest: _SYMM_LOSSES["Triplet"](hardness="semihard", **rest),
        is_symm=True,
        base="Triplet, semi-hard",
    ),
    "Symm + N-pairs": _symm("N-pairs"),
    "Symm + N-pairs, official": _symm("N-pairs", candidates="official"),
    "Symm + N-pairs, normalized": _symm("N-pairs, normalized"),
    "Symm + Angular": _symm("Angular"),
    "Symm + Angular, official": _symm("Angular", candidates="official"),
    "Symm + Lifted": _symm("Lifted"),
    "SymmLoss(Contrastive)": _symm("Contrastive"),
    "SymmLoss(Multi-similarity)": _symm("Multi-similarity"),
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
