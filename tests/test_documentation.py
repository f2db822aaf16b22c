"""The documentation's examples run, and its pages show every committed table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_metric_learning.losses import ContrastiveLoss

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


def code_blocks(page):
    """The Python blocks of a page, with included files inserted."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    return [
        re.sub(r'--8<-- "(.*)"', lambda m: (ROOT / "docs" / m[1]).read_text(), block)
        for block in blocks
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_blocks(page)], ids=lambda page: page.name
)
def test_the_blocks_of_a_page_run_from_top_to_bottom(page):
    names = {"__name__": page.stem}
    if page.stem == "mathematics":  # its code uses these names without defining them
        names |= {
            "embeddings": torch.randn(8, 4),
            "labels": torch.arange(8) // 2,
            "loss_func": ContrastiveLoss(),
        }
    for number, block in enumerate(code_blocks(page), start=1):
        if "import lightning" in block:
            pytest.importorskip("lightning")
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    if "loss" in names:
        assert torch.isfinite(names["loss"])
    if "accuracy" in names:
        assert 0 <= names["accuracy"]["recall_at_1"] <= 1


def test_plain_torch_runs_without_pml():
    blocks = code_blocks(ROOT / "docs" / "plain-torch.md")
    plain = [block for block in blocks if "pytorch_metric_learning" not in block]
    assert len(plain) > 2
    program = "import sys; sys.modules['pytorch_metric_learning'] = None\n"
    found = subprocess.run(
        [sys.executable, "-c", program + "".join(plain)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_trains(path):
    assert len(path.read_text().splitlines()) < 40
    found = subprocess.run(
        [sys.executable, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    values = [float(x) for x in re.findall(r"step \d+: ([\d.]+)", found.stdout)]
    assert len(values) == 5
    assert values[-1] < values[0]


def test_every_page_is_in_the_site():
    configuration = yaml.safe_load(
        # Remove Material's tags, which safe_load does not know.
        re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text())
    )
    text = yaml.safe_dump(configuration["nav"])
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages == set(re.findall(r"[\w-]+\.md", text))


def included_tables(page):
    """The paths of the tables that a page includes."""
    return re.findall(r'^--8<-- "(\S+\.md)"$', page.read_text(), re.M)


def test_every_committed_table_is_shown_and_linked():
    shown = [(page, path) for page in PAGES for path in included_tables(page)]
    tables = {str(x.relative_to(ROOT / "docs")) for x in (ROOT / "docs").glob("*/**/*.md")}
    assert {path for _, path in shown} == tables
    for page, path in shown:  # a forge's view of a page has no included files
        assert f"[Table]({path})" in page.read_text()
        values = path.replace(".md", ".csv")
        if (ROOT / "docs" / values).exists():
            assert f"[CSV]({values})" in page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
