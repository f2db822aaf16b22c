"""The machine and the versions that results were computed with."""

from __future__ import annotations

import platform

import pytorch_metric_learning
import torch


def machine() -> str:
    """The machine and the versions that results were computed with."""
    return (
        f"{torch.get_num_threads()} threads, {platform.machine()}, "
        f"{platform.system()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, pytorch-metric-learning "
        f"{pytorch_metric_learning.__version__}"
    )
