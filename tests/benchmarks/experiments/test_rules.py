"""The scripts that try rules for mirror images and look at their gradients."""

import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from unittest import mock

import pytest
import torch
import tyro
from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.reducers import DoNothingReducer

from benchmarks.experiments import measure_gradients, try_rules
from benchmarks.experiments.measure_gradients import negatives_descent
from benchmarks.methods import methods
from benchmarks.training.records import read_all
from benchmarks.training.settings import CommonSettings
from pml_symm import SymmLiftedStructureLoss, SymmNPairsLoss, SymmSynthesizer
from pml_symm.functional import DotProduct, Synthesis, n_pairs_loss

ROOT = Path(__file__).parents[3]
TINY = CommonSettings(
    steps=4, test_interval=4, batch_size=8, embedding_size=4, width=1, max_classes=4
)


@pytest.mark.parametrize("name", ["try_rules", "measure_gradients"])
def test_the_documented_command_starts(name):
    command = f"python -m benchmarks.experiments.{name} "
    assert command in (ROOT / "docs/mirror-images.md").read_text()
    arguments = [sys.executable, *command.split()[1:], "--help"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "glyphs" in done.stdout


@pytest.fixture
def _tiny(monkeypatch):
    """Few steps, and no methods that stay behind."""
    monkeypatch.setattr(measure_gradients, "STEPS", TINY.steps)
    monkeypatch.setattr(measure_gradients, "SHOWN", (0, 3))
    for script in (try_rules, measure_gradients):
        monkeypatch.setitem(script.SETTINGS, "glyphs", TINY)
    with mock.patch.dict(methods.METHODS):
        yield


def rows_of(shown):
    """The cells of a Markdown table, without its header."""
    lines = [line.strip("| ") for line in shown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


@pytest.mark.usefixtures("_tiny")
def test_rules_are_tried_on_validation_classes(tmp_path, capsys):
    arguments = [str(tmp_path), "glyphs", "N-pairs", "--seeds", "3"]
    tyro.cli(try_rules.main, args=[*arguments, "--rules", "control", "capped"])
    results = read_all(tmp_path / "records.db")
    shown = rows_of(capsys.readouterr().out)
    for rule, cells in zip(("control", "capped"), shown, strict=True):
        found = results.pop(f"glyphs-N-pairs-{rule}-3")
        assert (found["settings"]["method"], found["settings"]["seed"]) == (rule, 3)
        assert found["test"] == {}
        assert cells[:2] == [rule, f"{100 * found['val']['recall_at_1'][-1]:.2f}"]
    assert results == {}


@pytest.mark.usefixtures("_tiny")
def test_rules_are_compared_with_the_control_by_seed(tmp_path, capsys, monkeypatch):
    last = {
        "control": {0: (0.5, 0.2), 7: (0.6, 0.3)},
        "capped": {0: (0.55, 0.24), 7: (0.69, 0.32)},
    }

    def made_up(settings, folder, source):
        recall, precision = last[settings.method][settings.seed]
        maps = {"mean_average_precision_at_r": [0.0, precision]}
        return {"val": {"recall_at_1": [0.0, recall], **maps}}

    monkeypatch.setattr(try_rules, "run", made_up)
    arguments = [str(tmp_path), "glyphs", "Lifted", "--seeds", "0", "7", "--rules"]
    tyro.cli(try_rules.main, args=[*arguments, "control", "capped"])
    assert rows_of(capsys.readouterr().out) == [
        ["control", "55.00", "25.00", "+0.00", "+0.00", "+0.00, +0.00"],
        ["capped", "62.00", "28.00", "+7.00", "+3.00", "+4.00, +2.00"],
    ]
    tyro.cli(try_rules.main, args=[*arguments, "capped"])
    assert rows_of(capsys.readouterr().out) == [["capped", "62.00", "28.00"]]


def test_an_unknown_rule_is_named(tmp_path):
    arguments = [str(tmp_path), "glyphs", "N-pairs", "--rules", "control", "tall"]
    with pytest.raises(SystemExit, match=r"rules must be among control, .* got \['tall'\]"):
        tyro.cli(try_rules.main, args=arguments)


@pytest.mark.usefixtures("_tiny")
def test_gradients_are_looked_at_in_training(capsys):
    tyro.cli(measure_gradients.main, args=["glyphs"])
    rows = rows_of(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["0", "3"]
    assert {len(row) for row in rows} == {len(measure_gradients.HEADER)}
    for _, angle, *shares, synthetic, above in rows:
        assert 0 < float(angle.removesuffix("°")) < 180
        # Neither what pulls a pair together nor what goes across is longer than the push.
        assert all(-1 <= float(x) <= 1 for x in shares)
        # The one is rounded to tenths, the other to whole numbers.
        most = float(synthetic.removesuffix(" %")) + 0.5
        assert 0 <= float(above.removesuffix(" %")) <= most <= 100.5


def batch():
    x = torch.randn(16, 6, dtype=torch.float64, requires_grad=True)
    return x, torch.arange(8).repeat(2)


def n_pairs(rule, **kwargs):
    distance = DotProductSimilarity(normalize_embeddings=False)
    return SymmNPairsLoss(distance=distance, **try_rules.RULES[rule], **kwargs)


@pytest.mark.parametrize(("rule", "pairing"), [("Symm", "all"), ("control", "none")])
@pytest.mark.parametrize("name", ["N-pairs", "Lifted"])
def test_baselines_are_the_losses(name, rule, pairing):
    tried = try_rules.MAKE[name](**try_rules.RULES[rule])
    arguments = {"synthesizer": SymmSynthesizer(pairing=pairing)}
    if name == "N-pairs":
        tried.embedding_regularizer = None
        distance = DotProductSimilarity(normalize_embeddings=False)
        loss = SymmNPairsLoss(distance=distance, **arguments)
    else:
        loss = SymmLiftedStructureLoss(**arguments)
    x, labels = batch()
    values = tried(x, labels), loss(x, labels)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, x) for value in values))


