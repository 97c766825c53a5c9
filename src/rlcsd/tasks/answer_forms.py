"""Plain-text forms of an answer that a model typeset in LaTeX or Markdown.

The scorers of reasoning-gym read plain text: `2 × 433`, a grid with one row a line, `x**2/2 + C`. Models write
`2 \\times 433`, rows joined by `\\\\`, `\\frac{x^2}{2}`, `**42**.`. `answer_forms` lists the ways in which such an
answer may have been meant, for a scorer that takes the best. Every form is another notation of the same content:
nothing but markup, escapes, separators and a final stop is removed, so a wrong answer stays wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Beyond these, a text is no answer that somebody typeset. They bound the time for whatever a model writes.
_MOST_CHARACTERS, _MOST_LAYERS, _MOST_COMMANDS = 10_000, 6, 100
_FENCE = re.compile(r"```[\w+-]*\n(.*?)\n?```", re.DOTALL)
_PAIRS = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"),
    ("``", "``"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("{", "}"),
)  # fmt: skip
_EMPHASIS = ("**", "__", "*", "_")
_MARKUP = ("$$", "$", r"\(", r"\[", "**", "``", "`")
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|tt|rm|sf|sc|up|normal|md)?|math(?:bf|it|tt|rm|sf|bb|cal|frak|ord|normal)?|boldsymbol|bm|emph|"
    r"mbox|hbox|fbox|boxed|operatorname\*?|underline|overline|displaystyle|textstyle|ensuremath|verb)\s*\{"
)
_COLOUR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}\s*")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}(?:\s*\{[lcr|@{}\s]*\})?(?:\[[tbc]\])?")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?=[\d{\\\w])")
_ROOT = re.compile(r"\\sqrt\s*(?:\[([^\[\]]*)\])?\s*(?=[\d{\\\w])")
_SIZE = re.compile(
    r"\\(?:left|right|middle|[Bb]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|hline|centering|small"
    r"|large|Large|normalsize|bf|it|tt|rm)(?![A-Za-z])\s?\.?"
)
_GROUPING = re.compile(r"(?<=\d)(?:\{,\}|\\[,!:; ]|\{\\,\}|~|,\\!)(?=\d{3}(?!\d))")
_SPACE = re.compile(r"\\(?:[,;:> ]|q?quad(?![A-Za-z])|hspace\*?\{[^{}]*\}|hphantom\{[^{}]*\}|phantom\{[^{}]*\})|~")
_ROW_END = re.compile(
    r"[ \t]*\\\\(?:\[[^\[\]]*\])?[ \t]*\n?|[ \t]*\\(?:newline|cr|tabularnewline)(?![A-Za-z])[ \t]*\n?|<br ?/?>\n?"
)
_ESCAPED = re.compile(r"\\([_%#&${}|\"'*`\[\]()<>+.-])")
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?")

_SIGNS = {
    "times": "×", "cdot": "·", "ast": "*", "star": "*", "div": "÷", "pm": "±", "mp": "∓", "slash": "/", "mid": "|",
    "lor": "∨", "vee": "∨", "land": "∧", "wedge": "∧", "lnot": "¬", "neg": "¬", "oplus": "⊕", "top": "⊤", "bot": "⊥",
    "to": "→", "rightarrow": "→", "longrightarrow": "→", "Rightarrow": "→", "implies": "→", "supset": "→",
    "longmapsto": "→", "mapsto": "→", "leftarrow": "←", "gets": "←", "uparrow": "↑", "downarrow": "↓",
    "leftrightarrow": "↔", "Leftrightarrow": "↔", "iff": "↔", "equiv": "↔",
    "lt": "<", "gt": ">", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈",
    "degree": "°", "circ": "°", "percent": "%", "colon": ":", "vert": "|", "lvert": "|", "rvert": "|",
    "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "textbackslash": "\\", "backslash": "\\",
    "textunderscore": "_", "textasciitilde": "~", "textasciicircum": "^", "textquotesingle": "'", "textquotedbl": '"',
    "textless": "<", "textgreater": ">", "textendash": "–", "ldots": "...", "dots": "...", "cdots": "...",
    "checkmark": "✓", "infty": "oo", "pi": "pi", "ln": "log",
}  # fmt: skip
_ASCII = str.maketrans(
    {"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-", "→": "->", "←": "<-", "↔": "<->", "≤": "<=", "≥": ">=",
     "≠": "!=", "’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " "}
)  # fmt: skip
_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth")
_FUNCTIONS = frozenset(
    (*_TRIGONOMETRIC, *(f"a{name}" for name in _TRIGONOMETRIC), "exp", "log", "sqrt", "Abs", "gamma", "factorial")
)
_ARC = re.compile(rf"\barc(?=(?:{'|'.join(_TRIGONOMETRIC)})\b)")
_FUNCTION_POWER = re.compile(rf"\b({'|'.join(_FUNCTIONS)})\*\*\(?(\d+)\)?\s*\*?\s*\(")
_TOKEN = re.compile(r"\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|[A-Za-z]+|\*\*|.", re.DOTALL)


def answer_forms(answer: str) -> list[str]:
    """The answer as it is, then its plain-text forms, each once.

    They are the content of the markup around it; that without a final full stop; either with LaTeX commands written as
    Unicode signs and as ASCII; as an expression in Python's notation; as a number without its thousands separators;
    and rows without Markdown's marks of lists and tables.
    """
    if len(answer) > _MOST_CHARACTERS:
        return [answer]
    forms = dict.fromkeys([answer])
    for layer in _layers(answer):
        for text in dict.fromkeys((layer, *_layers(_without_stop(layer)))):
            plain = _plain(text)
            for written in dict.fromkeys((text, plain, _without_stop(plain))):
                forms[written] = None
            for change in (_ascii, _times, _logic, _expression, _number, _rows):
                forms[change(_without_stop(plain))] = None
    return [form for form in forms if form]


# ------------------------------------------------------------------ enclosing markup


def _layers(text: str) -> Iterator[str]:
    """What an answer may be once the markup around it is taken off: the whole text, or what is inside.

    LaTeX's and Markdown's own marks always go. Braces, quotes, `*` and `_` may belong to the answer (`{"a": 1}`), so
    that both readings count.
    """
    text = text.strip()
    for _ in range(_MOST_LAYERS):
        inner, certain = _inner(text)
        inner = inner.strip()
        if inner in ("", text):
            break
        if not certain:
            yield text
        text = inner
    yield text


def _inner(text: str) -> tuple[str, bool]:
    """The text without one layer of markup, and whether that was surely markup."""
    fenced = _FENCE.fullmatch(text)
    if fenced:
        return fenced[1], True
    colour = _COLOUR.match(text)
    if colour:
        rest = text[colour.end() :]
        return (rest[1:-1] if rest[:1] == "{" and _closing(rest, 0) == len(rest) - 1 else rest), True
    wrapper = _WRAPPER.match(text)
    if wrapper and _closing(text, wrapper.end() - 1) == len(text) - 1:
        return text[wrapper.end() : -1], True
    for opening, closing in _PAIRS:
        inner = text[len(opening) : -len(closing)]
        if len(text) <= len(opening + closing) or not (text.startswith(opening) and text.endswith(closing)):
            continue
        if (opening == "{" and _closing(text, 0) < len(text) - 1) or (opening in _EMPHASIS and inner != inner.strip()):
            continue
        return inner, opening in _MARKUP and closing not in inner
    return text, True


def _closing(text: str, opening: int, pair: str = "{}") -> int:
    """The index of the brace that closes the one at `opening`; the length of the text if there is none."""
    depth, index = 0, opening
    while index < len(text):
        if text[index] == "\\":
            index += 2
            continue
        depth += (text[index] == pair[0]) - (text[index] == pair[1])
        if depth == 0:
            return index
        index += 1
    return len(text)


def _without_stop(text: str) -> str:
    """The text without a punctuation mark at its end."""
    return re.sub(r"(?<=\S)\s*[.,;:。]$", "", text.strip())


# ------------------------------------------------------------------ LaTeX


def _plain(text: str) -> str:
    """LaTeX as text: wrappers and sizes gone, rows as lines, cells apart by a space, commands as Unicode signs."""
    text = _GROUPING.sub("", text)
    if "\\" not in text and "~" not in text and "$" not in text and "<br" not in text:
        return text
    if "\\begin" in text:
        text = re.sub(r"\s*(?<!\\)&\s*", " ", _ENVIRONMENT.sub("", text).replace("\\hline", ""))
    text = _SIZE.sub("", _COLOUR.sub("", text))
    text = _ROW_END.sub("\n", text)
    text = _SPACE.sub(" ", text).replace("\\!", "")
    for _ in range(_MOST_COMMANDS):
        if (wrapper := _WRAPPER.search(text)) is None:
            break
        end = _closing(text, wrapper.end() - 1)
        text = text[: wrapper.start()] + text[wrapper.end() : end] + text[end + 1 :]
    text = _with_arguments(_with_arguments(text, _FRACTION, 2), _ROOT, 1)
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))", "°", text)
    text = _COMMAND.sub(_sign, text)
    text = re.sub(r"(?<!\\)\$", "", text)
    text = _ESCAPED.sub(r"\1", text)
    return re.sub(r"[ \t]+(?=\n)|(?<=\n)[ \t]+", "", text).strip()


def _sign(command: re.Match[str]) -> str:
    return _SIGNS.get(command[1], command[1])


def _with_arguments(text: str, command: re.Pattern[str], count: int) -> str:
    """`\\frac{a}{b}` as a/b and `\\sqrt{a}` as sqrt(a), from the inside out; arguments may be single characters."""
    for match in reversed(list(command.finditer(text))[:_MOST_COMMANDS]):  # inner ones begin after outer ones
        arguments, end = [], match.end()
        for _ in range(count):
            argument, end = _argument(text, end)
            arguments.append(argument.strip())
        if count == 2:
            made = "/".join(part if re.fullmatch(r"\w+", part) else f"({part})" for part in arguments)
            before, after = text[: match.start()].rstrip()[-1:], text[end:].lstrip()[:1]
            if before.isalnum() or before in ("/", "^", ")") or after == "^":
                made = f"({made})"
        else:
            made = f"({arguments[0]})**(1/{match[1]})" if match[1] else f"sqrt({arguments[0]})"
        text = text[: match.start()] + made + text[end:]
    return text


def _argument(text: str, start: int) -> tuple[str, int]:
    """The argument of a command that begins at `start`, without its braces, and the index behind it."""
    while start < len(text) and text[start] == " ":
        start += 1
    if text[start : start + 1] == "{":
        end = _closing(text, start)
        return text[start + 1 : end], end + 1
    command = _COMMAND.match(text, start)
    end = command.end() if command else start + 1
    return text[start:end], end


# ------------------------------------------------------------------ one text, several notations


def _ascii(text: str) -> str:
    return text.translate(_ASCII)


def _times(text: str) -> str:
    """Products with the sign that Python does not read and some answers are written in."""
    return re.sub(r"\s*[*·⋅](?!\*)\s*", " × ", text) if re.fullmatch(r"[\d\s*·⋅×]+", text) else text


def _logic(text: str) -> str:
    """Formulas with single letters and logical signs, without LaTeX's braces."""
    text = re.sub(r"[{\[]", "(", re.sub(r"[}\]]", ")", text))
    return re.sub(r"(?<=¬)\s+", "", text)


