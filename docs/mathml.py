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
    """Puts MathML in the place of what pymdownx.arithmatex marked."""

    def run(self, text: str) -> str:
        return _FORMULA.sub(_mathml, text)


class MathML(Extension):
    """To be listed beside pymdownx.arithmatex with generic: true."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Run after everything that still fills in text."""
        md.postprocessors.register(_Formulas(md), "mathml", priority=-1)
