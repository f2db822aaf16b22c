"""What is measured: the losses and the miner, and what they are compared with."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pytorch_metric_learning import losses
from torch import Tensor

import pml_symm

LOSSES = {
    "N-pairs": ("NPairsLoss", 1 << 20),
    "triplet": ("TripletMarginLoss", 512),
    "lifted": ("LiftedStructureLoss", 128),
    "angular": ("AngularLoss", 2048),
}
"""Name -> PML's class, and the largest batch at which it can be measured: PML's triplet
loss needs memory for every three samples, its lifted and angular losses for every two
pairs."""

CONTESTANTS = ("floor", "PML", "baseline", "Symm", "materialized", "semi-hard")

Contestants = Mapping[str, Callable[[], object]]

# It computes sixteen products where ours computes one.
_LARGEST_MATERIALIZED = 2048


class Materialized(pml_symm.SymmSynthesizer):
    """A subclass may make any points, so the losses make its points as tensors."""


def load(checkout: Path) -> ModuleType:
    """pml_symm of another checkout, in addition to the imported one.

    Raises:
        ValueError: checkout has no pml_symm.
    """
    folder = checkout / "pml_symm"
    if not (folder / "__init__.py").is_file():
        raise ValueError(f"baseline must be a checkout with pml_symm, got {checkout}")
    spec = importlib.util.spec_from_file_location(
        "pml_symm_baseline",
        folder / "__init__.py",
        submodule_search_locations=[str(folder)],
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    return package


def contestants_of(
    name: str,
    labels: Tensor,
    embedding_size: int,
    versions: Mapping[str, ModuleType],
    m: int | None = None,
) -> Contestants:
    """A loss or the miner of every version, and what to compare it with.

    Args:
        name: a key of LOSSES, or "miner".
        labels: of the batch.
        embedding_size: D.
        versions: name -> package.
        m: how many samples every class has, if they have equally many.
    """
    torch.manual_seed(0)
    size, device = len(labels), labels.device
    embeddings = torch.randn(size, embedding_size, device=device, requires_grad=True)

    def ours(package: ModuleType, **arguments: Any) -> Callable[[], object]:
        if name == "miner":
            return partial(package.SymmMiner(**arguments), embeddings, labels)
        if m is not None and device.type == "cuda":
            arguments["samples_per_class"] = m
        loss_func = getattr(package, f"Symm{LOSSES[name][0]}")(**arguments)
        return partial(both_ways, loss_func, embeddings, labels)

    found: dict[str, Callable[[], object]] = {"floor": partial(_floor, embeddings.detach())}
    found |= {version: ours(package) for version, package in versions.items()}
    if name != "miner" and size <= LOSSES[name][1]:
        theirs = getattr(losses, LOSSES[name][0])()
        found["PML"] = partial(both_ways, theirs, embeddings, labels)
    if m is None:
        found["semi-hard"] = ours(pml_symm, hardness="semihard")
    elif size <= _LARGEST_MATERIALIZED:
        found["materialized"] = ours(pml_symm, synthesizer=Materialized())
    return found


def both_ways(loss_func: torch.nn.Module, embeddings: Tensor, labels: Tensor) -> None:
    """One forward and one backward pass."""
    embeddings.grad = None
    loss_func(embeddings, labels).backward()


def _floor(embeddings: Tensor) -> Tensor:
    return (embeddings @ embeddings.t()) @ embeddings
