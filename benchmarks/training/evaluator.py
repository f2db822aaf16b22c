"""Validation and test of a run's models with PML's testers, and a map of embeddings."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils.inference import FaissKMeans
from torch import Tensor, nn
from torch.utils.data import Dataset

from pml_symm import AccuracyCalculator, SymmSynthesizer

from ..data.files import written_whole
from ..data.splits import Splits
from ..data.stem_features import without_stem
from .records import Recorder
from .trainers import DivergedError

RETRIEVAL = (
    "recall_at_1",
    "recall_at_2",
    "recall_at_4",
    "recall_at_8",
    "r_precision",
    "mean_average_precision_at_r",
)
CLUSTERING = ("NMI", "F1")
_CURVES = ("recall_at_1", "mean_average_precision_at_r")

MAP = "map.npz"  # test embeddings of a few classes, with their images
_MAP_CLASSES = 24
_MAP_PIXELS = 48

Models = Mapping[str, nn.Module]


class FiniteTester(GlobalEmbeddingSpaceTester):
    """PML's tester, which raises DivergedError for embeddings that are not finite."""

    def get_all_embeddings(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As PML."""
        embeddings, labels = super().get_all_embeddings(*args, **kwargs)
        if not embeddings.isfinite().all():
            raise DivergedError("an embedding")
        return embeddings, labels


@dataclass(eq=False)
class Evaluator:
    """Evaluates "trunk" and "embedder" of a run, and records the results.

    A synthesizer's points are queries for originals in each validation. A test writes an
    embedding map in the run's folder.
    """

    datasets: Splits
    recorder: Recorder
    folder: Path
    synthesizer: SymmSynthesizer | None
    device: torch.device
    workers: int

    def __post_init__(self) -> None:
        self._val_tester = self._tester(self._end_validation, RETRIEVAL)
        self._test_tester = self._tester(self._end_test, RETRIEVAL + CLUSTERING)
        # PML's hook sets this, but not in a run that was stopped after its last validation.
        self._val_tester.reference_split_names = {"val": ["val"]}
        self._validate = self.recorder.hooks.end_of_epoch_hook(
            self._val_tester, {"val": self.datasets.val}, str(self.folder / "models")
        )

    def _tester(self, hook: Callable, metrics: tuple[str, ...]) -> FiniteTester:
        return FiniteTester(
            end_of_testing_hook=hook,
            accuracy_calculator=accuracy_calculator(metrics, self.device),
            batch_size=512,
            dataloader_num_workers=self.workers,
            data_device=self.device,
        )

    def look_before_training(self, models: Models) -> None:
        """Record the angle between source and axis before the first step."""
        val = self.datasets.val
        angle = mean_angle(self.embed(val, models), torch.from_numpy(val.labels))
        self.recorder.add_validated("angle", 0, angle)

    def validate(self, trainer: BaseTrainer) -> None:
        """Evaluate a trainer's models on the validation split, at an epoch's end."""
        self._validate(trainer)

    def test(self, models: Models, epoch: int) -> dict[str, float]:
        """Metric -> value, on the test split, recorded for an epoch."""
        tester = self._test_tester
        accuracies = tester.test(
            {"test": self.datasets.test}, epoch, models["trunk"], models["embedder"]
        )["test"]
        return {
            metric: float(accuracies[tester.accuracies_keyname(metric)])
            for metric in RETRIEVAL + CLUSTERING
        }

    def embed(self, dataset: Dataset, models: Models) -> Tensor:
        """Normalized embeddings of a dataset's images, in their order."""
        embeddings, _ = self._val_tester.get_all_embeddings(
            dataset, models["trunk"], models["embedder"]
        )
        return embeddings

    def history(self) -> dict[str, list]:
        """Metrics of all validations, over the epochs."""
        tester = self._val_tester
        history = self.recorder.hooks.get_accuracy_history(tester, "val", metrics=_CURVES)
        return {
            "epoch": history["epoch"],
            **{name: history[tester.accuracies_keyname(name)] for name in _CURVES},
        }

    def _end_validation(self, tester: GlobalEmbeddingSpaceTester) -> None:
        """PML's hook: record the validation."""
        self.recorder.hooks.end_of_testing_hook(tester)
        embeddings, labels = tester.embeddings_and_labels["val"]
        labels, epoch = labels[:, 0], tester.all_accuracies["val"]["epoch"]
        self.recorder.add_validated("angle", epoch, mean_angle(embeddings, labels))
        if self.synthesizer is not None:
            recall = recall_of_synthetic(self.synthesizer, embeddings, labels)
            self.recorder.add_validated("synthetic_queries", epoch, recall)

    def _end_test(self, tester: GlobalEmbeddingSpaceTester) -> None:
        """PML's hook: record the test, and save an embedding map."""
        self.recorder.hooks.end_of_testing_hook(tester)
        embeddings, labels = tester.embeddings_and_labels["test"]
        save_map(self.folder / MAP, self.datasets.test, embeddings, labels[:, 0])


def mean_angle(embeddings: Tensor, labels: Tensor) -> float:
    """Mean degrees between each point and its axis, the next point of its class.

    Args:
        embeddings: shape (N, D), normalized.
        labels: shape (N,).

    >>> mean_angle(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([7, 7]))
    90.0
    """
    source, axis = SymmSynthesizer(pairing="ring").source_and_axis(labels)
    # The arc sine of half the chord is accurate for small angles, too.
    chord = torch.linalg.vector_norm(embeddings[source] - embeddings[axis], dim=1)
    return float(torch.rad2deg(2 * torch.asin((chord / 2).clamp_max(1))).mean())


def recall_of_synthetic(
    synthesizer: SymmSynthesizer, embeddings: Tensor, labels: Tensor
) -> float:
    """recall@1 with synthetic points as queries, and originals as references."""
    pool = synthesizer(embeddings, labels)
    calculator = AccuracyCalculator(
        recall_at=(1,), include=("recall_at_1",), device=embeddings.device
    )
    queries = nn.functional.normalize(pool.synthetic)
    found = calculator.get_accuracy(queries, pool.synthetic_labels, embeddings, labels)
    return float(found["recall_at_1"])


def accuracy_calculator(
    metrics: tuple[str, ...], device: torch.device
) -> AccuracyCalculator:
    """A calculator of the named metrics that searches and clusters on a device."""
    return AccuracyCalculator(
        include=metrics,
        k="max_bin_count",
        device=device,
        # With about twelve images of a class, faiss would warn about too few each time.
        kmeans_func=FaissKMeans(niter=20, min_points_per_centroid=1),
    )


class EmbeddingMap(NamedTuple):
    """Embeddings and their images.

    Attributes:
        embeddings: shape (N, D), float32.
        labels: shape (N,), int64.
        images: shape (N, height, width) or (N, height, width, 3), uint8.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    images: np.ndarray


def save_map(path: Path, dataset: Dataset, embeddings: Tensor, labels: Tensor) -> None:
    """Save the first classes of a dataset of pictures; nothing for texts.

    Args:
        path: of the file.
        dataset: pictures, or StemFeatures of pictures.
        embeddings: shape (N, D), of all pictures in their order.
        labels: shape (N,), of them.
    """
    dataset = without_stem(dataset)
    if dataset[0][0].dim() != 3:
        return
    classes = torch.unique(labels)[:_MAP_CLASSES]
    rows = torch.where(torch.isin(labels, classes))[0].tolist()
    images = np.stack([_small(dataset[row][0]) for row in rows])
    with written_whole(path) as file:
        np.savez_compressed(
            file,
            embeddings=embeddings[rows].float().cpu().numpy(),
            labels=labels[rows].cpu().numpy(),
            images=images,
        )


def load_map(path: Path) -> EmbeddingMap:
    """What save_map wrote.

    Raises:
        ValueError: the file is damaged, or another one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return EmbeddingMap(file["embeddings"], file["labels"], file["images"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged ({error}): without this file, the report has no map of it"
        ) from error


def _small(image: Any) -> np.ndarray:
    """A small image, (height, width) or (height, width, 3), uint8, with full contrast."""
    largest = max(image.shape[1:])
    if largest > _MAP_PIXELS:
        scale = _MAP_PIXELS / largest
        image = torch.nn.functional.interpolate(
            image[None], scale_factor=scale, mode="area"
        )[0]
    low, high = torch.aminmax(image)
    levels = (image - low) / (high - low).clamp_min(1e-6) * 255
    return levels.byte().permute(1, 2, 0).squeeze(2).cpu().numpy()
