"""The miner for PML, in a checkout that is built from the installed PML."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_metric_learning
from packaging.version import Version

ROOT = Path(__file__).parents[1]
UPSTREAM = ROOT / "upstream"

pytestmark = pytest.mark.skipif(
    Version(pytorch_metric_learning.__version__) < Version("2.8"),
    reason="it is written for PML's last versions 2",
)

TESTS_INIT = """import torch

TEST_DTYPES = [torch.float32, torch.float64]
TEST_DEVICE = torch.device("cpu")
"""

SAME_TUPLES = """
import itertools
import pml_symm
import torch
from pytorch_metric_learning.miners import SymmMiner

def sets(mined):
    groups = [mined] if len(mined) == 3 else [mined[:2], mined[2:]]
    found = [set(zip(*(x.tolist() for x in group))) for group in groups]
    assert [len(x) for x in found] == [len(group[0]) for group in groups]
    return found

assert not issubclass(SymmMiner, pml_symm.SymmMiner)
torch.manual_seed(0)
for size in (0, 1, 9, 30, 30):
    labels = torch.randint(0, 6, (size,))
    embeddings = torch.randn(size, 5, dtype=torch.float64)
    for reference in ((), (torch.randn(20, 5).double(), torch.randint(0, 8, (20,)))):
        for arguments in itertools.product(
            ("hardest", 2, "semihard"), (None,), ("batch", "pool")
        ):
            small, whole = SymmMiner(*arguments), pml_symm.SymmMiner(*arguments)
            assert sets(small(embeddings, labels, *reference)) == sets(
                whole(embeddings, labels, *reference)
            ), (size, arguments)
print("the same")
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout of PML with the miner, made as docs/upstream.md says."""
    folder = tmp_path_factory.mktemp("checkout")
    installed = Path(pytorch_metric_learning.__file__).parent
    source = folder / "src" / installed.name
    shutil.copytree(installed, source, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("src", "tests"):
        shutil.copytree(UPSTREAM / part, folder / part, dirs_exist_ok=True)
    for tests in ("tests", "tests/miners", "tests/utils"):
        (folder / tests / "__init__.py").write_text(TESTS_INIT if tests == "tests" else "")
    with (source / "miners" / "__init__.py").open("a") as exports:
        exports.write("from .symm_miner import SymmMiner\n")
    return folder


def run(checkout, *arguments, path="src"):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env={"PYTHONPATH": path, "PATH": ""},
        capture_output=True,
        text=True,
    )


def test_its_tests_pass_there(checkout):
    found = run(checkout, "-m", "unittest", "discover", "-t", ".", "-s", "tests")
    assert found.returncode == 0, found.stderr
    assert int(re.search(r"Ran (\d+) tests", found.stderr)[1]) == 7


def test_it_mines_the_tuples_of_this_package(checkout):
    found = run(checkout, "-c", SAME_TUPLES, path=f"src:{ROOT}")
    assert found.stdout == "the same\n", found.stderr


def test_it_is_small_and_leads_nowhere_else():
    modules = [path.read_text() for path in (UPSTREAM / "src").rglob("*.py")]
    assert 0 < sum(text.count("\n") for text in modules) <= 300
    for path in UPSTREAM.rglob("*.py"):
        assert not re.search(r"pml_symm|mypy|Symm[A-Z]\w*Loss", path.read_text()), path
