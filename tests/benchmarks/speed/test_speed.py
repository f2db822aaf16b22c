"""python -m benchmarks speed, and the materialized losses that it compares with."""

import csv

import pytest
import torch

import pml_symm
from benchmarks.__main__ import main
from benchmarks.speed.materialized import materialized


@pytest.mark.parametrize(
    "make",
    [
        pml_symm.SymmNPairsLoss,
        pml_symm.SymmTripletMarginLoss,
        pml_symm.SymmLiftedStructureLoss,
        pml_symm.SymmAngularLoss,
    ],
)
def test_made_points_give_the_same_loss(make):
    embeddings = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6).repeat(2)
    loss_func = make()
    expected = loss_func(embeddings, labels)
    with materialized():
        found = loss_func(embeddings, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, embeddings), torch.autograd.grad(expected, embeddings)
    )


def test_command(tmp_path, capsys):
    arguments = ["--batches", "8", "--embedding-size", "4", "--seconds", "0"]
    assert main(["speed", "--out", str(tmp_path), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "whole step" in shown
    assert "profile of" in shown
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
    assert (tmp_path / "speed.png").stat().st_size > 0


def test_batches_must_hold_whole_classes(tmp_path, capsys):
    assert main(["speed", "--out", str(tmp_path), "--batches", "7"]) == 2
    assert "multiples of four, got [7]" in capsys.readouterr().err
