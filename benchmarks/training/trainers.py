"""PML's trainers, and one for hardness-aware synthesis, by the name of the method."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.trainers import (
    BaseTrainer,
    DeepAdversarialMetricLearning,
    MetricLossOnly,
)
from torch import nn

from ..methods.hdml import HardnessAwareMetricLearning
from . import checkpoint, random_state


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, second in pairwise(sizes):
        layers += [nn.Linear(first, second), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _metric_loss_only(
    parts: dict[str, Any], features: int, num_classes: int
) -> type[BaseTrainer]:
    return MetricLossOnly


def _daml(
    parts: dict[str, Any],
    features: int,
    num_classes: int,
    tuple_loss: Callable[[], losses.BaseMetricLossFunction],
) -> type[BaseTrainer]:
    parts["models"]["generator"] = _mlp([3 * features, 512, features])
    parts["loss_funcs"] |= {
        "synth_loss": tuple_loss(),
        "g_adv_loss": losses.TripletMarginLoss(margin=0.1),
    }
    # All terms count alike, as in Duan et al., CVPR 2018.
    parts["loss_weights"] = dict.fromkeys(
        ("metric_loss", "synth_loss", "g_adv_loss", "g_hard_loss", "g_reg_loss"), 1
    )
    parts["g_triplets_per_anchor"] = 1
    return DeepAdversarialMetricLearning


def _hdml(
    parts: dict[str, Any],
    features: int,
    num_classes: int,
    tuple_loss: Callable[[], losses.BaseMetricLossFunction],
    alpha: float,
) -> type[BaseTrainer]:
    size = parts["models"]["embedder"].out_features
    parts["models"] |= {
        "generator": _mlp([size, 512, features]),
        "classifier": nn.Linear(features, num_classes),
    }
    parts["loss_funcs"] |= {
        "synth_loss": tuple_loss(),
        "classifier_loss": nn.CrossEntropyLoss(),
    }
    parts |= {"alpha": alpha, "set_min_label_to_zero": True}
    return HardnessAwareMetricLearning


TRAINERS: dict[str, Callable[..., type[BaseTrainer]]] = {
    "metric loss only": _metric_loss_only,
    "DAML": _daml,
    "HDML": _hdml,
}
"""Name -> a function that adds what the trainer needs to its parts, and gives its class."""


class StepwiseMixin:
    """Comes before a PML trainer: it can stop between two steps, and go on there.

    The epoch that was stopped is gone through again from its start without training, so
    that its batches are the same, until the step where it stopped.

    Attributes:
        before_step: called with the trainer before each step; may raise to stop.
    """

    before_step: Callable[[BaseTrainer], None] = staticmethod(lambda trainer: None)
    _within: dict[str, Any] | None = None

    def go_on_within(self, state: dict[str, Any]) -> None:
        """Train from where checkpoint.save wrote this, in the epoch that is next."""
        self._within = state

    @property
    def is_repeating(self) -> bool:
        """Whether the current step has been trained already."""
        within = self._within
        return within is not None and self.iteration < within["iteration"]  # type: ignore[attr-defined]

    def forward_and_backward(self) -> None:
        """PML's step."""
        if self.is_repeating:
            self.zero_losses()  # type: ignore[attr-defined]
            self.get_batch()  # type: ignore[attr-defined]
            return
        if self._within is not None:
            checkpoint.restore(self._within, self)
            random_state.restore(self._within["random"])
            self._within = None
        self.before_step(self)
        super().forward_and_backward()  # type: ignore[misc]

    def step_lr_schedulers(self, end_of_epoch: bool = False) -> None:
        """PML's, but for steps that are repeated."""
        if not self.is_repeating:
            super().step_lr_schedulers(end_of_epoch)  # type: ignore[misc]


def make_trainer(
    name: str,
    parts: dict[str, Any],
    features: int,
    num_classes: int,
    learning_rates: dict[str, float],
    lr_step_size: int | None,
    options: dict[str, Any],
) -> BaseTrainer:
    """A trainer, with an Adam optimizer for everything that has parameters.

    Args:
        name: in TRAINERS.
        parts: arguments of PML's BaseTrainer, without optimizers.
        features: what the trunk gives.
        num_classes: of the training split.
        learning_rates: Adam's, of "trunk" and of "embedder"; other parts have the
            embedder's.
        lr_step_size: halve the learning rates every so many steps, or None.
        options: of the trainer, as the method has them.
    """
    kind = TRAINERS[name](parts, features, num_classes, **options)
    kind = type(f"Stepwise{kind.__name__}", (StepwiseMixin, kind), {})
    modules = {**parts["models"], **parts["loss_funcs"]}
    optimizers = {
        name: torch.optim.Adam(
            module.parameters(), lr=learning_rates.get(name, learning_rates["embedder"])
        )
        for name, module in modules.items()
        if any(True for _ in module.parameters())
    }
    schedulers = {
        f"{name}_scheduler_by_iteration": torch.optim.lr_scheduler.StepLR(
            optimizer, lr_step_size, gamma=0.5
        )
        for name, optimizer in optimizers.items()
        if lr_step_size is not None
    }
    return kind(
        optimizers={f"{name}_optimizer": x for name, x in optimizers.items()},
        lr_schedulers=schedulers,
        **parts,
    )
