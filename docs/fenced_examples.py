"""An extension of griffe: examples in docstrings (`>>> …`) become blocks of code in the reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*\n(?:.+\n)*", flags=re.M)  # up to the next empty line


class FencedExamples(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = f"{obj.docstring.value}\n"
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}```\n", text)
