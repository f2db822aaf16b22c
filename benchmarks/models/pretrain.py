"""A convnet pre-trained with softmax on classes that no other split has."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.trainers import TrainWithClassifier

from ..data.files import kept, sha256
from ..data.splits import Subset
from .trunks import make_trunk

STEPS = 600
BATCH_SIZE = 128
LEARNING_RATE = 1e-3


def pretrained_trunk(
    dataset: Subset, width: int, seed: int, steps: int = STEPS
) -> dict[str, torch.Tensor]:
    """The state of a convnet, from the cache; trained if it is missing there or damaged.

    It is trained on grey pictures of 32 x 32 pixels; seed is that of weights and batches.
    """
    recipe = (
        *(dataset.fingerprint(), width, seed, steps),
        *(BATCH_SIZE, LEARNING_RATE, torch.__version__),
    )
    return kept(
        f"trunk-{sha256([repr(recipe).encode()])[:12]}.pt",
        "trained",
        functools.partial(torch.load, weights_only=True),
        lambda: _train(dataset, width, seed, steps),
        torch.save,
    )


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
