"""The documentation's site builds, with its formulas and tables; run by make docs."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("latex2mathml", "material", "mkdocs", "mkdocstrings"):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    found = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return folder


def formulas(page):
    """The formulas of a page, except in code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return re.findall(r"\$\$.+?\$\$|\$[^$]+\$", re.sub(r"`[^`]*`", "", text), re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_formula_is_mathml(page, site):
    shown = (site / f"{page.stem}.html").read_text()
    assert shown.count("<math ") == shown.count("</math>") == len(formulas(page))
    assert "arithmatex" not in shown


def test_formulas_are_found():
    count = {page.stem: len(formulas(page)) for page in PAGES}
    assert count["mathematics"] > 50
    assert count["faq"] == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_table_is_the_one_that_the_benchmark_wrote(page, site):
    shown = html.unescape(re.sub(r"<[^>]+>", "", (site / f"{page.stem}.html").read_text()))
    cells = set(map(str.strip, shown.splitlines()))
    for path in re.findall(r'^--8<-- "(\S+\.md)"$', page.read_text(), re.M):
        for row in (ROOT / "docs" / path).read_text().splitlines():
            if row.startswith("| ") and not row.startswith("| ---"):
                assert {cell.strip() for cell in row.strip("|").split("|")} <= cells
