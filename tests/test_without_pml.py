"""The functional part needs no pytorch-metric-learning."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# As if it were not installed.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pytorch_metric_learning", "sklearn", "faiss"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
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


def test_functional_alone(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "works\n", found.stderr