def _expression(text: str) -> str:
    """A formula as Python would read it: `**` for powers, `*` between factors, parentheses for braces.

    A text with anything else in it, such as words, quotes or several lines, stays as it is.
    """
    text = _ARC.sub("a", _ascii(text))
    if re.search(r"[^\w\s+\-*/^().,{}=|!<>\[\]]", text) or "\n" in text or not re.search(r"[\^{(]|\d\s*[A-Za-z]", text):
        return text
    text = text.replace("{", "(").replace("}", ")").replace("^", "**")
    text = re.sub(r"(?<![A-Za-z])e(?=\s*\*\*)", "E", text)
    made, before = "", ""
    for token in _TOKEN.findall(text):
        if token.isspace():
            made += " "
            continue
        if _is_factor_end(before) and _is_factor_start(token) and not (before[-1].isdigit() and token[0].isdigit()):
            made = made.rstrip() + "*"
        made, before = made + token, token
    return _powers_of_functions(re.sub(r" +", " ", made).strip())


def _powers_of_functions(text: str) -> str:
    """cos(x)**3 for cos**3(x) and cos**(3)(x), which is how LaTeX writes it."""
    for _ in range(_MOST_COMMANDS):
        if (found := _FUNCTION_POWER.search(text)) is None:
            break
        end = _closing(text, found.end() - 1, "()")
        text = f"{text[: found.start()]}{found[1]}{text[found.end() - 1 : end + 1]}**{found[2]}{text[end + 1 :]}"
    return text


def _is_factor_end(token: str) -> bool:
    return bool(token) and (token[-1].isalnum() or token == ")") and token not in _FUNCTIONS


def _is_factor_start(token: str) -> bool:
    return token[0].isalnum() or token == "("


def _number(text: str) -> str:
    """A number without the separators of its thousands."""
    text = _ascii(text)
    return re.sub(r"[, ]", "", text) if _THOUSANDS.fullmatch(text) else text


def _rows(text: str) -> str:
    """Rows without the marks of Markdown's lists and tables."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if all(line.startswith("|") and line.endswith("|") for line in lines):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return "\n".join(" ".join(row) for row in cells if not all(re.fullmatch(r":?-+:?", cell) for cell in row))
    if len(lines) > 1:
        for mark in (r"[-*+•]\s+", r"\d+[.)]\s+"):
            if all(re.match(mark, line) for line in lines):
                return "\n".join(re.sub(rf"^{mark}", "", line) for line in lines)
    return text
