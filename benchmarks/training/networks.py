"""What a run trains: a trunk, and an embedder on its features."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..models import trunks
from ..models.pretrain import pretrained_trunk
from . import processes
from .settings import Settings


def make_networks(settings: Settings) -> dict[str, nn.Module]:
    """The "trunk" and the "embedder", as PML's trainers take them."""
    trunk, features = trunks.make_trunk(settings.trunk, settings.width, settings.pretrained)
    if settings.start == "softmax":
        trunk.load_state_dict(
            processes.from_first(lambda: pretrained_trunk(settings.width, settings.seed))
        )
        # Training the trunk, if it was not cached, drew random numbers.
        torch.manual_seed(settings.seed)
        np.random.seed(settings.seed)
    return {"trunk": trunk, "embedder": nn.Linear(features, settings.embedding_size)}
