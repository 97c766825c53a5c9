"""A hook of mkdocs: formulas become MathML when the site is built, so that pages need no script."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.S)


def on_page_content(html: str, **_: Any) -> str:
    def mathml(found: re.Match[str]) -> str:
        return convert(unescape(found[3]).strip(), display="block" if found[2] == "[" else "inline")

    return FORMULA.sub(mathml, html)
