"""One training run on the glyphs, with PML's trainer, tester and record-keeper."""

from __future__ import annotations

import json
import logging
import random
import shutil
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import logging_presets
from pytorch_metric_learning.utils.inference import FaissKMeans

from pml_symm import AccuracyCalculator, SymmSynthesizer

from . import data, records, trunks
from .methods import METHODS, Synthesis
from .pretrain import pretrained_trunk
from .samplers import SAMPLERS, HardClassSampler
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


@dataclass(frozen=True)
class Settings:
    """What a run depends on.

    Attributes:
        method: a name in METHODS.
        seed: of the weights, the batches and the split of the classes.
        steps: how many batches to train on.
        test_interval: validate every so many steps; divides steps.
        batch_size: images a batch.
        m: images a class in a batch.
        embedding_size: D.
        width: channels of the trunk's first block.
        learning_rate: Adam's.
        head_factor: the embedder's learning rate in units of the trunk's.
        halve_after: halve the learning rates every so many steps, or None.
        dataset: a name in data.NAMES.
        trunk: a name in trunks.NAMES.
        pretrained: whether a trunk of torchvision starts with ImageNet weights.
        start: "scratch", or "softmax" for a convnet of pretrain.py.
        reserve: keep a third of the glyphs out of all splits; "softmax" needs it.
        train_classes: cap on the classes of the training split alone, for glyphs.
        augment: move training glyphs a little, at random.
        fold: which part of the training and validation classes validates, for glyphs.
        touch_test: whether to evaluate on the test split at the end.
        max_classes: cap on the classes of every split, or None for all of them.
        alpha, beta, pairing, hardness, candidates: as Synthesis has them.
    """

    method: str
    seed: int
    steps: int = 300
    test_interval: int = 50
    batch_size: int = 128
    m: int = 2
    embedding_size: int = 64
    width: int = 16
    learning_rate: float = 1e-3
    head_factor: float = 1.0
    halve_after: int | None = None
    dataset: str = "glyphs"
    trunk: str = "convnet"
    pretrained: bool = True
    start: str = "scratch"
    reserve: bool = False
    train_classes: int | None = None
    augment: bool = False
    fold: int | None = None
    touch_test: bool = True
    max_classes: int | None = None
    alpha: float = 2.0
    beta: float = 1.0
    pairing: str = "all"
    hardness: str | int = "hardest"
    candidates: str = "all"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}, got {self.method!r}"
            )
        if self.steps < 1 or self.test_interval < 1 or self.steps % self.test_interval:
            raise ValueError(
                "steps must be a multiple of test_interval, both at least 1, got "
                f"{self.steps} and {self.test_interval}"
            )
        if self.batch_size < 1 or self.m < 1 or self.batch_size % self.m:
            raise ValueError(
                "batch_size must be a multiple of m, both at least 1, got "
                f"{self.batch_size} and {self.m}"
            )
        for name in ("embedding_size", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(
                f"learning_rate must be a finite positive number, got {self.learning_rate}"
            )
        if not 0 < self.head_factor < float("inf"):
            raise ValueError(
                f"head_factor must be a finite positive number, got {self.head_factor}"
            )
        if self.halve_after is not None and self.halve_after < 1:
            raise ValueError(f"halve_after must be at least 1, got {self.halve_after}")
        for name, names in (("dataset", data.NAMES), ("trunk", trunks.NAMES)):
            if getattr(self, name) not in names:
                raise ValueError(
                    f"{name} must be one of {', '.join(names)}, got {getattr(self, name)!r}"
                )
        if self.fold is not None and self.dataset != "glyphs":
            raise ValueError(
                f"fold is for glyphs, got fold={self.fold} and dataset={self.dataset!r}"
            )
        if (self.dataset == "glyphs") != (self.trunk == "convnet"):
            raise ValueError(
                "the trunk of glyphs must be convnet, and that of photographs another "
                f"one, got dataset={self.dataset!r} and trunk={self.trunk!r}"
            )
        METHODS[self.method].make(self.synthesis)  # for its errors
        if self.start not in ("scratch", "softmax"):
            raise ValueError(f"start must be scratch or softmax, got {self.start!r}")
        if self.start == "softmax" and not self.reserve:
            raise ValueError('start="softmax" needs reserve: it has seen those classes')
        for name in ("max_classes", "train_classes"):
            if getattr(self, name) is not None:
                self.check_num_classes(name, getattr(self, name))

    @property
    def synthesis(self) -> Synthesis:
        """What the Symm methods look at."""
        return Synthesis(
            self.alpha, self.beta, self.pairing, self.hardness, self.candidates
        )

    def check_num_classes(self, name: str, number: int) -> None:
        """Raise ValueError unless so many classes fill a batch."""
        needed = self.batch_size // self.m
        if number < needed:
            raise ValueError(
                f"{name} must be at least batch_size / m = {needed} classes, got {number}"
            )


class Source(NamedTuple):
    """Where a dataset of photographs is; it changes nothing that is measured.

    Attributes:
        root: its folder.
        download: whether to fetch it if it is not there.
    """

    root: Path | None = None
    download: bool = False

    def splits(self, settings: Settings) -> data.Splits:
        """The dataset that the settings name.

        Raises:
            ValueError: photographs without root, or not all there.
            ImportError: photographs without torchvision.
        """
        if settings.dataset == "glyphs":
            return data.glyphs(
                settings.seed,
                settings.max_classes,
                settings.train_classes,
                settings.augment,
                settings.reserve,
                settings.fold,
            )
        if self.root is None:
            raise ValueError(f"--data-root must say where {settings.dataset} is")
        return data.photographs(
            settings.dataset,
            self.root,
            settings.seed,
            settings.max_classes,
            self.download,
            trunks.photograph_transforms(),
        )


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
    settings: Settings,
    folder: Path,
    force: bool = False,
    database: Path | None = None,
    source: Source | None = None,
) -> dict[str, Any]:
    """Train and test once, or return what an earlier, finished run found.

    Args:
        settings: what to train.
        folder: of this run; everything in it is replaced unless the run is finished.
        database: record-keeper's global database, which gets this run's records, too.
        source: where a dataset of photographs is.
        force: train even if a run is finished there.

    Returns:
        {"settings": ..., "test": metrics on the unseen test classes, "seconds_per_step":
        median, "val": metrics over the steps, "synthetic_queries": recall@1 of synthetic
        points that ask for originals of "val", likewise, "synthetic_ratio": likewise}.

    Raises:
        ValueError: a run with other settings is finished there and force is not given,
            or the training split has too few classes for a batch.
    """
    finished = folder / "result.json"
    if finished.exists() and not force:
        earlier = _read_result(finished)
        if earlier is not None:
            _check_same(earlier["settings"], asdict(settings), folder)
            LOGGER.info("%s is finished already", folder)
            return earlier
    if folder.exists():
        shutil.rmtree(folder)
    if database is not None:
        records.forget(database, folder.name)
    result = _train_and_test(settings, folder, database, source or Source())
    temporary = finished.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1))
    temporary.replace(finished)
    return result


