"""Beside other versions of PML the functional part works, and the classes say why not.

None of PML's modules is imported.
"""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pml_symm.pml_version import check_pml_version

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("version", ["3.0.1", "3.0.0rc1", "1.7.3"])
def test_import_beside_another_version(version, tmp_path):
    (tmp_path / "pytorch_metric_learning").mkdir()
    broken = tmp_path / "pytorch_metric_learning" / "__init__.py"
    broken.write_text("raise AssertionError('imported')")
    information = tmp_path / f"pytorch_metric_learning-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: pytorch-metric-learning\nVersion: {version}\n"
    )
    program = f"""
import sys
sys.path[:0] = {[str(tmp_path), str(ROOT)]}
import torch
import pml_symm
print(pml_symm.functional.n_pairs_loss(torch.eye(4), torch.tensor([0, 0, 1, 1])))
for name in set(pml_symm.__all__) - {{"functional", "SyntheticBatch"}}:
    try:
        getattr(pml_symm, name)
    except ImportError as error:
        print(error)
    else:
        raise AssertionError(name)
from pml_symm import SymmMiner
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 1
    *_, error = found.stderr.strip().splitlines()
    assert error.startswith("ImportError: pml-symm needs pytorch-metric-learning 2 ")
    assert f"but {version} is installed" in error
    assert 'pip install "pytorch-metric-learning>=2.0,<3"' in error
    assert "AssertionError" not in found.stderr
    value, *errors = found.stdout.splitlines()
    assert value.startswith("tensor(")
    assert len(errors) == 8
    assert {f"ImportError: {x}" for x in errors} == {error}


def test_this_version():
    check_pml_version()
    assert metadata.version("pytorch-metric-learning").startswith("2.")


def test_a_checkout_on_the_path(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    check_pml_version()
