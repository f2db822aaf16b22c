"""The functional part needs no pytorch-metric-learning, and losses and miner no faiss."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# As if the packages were not installed.
WITHOUT = """
import sys
sys.path.insert(0, sys.argv[1])

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[2:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""
FUNCTIONAL = """
import torch
import pml_symm
from pml_symm.functional import *

x = torch.randn(8, 4, requires_grad=True)
labels = torch.arange(4).repeat(2)
for loss in (n_pairs_loss, triplet_margin_loss, lifted_structure_loss, angular_loss):
    for hardness in ("hardest", 2, "semihard", lambda candidates: candidates.score):
        loss(x, labels, hardness=hardness).backward()
assert x.grad.isfinite().all() and x.grad.any()
a1, p, a2, n = mine(x, labels, index_space="pool")
pool = synthesize(x, labels)
assert (pool.labels[n] != labels[a2]).all()
assert torch.equal(reflect(x[pool.source], x[pool.axis]), pool.synthetic)
assert "pytorch_metric_learning" not in sys.modules
assert set(pml_symm.__all__) <= set(dir(pml_symm))
for name in set(pml_symm.__all__) - {"functional", "SyntheticBatch"}:
    try:
        getattr(pml_symm, name)
    except ImportError as error:
        assert "pytorch_metric_learning" in str(error), error
    else:
        raise AssertionError(name)
try:
    pml_symm.Missing
except AttributeError as error:
    assert "Missing" in str(error)
print("works")
"""
A_STEP = """
import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss, TripletMarginLoss
import pml_symm

model, labels = torch.nn.Linear(6, 4), torch.arange(4).repeat(2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
names = "SymmNPairsLoss SymmTripletMarginLoss SymmLiftedStructureLoss SymmAngularLoss"
losses = [getattr(pml_symm, name)() for name in names.split()]
losses.append(pml_symm.SymmLoss(MultiSimilarityLoss()))
miner, mined = pml_symm.SymmMiner(), TripletMarginLoss()
losses.append(lambda x, y: mined(x, y, miner(x, y)))
for loss in losses:
    before = model.weight.detach().clone()
    optimizer.zero_grad()
    loss(model(torch.randn(8, 6)), labels).backward()
    optimizer.step()
    assert model.weight.isfinite().all() and (model.weight != before).any()
assert "faiss" not in sys.modules
print("works")
"""


@pytest.mark.parametrize(
    ("program", "refused"),
    [
        (FUNCTIONAL, ("pytorch_metric_learning", "sklearn", "faiss")),
        (A_STEP, ("faiss",)),
    ],
    ids=["functional", "a step"],
)
def test_it_works_without(program, refused, tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT + program, str(ROOT), *refused],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "works\n", found.stderr
