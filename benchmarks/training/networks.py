"""The networks of a run: a trunk, and an embedder on its features."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..data.splits import Subset
from ..models import trunks
from ..models.pretrain import pretrained_trunk
from ..models.trunks import Trunk
from . import processes
from .settings import Settings


def make_trunk(settings: Settings) -> Trunk:
    """The whole trunk of a run, before start_from_softmax."""
    return trunks.make_trunk(
        settings.trunk, settings.width, settings.pretrained, settings.image_size
    )


def start_from_softmax(trunk: Trunk, settings: Settings, dataset: Subset | None) -> None:
    """Load weights that were pre-trained on the reserved classes into a convnet."""
    assert dataset is not None, "settings check that there is a reserve"
    state = processes.from_first(
        lambda: pretrained_trunk(dataset, settings.width, settings.seed)
    )
    trunk.stages.load_state_dict(state)
    # Pre-training, if its result was not cached, drew random numbers.
    torch.manual_seed(settings.seed)
    np.random.seed(settings.seed)


def make_networks(trunk: Trunk, settings: Settings) -> dict[str, nn.Module]:
    """The "trunk" and the "embedder", named as in PML's trainers."""
    embedder = nn.Linear(trunk.features, settings.embedding_size)
    return {"trunk": trunk.stages, "embedder": embedder}
