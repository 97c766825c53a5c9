"""Units of measurement that may stand behind a number. A word that is not in this list is part of the answer."""

from __future__ import annotations

import re

_NAMES = """
    mm cm dm km millimet(?:er|re)s? centimet(?:er|re)s? kilomet(?:er|re)s? met(?:er|re)s? in inch(?:es)? ft foot feet
    yd yards? mi miles? mg kg milligrams? kilograms? grams? tons? tonnes? lbs? pounds? oz ounces? ml mL liters? litres?
    milliliters? gallons? quarts? pints? ms sec secs seconds? min mins minutes? hrs? hours? days? weeks? months? years?
    mph kmh kph Hz hertz volts? watts? amperes? ohms? joules? newtons? pascals? kelvins? celsius fahrenheit
    units? degrees? radians? rad deg cents? dollars? euros? rupees? yuan yen
"""
_WORDS = re.sub(r"\s+", "|", _NAMES.strip())
_LETTERS = "m|g|s|h|L|l|N|J|W|V|A|K|C"  # only in a text box: a bare letter is a variable
_SHAPE = r"(?:(?:square|cubic|sq|cu)\.? )?"
_POWER = r"(?: ?\^ ?\{?[-+]?\d\}?)?"
_ONE = rf"(?:{_SHAPE}(?:{_WORDS}){_POWER})"
_BOXED = re.compile(rf"(?<=[\d}})/])\s*\\(?:text|textrm|mathrm)\s*\{{\s*({_LETTERS})(?:\s*/\s*({_LETTERS}))?\s*\}}")
_MARKED = rf"(?:unit-(?:{_LETTERS}){_POWER})"
_ANY = rf"(?:{_ONE}|{_MARKED})"
_FURTHER = rf"(?: ?(?:(?:/|per|\\cdot)? ?{_ANY}|/ ?(?:{_LETTERS}){_POWER}))*"
_UNIT = re.compile(rf"(.*(?:[\d}})]|\\pi))\s*((?<![a-zA-Z])(?:{_ANY}){_FURTHER})\.?", re.DOTALL)
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)")


def marked(text: str) -> str:
    """A one-letter unit in a text box is marked, so that it is told from a variable once the boxes are gone."""
    return _BOXED.sub(lambda found: "/".join(f" unit-{letter} " for letter in found.groups() if letter), text)


def without_unit(text: str) -> tuple[str, str]:
    """An answer without the unit behind it, and the unit in the singular ("" if there is none)."""
    found = _UNIT.fullmatch(text)
    if not found:
        return text, ""
    unit = re.sub(r"[\s{}.]+", "", found[2]).replace("unit-", "")
    return found[1].strip(), unit if len(unit) < 3 else unit.lower().removesuffix("s")


def without_degrees(text: str) -> str:
    """`90^\\circ` as 90, which is how most answers are written."""
    return _DEGREES.sub("", text).strip()
