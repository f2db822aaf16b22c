"""One training run, with PML's trainer, tester and record-keeper."""

from __future__ import annotations

import json
import logging
import random
import shutil
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import logging_presets
from pytorch_metric_learning.utils.inference import FaissKMeans

from pml_symm import AccuracyCalculator, SymmSynthesizer

from . import checkpoint, records, trunks
from .methods import METHODS
from .pretrain import pretrained_trunk
from .samplers import SAMPLERS, HardClassSampler
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
        now = time.perf_counter()
        # Before an epoch's first step there was an evaluation.
        if self._last is not None and trainer.iteration > 0:
            self.seconds.append(now - self._last)
        self.hook(trainer)
        self._last = time.perf_counter()


def run(
    settings: Settings, folder: Path, force: bool = False, source: Source | None = None
) -> dict[str, Any]:
    """Train and test once, or return what an earlier, finished run found.

    A run that was stopped goes on after its last validation, to the same end.

    Args:
        settings: what to train.
        folder: of this run: its settings, checkpoint, records and TensorBoard log.
            Beside it is records.db, record-keeper's database of all runs, which says
            what a finished run found.
        force: train from the start, whatever is there.
        source: where a dataset of photographs is.

    Returns:
        {"settings": ..., "test": metrics on the unseen test classes, "seconds_per_step":
        median, "val": metrics over the steps, "synthetic_queries": recall@1 of synthetic
        points that ask for originals of "val", likewise, "synthetic_ratio": likewise}.

    Raises:
        ValueError: a run with other settings is there and force is not given, or the
            training split has too few classes for a batch.
    """
    database = folder.parent / records.DATABASE
    written = folder / "settings.json"
    state = None
    if not force:
        earlier = records.read(database, folder.name)
        if earlier is not None:
            _check_same(earlier["settings"], asdict(settings), folder)
            LOGGER.info("%s is finished already", folder)
            return earlier
        if written.exists() and (folder / checkpoint.NAME).exists():
            _check_same(json.loads(written.read_text()), asdict(settings), folder)
            state = checkpoint.load(folder / checkpoint.NAME)
    if state is None:
        if folder.exists():
            shutil.rmtree(folder)
        records.forget(database, folder.name)
        folder.mkdir(parents=True)
        written.write_text(json.dumps(asdict(settings), indent=1))
    else:
        steps = state["epoch"] * settings.test_interval
        records.trim(database, folder.name, state["epoch"], steps)
        LOGGER.warning("%s goes on after step %d", folder, steps)
    return _train_and_test(settings, folder, database, source or Source(), state)


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


