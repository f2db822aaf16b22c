"""python -m benchmarks speed, and the materialized points that it compares with."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance

import pml_symm
from benchmarks.__main__ import main
from benchmarks.speed import measuring, speed
from benchmarks.speed.measuring import Materialized

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (pml_symm.SymmNPairsLoss, {}),
        (pml_symm.SymmTripletMarginLoss, {}),
        # These points have a bias, as all do on a GPU.
        (
            pml_symm.SymmTripletMarginLoss,
            {"distance": LpDistance(normalize_embeddings=False)},
        ),
        (pml_symm.SymmLiftedStructureLoss, {}),
        (pml_symm.SymmAngularLoss, {}),
    ],
)
def test_made_points_give_the_same_loss(make, arguments):
    embeddings = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6).repeat(2)
    expected = make(**arguments)(embeddings, labels)
    found = make(synthesizer=Materialized(), **arguments)(embeddings, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, embeddings), torch.autograd.grad(expected, embeddings)
    )


def test_command(tmp_path, capsys, monkeypatch):
    few = {"two classes of 4": torch.arange(8) // 4}
    monkeypatch.setattr("benchmarks.speed.speed.MANY_SAMPLES", few)
    monkeypatch.setattr("benchmarks.speed.speed.KERNEL_BATCHES", (8,))
    monkeypatch.setattr("benchmarks.speed.measuring.STEP_BATCH", 8)
    arguments = ["--batches", "8", "--embedding-size", "4", "--seconds", "0"]
    arguments += ["--baseline", str(ROOT)]
    assert main(["speed", "--out", str(tmp_path), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "whole step" in shown
    assert "two classes of 4" in shown
    assert "kernels of N-pairs" in shown
    assert "miner / baseline" in shown
    with (tmp_path / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == [
        "N-pairs",
        "triplet",
        "lifted",
        "angular",
        "miner",
    ]
    assert all(float(row["Symm ms"]) > 0 for row in rows)
    assert all(float(row["baseline ms"]) > 0 for row in rows)
    assert (tmp_path / "speed.png").stat().st_size > 0


def test_batches_must_hold_whole_classes(tmp_path, capsys):
    assert main(["speed", "--out", str(tmp_path), "--batches", "7"]) == 2
    assert "multiples of four, got [7]" in capsys.readouterr().err
    assert main(["speed", "--out", str(tmp_path), "--embedding-size", "0"]) == 2
    assert "embedding_size must be at least 1, got 0" in capsys.readouterr().err


def test_cells_and_bounds_are_of_their_columns():
    row = {"PML ms": 4.0, "Symm ms": 2.0, "Symm spread": 0.5, "baseline ms": 1.0}
    row |= {"loss": "triplet", "batch": 512, "m": 2}
    assert speed._cell(row, "Symm / PML") == "0.50"
    assert speed._cell(row, "Symm, ms") == "2.00 ± 0.25"
    _, found = speed._bound_rows([row], [], [])
    assert found == ["losses / baseline, batch 512", "1.25", "1", "0", "triplet, m = 2: 2"]


def test_times_are_medians_and_memory_is_the_peak(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    time = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(measuring, "time", time)

    def takes(*milliseconds, mib):
        # The first call warms up, and in the last one the memory is measured.
        left = iter([100, *milliseconds, 100])

        def run():
            clock.now += next(left) / 1000
            for _ in range(3):
                torch.empty(mib << 20, dtype=torch.uint8)

        return run

    contestants = {"PML": takes(9, 2, 1, mib=1), "Symm": takes(8, 4, 3, mib=2)}
    expected = {"PML ms": 2, "PML spread": 9 - 1, "PML MiB": 1}
    expected |= {"Symm ms": 4, "Symm spread": 8 - 3, "Symm MiB": 2}
    found = measuring.measure(contestants, seconds=0, device="cpu")
    assert found == pytest.approx(expected)
