"""One training run, from its start to its end."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import common_functions as c_f

from pml_symm import SymmSynthesizer

from ..data.stem_features import keep_stem
from ..methods.methods import METHODS
from ..models import trunks
from ..models.trunks import pretrained_trunk
from . import checkpoint, interruption, processes
from .evaluator import Evaluator
from .records import Recorder
from .settings import Settings, Source
from .start import Start, begin, held, prepare
from .trainers import SAMPLERS, DivergedError, HardClassSampler, StepTimer, make_trainer

LOGGER = logging.getLogger(__name__)


def run(
    settings: Settings,
    folder: Path,
    force: bool = False,
    source: Source | None = None,
    searched: Collection[str] = (),
    after_epoch: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda state: None,
) -> dict[str, Any]:
    """Train and test once, or return the result of an earlier, finished run.

    A stopped run continues, and ends with the same result: after SIGINT or SIGTERM it
    continues where it stopped, otherwise after its last validation. So does a finished run
    if settings have more steps than it was trained for, and nothing else changed. With
    torchrun, all of its processes call this and train one run together; the first one
    evaluates, records and writes. Where another process trains this run already, wait for
    its end.

    Args:
        settings: what to train.
        folder: of this run: its settings, checkpoint, records and TensorBoard log. Beside
            it is records.db, record-keeper's database of all runs, with the results of
            finished runs.
        force: train from the start, even if there is a run.
        source: where a dataset of pictures or texts is.
        searched: fields of settings that a search chose. A run with another choice is
            trained from the start.
        after_epoch: called when an epoch is validated and saved.
        tell: called with what the run does from now on.

    Returns:
        {"settings": ..., "test": metrics on the unseen test classes, "seconds_per_step":
        median; over the steps "val": metrics, "synthetic_queries": recall@1 with synthetic
        points as queries and originals of "val" as references, "angle": mean degrees
        between source and axis in "val", also before training, "synthetic_ratio": share
        of synthetic negatives, "loss": of the batch, "gradient_norm": the length of its
        gradient for all parameters; "skipped": bad files that were left out}. A run that
        diverged has "diverged", the step and what was not finite, and no curves.

    Raises:
        ValueError: there is a run with other settings and force is not given, the
            training split has too few classes for a batch, the trunk has too few stages
            to freeze, several processes cannot train this, or the dataset has not the
            fingerprint of the settings, at the start or at the end.
        interruption.Interrupted: SIGINT or SIGTERM; the next call continues.
    """
    with interruption.requests() as request, held(folder, request, tell):
        start = processes.from_first(lambda: prepare(settings, folder, force, searched))
        result = start.finished
        if result is None:
            source = source or Source()
            one = _Run(settings, folder, source, start, request, after_epoch, tell)
            result = one.finish()
        # A signal in the last evaluation: this run is finished, but do not start others.
        request.check()
        return result


@dataclass(eq=False)
class _Run:
    """A run that has steps left to train; only the first process evaluates and records."""

    settings: Settings
    folder: Path
    source: Source
    start: Start
    request: interruption.Request
    after_epoch: Callable[[], None]
    tell: Callable[[str], None]
    step: int = 0

    def __post_init__(self) -> None:
        settings, source = self.settings, self.source
        method = METHODS[settings.method]
        source.check(settings)
        self.tell("reading data")
        checkpoint.seed_all(settings.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        whole = trunks.make_trunk(
            settings.trunk, settings.width, settings.pretrained, settings.image_size
        )
        stem, rest = trunks.freeze_until(whole, settings.freeze_until)
        processes.from_first(lambda: source.check_unchanged(settings))
        datasets = processes.from_first(lambda: source.splits(settings, whole))
        labels = datasets.train.labels
        num_classes = len(np.unique(labels))
        settings.check_num_classes("the training split", num_classes)
        if num_classes < (settings.train_classes or 0):
            raise ValueError(
                f"train_classes must be at most {num_classes}, as many as the training "
                f"split has, got {settings.train_classes}"
            )
        if settings.start == "softmax":
            reserved = datasets.pretrain
            assert reserved is not None, "settings check that there is a reserve"
            weights = processes.from_first(
                lambda: pretrained_trunk(reserved, settings.width, settings.seed)
            )
            whole.stages.load_state_dict(weights)
            # Pre-training, if its result was not cached, drew random numbers.
            checkpoint.seed_all(settings.seed)
        self.datasets = datasets
        if stem:
            self.tell("waiting for the output of frozen stages")
            self.datasets = processes.from_first(
                lambda: keep_stem(
                    datasets,
                    stem,
                    augmentations=settings.augmentations,
                    device=device,
                    workers=source.workers,
                    before_batch=self._before_batch,
                    while_waiting=self.request.check_alone,
                )
            )
        embedder = torch.nn.Linear(rest.features, settings.embedding_size)
        self.models = {"trunk": rest.stages, "embedder": embedder}
        self.loss, self.miner = method.make(
            settings,
            num_classes=num_classes,
            embedding_size=settings.embedding_size,
            batch_size=settings.batch_size,
        )
        record_step = c_f.return_input
        # Not before all that it needs is there, for it may replace an earlier run.
        processes.from_first(lambda: begin(settings, self.folder, self.start))
        if processes.is_first():
            self.recorder = Recorder(self.folder, self.start.is_new)
            # In a ring every point of a class is the source of one query.
            synthesizer = SymmSynthesizer(settings.alpha, settings.beta, pairing="ring")
            self.evaluator = Evaluator(
                self.datasets,
                self.recorder,
                self.folder,
                synthesizer if method.is_symm else None,
                device,
                source.workers,
            )
            record_step = self.recorder.add_step
        self.timer = StepTimer(record_step)
        self.sampler = SAMPLERS[method.sampler](
            labels,
            m=settings.m,
            batch_size=settings.batch_size,
            length_before_new_iter=settings.batch_size * settings.test_interval,
        )
        self.trainer = make_trainer(
            {
                "models": self.models,
                "batch_size": settings.batch_size,
                "loss_funcs": {"metric_loss": self.loss},
                "mining_funcs": {} if self.miner is None else {"tuple_miner": self.miner},
                "dataset": self.datasets.train,
                "dataset_labels": labels,
                # Proxies and classifiers have a row for each class.
                "set_min_label_to_zero": True,
                "sampler": self.sampler,
                "iterations_per_epoch": settings.test_interval,
                "data_device": device,
                "dataloader_num_workers": source.workers,
                "before_step": self._before_step,
                "end_of_iteration_hook": self.timer,
                "end_of_epoch_hook": self._end_epoch,
            },
            settings,
        )

    def finish(self) -> dict[str, Any]:
        """Train to the end, test, and record the result."""
        state, within = self.start.state, self.start.within
        if state is not None:
            checkpoint.restore(state, self.trainer)
            self.timer.seconds[:] = state["own"]["seconds"]
            self.sampler.labels = state["own"]["classes"]
            self._refresh_sampler()
            checkpoint.restore_random_state(state["random"])
        if within is not None:
            self.timer.seconds[:] = within["own"]["seconds"]
            self.trainer.go_on_within(within)
        if self.start.is_new:
            state_before = processes.from_first(self._look_before_training)
            checkpoint.restore_random_state(state_before)
        done = 0 if state is None else state["epoch"]
        epochs = self.settings.steps // self.settings.test_interval
        self.tell("training")
        try:
            self.trainer.train(start_epoch=done + 1, num_epochs=epochs)
            return processes.from_first(lambda: self._test_and_record(epochs))
        except DivergedError as error:
            return processes.from_first(partial(self._record_divergence, error.what))

    def _before_batch(self) -> None:
        """Stop between two batches of the frozen stages' output if asked to."""
        self.tell("computing the output of frozen stages")
        self.request.check_alone()

    def _look_before_training(self) -> dict[str, Any]:
        before = checkpoint.random_state()
        self.evaluator.look_before_training(self.models)
        return before

    def _before_step(self, trainer: BaseTrainer) -> None:
        """Count the steps, and save and stop between two of them if asked to."""
        self.step = trainer.get_global_iteration() + 1
        try:
            self.request.check()
        except interruption.Interrupted:
            if processes.is_first():
                self.recorder.save()
                self._save(checkpoint.WITHIN, trainer, trainer.iteration)
            raise

    def _end_epoch(self, trainer: BaseTrainer) -> None:
        """PML's hook: validate and save, in the first process."""

        def validate_and_save() -> dict[str, Any]:
            self._refresh_sampler()
            self.evaluator.validate(trainer)
            self._save(checkpoint.NAME, trainer)
            return checkpoint.random_state()

        # Evaluating drew random numbers, only in the first process.
        checkpoint.restore_random_state(processes.from_first(validate_and_save))
        self.after_epoch()
        self.request.check()

    def _refresh_sampler(self) -> None:
        """Give current embeddings to a sampler that chooses confused classes."""
        if isinstance(self.sampler, HardClassSampler) and processes.is_first():
            before = checkpoint.random_state()
            # The same augmentation in a run that continues here.
            checkpoint.seed_all(self.settings.seed)
            self.sampler.refresh(self.evaluator.embed(self.datasets.train, self.models))
            checkpoint.restore_random_state(before)

    def _save(self, name: str, trainer: BaseTrainer, iteration: int | None = None) -> None:
        own = {
            "seconds": self.timer.seconds,
            "processes": processes.world_size(),
            # PML's sampler shuffles them in place.
            "classes": [int(x) for x in self.sampler.labels],
        }
        checkpoint.save(self.folder / name, trainer, own, iteration)

    def _test_and_record(self, epochs: int) -> dict[str, Any]:
        self.tell("testing")
        settings, test, recorder = self.settings, self.datasets.test, self.recorder
        found = {
            "test": self.evaluator.test(self.models, epochs) if settings.touch_test else {},
            "test_classes": len(np.unique(test.labels)),
            "test_images": len(test),
            "val": self._over_steps(self.evaluator.history()),
            "synthetic_queries": self._over_steps(recorder.validated("synthetic_queries")),
            "angle": self._over_steps(recorder.validated("angle")),
            "synthetic_ratio": recorder.synthetic_ratio(),
            "loss": recorder.over_steps("loss"),
            "gradient_norm": recorder.over_steps("gradient_norm"),
        }
        self.source.check_unchanged(settings)
        return self._record(found, settings.steps)

    def _record_divergence(self, what: str) -> dict[str, Any]:
        LOGGER.warning(
            "%s diverged at step %d: %s is not finite", self.folder, self.step, what
        )
        found = {"test": {}, "diverged": {"step": self.step, "what": what}}
        return self._record(found, self.step)

    def _record(self, found: dict[str, Any], step: int) -> dict[str, Any]:
        result = {
            "settings": asdict(self.settings),
            **found,
            "seconds_per_step": statistics.median(self.timer.seconds or [float("nan")]),
            "skipped": self.datasets.skipped,
        }
        self.recorder.finish(result, step)
        # From the last one, the run can go on with more steps.
        for name in (checkpoint.PREVIOUS, checkpoint.WITHIN):
            (self.folder / name).unlink(missing_ok=True)
        return result

    def _over_steps(self, history: dict[str, list]) -> dict[str, list]:
        """A history over the epochs, converted to steps."""
        steps = [epoch * self.settings.test_interval for epoch in history.pop("epoch")]
        return {"step": steps, **history}
