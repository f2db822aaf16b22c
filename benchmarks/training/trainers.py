"""PML's trainers, able to stop between two steps and to continue there, and samplers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.trainers import (
    BaseTrainer,
    DeepAdversarialMetricLearning,
    MetricLossOnly,
)
from pytorch_metric_learning.utils import common_functions as c_f
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..methods.hdml import HardnessAwareMetricLearning
from ..methods.methods import METHODS
from . import checkpoint, processes
from .settings import Settings

# PML formats its loss tensor for the progress bar, which torch warns about.
warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")


class DivergedError(ValueError):
    """Training cannot go on: what, the loss or an embedding, is not finite."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not finite")
        self.what = what


class StepwiseMixin(BaseTrainer):
    """Mixed into a PML trainer: it can stop between two steps, and continue there.

    A resumed epoch draws its batches again from the start, without training on them until
    the step where it stopped, so that the batches after it are the same. before_step is
    called with the trainer before each step, and may raise to stop.
    """

    def __init__(
        self,
        *args: Any,
        before_step: Callable[[BaseTrainer], object] = c_f.return_input,
        **kwargs: Any,
    ) -> None:
        self._before_step = before_step
        self._within: dict[str, Any] | None = None
        super().__init__(*args, **kwargs)

    def go_on_within(self, state: dict[str, Any]) -> None:
        """Continue the next epoch after the step at which checkpoint.save wrote state."""
        self._within = state

    @property
    def is_repeating(self) -> bool:
        """Whether the current step has been trained already."""
        return self._within is not None and self.iteration < self._within["iteration"]

    def forward_and_backward(self) -> None:
        """PML's step; a step that was trained already only draws its batch.

        Raises:
            DivergedError: the loss is not finite.
        """
        if self.is_repeating:
            self.zero_losses()
            self.get_batch()
            return
        if self._within is not None:
            checkpoint.restore(self._within, self)
            checkpoint.restore_random_state(self._within["random"])
            self._within = None
        self._before_step(self)
        super().forward_and_backward()
        if processes.any_of_them(not self.losses["total_loss"].isfinite()):
            raise DivergedError("the loss")

    def step_lr_schedulers(self, end_of_epoch: bool = False) -> None:
        """As PML, but not for repeated steps."""
        if not self.is_repeating:
            super().step_lr_schedulers(end_of_epoch)


class StepTimer:
    """An end_of_iteration_hook: the seconds of each step but the first of an epoch.

    The time of another hook, which it calls, does not count.
    """

    def __init__(self, hook: Callable[[StepwiseMixin], object]) -> None:
        self.hook = hook
        self.seconds: list[float] = []
        self._last: float | None = None

    def __call__(self, trainer: StepwiseMixin) -> None:
        """Record the time of this step, then call the wrapped hook outside that time."""
        if trainer.is_repeating:
            return
        now = time.perf_counter()
        # The time before an epoch's first step includes an evaluation.
        if self._last is not None and trainer.iteration > 0:
            self.seconds.append(now - self._last)
        self.hook(trainer)
        self._last = time.perf_counter()


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, second in pairwise(sizes):
        layers += [nn.Linear(first, second), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


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
    "metric loss only": lambda parts: MetricLossOnly,
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


def make_trainer(parts: dict[str, Any], settings: Settings) -> StepwiseMixin:
    """A trainer, with an Adam optimizer for everything that has parameters.

    Args:
        parts: arguments of PML's BaseTrainer and of StepwiseMixin, without optimizers,
            for all processes together. The method may add to its dictionaries.
        settings: name the method, and have the learning rates.

    Raises:
        ValueError: several processes cannot train this.
    """
    method = METHODS[settings.method]
    if processes.world_size() > 1 and method.trainer != "metric loss only":
        raise ValueError(f"{method.trainer} trains in one process, not in several")
    options = {**method.trainer_options, **(settings.trainer_options or {})}
    kind = TRAINERS[method.trainer](parts, **options)
    modules = {**parts["models"], **parts["loss_funcs"]}
    for module in modules.values():
        module.to(parts["data_device"])
    factors = {"trunk": 1.0, "metric_loss": method.loss_factor or settings.head_factor}
    optimizers = {
        name: torch.optim.Adam(
            groups, lr=settings.learning_rate * factors.get(name, settings.head_factor)
        )
        for name, module in modules.items()
        if (groups := _parameter_groups(module, settings.weight_decay))
    }
    schedulers = {
        f"{name}_scheduler_by_iteration": torch.optim.lr_scheduler.StepLR(
            optimizer, settings.lr_step_size, gamma=0.5
        )
        for name, optimizer in optimizers.items()
        if settings.lr_step_size is not None
    }
    if processes.world_size() > 1:
        parts = processes.share(parts)
    stepwise = type(f"Stepwise{kind.__name__}", (StepwiseMixin, kind), {})
    return stepwise(
        optimizers={f"{name}_optimizer": x for name, x in optimizers.items()},
        lr_schedulers=schedulers,
        **parts,
    )


GROUP_SIZE = 4  # classes


class HardClassSampler(MPerClassSampler):
    """Samples m images per class, of classes that the model confuses.

    A batch consists of groups: a class drawn at random, and the classes nearest to it
    that are not in the batch yet. The images of each class are from the half that is
    nearest to the group's first class. Until the first refresh it is an
    MPerClassSampler.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.classes = np.array(sorted(self.labels))
        self._similarity: np.ndarray | None = None
        self._to_classes: np.ndarray | None = None

    def refresh(self, embeddings: Tensor) -> None:
        """Compute which classes the model confuses, from embeddings of shape (N, D)."""
        points = torch.nn.functional.normalize(embeddings.float().cpu())
        means = torch.stack(
            [points[self.labels_to_indices[label]].mean(0) for label in self.classes]
        )
        means = torch.nn.functional.normalize(means)
        self._similarity = (means @ means.t()).numpy()
        self._to_classes = (points @ means.t()).numpy()

    def __iter__(self) -> Iterator[int]:
        if self._similarity is None:
            yield from super().__iter__()
            return
        for _ in range(self.list_size // self.batch_size):
            yield from self._batch()

    def _batch(self) -> list[int]:
        similarity, to_classes = self._similarity, self._to_classes
        assert similarity is not None and to_classes is not None
        free = np.ones(len(self.classes), dtype=bool)
        rows: list[int] = []
        while len(rows) < self.batch_size:
            wanted = min(GROUP_SIZE, (self.batch_size - len(rows)) // self.m_per_class)
            first = c_f.NUMPY_RANDOM.choice(np.flatnonzero(free))
            free[first] = False
            order = np.argsort(-similarity[first], kind="stable")
            group = [first, *order[free[order]][: wanted - 1]]
            free[group] = False
            for number in group:
                images = np.asarray(self.labels_to_indices[self.classes[number]])
                nearest = np.argsort(-to_classes[images, first], kind="stable")
                half = images[nearest][: max(self.m_per_class, len(images) // 2)]
                chosen = c_f.safe_random_choice(half, size=self.m_per_class)
                rows.extend(int(x) for x in chosen)
        return rows


SAMPLERS = {"m per class": MPerClassSampler, "hard classes": HardClassSampler}
"""Name -> sampler."""
