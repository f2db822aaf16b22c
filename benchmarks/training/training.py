"""One training run, with PML's trainer, tester and record-keeper."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import logging_presets
from pytorch_metric_learning.utils.distributed import (
    DistributedLossWrapper,
    DistributedMinerWrapper,
)
from pytorch_metric_learning.utils.inference import FaissKMeans
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pml_symm import AccuracyCalculator, SymmSynthesizer

from ..data.datasets import Splits
from ..methods.methods import METHODS, Method
from ..models import trunks
from ..models.pretrain import pretrained_trunk
from . import checkpoint, embedding_map, interruption, processes, random_state, records
from .samplers import SAMPLERS, HardClassSampler, OwnPart
from .settings import Settings, Source
from .trainers import make_trainer

LOGGER = logging.getLogger(__name__)

RETRIEVAL = (
    "recall_at_1",
    "recall_at_2",
    "recall_at_4",
    "recall_at_8",
    "r_precision",
    "mean_average_precision_at_r",
)
CLUSTERING = ("NMI", "F1")


class StepTimer:
    """An end_of_iteration_hook that keeps the seconds between its calls."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook
        self.seconds: list[float] = []
        self._last: float | None = None

    def __call__(self, trainer: BaseTrainer) -> None:
        """Keep the time of this step, then call the wrapped hook outside it."""
        if trainer.is_repeating:
            return
        now = time.perf_counter()
        # Before an epoch's first step there was an evaluation.
        if self._last is not None and trainer.iteration > 0:
            self.seconds.append(now - self._last)
        self.hook(trainer)
        self._last = time.perf_counter()


class _Start(NamedTuple):
    """Where a run starts.

    Attributes:
        finished: what an earlier run found, if there is nothing to train.
        state: checkpoint after the last complete epoch, if any.
        within: checkpoint within the epoch that follows, if any.
    """

    finished: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    within: dict[str, Any] | None = None


