"""python -m upstream, on a checkout that is built from the installed PML."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_metric_learning
from packaging.version import Version

from upstream.generate import TESTS, generate

pytestmark = pytest.mark.skipif(
    Version(pytorch_metric_learning.__version__) < Version("2.8"),
    reason="it is written for PML's next version",
)

CONTENTS = """## Library contents

### [Losses](https://example.org/losses)
| Name | Reference Papers |
|---|---|
| [**AngularLoss**](https://example.org) | paper
| [**TupletMarginLoss**](https://example.org) | paper

### [Miners](https://example.org/miners)
| Name | Reference Papers |
|---|---|
| [**AngularMiner**](https://example.org) |
"""
PAGE = "# Title\n\nText.\n\n## AngularLoss\n\nText.\n\n## TupletMarginLoss\n\nText.\n"
INIT = """import os

import torch

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


def checkout_of_installed(tmp_path):
    installed = Path(pytorch_metric_learning.__file__).parent
    shutil.copytree(
        installed,
        tmp_path / "src" / installed.name,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for folder in ("", *(x.name for x in TESTS.iterdir() if x.is_dir())):
        (tmp_path / "tests" / folder).mkdir()
        (tmp_path / "tests" / folder / "__init__.py").write_text("")
    (tmp_path / "tests" / "__init__.py").write_text(INIT)
    (tmp_path / "docs").mkdir()
    for page in ("losses", "miners"):
        (tmp_path / "docs" / f"{page}.md").write_text(PAGE)
    (tmp_path / "CONTENTS.md").write_text(CONTENTS)
    return tmp_path


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A checkout, and the files that were written there."""
    checkout = checkout_of_installed(tmp_path_factory.mktemp("checkout"))
    return checkout, generate(checkout)


def run(checkout, *arguments, path="src"):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env={"PYTHONPATH": path, "PATH": ""},
        capture_output=True,
        text=True,
    )


def contents(checkout):
    return {
        path.relative_to(checkout): path.read_text()
        for path in checkout.rglob("*")
        if path.is_file() and path.suffix in (".py", ".md")
    }


def test_its_tests_pass_there_and_again_is_the_same(generated):
    checkout, written = generated
    found = run(checkout, "-m", "unittest", "discover", "-t", ".", "-s", "tests")
    assert found.returncode == 0, found.stderr
    assert int(re.search(r"Ran (\d+) tests", found.stderr)[1]) >= 17
    first = contents(checkout)
    assert set(written) <= set(first)
    assert generate(checkout) == written
    assert contents(checkout) == first


def test_nothing_leads_back_to_this_package(generated):
    checkout, written = generated
    for path in written:
        if path.suffix == ".py":
            assert "pml_symm" not in (checkout / path).read_text(), path
    code = (
        "import sys; from pytorch_metric_learning import losses, miners;"
        "assert losses.SymmLoss and miners.SymmMiner;"
        "assert not any(x.startswith('pml_symm') for x in sys.modules)"
    )
    found = run(checkout, "-c", code)
    assert found.returncode == 0, found.stderr


def test_examples_in_its_docstrings_run(generated):
    checkout, _ = generated
    modules = [
        *(checkout / "src").rglob("symm_*.py"),
        checkout / "src/pytorch_metric_learning/utils/symm/functional.py",
    ]
    for path in modules:
        name = ".".join(path.relative_to(checkout / "src").with_suffix("").parts)
        code = f"import doctest, {name} as m; print(doctest.testmod(m))"
        found = run(checkout, "-c", code)
        assert "failed=0" in found.stdout, (name, found.stdout, found.stderr)
        assert "attempted=0" not in found.stdout, name


def test_documentation_is_in_its_place(generated):
    checkout, _ = generated
    page = (checkout / "docs" / "losses.md").read_text()
    titles = re.findall(r"^## (\w+)", page, re.M)
    assert titles == sorted(titles, key=str.lower)
    assert len(titles) == 2 + 5
    section = page.split("## SymmNPairsLoss")[1].split("\n## ")[0]
    assert "losses.SymmNPairsLoss(candidates='all', synthesizer=None" in section
    assert "* **hardness**: " in section and "[MeanReducer](" in section
    rows = re.findall(r"\[\*\*(\w+)\*\*\]", (checkout / "CONTENTS.md").read_text())
    assert rows == [
        *("AngularLoss", "SymmAngularLoss", "SymmLiftedStructureLoss", "SymmLoss"),
        *("SymmNPairsLoss", "SymmTripletMarginLoss", "TupletMarginLoss"),
        *("AngularMiner", "SymmMiner"),
    ]


def test_not_a_checkout(tmp_path):
    found = run(Path(__file__).parents[1], "-m", "upstream", str(tmp_path))
    assert found.returncode == 2
    assert "must be a checkout of pytorch-metric-learning 2.x" in found.stderr


def test_miner_alone(tmp_path):
    checkout = checkout_of_installed(tmp_path)
    before = contents(checkout)
    written = generate(checkout, only="miner")
    changed = contents(checkout)
    assert {x for x in changed if changed[x] != before.get(x)} == set(written)
    assert not any("loss" in str(path) for path in written)

    sources = [x for x in written if x.parts[0] == "src" and x not in before]
    assert sum(changed[x].count("\n") for x in sources) <= 300
    for path in (x for x in written if x.suffix == ".py"):
        assert not re.search("pml_symm|upstream|mypy|Symm[A-Z]\\w*Loss", changed[path]), (
            path
        )

    found = run(checkout, "-m", "unittest", "discover", "-t", ".", "-s", "tests")
    assert found.returncode == 0, found.stderr
    assert int(re.search(r"Ran (\d+) tests", found.stderr)[1]) == 7
    found = run(checkout, "-c", SAME_TUPLES, path=f"src:{Path(__file__).parents[1]}")
    assert found.stdout == "the same\n", found.stderr

    section = changed[Path("docs/miners.md")].split("## SymmMiner")[1]
    assert "utils.symm.SymmSynthesizer(alpha=2.0, beta=1.0, pairing='all')" in section
    assert "[**SymmMiner**]" in changed[Path("CONTENTS.md")]
    assert generate(checkout, only="miner") == written
    assert contents(checkout) == changed


def test_miner_alone_not_after_the_losses(generated):
    with pytest.raises(ValueError, match="only='miner' needs a checkout without"):
        generate(generated[0], only="miner")


def test_only_is_checked(tmp_path):
    with pytest.raises(ValueError, match="only must be 'miner', got 'losses'"):
        generate(tmp_path, only="losses")
    root = Path(__file__).parents[1]
    found = run(root, "-m", "upstream", str(tmp_path), "--only", "losses")
    assert found.returncode == 2
    assert "--only" in found.stderr