def _train_and_test(
    settings: Settings,
    folder: Path,
    database: Path,
    source: Source,
    state: dict[str, Any] | None,
) -> dict[str, Any]:
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    datasets = source.splits(settings)._asdict()
    settings.check_num_classes(
        "the training split", len(np.unique(datasets["train"].labels))
    )
    trunk, features = trunks.make_trunk(settings.trunk, settings.width, settings.pretrained)
    if settings.start == "softmax":
        trunk.load_state_dict(pretrained_trunk(settings.width, settings.seed))
        # Training the trunk, if it was not cached, drew random numbers.
        torch.manual_seed(settings.seed)
        np.random.seed(settings.seed)
    models = {
        "trunk": trunk,
        "embedder": torch.nn.Linear(features, settings.embedding_size),
    }
    method = METHODS[settings.method]
    loss, miner = method.make(settings.synthesis)
    record_keeper, _, tensorboard = logging_presets.get_record_keeper(
        str(folder / "records"),
        str(folder / "tensorboard"),
        global_db_path=str(database),
        experiment_name=folder.name,
        is_new_experiment=state is None,
    )
    hooks = logging_presets.HookContainer(
        record_keeper, primary_metric="recall_at_1", save_models=False, log_freq=10
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    synthetic_queries: dict[str, list] = {"step": [], "recall_at_1": []}

    def record_and_query(tester: GlobalEmbeddingSpaceTester) -> None:
        hooks.end_of_testing_hook(tester)
        if method.is_symm and "val" in tester.embeddings_and_labels:
            epoch = tester.all_accuracies["val"]["epoch"]
            recall = _recall_of_synthetic(settings, *tester.embeddings_and_labels["val"])
            record_keeper.update_records(
                {"recall_at_1": recall}, epoch, parent_name="synthetic_queries_val"
            )
            synthetic_queries["step"].append(epoch * settings.test_interval)
            synthetic_queries["recall_at_1"].append(recall)

    testers = {
        name: GlobalEmbeddingSpaceTester(
            end_of_testing_hook=record_and_query,
            batch_size=512,
            dataloader_num_workers=0,
            data_device=device,
            accuracy_calculator=AccuracyCalculator(
                include=metrics,
                k="max_bin_count",
                device=device,
                # Some twelve images a class: faiss would warn about so few each time.
                kmeans_func=FaissKMeans(niter=20, min_points_per_centroid=1),
            ),
        )
        for name, metrics in {"val": RETRIEVAL, "test": RETRIEVAL + CLUSTERING}.items()
    }
    timer = StepTimer(hooks.end_of_iteration_hook)
    sampler = SAMPLERS[method.sampler](
        datasets["train"].labels,
        m=settings.m,
        batch_size=settings.batch_size,
        length_before_new_iter=settings.batch_size * settings.test_interval,
    )
    end_of_epoch_hook = hooks.end_of_epoch_hook(
        testers["val"], {"val": datasets["val"]}, str(folder / "models")
    )

    def refresh() -> None:
        if isinstance(sampler, HardClassSampler):
            embeddings, _ = testers["val"].get_all_embeddings(
                datasets["train"], models["trunk"], models["embedder"]
            )
            sampler.refresh(embeddings)

    def refresh_and_save(trainer: BaseTrainer) -> object:
        refresh()
        go_on = end_of_epoch_hook(trainer)
        checkpoint.save(
            folder / checkpoint.NAME,
            trainer,
            {
                "synthetic_queries": synthetic_queries,
                "seconds": timer.seconds,
                # PML's sampler shuffles them in place.
                "classes": [int(x) for x in sampler.labels],
            },
        )
        return go_on

    head_rate = settings.learning_rate * settings.head_factor
    trainer = make_trainer(
        method.trainer,
        {
            "models": models,
            "batch_size": settings.batch_size,
            "loss_funcs": {"metric_loss": loss},
            "mining_funcs": {} if miner is None else {"tuple_miner": miner},
            "dataset": datasets["train"],
            "dataset_labels": datasets["train"].labels,
            "sampler": sampler,
            "iterations_per_epoch": settings.test_interval,
            "data_device": device,
            "dataloader_num_workers": 0,
            "end_of_iteration_hook": timer,
            "end_of_epoch_hook": refresh_and_save,
        },
        features,
        len(np.unique(datasets["train"].labels)),
        {"trunk": settings.learning_rate, "embedder": head_rate},
        settings.halve_after,
        method.trainer_options,
    )
    epochs, done = settings.steps // settings.test_interval, 0
    if state is not None:
        done = state["epoch"]
        checkpoint.restore_modules(state, trainer)
        synthetic_queries.update(state["own"]["synthetic_queries"])
        timer.seconds.extend(state["own"]["seconds"])
        sampler.labels = state["own"]["classes"]
        refresh()
        checkpoint.restore_random(state)
    trainer.train(start_epoch=done + 1, num_epochs=epochs)
    test: dict[str, float] = {}
    if settings.touch_test:
        accuracies = testers["test"].test(
            {"test": datasets["test"]}, epochs, models["trunk"], models["embedder"]
        )
        test = {
            metric: float(accuracies["test"][f"{metric}_level0"])
            for metric in RETRIEVAL + CLUSTERING
        }
    seconds_per_step = statistics.median(timer.seconds or [float("nan")])
    curves = ("recall_at_1", "mean_average_precision_at_r")
    history = hooks.get_accuracy_history(testers["val"], "val", metrics=curves)
    result = {
        "settings": asdict(settings),
        "test": test,
        "test_classes": len(np.unique(datasets["test"].labels)),
        "test_images": len(datasets["test"]),
        "seconds_per_step": seconds_per_step,
        "val": {
            "step": [epoch * settings.test_interval for epoch in history["epoch"]],
            **{name: history[f"{name}_level0"] for name in curves},
        },
        "synthetic_queries": synthetic_queries,
        "synthetic_ratio": _synthetic_ratio(record_keeper, miner or loss, miner is None),
    }
    records.finish(record_keeper, result, settings.steps)
    tensorboard.close()
    (folder / checkpoint.NAME).unlink(missing_ok=True)
    return result


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
    table = f"{'metric_loss' if is_loss else 'tuple_miner'}_{type(source).__name__}"
    if not hasattr(source, "synthetic_ratio") or not record_keeper.table_exists(table):
        return {"step": [], "ratio": []}
    rows = record_keeper.query(f"SELECT * FROM {table}", return_dict=True)
    return {"step": rows["~iteration~"], "ratio": rows["synthetic_ratio"]}
