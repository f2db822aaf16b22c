"""The script that tries rules for mirror images, compared with the library's losses."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning.distances import DotProductSimilarity

from pml_symm import SymmLiftedStructureLoss, SymmNPairsLoss, SymmSynthesizer

SCRIPT = Path(__file__).parents[2] / "docs/try_rules.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("try_rules", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["try_rules", "measure_gradients"])
def test_the_documented_command_starts(name):
    """Run as a file, the folder docs/benchmarks would hide the package."""
    command = f"python -m docs.{name} "
    assert command in (SCRIPT.parent / "mirror-images.md").read_text()
    arguments = [sys.executable, *command.split()[1:], "--help"]
    done = subprocess.run(arguments, cwd=SCRIPT.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "glyphs" in done.stdout


def batch():
    x = torch.randn(16, 6, dtype=torch.float64, requires_grad=True)
    return x, torch.arange(8).repeat(2)


@pytest.mark.parametrize(("rule", "pairing"), [("Symm", "all"), ("control", "none")])
@pytest.mark.parametrize("name", ["N-pairs", "Lifted"])
def test_baselines_are_the_losses(script, name, rule, pairing):
    synthesizer = SymmSynthesizer(pairing=pairing)
    if name == "N-pairs":
        distance = DotProductSimilarity(normalize_embeddings=False)
        tried = script.NPairs(script.RULES[rule], distance=distance)
        loss = SymmNPairsLoss(synthesizer=synthesizer, distance=distance)
    else:
        tried = script.Lifted(script.RULES[rule])
        loss = SymmLiftedStructureLoss(synthesizer=synthesizer)
    x, labels = batch()
    values = tried(x, labels), loss(x, labels)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, x) for value in values))


@pytest.mark.parametrize("rule", ["gradient to the axis", "gradient by angle"])
def test_rules_of_the_gradient_change_nothing_else(script, rule):
    x, labels = batch()
    distance = DotProductSimilarity(normalize_embeddings=False)
    values = [
        script.NPairs(script.RULES[name], distance=distance)(x, labels)
        for name in (rule, "Symm")
    ]
    torch.testing.assert_close(*values)
    gradients = [torch.autograd.grad(value, x)[0] for value in values]
    assert not torch.allclose(*gradients)


def test_capped_is_between(script):
    x, labels = batch()
    members = script.by_class(x, labels)
    control, capped, symm = (
        script.hardness(members, script.RULES[name], normalized=False)
        for name in ("control", "capped", "Symm")
    )
    assert (control <= capped).all() and (capped <= symm).all()
    positive = (members[:, 0] * members[:, 1]).sum(dim=1, keepdim=True)
    harder = capped > control
    assert harder.any() and (capped < positive)[harder].all()