@pytest.mark.parametrize("rule", ["gradient to the axis", "gradient by angle"])
def test_rules_of_the_gradient_change_nothing_else(rule):
    x, labels = batch()
    values = [n_pairs(name)(x, labels) for name in (rule, "Symm")]
    torch.testing.assert_close(*values)
    gradients = [torch.autograd.grad(value, x)[0] for value in values]
    assert not torch.allclose(*gradients)


def terms_of_two_classes(rule, x):
    """log(1 + exp(H(u, v) - a.p)) of the classes of every pair, in both orders."""
    loss = n_pairs(rule, reducer=DoNothingReducer())
    rows = [torch.tensor([u, v, u + 8, v + 8]) for u, v in combinations(range(8), 2)]
    found = [loss(x[pair], torch.tensor([0, 1, 0, 1])) for pair in rows]
    return torch.cat([terms["loss"]["losses"] for terms in found])


def test_capped_is_between():
    x, _ = batch()
    control, capped, symm = (
        terms_of_two_classes(rule, x) for rule in ("control", "capped", "Symm")
    )
    assert (control <= capped).all() and (capped <= symm).all()
    harder = capped > control
    easier_than_the_pair = capped < math.log(2)
    assert harder.any() and easier_than_the_pair[harder].all()


def test_credible_images_have_no_nearer_original_of_another_class():
    labels = torch.arange(8).repeat(2)
    x = torch.randn(8, 6).repeat(2, 1) + 0.5 * torch.randn(16, 6)
    pool = try_rules.Credible()(x, labels)
    kept = (pool.synthetic != x[pool.source]).any(dim=1)
    assert kept.any() and not kept.all()
    nearest = (pool.synthetic @ x.t()).argmax(dim=1)
    assert (labels[nearest] == pool.synthetic_labels)[kept].all()
    images = SymmSynthesizer()(x, labels).synthetic
    torch.testing.assert_close(pool.synthetic[kept], images[kept])


@pytest.mark.parametrize("pairing", ["none", "all"])
def test_descent_of_the_negatives(pairing):
    x, labels = batch()
    members = torch.stack([x[:8], x[8:]], dim=1).detach()
    descent, synthetic, above = negatives_descent(members, Synthesis(pairing=pairing))
    distance, synthesis = DotProduct(normalize=False), Synthesis(pairing=pairing)
    loss = n_pairs_loss(
        x, labels, distance=distance, synthesis=synthesis, reduction="none"
    ).losses
    attraction = -torch.expm1(-loss).view(-1, 1, 1) * members.flip(1)
    gradient = torch.autograd.grad(loss.sum(), x)[0]
    expected = -torch.stack([gradient[:8], gradient[8:]], dim=1) - attraction
    torch.testing.assert_close(descent, expected)
    assert above <= synthetic and (synthetic > 0) == (pairing == "all")
