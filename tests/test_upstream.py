"""python -m upstream, on a checkout made of the installed PML."""

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
    reason="PML's next version is what it is written for",
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


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A checkout, and what was written there."""
    tmp_path = tmp_path_factory.mktemp("checkout")
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
    return tmp_path, generate(tmp_path)


def run(checkout, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env={"PYTHONPATH": "src", "PATH": ""},
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
