"""The scripts that try rules for mirror images and look at their gradients."""

import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.reducers import DoNothingReducer

from benchmarks.experiments import try_rules
from benchmarks.experiments.measure_gradients import negatives_descent
from pml_symm import SymmLiftedStructureLoss, SymmNPairsLoss, SymmSynthesizer
from pml_symm.functional import DotProduct, Synthesis, n_pairs_loss

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["try_rules", "measure_gradients"])
def test_the_documented_command_starts(name):
    command = f"python -m benchmarks.experiments.{name} "
    assert command in (ROOT / "docs/mirror-images.md").read_text()
    arguments = [sys.executable, *command.split()[1:], "--help"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "glyphs" in done.stdout


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
