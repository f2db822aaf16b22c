"""What the figures were made on."""

from __future__ import annotations

import platform

import pytorch_metric_learning
import torch


def machine() -> str:
    """What the figures were made on."""
    return (
        f"{torch.get_num_threads()} threads, {platform.machine()}, "
        f"{platform.system()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, pytorch-metric-learning "
        f"{pytorch_metric_learning.__version__}"
    )