def _read_result(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        LOGGER.warning("%s is damaged and is trained again: %s", path, error)
        return None


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
    settings: Settings, folder: Path, database: Path | None, source: Source
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
        global_db_path=None if database is None else str(database),
        experiment_name=folder.name,
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

    def refresh_and_evaluate(trainer: BaseTrainer) -> object:
        if isinstance(sampler, HardClassSampler):
            embeddings, _ = testers["val"].get_all_embeddings(
                datasets["train"], models["trunk"], models["embedder"]
            )
            sampler.refresh(embeddings)
        return end_of_epoch_hook(trainer)

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
            "end_of_epoch_hook": refresh_and_evaluate,
        },
        features,
        len(np.unique(datasets["train"].labels)),
        {"trunk": settings.learning_rate, "embedder": head_rate},
        settings.halve_after,
        method.trainer_options,
    )
    trainer.train(num_epochs=settings.steps // settings.test_interval)
    test: dict[str, float] = {}
    if settings.touch_test:
        accuracies = testers["test"].test(
            {"test": datasets["test"]}, trainer.epoch, models["trunk"], models["embedder"]
        )
        test = {
            metric: float(accuracies["test"][f"{metric}_level0"])
            for metric in RETRIEVAL + CLUSTERING
        }
    seconds_per_step = statistics.median(timer.seconds or [float("nan")])
    record_keeper.update_records(
        test
        | {
            "seconds_per_step": seconds_per_step,
            "method": settings.method,
            "seed": settings.seed,
            "settings": json.dumps(asdict(settings)),
        },
        settings.steps,
        parent_name="results",
    )
    record_keeper.save_records()
    tensorboard.close()
    curves = ("recall_at_1", "mean_average_precision_at_r")
    history = hooks.get_accuracy_history(testers["val"], "val", metrics=curves)
    return {
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