def run(
    settings: Settings,
    folder: Path,
    force: bool = False,
    source: Source | None = None,
    after_epoch: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train and test once, or return what an earlier, finished run found.

    A run that was stopped goes on to the same end: by SIGINT or SIGTERM, where it was;
    otherwise, after its last validation. With torchrun, all of its processes call this
    and train one run together; the first one evaluates, records and writes.

    Args:
        settings: what to train.
        folder: of this run: its settings, checkpoint, records and TensorBoard log.
            Beside it is records.db, record-keeper's database of all runs, which says
            what a finished run found.
        force: train from the start, whatever is there.
        source: where a dataset of photographs is.
        after_epoch: called when an epoch is validated and saved.

    Returns:
        {"settings": ..., "test": metrics on the unseen test classes, "seconds_per_step":
        median, "val": metrics over the steps, "synthetic_queries": recall@1 of synthetic
        points that ask for originals of "val", likewise, "synthetic_ratio": likewise,
        "skipped": files that were left out because they are bad}.

    Raises:
        ValueError: a run with other settings is there and force is not given, the
            training split has too few classes for a batch, or several processes cannot
            train this.
        interruption.Interrupted: SIGINT or SIGTERM; the next call goes on.
    """
    start = processes.from_first(lambda: _start(settings, folder, force))
    if start.finished is not None:
        return start.finished
    with interruption.requests() as request:
        training = _Run(settings, folder, source or Source(), start, request, after_epoch)
        result = training.finish()
        # Asked to stop in the last evaluation: this run is finished, others wait.
        training.check_request()
        return result


def _start(settings: Settings, folder: Path, force: bool) -> _Start:
    database = folder.parent / records.DATABASE
    written = folder / "settings.json"
    state = within = None
    if not force:
        earlier = records.read(database, folder.name)
        if earlier is not None:
            _check_same(earlier["settings"], asdict(settings), folder)
            LOGGER.info("%s is finished already", folder)
            return _Start(earlier)
        if written.exists():
            state = checkpoint.load_latest(folder)
            within = checkpoint.load(folder / checkpoint.WITHIN)
            epochs = 0 if state is None else state["epoch"]
            if within is not None and within["epoch"] != epochs:
                within = None  # from before the last epoch's end
        if state is not None or within is not None:
            _check_same(json.loads(written.read_text()), asdict(settings), folder)
    last = within or state
    if last is None:
        if folder.exists():
            shutil.rmtree(folder)
        records.forget(database, folder.name)
        folder.mkdir(parents=True)
        written.write_text(json.dumps(asdict(settings), indent=1))
    else:
        if last["own"]["processes"] != processes.world_size():
            raise ValueError(
                f"{folder} was stopped with {last['own']['processes']} processes and can "
                f"go on with as many, got {processes.world_size()}; --force starts it again"
            )
        steps = last["epoch"] * settings.test_interval + last["iteration"]
        records.trim(database, folder.name, last["epoch"], steps)
        LOGGER.warning("%s goes on after step %d", folder, steps)
    return _Start(None, state, within)


def _check_same(earlier: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    differences = [
        f"{name} was {earlier.get(name)}, is {now[name]}"
        for name in now
        if earlier.get(name) != now[name]
    ]
    if differences:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(differences)}): "
            "choose another --out, or --force to replace it"
        )


class _Run:
    """A run from its start to its end.

    Args:
        settings: what to train.
        folder: of this run.
        source: where a dataset of photographs is.
        start: where it starts.
        request: whether to stop.
        after_epoch: called when an epoch is validated and saved.
    """

    hooks: logging_presets.HookContainer | None = None

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        source: Source,
        start: _Start,
        request: interruption.Request,
        after_epoch: Callable[[], None],
    ) -> None:
        self.settings, self.folder, self.start = settings, folder, start
        self.request, self.after_epoch = request, after_epoch
        self.method = METHODS[settings.method]
        random_state.seed(settings.seed)
        self.datasets: Splits = processes.from_first(lambda: source.splits(settings))
        settings.check_num_classes(
            "the training split", len(np.unique(self.datasets.train.labels))
        )
        self.models, features = _models(settings)
        self.loss, self.miner = self.method.make(settings)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.synthetic_queries: dict[str, list] = {"step": [], "recall_at_1": []}
        if processes.is_first():
            self._keep_records(source.workers)
        self.timer = StepTimer(self.hooks.end_of_iteration_hook if self.hooks else _nothing)
        self.sampler = SAMPLERS[self.method.sampler](
            self.datasets.train.labels,
            m=settings.m,
            batch_size=settings.batch_size,
            length_before_new_iter=settings.batch_size * settings.test_interval,
        )
        self.trainer = self._make_trainer(features, source.workers)

    def _keep_records(self, workers: int) -> None:
        self.record_keeper, _, self.tensorboard = logging_presets.get_record_keeper(
            str(self.folder / "records"),
            str(self.folder / "tensorboard"),
            global_db_path=str(self.folder.parent / records.DATABASE),
            experiment_name=self.folder.name,
            is_new_experiment=self.start.state is None and self.start.within is None,
        )
        self.hooks = logging_presets.HookContainer(
            self.record_keeper,
            primary_metric="recall_at_1",
            save_models=False,
            log_freq=10,
        )
        self.testers = {
            name: GlobalEmbeddingSpaceTester(
                end_of_testing_hook=self._record_and_query,
                batch_size=512,
                dataloader_num_workers=workers,
                data_device=self.device,
                accuracy_calculator=AccuracyCalculator(
                    include=metrics,
                    k="max_bin_count",
                    device=self.device,
                    # Some twelve images a class: faiss would warn about so few each time.
                    kmeans_func=FaissKMeans(niter=20, min_points_per_centroid=1),
                ),
            )
            for name, metrics in {
                "val": RETRIEVAL,
                "test": RETRIEVAL + CLUSTERING,
            }.items()
        }
        self._validate = self.hooks.end_of_epoch_hook(
            self.testers["val"],
            {"val": self.datasets.val},
            str(self.folder / "models"),
        )

    def _make_trainer(self, features: int, workers: int) -> BaseTrainer:
        settings, models, loss, miner = self.settings, self.models, self.loss, self.miner
        sampler: Any = self.sampler
        if processes.world_size() > 1:
            _check_can_share(self.method, loss)
            on = None
            if self.device.type == "cuda":
                on = [torch.cuda.current_device()]
            models = {
                name: DistributedDataParallel(
                    # Statistics of batches stay each process's own: else those that do
                    # not evaluate would wait for ever.
                    model.to(self.device),
                    device_ids=on,
                    broadcast_buffers=False,
                )
                for name, model in models.items()
            }
            loss = DistributedLossWrapper(loss)
            miner = None if miner is None else DistributedMinerWrapper(miner)
            sampler = OwnPart(sampler, settings.batch_size)
        trainer = make_trainer(
            self.method.trainer,
            {
                "models": models,
                "batch_size": settings.batch_size // processes.world_size(),
                "loss_funcs": {"metric_loss": loss},
                "mining_funcs": {} if miner is None else {"tuple_miner": miner},
                "dataset": self.datasets.train,
                "dataset_labels": self.datasets.train.labels,
                "sampler": sampler,
                "iterations_per_epoch": settings.test_interval,
                "data_device": self.device,
                "dataloader_num_workers": workers,
                "end_of_iteration_hook": self.timer,
                "end_of_epoch_hook": self._end_epoch,
            },
            features,
            len(np.unique(self.datasets.train.labels)),
            {
                "trunk": settings.learning_rate,
                "embedder": settings.learning_rate * settings.head_factor,
            },
            settings.lr_step_size,
            self.method.trainer_options,
        )
        trainer.before_step = self._stop_if_asked
        return trainer

    def _record_and_query(self, tester: GlobalEmbeddingSpaceTester) -> None:
        assert self.hooks is not None
        self.hooks.end_of_testing_hook(tester)
        if "test" in tester.embeddings_and_labels:
            embeddings, labels = tester.embeddings_and_labels["test"]
            embedding_map.save(
                self.folder / embedding_map.NAME,
                self.datasets.test,
                embeddings,
                labels[:, 0],
            )
        if self.method.is_symm and "val" in tester.embeddings_and_labels:
            epoch = tester.all_accuracies["val"]["epoch"]
            recall = _recall_of_synthetic(
                self.settings, *tester.embeddings_and_labels["val"]
            )
            self.record_keeper.update_records(
                {"recall_at_1": recall}, epoch, parent_name="synthetic_queries_val"
            )
            self.synthetic_queries["step"].append(epoch * self.settings.test_interval)
            self.synthetic_queries["recall_at_1"].append(recall)

    def _refresh(self) -> None:
        """Tell a sampler that wants to know what the model confuses."""
        sampler = self.sampler
        if isinstance(sampler, HardClassSampler) and processes.is_first():
            embeddings, _ = self.testers["val"].get_all_embeddings(
                self.datasets.train, self.models["trunk"], self.models["embedder"]
            )
            sampler.refresh(embeddings)

    def _own(self) -> dict[str, Any]:
        return {
            "synthetic_queries": self.synthetic_queries,
            "seconds": self.timer.seconds,
            "processes": processes.world_size(),
            # PML's sampler shuffles them in place.
            "classes": [int(x) for x in self.sampler.labels],
        }

    def _end_epoch(self, trainer: BaseTrainer) -> None:
        """PML's hook: validate and save, in the first process."""

        def validate_and_save() -> dict[str, Any]:
            self._refresh()
            self._validate(trainer)
            checkpoint.save(self.folder / checkpoint.NAME, trainer, self._own())
            return random_state.get()

        # Evaluating drew random numbers, in the first process alone.
        random_state.restore(processes.from_first(validate_and_save))
        self.after_epoch()
        self.check_request()

    def _stop_if_asked(self, trainer: BaseTrainer) -> None:
        """Save and stop between two steps."""
        if processes.any_of_them(self.request.number is not None):
            if processes.is_first():
                self.record_keeper.save_records()
                checkpoint.save(
                    self.folder / checkpoint.WITHIN,
                    trainer,
                    self._own(),
                    trainer.iteration,
                )
            self.check_request()

    def check_request(self) -> None:
        """Raise Interrupted if any process was asked to stop."""
        if processes.any_of_them(self.request.number is not None):
            raise interruption.Interrupted(self.request.number or signal.SIGTERM)

    def finish(self) -> dict[str, Any]:
        """Train from the start to the end, test, and record what was found."""
        state, within = self.start.state, self.start.within
        done = 0
        if state is not None:
            done = state["epoch"]
            checkpoint.restore(state, self.trainer)
            self.synthetic_queries.update(state["own"]["synthetic_queries"])
            self.timer.seconds.extend(state["own"]["seconds"])
            self.sampler.labels = state["own"]["classes"]
            self._refresh()
            random_state.restore(state["random"])
        if within is not None:
            self.timer.seconds[:] = within["own"]["seconds"]
            self.trainer.go_on_within(within)
        epochs = self.settings.steps // self.settings.test_interval
        self.trainer.train(start_epoch=done + 1, num_epochs=epochs)
        return processes.from_first(lambda: self._test_and_record(epochs))

    def _test_and_record(self, epochs: int) -> dict[str, Any]:
        assert self.hooks is not None
        settings = self.settings
        test: dict[str, float] = {}
        if settings.touch_test:
            accuracies = self.testers["test"].test(
                {"test": self.datasets.test},
                epochs,
                self.models["trunk"],
                self.models["embedder"],
            )
            test = {
                metric: float(accuracies["test"][f"{metric}_level0"])
                for metric in RETRIEVAL + CLUSTERING
            }
        curves = ("recall_at_1", "mean_average_precision_at_r")
        history = self.hooks.get_accuracy_history(
            self.testers["val"], "val", metrics=curves
        )
        result = {
            "settings": asdict(settings),
            "test": test,
            "test_classes": len(np.unique(self.datasets.test.labels)),
            "test_images": len(self.datasets.test),
            "seconds_per_step": statistics.median(self.timer.seconds or [float("nan")]),
            "val": {
                "step": [epoch * settings.test_interval for epoch in history["epoch"]],
                **{name: history[f"{name}_level0"] for name in curves},
            },
            "synthetic_queries": self.synthetic_queries,
            "synthetic_ratio": _synthetic_ratio(
                self.record_keeper, self.miner or self.loss, self.miner is None
            ),
            "skipped": self.datasets.skipped,
        }
        records.finish(self.record_keeper, result, settings.steps)
        self.tensorboard.close()
        checkpoint.remove(self.folder)
        return result


def _nothing(trainer: BaseTrainer) -> None:
    """The end_of_iteration_hook of processes that record nothing."""


def _models(settings: Settings) -> tuple[dict[str, nn.Module], int]:
    """Trunk and embedder, and how many features the trunk gives."""
    trunk, features = trunks.make_trunk(settings.trunk, settings.width, settings.pretrained)
    if settings.start == "softmax":
        trunk.load_state_dict(
            processes.from_first(lambda: pretrained_trunk(settings.width, settings.seed))
        )
        # Training the trunk, if it was not cached, drew random numbers.
        torch.manual_seed(settings.seed)
        np.random.seed(settings.seed)
    embedder = nn.Linear(features, settings.embedding_size)
    return {"trunk": trunk, "embedder": embedder}, features


def _check_can_share(method: Method, loss: nn.Module) -> None:
    """Raise ValueError for what several processes cannot train."""
    if method.trainer != "metric loss only":
        raise ValueError(f"{method.trainer} trains in one process, not in several")
    if any(True for _ in loss.parameters()):
        raise ValueError(
            f"{type(loss).__name__} has parameters of its own, which are trained in one "
            "process, not in several"
        )


def _recall_of_synthetic(
    settings: Settings, embeddings: torch.Tensor, labels: torch.Tensor
) -> float:
    """recall@1 of synthetic points that ask for originals: do they keep their class?"""
    synthesizer = SymmSynthesizer(settings.alpha, settings.beta, pairing="ring")
    pool = synthesizer(embeddings, labels[:, 0])
    calculator = AccuracyCalculator(
        recall_at=(1,), include=("recall_at_1",), device=embeddings.device
    )
    found = calculator.get_accuracy(
        torch.nn.functional.normalize(pool.synthetic),
        pool.synthetic_labels,
        embeddings,
        labels[:, 0],
    )
    return float(found["recall_at_1"])


def _synthetic_ratio(
    record_keeper: Any, source: torch.nn.Module, is_loss: bool
) -> dict[str, list]:
    """The share of synthetic negatives over the steps, empty for who makes none."""
    # As record-keeper names the tables of modules, and of modules in others.
    group = "metric_loss" if is_loss else "tuple_miner"
    if is_loss and processes.world_size() > 1:
        group += f"_{DistributedLossWrapper.__name__}__modules_loss"
    table = f"{group}_{type(source).__name__}"
    if not hasattr(source, "synthetic_ratio") or not record_keeper.table_exists(table):
        return {"step": [], "ratio": []}
    rows = record_keeper.query(f"SELECT * FROM {table}", return_dict=True)
    return {"step": rows["~iteration~"], "ratio": rows["synthetic_ratio"]}
