"""The documentation's examples run, and its figures are those of the committed runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code_blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


def test_the_examples_of_the_readme_run():
    blocks = code_blocks(ROOT / "README.md")
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["embeddings"].grad.abs().sum() > 0
    assert set(names["accuracy"]) == {"recall_at_1", "F1"}


def test_the_miner_and_pool_example_of_the_mathematics_page_runs():
    import torch
    from pytorch_metric_learning.losses import ContrastiveLoss

    (block,) = code_blocks(ROOT / "docs" / "mathematics.md")
    names = {
        "embeddings": torch.randn(8, 4),
        "labels": torch.arange(8) // 2,
        "loss_func": ContrastiveLoss(),
    }
    exec(block, names)
    assert names["loss"] > 0


def tables(page):
    """The path of each table's file, and what the page shows."""
    return re.findall(
        r"<!-- table: (\S+) -->\n(.*?)<!-- end of table -->", page.read_text(), re.S
    )


@pytest.mark.parametrize(
    ("page", "path", "shown"),
    [(page, path, shown) for page in PAGES for path, shown in tables(page)],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else value.name,
)
def test_the_table_is_the_one_that_the_benchmark_wrote(page, path, shown):
    assert shown.strip() == (page.parent / path).read_text().strip()


def test_every_committed_table_is_shown():
    shown = {(page.parent / path).resolve() for page in PAGES for path, _ in tables(page)}
    committed = set((ROOT / "docs").rglob("table.md")) | {ROOT / "docs/speed/speed.md"}
    assert shown == {path.resolve() for path in committed}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
