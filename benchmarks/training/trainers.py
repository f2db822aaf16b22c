"""PML's trainers, and one for hardness-aware synthesis, by the name of the method."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.trainers import (
    BaseTrainer,
    DeepAdversarialMetricLearning,
    MetricLossOnly,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..methods.hdml import HardnessAwareMetricLearning
from ..methods.methods import Method
from . import data_parallel, processes
from .stepwise import StepwiseMixin

# PML formats its loss tensor for the progress bar, which torch warns about.
warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, second in pairwise(sizes):
        layers += [nn.Linear(first, second), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _metric_loss_only(parts: dict[str, Any]) -> type[BaseTrainer]:
    return MetricLossOnly


def _daml(
    parts: dict[str, Any],
    tuple_loss: Callable[[], losses.BaseMetricLossFunction],
    generator_weight: float,
) -> type[BaseTrainer]:
    features = parts["models"]["embedder"].in_features
    parts["models"] |= {"generator": _mlp([3 * features, 512, features])}
    parts["loss_funcs"] |= {
        "synth_loss": tuple_loss(),
        "g_adv_loss": losses.TripletMarginLoss(margin=0.1),
    }
    # generator_weight = 1 gives all terms the same weight, as in Duan et al., CVPR 2018.
    parts["loss_weights"] = {
        **dict.fromkeys(("metric_loss", "synth_loss"), 1),
        **dict.fromkeys(("g_adv_loss", "g_hard_loss", "g_reg_loss"), generator_weight),
    }
    parts["g_triplets_per_anchor"] = 1
    return DeepAdversarialMetricLearning


def _hdml(
    parts: dict[str, Any],
    tuple_loss: Callable[[], losses.BaseMetricLossFunction],
    alpha: float,
) -> type[BaseTrainer]:
    embedder = parts["models"]["embedder"]
    num_classes = len(np.unique(parts["dataset_labels"]))
    parts["models"] |= {
        "generator": _mlp([embedder.out_features, 512, embedder.in_features]),
        "classifier": nn.Linear(embedder.in_features, num_classes),
    }
    parts["loss_funcs"] |= {
        "synth_loss": tuple_loss(),
        "classifier_loss": nn.CrossEntropyLoss(),
    }
    parts |= {"alpha": alpha}
    return HardnessAwareMetricLearning


TRAINERS: dict[str, Callable[..., type[BaseTrainer]]] = {
    "metric loss only": _metric_loss_only,
    "DAML": _daml,
    "HDML": _hdml,
}
"""Name -> a function that adds the trainer's own arguments, and returns its class."""


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Adam's groups: with weight decay, and parameters of batch normalization without."""
    normalizing = {
        parameter
        for part in module.modules()
        if isinstance(part, _BatchNorm)
        for parameter in part.parameters(recurse=False)
    }
    others = [x for x in module.parameters() if x not in normalizing]
    groups: list[dict[str, Any]] = [
        {"params": others, "weight_decay": weight_decay},
        {"params": [x for x in module.parameters() if x in normalizing]},
    ]
    return [group for group in groups if group["params"]]


def make_trainer(
    parts: dict[str, Any],
    method: Method,
    learning_rate: float,
    head_factor: float = 1.0,
    lr_step_size: int | None = None,
    options: Mapping[str, float] | None = None,
    weight_decay: float = 0.0,
) -> StepwiseMixin:
    """A trainer, with an Adam optimizer for everything that has parameters.

    Args:
        parts: arguments of PML's BaseTrainer and of StepwiseMixin, without optimizers,
            for all processes together. The method may add to its dictionaries.
        method: names the trainer and its options.
        learning_rate: of Adam, for the trunk.
        head_factor: the learning rate of everything else in units of the trunk's, except
            for the loss's own parameters if the method has a factor for them.
        lr_step_size: how often to halve the learning rates, in steps, or None.
        options: of the trainer, instead of the method's.
        weight_decay: as in CommonSettings.

    Raises:
        ValueError: several processes cannot train this.
    """
    if processes.world_size() > 1 and method.trainer != "metric loss only":
        raise ValueError(f"{method.trainer} trains in one process, not in several")
    kind = TRAINERS[method.trainer](parts, **{**method.trainer_options, **(options or {})})
    modules = {**parts["models"], **parts["loss_funcs"]}
    for module in modules.values():
        module.to(parts["data_device"])
    factors = {"trunk": 1.0, "metric_loss": method.loss_factor or head_factor}
    optimizers = {
        name: torch.optim.Adam(groups, lr=learning_rate * factors.get(name, head_factor))
        for name, module in modules.items()
        if (groups := _parameter_groups(module, weight_decay))
    }
    schedulers = {
        f"{name}_scheduler_by_iteration": torch.optim.lr_scheduler.StepLR(
            optimizer, lr_step_size, gamma=0.5
        )
        for name, optimizer in optimizers.items()
        if lr_step_size is not None
    }
    if processes.world_size() > 1:
        parts = data_parallel.share(parts)
    stepwise = type(f"Stepwise{kind.__name__}", (StepwiseMixin, kind), {})
    return stepwise(
        optimizers={f"{name}_optimizer": x for name, x in optimizers.items()},
        lr_schedulers=schedulers,
        **parts,
    )
