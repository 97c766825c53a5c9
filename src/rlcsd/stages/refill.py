"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): replace groups whose rollouts are all right or all wrong.

Such a group has no advantage, and no hints of both kinds for a contrast; its sampling is lost. Called by the trainer
after grading, with `refill_batches` of the config. Whether a group is replaced is a matter of accuracy alone: a shaped
reward may differ within a group that is all wrong, and such groups are replaced too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from ..metrics import Metrics, Sum
from ..records import Group


@dataclass(frozen=True)
class Refilled:
    """The groups that a step trains on, all that it sampled for them, and how it came about.

    `surplus` are groups with both outcomes for which no place was left.
    """

    groups: list[Group]
    sampled: list[Group]
    batches: int = 0
    surplus: int = 0

    @property
    def extra_problems(self) -> int:
        """Problems drawn beyond the step's own."""
        return len(self.sampled) - len(self.groups)

    def metrics(self) -> Metrics:
        return {
            "refill/batches": Sum(self.batches),
            "refill/groups_dropped": Sum(self.extra_problems - self.surplus),
            "refill/groups_surplus": Sum(self.surplus),
            "refill/groups_missing": Sum(sum(not group.is_mixed for group in self.groups)),
        }


def refilled(first: Sequence[Group], more: Callable[[int, int], Sequence[Group]], max_batches: int) -> Refilled:
    """Put groups with both outcomes in the places of those without, from at most `max_batches` further batches.

    Args:
        first: the step's own groups.
        more: graded groups of further problems, by the number of the batch, from 1, and how many are asked for: as many
            as fill the missing places at the share of mixed groups so far, and at most as many as in `first`.

    A place that no batch has filled keeps its first group.
    """
    groups, sampled, batches, surplus = list(first), list(first), 0, 0
    while batches < max_batches and (missing := [place for place, group in enumerate(groups) if not group.is_mixed]):
        mixed = sum(group.is_mixed for group in sampled)
        wanted = min(len(first), ceil(len(missing) * len(sampled) / mixed)) if mixed else len(first)
        batches += 1
        new = more(batches, wanted)
        usable = [group for group in new if group.is_mixed]
        for place, group in zip(missing, usable, strict=False):
            groups[place] = group
        sampled += new
        surplus += max(0, len(usable) - len(missing))
    return Refilled(groups, sampled, batches, surplus)
