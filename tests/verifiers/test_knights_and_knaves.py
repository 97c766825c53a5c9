"""Only exactly the right assignment is right."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcsd import verifiers
from rlcsd.errors import InputError
from rlcsd.verifiers.boxed import without_thinking
from rlcsd.verifiers.knights_and_knaves import parse_assignment

verify = verifiers.get("knights_and_knaves")
ANSWER = "(1) Alice is a knight (2) Bob is a knave"


@pytest.mark.parametrize(
    "boxed",
    [
        "(1) Alice is a knight (2) Bob is a knave",
        "Alice is a knight, Bob is a knave",
        "Bob is a knave and Alice is a knight.",
        "alice is a KNIGHT; bob is a knave",
        r"\text{Alice is a knight, Bob is a knave}",
        r"\text{Alice is a knight}, \text{Bob is a knave}",
        "Alice: knight, Bob: knave",
        "1. Alice is a knight 2. Bob is a knave",
        "Alice is a knight, Bob is not a knight",
        "Alice is a knight, Bob is a knave, Bob is a knave",
        "Alice：knight，Bob：knave。",
        "Alice — knight; Bob－knave",
    ],
)
def test_right_in_any_order_and_dress(boxed):
    assert verify(f"Therefore \\boxed{{{boxed}}}.", ANSWER)


@pytest.mark.parametrize(
    "boxed", ["A is a knight, B and C are knaves", "Knaves: B, C; Knights: A", "A: knight, B: knave, C: knave", "B is a knave, C is a knave and A is a knight"]
)  # fmt: skip
def test_somebody_may_be_called_a(boxed):
    assert parse_assignment(boxed) == {"a": True, "b": False, "c": False}
    assert parse_assignment(f"{boxed}, a knight") is None


@pytest.mark.parametrize(
    "response",
    [
        "\\boxed{Alice is a knight}",
        "\\boxed{Alice is a knight, Bob is a knight}",
        "\\boxed{Alice is a knave, Bob is a knight}",
        "\\boxed{Alice is a knight, Bob is a knave, Carol is a knave}",
        "\\boxed{Alice is a knight, Bob is a knave, Bob is a knight}",
        "\\boxed{Alice is a knight, Bob is a knave, Alice is a knave}",
        "\\boxed{Alice is a knight or Bob is a knave}",
        "\\boxed{If Alice is a knight, Bob is a knave}",
        "\\boxed{Alice and Bob is a knave}",
        "\\boxed{}",
        "\\boxed{Alice is a knight, Bob is a knave",
        "Alice is a knight, Bob is a knave",
        "\\boxed{Alice is a knight, Bob is a knave} no: \\boxed{Alice is a knave, Bob is a knave}",
        "",
    ],
)
def test_everything_else_is_wrong(response):
    assert not verify(response, ANSWER)


@given(roles=st.lists(st.booleans(), min_size=1, max_size=8), order=st.randoms(), flip=st.integers(0, 7))
def test_one_wrong_role_anywhere_is_wrong(roles, order, flip):
    names = [f"Name{chr(65 + i)}" for i in range(len(roles))]

    def claims(values):
        parts = [f"{name} is a {'knight' if role else 'knave'}" for name, role in zip(names, values, strict=True)]
        order.shuffle(parts)
        return ", ".join(parts)

    assert verify(f"\\boxed{{{claims(roles)}}}", claims(roles))
    assert verify(f"\\boxed{{{claims(roles)}}}", dict(zip(names, roles, strict=True)))
    changed = list(roles)
    changed[flip % len(roles)] ^= True
    assert not verify(f"\\boxed{{{claims(changed)}}}", claims(roles))


def test_an_answer_that_is_none_is_an_error_not_a_miss():
    with pytest.raises(ValueError, match="not an assignment"):
        verify("\\boxed{Alice is a knight}", "seven")


def test_names_of_verifiers():
    with pytest.raises(InputError, match="did you mean 'knights_and_knaves'"):
        verifiers.get("knight_and_knaves")
    verifiers.register("always", lambda response, answer: 1.0)
    assert verifiers.get("always")("", "") == 1.0


# ---------------------------------------------------------------- phrasings, by an independent writer


SINGLE = [
    "{n} is a {r}", "{n} is the {r}", "**{n}** is a {r}", "**{n} is a {r}**", "_{n}_ is a {r}", "{n}: {r}", "{n} = {r}", "{n} → {r}",
    "{n} -> {r}", "*{n}* is a *{r}*", "`{n}` is a {r}", r"\text{{{n} is a {r}}}", r"\textbf{{{n}}} is a \textit{{{r}}}", "{n} is {r}",
    "{n} isn't a {o}", "{n} isn’t a {o}", "{n} is not a {o}", "{n} is not the {o}", "{n}'s a {r}", "{n}: not a {o}", "${n}$ is a {r}",
    r"\mathrm{{{n}}}: \mathrm{{{r}}}", "{n} is a {R}",
]  # fmt: skip
PLURAL = ["{ns} are {r}s", "{ns} are both {r}s", "{ns} aren't {o}s", "{ns} are not {o}s", "**{ns}** are all {r}s"]
NAMES = ["Alice", "Bob", "Zoë", "O'Neil", "Jean-Luc", "Li", "Anna", "Isa", "Andy", "Nora", "Thea"]


@st.composite
def written(draw):
    """A role for each of some people, and a text that says so: who is grouped, how it is put, and in which order, is
    drawn."""
    people = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    roles = {name: draw(st.booleans()) for name in people}

    def words(role: bool) -> dict[str, str]:
        knight, knave = ("knight", "knave") if role else ("knave", "knight")
        return {"r": knight, "o": knave, "R": knight.upper()}

    parts, left = [], draw(st.permutations(people))
    while left:
        alike = [name for name in left if roles[name] == roles[left[0]]]
        if len(alike) > 1 and draw(st.booleans()):
            joined = ", ".join(alike[:-1]) + draw(st.sampled_from([" and ", ", and ", " & "])) + alike[-1]
            parts.append(draw(st.sampled_from(PLURAL)).format(ns=joined, **words(roles[alike[0]])))
            left = [name for name in left if name not in alike]
        else:
            parts.append(draw(st.sampled_from(SINGLE)).format(n=left[0], **words(roles[left[0]])))
            left = left[1:]
    separator = draw(st.sampled_from([", ", "; ", " and ", ". ", "\n", r" \\ ", ", and "]))
    numbered = draw(st.booleans())
    return roles, separator.join(f"({i}) {part}" if numbered else part for i, part in enumerate(parts, 1))


def spelled(roles: dict[str, bool]) -> str:
    return ", ".join(f"{name} is a {'knight' if role else 'knave'}" for name, role in roles.items())


@given(written(), st.data())
def test_any_phrasing_of_the_right_roles_is_right_and_of_others_wrong(case, data):
    roles, text = case
    response = f"So \\boxed{{{text}}}."
    assert verify(response, spelled(roles)), text
    flipped = data.draw(st.sampled_from(sorted(roles)))
    assert not verify(response, spelled({**roles, flipped: not roles[flipped]}))
    assert not verify(response, spelled({**roles, "Carol": True}))
    if len(roles) > 1:
        assert not verify(response, spelled({name: role for name, role in roles.items() if name != flipped}))


@pytest.mark.parametrize(
    "boxed",
    [
        "Alice is probably a knight, Bob is a knave", "Maybe Alice is a knight, Bob is a knave", "Alice isn't not a knight, Bob is a knave",
        "Alice is a knight unless Bob is a knave", "Alice is a knight, Bob is a knave, or not", "Alice is a knight, Bob is a knave, 5",
        "Alice are knights, Bob is a knave", "Alice is a knight, Bob is a knave and Carol", "Alice is a knight or a knave, Bob is a knave",
        "Alice said Bob is a knave, Alice is a knight", "neither Alice nor Bob are knights", "Alice is a knight Bob, is a knave",
        "not Alice is a knave, Bob is a knave", "Alice is no knave, Bob is a knave",
        "Alice is a knight, Bob is a", "is a knight, Bob is a knave",
    ],
)  # fmt: skip
def test_hedges_fragments_and_riddles_are_wrong(boxed):
    assert not verify(f"\\boxed{{{boxed}}}", ANSWER)


@pytest.mark.parametrize(
    "unit",
    ["a", "a ", "a.", "a'", "a-", "_", "*", "(", "(1", "1", "{", "\\text{", "not ", "is ", "and ", "a, ", "a is ",
     "a is a knight ", "\\", "<think>",
     "\\boxed{", "\\boxed ", " ", "</think>"],
)  # fmt: skip
def test_the_work_is_linear_in_the_length(unit):
    """Seconds where a backtracking pattern takes hours: a million characters of one kind."""
    text = unit * (1_000_000 // len(unit))
    assert not verify(f"\\boxed{{{text}", ANSWER)
    assert not verify(f"\\boxed{{{text.replace('{', '').replace(chr(92), '')}}}", ANSWER)
    without_thinking(text)


# ------------------------------------------------------------------ layouts of LaTeX, Markdown and lists

PAIRS = {  # how a name and its role are put side by side, and how such pairs follow each other
    "sentences": (r"\text{{{n} is a {r}}}", r", "),
    "array": (r"\text{{{n}}} & \text{{{r}}}", r" \\ "),
    "aligned": (r"\text{{{n}}} &: \text{{{r}}}", r" \\ "),
    "aligned sentences": (r"&\text{{{n} is a {r}}}", r" \\ "),
    "cases": (r"\text{{{n} is a {r},}}", r" \\ "),
    "to": (r"\text{{{n}}} \to \text{{{r}}}", ", "),
    "rightarrow": (r"{n} \rightarrow {r}", "; "),
    "mapsto": (r"{n} \mapsto {r}", ", "),
    "land": (r"\text{{{n} is a {r}}}", r" \land "),
    "bars": ("{n}: {r}", " | "),
    "parentheses": ("{n} ({r})", ", "),
    "a in parentheses": ("{n} (a {r})", " and "),
    "hyphen": ("{n} - {r}", ", "),
    "dash": ("{n} – {r}", "; "),
    "but": ("{n} is a {r}", ", but "),
    "while": ("{n} is a {r}", " while "),
    "bullets": ("- **{n}**: {R}", "\n"),
    "json": ('"{n}": "{r}"', ", "),
    "python": ("'{n}': '{r}'", ", "),
    "equals": (r"\text{{{n}}} = \text{{{r}}}", r", \; "),
}
FRAMES = {
    "array": (r"\begin{array}{ll} ", r" \end{array}"), "aligned": (r"\begin{aligned} ", r" \end{aligned}"),
    "aligned sentences": (r"\begin{aligned} ", r" \\ \end{aligned}"), "cases": (r"\begin{cases} ", r" \end{cases}"),
    "to": (r"\{", r"\}"), "json": ("{", "}"), "python": ("{", "}"), "land": (r"\color{red}{", "}"), "equals": ("$", "$"),
}  # fmt: skip


def by_heading(roles, style):
    """Knights: Ann, Cy; Knaves: Bo."""
    groups = {True: [n for n in roles if roles[n]], False: [n for n in roles if not roles[n]]}
    lists = {role: style[1].join(names) if names else "none" for role, names in groups.items()}
    return style[2].join(style[0].format(r={True: "Knights", False: "Knaves"}[role], ns=lists[role]) for role in groups)


HEADINGS = [
    ("{r}: {ns}", ", ", "; "),
    (r"\text{{{r}: }} \{{{ns}\}}", ", ", ", "),
    ("{r} = {ns}", " and ", ". "),
    ("{r}: {ns}", ", ", "\n"),
]


@st.composite
def laid_out(draw):
    people = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    roles = {name: draw(st.booleans()) for name in people}
    layout = draw(st.sampled_from([*PAIRS, *range(len(HEADINGS)), "table"]))
    if isinstance(layout, int):
        return roles, layout, by_heading(roles, HEADINGS[layout])
    words = [(name, "knight" if role else "knave") for name, role in roles.items()]
    if layout == "table":
        rows = "\n".join(f"| {name} | {word} |" for name, word in words)
        return roles, layout, f"| Name | Role |\n|---|---|\n{rows}"
    pattern, between = PAIRS[layout]
    begin, end = FRAMES.get(layout, ("", ""))
    text = between.join(pattern.format(n=name, r=word, R=word.capitalize()) for name, word in words)
    return roles, layout, begin + text + end


@given(laid_out(), st.data())
@settings(max_examples=400)
def test_the_right_roles_are_right_in_every_layout_and_others_wrong(case, data):
    roles, layout, text = case
    response = f"So \\boxed{{{text}}}."
    assert verify(response, spelled(roles)), (layout, text)
    flipped = data.draw(st.sampled_from(sorted(roles)))
    for other in (
        {**roles, flipped: not roles[flipped]},
        {**roles, "Carol": False},
        {n: r for n, r in roles.items() if n != flipped},
    ):
        assert not other or not verify(response, spelled(other)), (layout, text)


@given(
    laid_out(),
    laid_out(),
    st.sampled_from([" ", ", ", " or ", " not ", r" \\ ", " & ", " | ", ": ", " - ", " (", ") ", " but ", "; "]),
)
@settings(max_examples=400)
def test_two_texts_together_never_say_what_neither_says(one, other, between):
    """Whatever is read of a text, each person has the role that one of its halves gives."""
    found = parse_assignment(one[2] + between + other[2])
    for name, role in (found or {}).items():
        given = [half[0][known] for half in (one, other) for known in half[0] if known.lower() == name]
        assert role in given and len(set(given)) == 1


@pytest.mark.parametrize(
    "boxed",
    [
        "Alice: knight or Bob: knave", "Knights: Alice, Bob is a knave", "Alice (knight) is a knave, Bob (knave)", "Knights or knaves: Alice, Bob",
        "Alice & Bob \\\\ knight & knave", "not Knights: Alice; Knaves: Bob", "Alice: knights; Bob: knaves", "Knight: Alice, Bob", "Alice (knight", r"Alice \lor knight",
        r"Alice \to knight \to knave, Bob: knave", "Alice - Bob - knight", "Alice: knight, knave; Bob: knave", r"\neg (Alice is a knight), Bob is a knave",
        "Knights: not Alice; Knaves: not Bob", "Knights: Alice? Knaves: Bob", "Knights: Alice; Knaves: Bob; Knights: Bob", "Knaves: none; Knights: Alice",
        "Knights: all but Bob", r"Alice \not\to knave, Bob: knave", r"Alice \ne knave, Bob: knave", "Alice != knave, Bob: knave", r"\sout{Alice: knight, Bob: knave}",
    ],
)  # fmt: skip
def test_layouts_that_say_something_else_are_wrong(boxed):
    assert not verify(f"\\boxed{{{boxed}}}", ANSWER)


@pytest.mark.parametrize("sign", ["|", "&"])
@pytest.mark.parametrize("space", [" ", "\n"])
def test_the_work_is_linear_in_the_space_around_a_column(sign, space):
    assert not verify(f"\\boxed{{a {sign} {space * 1_000_000} b}}", ANSWER)
    assert not verify(f"\\boxed{{a {sign} {('name' + space * 999) * 1000} b}}", ANSWER)
