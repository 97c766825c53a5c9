"""The kinds of tokens."""

from itertools import accumulate, pairwise

from rlcsd.inspection.signals import kinds_of


def kinds(tokens: list[str]) -> list[str]:
    ends = accumulate((len(token) for token in tokens), initial=0)
    return kinds_of("".join(tokens), list(pairwise(ends)))


def test_kinds_of_a_puzzles_tokens():
    tokens = ["Wait", ". Now assume", " Bob is a knight", ",", " Bob says", " Eve is a knave", ": true", ", contradiction", ".", "\n",
              "Therefore", " ", "\\boxed", "{", " Bob is a knave", ",", " Eve is a knight", "}."]  # fmt: skip
    assert kinds(tokens) == ["style", "style", "task", "other", "other", "task", "verdict", "verdict", "other", "style",
                                "style", "other", "other", "other", "conclusion", "other", "conclusion", "other"]  # fmt: skip


def test_kinds_of_mathematics():
    assert kinds(["So", " x", " =", " 12", "\\frac", " Hmm", "\\boxed{", "12", "}"]) == [
        "style", "other", "task", "task", "task", "style", "other", "conclusion", "other",
    ]  # fmt: skip


def test_only_the_last_box_concludes():
    assert kinds(["\\boxed{", "1", "}", " no ", "\\boxed{", "2", "}"])[1] == "task"
