"""Sections and rows for PML's documentation, from the docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pml_symm

TITLE = "Symmetrical Synthesis for Deep Metric Learning"
PAPER = "https://arxiv.org/pdf/2001.11658.pdf"
SITE = "https://kevinmusgrave.github.io/pytorch-metric-learning"


def write(
    checkout: Path, classes: Mapping[str, str], helpers: Mapping[str, str]
) -> list[Path]:
    """Write a section for each class, and a row of CONTENTS.md.

    Args:
        checkout: folder of a checkout of PML.
        classes: name -> "losses" or "miners".
        helpers: name -> a class of utils.symm to describe at the end of its section.

    Returns:
        The files that were changed.
    """
    contents = checkout / "CONTENTS.md"
    for name, package in classes.items():
        page = checkout / "docs" / f"{package}.md"
        text = section(name, package)
        if name in helpers:
            text += "\n#" + section(helpers[name], "utils.symm")
        page.write_text(
            _with_section(page.read_text(encoding="utf-8"), name, text), encoding="utf-8"
        )
        contents.write_text(
            _with_row(contents.read_text(encoding="utf-8"), name, package), encoding="utf-8"
        )
    return [
        contents,
        *(checkout / "docs" / f"{x}.md" for x in sorted(set(classes.values()))),
    ]


def section(name: str, package: str) -> str:
    """A class's section, in the form of PML's sections.

    >>> print(section("SymmMiner", "miners").splitlines()[0])
    ## SymmMiner
    """
    kind = getattr(pml_symm, name)
    documentation = inspect.getdoc(kind) or ""
    text, _, rest = documentation.partition("\nArgs:\n")
    arguments, _, _ = rest.partition("\nRaises:\n")
    default = re.search(r"Default distance: (.*?)(?:\n\n|\. |$)", rest, re.S)
    reducer = re.search(r"Default\s+reducer: (\w+)", rest)
    # Formulas are indented in docstrings: keep that, so that Markdown keeps their lines.
    text = re.sub(r"^    (.*)$", r"    \1", text, flags=re.M)
    parts = [
        f"## {name}",
        f"[{TITLE}]({PAPER}){{target=_blank}}",
        f"```python\n{package}.{name}({_signature(kind)})\n```",
        text.strip(),
        "**Parameters**:",
        "\n".join(_parameters(arguments)),
    ]
    if default is not None:
        distance = " ".join(default[1].split()).rstrip(".")
        parts += [
            "**Default distance**:",
            f" - [```{distance}```](distances.md#lpdistance)",
        ]
    if reducer is not None:
        anchor = reducer[1].lower()
        parts += ["**Default reducer**:", f" - [{reducer[1]}](reducers.md#{anchor})"]
    return "\n\n".join(parts) + "\n"


def _signature(kind: type) -> str:
    """The class's own arguments in order, and **kwargs for those of PML's class."""
    parameters: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if not base.__module__.startswith("pml_symm") or "__init__" not in vars(base):
            continue
        for parameter in list(
            inspect.signature(vars(base)["__init__"]).parameters.values()
        )[1:]:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                parameters.setdefault(parameter.name, parameter)
    shown = [
        x.name if x.default is x.empty else f"{x.name}={x.default!r}"
        for x in parameters.values()
    ]
    takes_more = kind.__name__ not in ("SymmLoss", "SymmSynthesizer")
    return ", ".join([*shown, "**kwargs"] if takes_more else shown)


def _parameters(arguments: str) -> list[str]:
    found = re.findall(r"^([\w*, ]+): (.*(?:\n {4,}.*)*)", textwrap.dedent(arguments), re.M)
    return [f"* **{name.lstrip('*')}**: {' '.join(text.split())}" for name, text in found]


def _with_section(page: str, name: str, text: str) -> str:
    head, *sections = re.split(r"^(?=## )", page, flags=re.M)
    titles = [re.match(r"## (\S+)", x) for x in sections]
    kept = [
        (title[1], x)
        for title, x in zip(titles, sections, strict=True)
        if title is not None and title[1] != name
    ]
    place = next(
        (i for i, (title, _) in enumerate(kept) if title.lower() > name.lower()), len(kept)
    )
    kept.insert(place, (name, text + "\n"))
    return head + "".join(x for _, x in kept)


def _with_row(contents: str, name: str, package: str) -> str:
    row = f"| [**{name}**]({SITE}/{package}/#{name.lower()}) | [{TITLE}]({PAPER})"
    lines = [x for x in contents.splitlines() if f"[**{name}**]" not in x]
    start = next(i for i, x in enumerate(lines) if x.startswith(f"### [{package.title()}]"))
    place = start + 3  # after the title and the table's header
    for line in lines[place:]:
        found = re.match(r"\| \[\*\*(\w+)\*\*\]", line)
        if found is None or found[1].lower() > name.lower():
            break
        place += 1
    lines.insert(place, row)
    return "\n".join(lines) + "\n"
