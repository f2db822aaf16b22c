"""The wheel: its contents, and that it works outside the repository."""

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import pml_symm

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # Build in a copy: setuptools writes to the tree, and other tests may build too.
    tree = shutil.copytree(
        ROOT,
        tmp_path_factory.mktemp("wheel") / "tree",
        ignore=shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "runs"),
    )
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation"],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (path,) = (tree / "dist").glob("*.whl")
    return path


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {
        "pml_symm"
    }
    shipped = {name for name in names if name.startswith("pml_symm/")}
    written = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pml_symm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == written
    assert "pml_symm/py.typed" in shipped
    assert any(name.endswith("LICENSE") for name in names)


def test_the_wheel_works_without_the_repository(wheel, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        + ["--target", tmp_path / "site", wheel],
        check=True,
    )
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import pml_symm, torch;"
        "assert pml_symm.__file__.startswith(sys.argv[1]);"
        "print(pml_symm.SymmNPairsLoss()(torch.eye(4), torch.tensor([0, 0, 1, 1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "site")],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("tensor(")


@pytest.mark.slow
def test_the_first_example_runs_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"

    def run(*arguments):
        return subprocess.run(
            [python, "-I", *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    # The dependencies are those of this environment. Its pml_symm is not visible: Python
    # does not read the .pth file of an editable install in a folder that a .pth file names.
    site = Path(run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    assert run("-c", "import pml_symm; print(pml_symm.__file__)").startswith(str(site))
    example = re.search(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S
    )
    assert float(run("-c", f"{example[1]}\nprint(loss.item())")) > 0


def test_the_lowest_versions_are_those_that_are_tested():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = re.findall(
        r"^([\w-]+)==(\S+)$", (ROOT / "constraints-min.txt").read_text(), re.M
    )
    lowest = {
        requirement.name: specifier.version
        for requirement in map(
            Requirement, project["dependencies"] + extras["cpu"] + extras["benchmarks"]
        )
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }
    # The benchmarks, which make test-min leaves out, need a later PML than the library.
    lowest |= {"pytorch-metric-learning": "2.0.0"}
    assert project["dependencies"][1].startswith("pytorch-metric-learning>=2.0.0,")
    for name, version in pins:
        assert lowest[name] == version


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pml_symm.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d.*?)\] - (\S+)$", changes, re.M)
    assert released[0] == (pml_symm.__version__, str(citation["date-released"]))
