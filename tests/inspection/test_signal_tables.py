"""How a signal divides between style and task, and the sentences where there is nothing to divide."""

import numpy as np
import pytest

from rlcsd.inspection.signal_tables import (
    OWN,
    QUIET,
    SHARED,
    common_share,
    mean_table,
    share_table,
    shared_or_own,
    table_by_k,
    why_no_signal,
)
from rlcsd.inspection.signals import SignalTable


def table(correct, under_wrong=None, kind=None, target=None, rollout=None, **more):
    columns = {"teacher_gap": np.array(correct)}
    if under_wrong is not None:
        columns |= {"wrong_gap": np.array(under_wrong), "contrast": np.array(correct) - np.array(under_wrong)}
    count = len(correct)
    return SignalTable(
        np.array(kind or ["style"] * count),
        np.array(target if target is not None else [True] * count),
        np.array(rollout if rollout is not None else [0] * count),
        columns,
        more.pop("accuracy", 0.5),
        0.5,
        **more,
    )


def cells(text, row):
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_common_share_of_two_gaps():
    found = common_share(np.array([1.0, 1.0, 1.0, 0.0, -2.0]), np.array([1.0, 0.5, -1.0, 0.0, -0.5]))
    assert found.tolist() == [1.0, 0.5, 0.0, 0.0, 0.25]


def test_tokens_are_called_without_words():
    found = shared_or_own(table([-0.5, 0.9, 0.001, -3.0], [-0.4, 0.0, 0.002, 3.0]))
    assert found.tolist() == [SHARED, OWN, QUIET, OWN]
    assert shared_or_own(table([1.0])) is None


def test_shares_of_a_signal_add_up():
    one = table([-0.4, -0.4, 2.0, 0.0], [-0.4, -0.4, -1.0, 0.0], ["style", "style", "conclusion", "other"])
    text = share_table(one, one.kind, ("style", "conclusion", "other"))
    assert cells(text, "style") == ["50.0%", "0.400", "28.6%", "0.400", "44.4%", "0.000", "0.0%"]
    assert cells(text, "conclusion")[-2:] == ["3.000", "100.0%"]


def test_more_wrong_hints_give_their_marginal():
    wrong = np.log(np.array([[0.2, 0.6], [0.5, 0.1], [0.3, 0.3]]))
    valid = np.array([[True, True], [True, True], [True, False]])
    one = table(
        [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], ["style", "task", "task"], old_log_prob=np.log([0.4, 0.3, 0.3]),
        contrast_log_prob=wrong, contrast_valid=valid, target=[True, False, True], rollout=[0, 1, 2],
    )  # fmt: skip
    text = table_by_k(one)
    assert cells(text, "1")[1:3] == [f"{np.log(2):.3f}", f"{np.log(0.5 / 0.3):.3f}"]
    assert cells(text, "up to 2")[1:3] == ["0.000", "0.000"]  # the means of the two are the policy's own probabilities
    assert cells(text, "1")[3:] == ["0.0% of 1", "0.0% of 1"]
    assert table_by_k(table([1.0], [1.0])) == ""


@pytest.mark.parametrize(
    ("accuracy", "missing", "sentence"),
    [
        (0.0, {"correct": 8}, "All 8 rollouts are wrong"),
        (1.0, {"wrong": 8}, "All 8 rollouts are correct"),
        (0.5, {"correct": 5, "wrong": 3}, "5 have no correct sibling and 3 no wrong one"),
    ],
)
def test_why_nothing_is_usable(accuracy, missing, sentence):
    empty = table([], [], accuracy=accuracy, rollouts=8, missing=missing)
    assert sentence in why_no_signal(empty)


def test_a_method_without_wrong_hints_has_a_narrower_table():
    one = table([1.0, -1.0], kind=["style", "task"], target=[True, False])
    assert mean_table(one).splitlines()[0] == "| kind | target | tokens | gap under h_c | mean abs gap under h_c |"
    assert one.means() == {"correct": {"style": {"teacher_gap": 1.0}}, "wrong": {"task": {"teacher_gap": -1.0}}}
