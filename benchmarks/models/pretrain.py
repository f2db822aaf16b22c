"""A convnet pre-trained with softmax on classes that no other split has."""

from __future__ import annotations

import hashlib
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.trainers import TrainWithClassifier

from ..data.files import default_root, keep_in_cache
from ..data.splits import Subset
from .trunks import make_trunk

LOGGER = logging.getLogger(__name__)

STEPS = 600
BATCH_SIZE = 128
LEARNING_RATE = 1e-3


def pretrained_trunk(
    dataset: Subset,
    width: int,
    seed: int,
    steps: int = STEPS,
    root: Path | None = None,
) -> dict[str, torch.Tensor]:
    """The state of a convnet, from the cache; trained if that is missing or damaged.

    Args:
        dataset: grey pictures of 32 x 32 pixels.
        width: channels of its first block.
        seed: of its weights and its batches.
        steps: batches to train on.
        root: the folder of the cache; by default pml-symm in the user's cache folder.
    """
    root = default_root() if root is None else root
    recipe = (
        *(dataset.fingerprint(), width, seed, steps),
        *(BATCH_SIZE, LEARNING_RATE, torch.__version__),
    )
    key = hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]
    path = root / f"trunk-{key}.pt"
    if path.exists():
        try:
            return torch.load(path, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            LOGGER.warning("%s is damaged and is trained again: %s", path, error)
    state = _train(dataset, width, seed, steps)
    keep_in_cache(path, lambda file: torch.save(state, file))
    return state


def _train(dataset: Subset, width: int, seed: int, steps: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    trunk = make_trunk("convnet", width)
    classifier = torch.nn.Linear(trunk.features, len(np.unique(dataset.labels)))
    models: dict[str, Any] = {"trunk": trunk.stages, "classifier": classifier}
    TrainWithClassifier(
        models,
        {
            f"{name}_optimizer": torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
            for name, model in models.items()
        },
        min(BATCH_SIZE, len(dataset)),
        # PML's trainer requires a metric loss; it gets the weight 0.
        {
            "metric_loss": losses.ContrastiveLoss(),
            "classifier_loss": torch.nn.CrossEntropyLoss(),
        },
        dataset,
        loss_weights={"metric_loss": 0, "classifier_loss": 1},
        iterations_per_epoch=steps,
        data_device=torch.device("cpu"),
        dataloader_num_workers=0,
        set_min_label_to_zero=True,
        dataset_labels=dataset.labels,
    ).train(num_epochs=1)
    return trunk.stages.state_dict()
