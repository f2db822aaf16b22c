"""A Python-Markdown extension: formulas as MathML, which browsers show without a script."""

import html
import re

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.postprocessors import Postprocessor

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL
)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[2] == "[" else "inline"
    return convert(html.unescape(found[3]), display=display)


class _Formulas(Postprocessor):
    """Replaces formulas that pymdownx.arithmatex marked by MathML."""

    def run(self, text: str) -> str:
        return _FORMULA.sub(_mathml, text)


class MathML(Extension):
    """Use together with pymdownx.arithmatex, with its option generic: true."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Run after all other postprocessors that insert text."""
        md.postprocessors.register(_Formulas(md), "mathml", priority=-1)
