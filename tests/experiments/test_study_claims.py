"""Each figure in a sentence of the study, of README and of the docs that quote it, recomputed from the records.

A claim is a sentence, or a part of one, with `{}` where a figure stands, and what gives the figures. Figures that are
words ("a third") stand in the text, with a condition that must hold. What is left of the page's prose after all claims
and the settings of the runs may contain no figure.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from statistics import mean

import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import misaligned  # noqa: E402
import tables  # noqa: E402
from tables import area, at_the_end, at_the_start  # noqa: E402

runs = cache(tables.ordered)
seen, other = tables.TESTED.values()


def end(study, arm, name):
    return mean(map(at_the_end(name), runs(study)[arm].values()))


def start(study, arm, name):
    return mean(map(at_the_start(name), runs(study)[arm].values()))


def by_seed(study, arm, measure):
    return [measure(record) for record in runs(study)[arm].values()]


def minus(study, arm, reference, measure):
    return tables.paired(runs(study)[arm], runs(study)[reference], measure)


@cache
def corrected(study):
    """p by table, row and column, as the tables of the page have it."""
    return {key: p for key, (_, p) in tables.tested(tables.comparisons(study)).items() if p is not None}


def share_of_change(study, arm, of, name):
    """An arm's change from first step to end, as a share of another arm's."""
    return (end(study, arm, name) - start(study, arm, name)) / (end(study, of, name) - start(study, of, name))


def differences(study, arm, reference, measure):
    found = minus(study, arm, reference, measure)
    return found.mean, found.low, found.high


def gap_of_rates():
    """By method, the difference of validation accuracy between the best and the second rate."""
    found = {}
    for arm, records in runs("rates").items():
        found.setdefault(arm.split("@")[0], []).append(mean(record["test"]["average"] for record in records.values()))
    return [sorted(values)[-1] - sorted(values)[-2] for values in found.values()]


def gap_of_seeds():
    """How far grpo's two seeds are apart, at each rate."""
    found = [runs("rates")[f"grpo@{rate}"].values() for rate in ("3e-5", "1e-4", "2e-4")]
    return [abs(a["test"]["average"] - b["test"]["average"]) for a, b in found]


def oracle_gains(group):
    """Gain in area over grpo by number of decisions, for each seed."""
    sizes = [(n, runs("decisions")[f"oracle-{n}-g{group}"], runs("decisions")[f"grpo-{n}-g{group}"]) for n in (3, 5, 8)]
    return {seed: [(n, area(o[seed]) - area(g[seed])) for n, o, g in sizes] for seed in sizes[0][1]}


def slope_p(group):
    """p of the slope of the oracle's gain against the number of decisions, a t-test over the seeds' slopes."""
    slopes = [stats.linregress(*zip(*points, strict=True)).slope for points in oracle_gains(group).values()]
    return stats.ttest_1samp(slopes, 0).pvalue


def above(arm, bound):
    return sum(value > bound for value in by_seed("decisions", arm, at_the_end("accuracy")))


def gain(arm):
    return minus("decisions", arm, "grpo-" + arm.split("-", 1)[1], area).mean


def about(value, wanted, within=0.06):
    return abs(value - wanted) <= within


def means(study, arm, name):
    return mean(record["means"][name] for record in runs(study)[arm].values())


def held_out(arm):
    """Accuracy of SmolLM2 on held-out sums after training."""
    return mean(by_seed("smollm2", arm, tables.test("held_out")))


def tokens_of_dapo():
    """What dapo samples in a step, as a multiple of grpo's."""
    return means("family_drift", "dapo", "rollout/tokens") / means("family_drift", "grpo", "rollout/tokens")


def change(arm):
    """In length, from the first step to the end."""
    return end("alignment", arm, "length") - start("alignment", arm, "length")


def accuracy_paid():
    """Accuracy at the end of the credit methods with a displaced teacher, minus with an aligned one."""
    arms = [(arm, f"{arm}-{ending}") for arm in ("rlsd", "rlsd_ectr", "rlcsd") for ending in ("misaligned", "severe")]
    return [minus("alignment", displaced, arm, at_the_end("accuracy")).mean for arm, displaced in arms]


def opsd_style():
    first, second = runs("modes")["opsd-style"].values()
    change = [at_the_end("length")(record) - at_the_start("length")(record) for record in (first, second)]
    assert at_the_end("interjections")(first) < 0.03
    return -change[0], change[1], at_the_end("interjections")(second)


@cache
def signal_record():
    return json.loads((tables.RECORDS / "signal.json").read_text(encoding="utf-8"))


def signal(kind, target):
    return next(row for row in signal_record()["rows"] if (row["kind"], row["target"]) == (kind, target))


def spread_of_style(name):
    """Smallest and largest size of a signal at the two choices of style."""
    values = [
        abs(signal(kind, target)[name]) for kind in ("works a line", "interjects") for target in ("correct", "wrong")
    ]
    return min(values), max(values)


def none_above_grpo(study):
    """All twenty methods have run, and what is told apart from grpo after correction is below it."""
    told = [(row, column) for (_, row, column), p in corrected(study).items() if p < 0.05]
    return len(runs(study)) == 20 and all(
        minus(study, row, "grpo", tables.CREDIT_MEASURES[column]).mean < 0 for row, column in told
    )


def told_below(study, arm):
    """Whether a method of the family is below grpo after correction, in any column."""
    return any(p < 0.05 for (_, row, _), p in corrected(study).items() if row == arm) and none_above_grpo(study)


FAMILY = ("family_drift", "family_credit")
WITHOUT_COPY = tuple(f"{arm}-{end}" for arm in ("grpo", "rlcsd", "opsd") for end in ("bf16", "as_run"))
STUDY, README = "experiments/study.md", "README.md"
EIGHT = ("sdpo", "grpo", "rlcsd", "opsd", "rlsd", "srpo", "opsd_ectr", "rlsd_ectr")


# (page, text with {} for the figures, the figures) or (page, text, condition)
CLAIMS = [
    (STUDY, "the two choices of style lose {:.1f} to {:.1f} nats",
     lambda: spread_of_style("teacher_gap")),
    (STUDY, "In the contrast at most {:.2f} nats of that are left.",
     lambda: spread_of_style("contrast")[1:]),
    (STUDY, "Both signals push wrong decisions down by about two nats",
     lambda: all(about(signal("wrong", "wrong")[name], -2, 0.2) for name in ("teacher_gap", "contrast"))),
    (STUDY, "(AUC {:.2f} against {:.2f})",
     lambda: tuple(signal_record()["auc"][f"{name}, all rollouts"] for name in ("teacher_gap", "contrast"))),
    (STUDY, "One base, one seed, {:.0f} wrong decisions",
     lambda: (signal("wrong", "wrong")["tokens"],)),
    (STUDY, "Under sdpo working and interjections vanish, and entropy falls by two thirds.",
     lambda: end("drift", "sdpo", "worked") < 0.02 > end("drift", "sdpo", "interjections") and about(1 - end("drift", "sdpo", "entropy") / start("drift", "sdpo", "entropy"), 2 / 3)),
    (STUDY, "responses grow by a third, interjections become four times as many, entropy rises, and accuracy falls below the base's.",
     lambda: about(end("drift", "opsd", "length") / start("drift", "opsd", "length"), 4 / 3) and about(end("drift", "opsd", "interjections") / start("drift", "opsd", "interjections"), 4, 0.4) and (end("drift", "opsd", "entropy") > start("drift", "opsd", "entropy")) and (end("drift", "opsd", "accuracy") < start("drift", "opsd", "accuracy"))),
    (STUDY, "For sdpo and srpo, of which the paper reports it too, entropy *falls* here at every rate tried.",
     lambda: all(end("rates", arm, "entropy") < start("rates", arm, "entropy") for arm in runs("rates") if arm.startswith(("sdpo", "srpo")))),
    (STUDY, "responses lose {:.1f} and {:.1f} tokens of {:.0f} where grpo gains {:.1f}",
     lambda: (*(start("drift", arm, "length") - end("drift", arm, "length") for arm in ("rlsd", "rlcsd")), start("drift", "rlsd", "length"), end("drift", "grpo", "length") - start("drift", "grpo", "length"))),
    (STUDY, "opsd_ectr keeps nearly the entropy of the base, and its responses grow by two fifths of what opsd's do; rlsd_ectr is not told apart from grpo in any column.",
     lambda: about(end("drift", "opsd_ectr", "entropy") / start("drift", "opsd_ectr", "entropy"), 1, 0.08) and about(share_of_change("drift", "opsd_ectr", "opsd", "length"), 0.4, 0.03) and all((p > 0.05 for (table, row, _), p in corrected("drift").items() if (table, row) == ("drift tests", "rlsd_ectr")))),
    (STUDY, "It ends below grpo in worked lines, further than rlsd and srpo, and {:.3f} below in accuracy, which is not told apart after correction (p {:.3f})",
     lambda: (-minus("drift", "rlcsd", "grpo", at_the_end("accuracy")).mean, corrected("drift")["drift tests", "rlcsd", "accuracy"])),
    (STUDY, "It ends below grpo in worked lines, further than rlsd and srpo",
     lambda: end("drift", "rlcsd", "worked") < min(end("drift", arm, "worked") for arm in ("rlsd", "srpo")) and corrected("drift")["drift tests", "rlcsd", "worked"] < 0.05),
    (STUDY, "Twice as many of its lines are worked, as many as under grpo, and its responses do not shrink.",
     lambda: about(end("drift", "rlsd-authors", "worked") / start("drift", "rlsd-authors", "worked"), 2, 0.2) and end("drift", "rlsd-authors", "worked") > end("drift", "grpo", "worked") and (end("drift", "rlsd-authors", "length") > start("drift", "rlsd-authors", "length"))),
    (STUDY, "opsd's responses grow by {:.0f} tokens instead of {:.0f}",
     lambda: tuple(end("drift", arm, "length") - start("drift", arm, "length") for arm in ("opsd-authors", "opsd"))),
    (STUDY, "though still three times as many interjections as the base",
     lambda: about(end("drift", "opsd-authors", "interjections") / start("drift", "opsd-authors", "interjections"), 3.3, 0.3)),
    (STUDY, "grpo's two seeds differ by {:.2f} to {:.2f} at each rate",
     lambda: (min(gap_of_seeds()), max(gap_of_seeds()))),
    (STUDY, "for seven of the eight methods the best and the second rate differ by less",
     lambda: sum(gap <= min(gap_of_seeds()) for gap in gap_of_rates()) == 7),
    (STUDY, "entropy ends at {:.1f} and {:.1f} times that of the first step (two seeds), responses at {:.0f} and {:.0f} of at most 120 tokens, and accuracy at {:.0f} in both",
     lambda: (*(at_the_end("entropy")(r) / at_the_start("entropy")(r) for r in runs("modes")["opsd-teacher"].values()), *by_seed("modes", "opsd-teacher", at_the_end("length")), max(by_seed("modes", "opsd-teacher", at_the_end("accuracy"))))),
    (STUDY, "sdpo ends at {:.3f} nats instead of {:.3f}, srpo at {:.3f} instead of {:.3f}, and both keep some worked lines.",
     lambda: tuple((end(study, arm, "entropy") for name in ("sdpo", "srpo") for study, arm in (("modes", f"{name}-teacher"), ("rates", f"{name}@1e-4"))))),
    (STUDY, "all lines stay worked, and under sdpo, srpo and rlsd responses keep their length within {:.1f} tokens.",
     lambda: (max(abs(at_the_end("length")(r) - at_the_start("length")(r)) for arm in ("sdpo-style", "srpo-style", "rlsd-style") for r in runs("modes")[arm].values()),)),
    (STUDY, "all lines stay worked",
     lambda: all(end("modes", f"{name}-style", "worked") > 0.995 for name in ("sdpo", "srpo", "rlsd", "opsd"))),
    (STUDY, "Under opsd one seed loses {:.1f} tokens and nearly all interjections, and the other gains {:.1f} tokens and ends at {:.2f} interjections a line.",
     lambda: opsd_style()),
    (STUDY, "its entropy ends at {:.3f} nats instead of {:.3f}.",
     lambda: (end("modes", "opsd-short", "entropy"), end("rates", "opsd@1e-4", "entropy"))),
    (STUDY, "Responses that shrink (sdpo, srpo, rlsd) shrink with every change but the one of style, except rlsd's at the higher rate (one seed).",
     lambda: {arm for arm in runs("modes") if not arm.startswith("opsd") and end("modes", arm, "length") > start("modes", arm, "length")} <= {"rlsd-rate", "sdpo-style", "srpo-style", "rlsd-style"}),
    (STUDY, "The oracle ends {:.3f} above grpo there (95 %: {:+.3f} to {:+.3f}, p {:.3f}); its {:.3f} in area does not stand after correction.",
     lambda: (*differences("credit", "oracle", "grpo", seen), corrected("credit")["credit against grpo", "oracle", "test"], minus("credit", "oracle", "grpo", area).mean)),
    (STUDY, "its 0.018 in area does not stand after correction. rlcsd is not told apart from grpo in any column.",
     lambda: corrected("credit")["credit against grpo", "oracle", "area"] > 0.05 and all((p > 0.05 for (table, row, _), p in corrected("credit").items() if (table, row) == ("credit against grpo", "rlcsd")))),
    (STUDY, "The oracle is not told apart from its degraded forms",
     lambda: all((p > 0.05 for (table, *_), p in corrected("credit").items() if table == "credit against oracle"))),
    (STUDY, "when a third of the rollouts leave the update as they do in rlcsd (dropped)",
     lambda: about(1 - means("credit", "rlcsd", "hints/usable_share"), 1 / 3)),
    (STUDY, "advantage's sign on {:.0f} % of the tokens it selects.",
     lambda: (100 * means("credit", "rlcsd", "rlcsd/residual_agrees"),)),
    (STUDY, "A selected token weighs twice another on average, and a bound of three changes no learning curve (three seeds).",
     lambda: about(means("credit", "rlcsd", "rlcsd/selected_weight"), 2, 0.2) and [r["curves"]["accuracy"] for r in runs("credit")["capped"].values()] == [runs("credit")["rlcsd"][seed]["curves"]["accuracy"] for seed in runs("credit")["capped"]]),
    (STUDY, "responses grow from {:.0f} to {:.0f} tokens and test accuracy ends at a third of grpo's (three seeds",
     lambda: (start("credit", "gt_cot", "length"), end("credit", "gt_cot", "length"))),
    (STUDY, "test accuracy ends at a third of grpo's",
     lambda: about(mean(by_seed("credit", "gt_cot", seen)) / mean(by_seed("credit", "grpo", seen)), 1 / 3)),
    (STUDY, "change nothing that ten seeds show",
     lambda: all((p > 0.05 for (_, row, _), p in corrected("credit").items() if row in ("plain", "both-sides", "one-path", "unsigned")))),
    (STUDY, "**Sparing is above grpo in area before correction**, by {:.3f} and {:.3f}, nearly as much as the oracle.",
     lambda: tuple(minus("credit", arm, "grpo", area).mean for arm in ("spares", "spare-alone"))),
    (STUDY, "Of fifteen arms one comes out well by chance.",
     lambda: len(runs("credit")) - 1 == 15),
    (STUDY, "`spares` is {:+.3f} above rlcsd (95 %: {:+.3f} to {:+.3f}, p {:.3f}) and {:+.3f} above grpo ({:+.3f} to {:+.3f}), which is p {:.3f} after correction and so not shown.",
     lambda: (*differences("confirm", "spares", "rlcsd", area), corrected("confirm")["confirm against rlcsd", "spares", "area"], *differences("confirm", "spares", "grpo", area), corrected("confirm")["confirm against grpo", "spares", "area"])),
    (STUDY, "On problems of the other kind it is {:+.3f} above grpo ({:+.3f} to {:+.3f}, p {:.3f}).",
     lambda: (*differences("confirm", "spares", "grpo", other), corrected("confirm")["confirm against grpo", "spares", "other kind"])),
    (STUDY, "has the same area: sparing is what counts",
     lambda: about(minus("confirm", "spares", "spare-alone", area).mean, 0, 0.001)),
    (STUDY, "Entropy falls from {:.2f} to {:.2f} nats where rlcsd keeps {:.2f} to {:.2f}, interjections vanish ({:.2f} a line → {:.2f}, rlcsd {:.2f} to {:.2f}), and responses are three tokens shorter",
     lambda: (start("confirm", "spares", "entropy"), end("confirm", "spares", "entropy"), end("confirm", "rlcsd", "entropy"), end("credit", "rlcsd", "entropy"), start("confirm", "spares", "interjections"), end("confirm", "spares", "interjections"), end("confirm", "rlcsd", "interjections"), end("credit", "rlcsd", "interjections"))),
    (STUDY, "responses are three tokens shorter",
     lambda: all(about(start(s, "spares", "length") - end(s, "spares", "length"), 3, 0.5) for s in ("credit", "confirm"))),
    (STUDY, "which is right on {:.0f} to {:.0f} % of its verdicts. Five seeds.",
     lambda: tuple(100 * f(start("decisions", arm, "right verdicts") for arm in runs("decisions") if arm.startswith("grpo")) for f in (min, max))),
    (STUDY, "in every cell up to eight decisions**, by {:.3f} to {:.3f}; no single cell is told apart after correction.",
     lambda: tuple(f(gain(f"oracle-{n}-g{g}") for n in (3, 5, 8) for g in (4, 8)) for f in (min, max))),
    (STUDY, "no single cell is told apart after correction",
     lambda: min(corrected("decisions").values()) > 0.05),
    (STUDY, "From three to eight decisions the gain rises from {:.3f} to {:.3f} with groups of four (slope by seed: p {:.2f}) and hardly with groups of eight ({:.3f} to {:.3f}, p {:.2f}).",
     lambda: (gain("oracle-3-g4"), gain("oracle-8-g4"), slope_p(4), gain("oracle-3-g8"), gain("oracle-8-g8"), slope_p(8))),
    (STUDY, "The base has fewer than one answer in a hundred right.",
     lambda: all(start("decisions", f"grpo-12-g{g}", "accuracy") < 0.01 for g in (4, 8))),
    (STUDY, "With groups of eight the oracle still ends above 0.05 in three of five seeds, grpo and rlcsd in none.",
     lambda: [above(f"{arm}-12-g8", 0.05) for arm in ("oracle", "grpo", "rlcsd")] == [3, 0, 0]),
    (STUDY, "With groups of eight rlcsd is a little above grpo in area up to eight decisions, with groups of four a little below, inside the intervals each time.",
     lambda: all(gain(f"rlcsd-{n}-g8") > 0 > gain(f"rlcsd-{n}-g4") and corrected("decisions")["decision gains", f"rlcsd-{n}-g{g}", "area"] > 0.05 for n in (3, 5, 8) for g in (4, 8))),
    (STUDY, "rlcsd's is not told apart: {0:+.3f} [{1:+.3f}, {2:+.3f}], p {3:.3f} (eight seeds each).",
     lambda: (lambda d: (d.mean, d.low, d.high, corrected("alignment")["alignment tests", "rlcsd-severe", "entropy"]))(minus("alignment", "rlcsd-severe", "rlcsd", at_the_end("entropy")))),
    (README, "make sdpo's entropy explode in an emulation ({:.2f} nats instead of {:.2f}), and not rlcsd's.",
     lambda: (end("alignment", "sdpo-severe", "entropy"), end("alignment", "sdpo", "entropy"))),
    (STUDY, "all comparisons of opsd, srpo and opsd_ectr stand after correction, and with the severe displacement those of sdpo and, by {:+.3f} nats, of rlsd; none of rlsd_ectr and rlcsd does.",
     lambda: (minus("alignment", "rlsd-severe", "rlsd", at_the_end("entropy")).mean,)),
    (STUDY, "none of rlsd_ectr and rlcsd does.",
     lambda: {row for (table, row, column), p in corrected("alignment").items() if (table, column) == ("alignment tests", "entropy") and p < 0.05}
     == {"sdpo-severe", "rlsd-severe", *(f"{arm}-{ending}" for arm in ("opsd", "srpo", "opsd_ectr") for ending in ("misaligned", "severe"))}),
    (STUDY, "(eight seeds each)", lambda: {len(by_seed) for study in ("alignment", "alignment_credit") for by_seed in runs(study).values()} == {8}),
    (STUDY, "sdpo's entropy ends at {:.2f} nats instead of {:.2f} with the severe displacement, responses at {:.0f} of 120 tokens, and no answer is right.",
     lambda: (*(end("alignment_credit", arm, "entropy") for arm in ("sdpo-severe", "sdpo")), end("alignment_credit", "sdpo-severe", "length"))),
    (STUDY, "With the milder one nothing of sdpo is told apart after correction, and of rlsd and rlcsd nothing with either",
     lambda: {row for (table, row, _), p in corrected("alignment").items() if table == "alignment credit tests" and p < 0.05} == {"sdpo-severe"}
     and end("alignment_credit", "sdpo-severe", "accuracy") == 0),
    (STUDY, "their areas are at most {:.3f} below the aligned forms'",
     lambda: (-min(minus("alignment_credit", f"{arm}-{ending}", arm, area).mean for arm in ("rlsd", "rlcsd") for ending in ("misaligned", "severe")),)),
    (STUDY, "With an aligned teacher sdpo's entropy falls, from {:.2f} to {:.2f} nats. With a severely displaced one it ends at {:.2f}: responses first grow to {:.0f} tokens, near the limit, then break up, and no answer is right any more.",
     lambda: (start("alignment", "sdpo", "entropy"), end("alignment", "sdpo", "entropy"), end("alignment", "sdpo-severe", "entropy"),
              mean(by_seed("alignment", "sdpo-severe", lambda record: max(record["curves"]["length"]))))),
    (STUDY, "With the milder displacement entropy ends above that of the first step in seven of eight seeds, and no answer is right in six.",
     lambda: end("alignment", "sdpo-severe", "accuracy") == 0 and end("alignment", "sdpo-severe", "length") < 70
     and [sum(found(r) for r in runs("alignment")["sdpo-misaligned"].values())
          for found in (lambda r: at_the_end("entropy")(r) > at_the_start("entropy")(r), lambda r: at_the_end("accuracy")(r) == 0)] == [7, 6]),
    (STUDY, "opsd ends at {:.2f} nats aligned, {:.2f} misaligned and {:.2f} severe, srpo at {:.2f}, {:.2f} and {:.2f}.",
     lambda: tuple(end("alignment", arm + ending, "entropy") for arm in ("opsd", "srpo") for ending in ("", "-misaligned", "-severe"))),
    (STUDY, "They lose {:.1f} tokens of {:.0f} with an aligned teacher, and gain {:.1f} and {:.1f} with displaced ones.",
     lambda: (-change("rlsd"), start("alignment", "rlsd", "length"), change("rlsd-misaligned"), change("rlsd-severe"))),
    (STUDY, "as the paper reports: {:.2f} to {:.2f} nats, {:.0f} to {:.0f} tokens.",
     lambda: tuple(f(end("alignment", "rlcsd" + ending, name) for ending in ("", "-misaligned", "-severe")) for name in ("entropy", "length") for f in (min, max))),
    (STUDY, "In entropy, length and worked lines it ends closer to grpo's figures with a displaced teacher than with an aligned one.",
     lambda: all(abs(end("alignment", f"rlcsd{ending}", name) - end("alignment", "grpo", name)) < abs(end("alignment", "rlcsd", name) - end("alignment", "grpo", name))
                 for ending in ("-misaligned", "-severe") for name in ("entropy", "length", "worked"))),
    (STUDY, "as the paper reports ({:.2f} against {:.2f} nats), and less so with a displaced one: {:.2f} and {:.2f}, above the first step.",
     lambda: tuple(end("alignment", arm, "entropy") for arm in ("opsd_ectr", "opsd", "opsd_ectr-misaligned", "opsd_ectr-severe"))),
    (STUDY, "by seed rlsd, rlsd_ectr and rlcsd end between {:.3f} below and {:.3f} above their aligned forms, and none of these differences stands.",
     lambda: (-min(accuracy_paid()), max(accuracy_paid()))),
    (STUDY, "grpo's area is {0:.3f} lower with them, with an interval wholly below zero before correction ({1:+.3f} to {2:+.3f}), which decides it by the rule above.",
     lambda: (lambda d: (-d[0], d[1], d[2]))(differences("mask", "grpo-mask", "grpo-vocabulary", area))),
    (STUDY, "nothing stands in any column (smallest p {:.3f})", lambda: (min(corrected("mask").values()),)),
    (STUDY, "for rlsd and rlcsd the intervals are on both sides of zero",
     lambda: all(low < 0 < high for arm in ("rlsd", "rlcsd") for _, low, high in [differences("mask", f"{arm}-mask", f"{arm}-vocabulary", area)])),
    (STUDY, "so `token_mask` and the default are the same runs, and a band of two per cent rejects hardly a rollout.",
     lambda: by_seed("mask", "grpo-token_mask", lambda r: r["curves"]) == by_seed("mask", "grpo-vocabulary", lambda r: r["curves"])
     and max(abs(a - b) for a, b in zip(*(by_seed("mask", f"grpo-{arm}", area) for arm in ("rejection", "vocabulary")), strict=True)) < 0.001),
    (STUDY, "**On the second task nothing stands after correction**, neither a switch alone nor all of them, for grpo or rlcsd.",
     lambda: {len(by_seed) for by_seed in runs("as_run_credit").values()} == {8} and min(p for (table, *_), p in corrected("as_run").items() if table == "as_run credit tests") > 0.05),
    (STUDY, "**Weights in bfloat16 without a float32 master copy hold learning and drift back alike.** At the methods' rates a step then changes {:.1f} to {:.1f} % of them, and otherwise all.",
     lambda: tuple(f(100 * means("as_run", arm, "update/changed_share") for arm in WITHOUT_COPY) for f in (min, max))),
    (STUDY, "of them, and otherwise all.",
     lambda: {len(by_seed) for by_seed in runs("as_run").values()} == {8} and min(means("as_run", arm, "update/changed_share") for arm in runs("as_run") if not arm.endswith(("-bf16", "-as_run"))) > 0.998),
    (STUDY, "opsd's responses end at {:.0f} instead of {:.0f} tokens and its share of worked lines at {:.2f} instead of {:.2f} (p below 0.001 each), rlcsd's entropy at {:.3f} instead of {:.3f} (p {:.3f}).",
     lambda: (*(end("as_run", arm, name) for name in ("length", "worked") for arm in ("opsd-bf16", "opsd")), *(end("as_run", arm, "entropy") for arm in ("rlcsd-bf16", "rlcsd")), corrected("as_run")["as_run tests", "rlcsd-bf16", "entropy"])),
    (STUDY, "(p below 0.001 each), rlcsd's",
     lambda: max(corrected("as_run")["as_run tests", "opsd-bf16", name] for name in ("length", "worked")) < 0.001),
    (STUDY, "Accuracy moves toward the base's too, down for grpo and rlcsd and up for opsd, which does not stand after correction.",
     lambda: all((minus("as_run", f"{arm}-bf16", arm, at_the_end("accuracy")).mean > 0) == (arm == "opsd") and corrected("as_run")["as_run tests", f"{arm}-bf16", "accuracy"] > 0.05 for arm in ("grpo", "rlcsd", "opsd"))),
    (STUDY, "at 1e-5 accuracy ends at {:.3f} instead of {:.3f} (p below 0.001), from {:.3f} and {:.3f} in the first step. A step changes {:.1f} % of the weights.",
     lambda: (*(f("as_run", arm, "accuracy") for f in (end, start) for arm in ("grpo_slow-bf16", "grpo_slow")), 100 * means("as_run", "grpo_slow-bf16", "update/changed_share"))),
    (STUDY, "grpo loses most of what it learns**: at 1e-5",
     lambda: corrected("as_run")["as_run tests", "grpo_slow-bf16", "accuracy"] < 0.001 and share_of_change("as_run", "grpo_slow-bf16", "grpo_slow", "accuracy") < 0.2),
    (STUDY, "**Means over micro-batches change nothing that is told apart**, for any of the three methods.",
     lambda: min(p for (table, row, _), p in corrected("as_run").items() if table == "as_run tests" and row.endswith("-micro")) > 0.05),
    (STUDY, "accuracy ends at {:.3f}, entropy at twice that of the first step, and responses have {:.0f} of at most 120 tokens.",
     lambda: (end("as_run", "opsd-live", "accuracy"), end("as_run", "opsd-live", "length"))),
    (STUDY, "entropy at twice that of the first step, and responses",
     lambda: about(end("as_run", "opsd-live", "entropy") / start("as_run", "opsd-live", "entropy"), 2, 0.1)),
    (STUDY, "it ends where `-bf16` alone does.",
     lambda: about(end("as_run", "opsd-as_run", "accuracy"), end("as_run", "opsd-bf16", "accuracy"), 0.02) and about(end("as_run", "opsd-as_run", "length"), end("as_run", "opsd-bf16", "length"), 1) and about(end("as_run", "opsd-as_run", "entropy"), end("as_run", "opsd-bf16", "entropy"), 0.01)),
    (STUDY, "So on this task the format of the weights counts more than everything else in the variant.",
     lambda: all(about(end("as_run", f"{arm}-as_run", name), end("as_run", f"{arm}-bf16", name), within) for arm in ("grpo", "rlcsd", "opsd") for name, within in (("length", 1), ("entropy", 0.02), ("worked", 0.02)))),
    (README, "Weights kept in bfloat16, as there, hold learning back.",
     lambda: corrected("as_run")["as_run tests", "grpo_slow-bf16", "accuracy"] < 0.001),
    (STUDY, "the area is {:.3f} lower for both, with an interval below zero for rlcsd, and test accuracy {:.3f} lower for grpo;",
     lambda: (-minus("as_run_credit", "rlcsd-bf16", "rlcsd", area).mean, -minus("as_run_credit", "grpo-bf16", "grpo", seen).mean)),
    (STUDY, "lower for both, with an interval below zero for rlcsd",
     lambda: about(minus("as_run_credit", "grpo-bf16", "grpo", area).mean, -0.015, 0.0005) and differences("as_run_credit", "rlcsd-bf16", "rlcsd", area)[2] < 0 < differences("as_run_credit", "grpo-bf16", "grpo", area)[2]),
    (STUDY, "weights in bfloat16 alone differ most",
     lambda: max(abs(minus("as_run_credit", arm, arm.partition("-")[0], area).mean) for arm in runs("as_run_credit") if arm.endswith(("-micro", "-as_run"))) < 0.01),
    (STUDY, "with all of `variant=as_run` the areas are {:.3f} and {:.3f} higher.",
     lambda: tuple(minus("as_run_credit", f"{arm}-as_run", arm, area).mean for arm in ("grpo", "rlcsd"))),
    (STUDY, "Without a float32 master copy a step changes {:.1f} to {:.1f} % of the weights, with one all of them.",
     lambda: tuple(f(100 * means("as_run_credit", arm, "update/changed_share") for arm in runs("as_run_credit") if arm.endswith(("-bf16", "-as_run"))) for f in (min, max))),
    (STUDY, "with one all of them.", lambda: min(means("as_run_credit", arm, "update/changed_share") for arm in ("grpo", "rlcsd", "grpo-micro", "rlcsd-micro")) > 0.999),
    (README, "of twenty methods, each at its best of three learning rates, none is above grpo on either of two tasks; opsd and SDFT, which imitate a hinted teacher without a reward, learn less.",
     lambda: none_above_grpo("family_drift") and none_above_grpo("family_credit") and all(told_below(study, arm) for study in FAMILY for arm in ("opsd", "sdft"))),
    (STUDY, "none is above grpo on either of two tasks** (eight seeds each,",
     lambda: none_above_grpo("family_drift") and none_above_grpo("family_credit")),
    (STUDY, "On both, opsd, PW-OPSD and SDFT, which imitate a hinted teacher and have no reward, learn less than grpo.",
     lambda: all(told_below(study, arm) for study in FAMILY for arm in ("opsd", "pw_opsd", "sdft"))),
    (STUDY, "* **Here too no method is above grpo after correction.**", lambda: none_above_grpo("family_credit")),
    (STUDY, "rlcsd has the largest area, {:.3f} above grpo's, with an interval on both sides of zero.",
     lambda: (minus("family_credit", "rlcsd", "grpo", area).mean,)),
    (STUDY, "rlcsd has the largest area, 0.012 above grpo's, with an interval on both sides of zero.",
     lambda: next(iter(tables.by_area(runs("family_credit")))) == "rlcsd" and differences("family_credit", "rlcsd", "grpo", area)[1] < 0),
    (STUDY, "The interval of the sparing form is above zero before correction ({:+.3f} [{:+.3f}, {:+.3f}], p {:.3f} after it).",
     lambda: (*differences("family_credit", "spares", "grpo", area), corrected("family_credit")["family credit tests", "spares", "area"])),
    (STUDY, "(area, p below 0.001, {:.3f} and {:.3f}).",
     lambda: tuple(corrected("family_credit")["family credit tests", arm, "area"] for arm in ("opsd", "pw_opsd"))),
    (STUDY, "**SDFT, opsd and PW-OPSD learn less than grpo again** (area, p below 0.001, 0.003 and 0.001).",
     lambda: corrected("family_credit")["family credit tests", "sdft", "area"] < 0.001 and all(told_below("family_credit", arm) for arm in ("opsd", "pw_opsd"))),
    (STUDY, "sdpo and opsa, lower than grpo as on the first task, are not told apart, and nor is opsd_ectr:",
     lambda: all(minus(study, arm, "grpo", area).mean < 0 for study in FAMILY for arm in ("sdpo", "opsa")) and min(corrected("family_credit")["family credit tests", arm, column] for arm in ("sdpo", "opsa", "opsd_ectr") for column in tables.CREDIT_MEASURES) > 0.05),
    (STUDY, "with the contrast opsd's loss comes within {:.3f} of grpo's area, without it {:.3f} below.",
     lambda: tuple(-minus("family_credit", arm, "grpo", area).mean for arm in ("opsd_ectr", "opsd"))),
    (STUDY, "the accuracy of opsa, SDFT, opsd and PW-OPSD ends below the first step's {:.3f}, opsa's at {:.3f} and grpo's at {:.3f}.",
     lambda: (start("family_credit", "grpo", "accuracy"), *(end("family_credit", arm, "accuracy") for arm in ("opsa", "grpo")))),
    (STUDY, "* **Four methods learn nothing here, none of which has a reward in its loss**:",
     lambda: all((end("family_credit", arm, "accuracy") > start("family_credit", arm, "accuracy")) == (arm not in ("opsa", "sdft", "opsd", "pw_opsd")) for arm in runs("family_credit"))),
    (STUDY, "fourteen of the twenty methods have their best at the lowest candidate, grpo among them, and SDFT at the highest.",
     lambda: (chosen := tables.chosen_rates("family_credit_rates")) and list(chosen.values()).count("3e-5") == 14 and chosen["grpo"] == "3e-5" and [arm for arm, rate in chosen.items() if rate == "2e-4"] == ["sdft"]),
    (STUDY, "dapo has the largest area, {:.3f} above grpo's, with an interval that reaches below zero, and its refills sample {:.1f} times as many tokens.",
     lambda: (minus("family_drift", "dapo", "grpo", area).mean, tokens_of_dapo())),
    (STUDY, "dapo has the largest area",
     lambda: next(iter(tables.by_area(runs("family_drift")))) == "dapo" and differences("family_drift", "dapo", "grpo", area)[1] < 0),
    (STUDY, "**No method is above grpo after correction.**", lambda: none_above_grpo("family_drift")),
    (STUDY, "rlcsd, rlsd, rlsd_ectr, cepo, sdar, srpo, rlcsd that spares, rlcsd on dapo's objective and rloo are all within {:.3f} of grpo's area.",
     lambda: (max(abs(minus("family_drift", arm, "grpo", area).mean) for arm in ("rlcsd", "rlsd", "rlsd_ectr", "cepo", "sdar", "srpo", "spares", "rlcsd-dapo", "rloo")),)),
    (STUDY, "SDFT and PW-OPSD end below grpo in area (p {:.3f} and {:.3f}), opsd on both kinds of problems (p {:.3f} and {:.3f}), opsd_ectr on the other kind (p {:.3f}).",
     lambda: tuple(corrected("family_drift")["family drift tests", *one] for one in (("sdft", "area"), ("pw_opsd", "area"), ("opsd", "test"), ("opsd", "other kind"), ("opsd_ectr", "other kind")))),
    (STUDY, "opsd's and PW-OPSD's accuracy ends where it began. sdpo is not told apart.",
     lambda: all(about(end("family_drift", arm, "accuracy"), start("family_drift", arm, "accuracy"), 0.01) for arm in ("opsd", "pw_opsd")) and min(corrected("family_drift")["family drift tests", "sdpo", column] for column in tables.CREDIT_MEASURES) > 0.05),
    (STUDY, "the areas of opsd and PW-OPSD differ by less than 0.001.", lambda: abs(minus("family_drift", "pw_opsd", "opsd", area).mean) < 0.001),
    (STUDY, "its accuracy goes from {:.3f} to {:.3f}, grpo's to {:.3f}. So to be above opsa, as rlcsd is by {:.3f} in area,",
     lambda: (start("family_drift", "opsa", "accuracy"), *(end("family_drift", arm, "accuracy") for arm in ("opsa", "grpo")), minus("family_drift", "rlcsd", "opsa", area).mean)),
    (STUDY, "gspo ends below grpo on the other kind (p {:.3f})", lambda: (corrected("family_drift")["family drift tests", "gspo", "other kind"],)),
    (STUDY, "ten of the twenty have their best at an edge of the three candidates (gspo, cispo, opsa, opsd, opsd_ectr and PW-OPSD at the lowest; dapo, dr_grpo, SDFT and rlcsd that spares at the highest)",
     lambda: {rate: {arm for arm, chosen in tables.chosen_rates("family_drift_rates").items() if chosen == rate} for rate in ("3e-5", "2e-4")}
     == {"3e-5": {"gspo", "cispo", "opsa", "opsd", "opsd_ectr", "pw_opsd"}, "2e-4": {"dapo", "dr_grpo", "sdft", "spares"}}),
    (STUDY, "The rates are not settled for half of the methods", lambda: sum(rate != "1e-4" for rate in tables.chosen_rates("family_drift_rates").values()) == 10),
    (STUDY, "and samples {:.1f} times as many tokens; on that of study 2", lambda: (tokens_of_dapo(),)),
    (STUDY, "Held-out accuracy goes from {:.3f} to {:.3f} under rlcsd and {:.3f} under dapo, with the others between.",
     lambda: (mean(record["before"]["held_out"] for arm in runs("smollm2").values() for record in arm.values()), *map(held_out, ("rlcsd", "dapo")))),
    (STUDY, "with the others between.",
     lambda: all(held_out("rlcsd") < held_out(arm) < held_out("dapo") for arm in ("grpo", "cepo", "spares"))),
    (STUDY, "**All methods but opsa learn the sums, and none of them is told apart from grpo.**",
     lambda: all((p > 0.05) == (row != "opsa") for (_, row, _), p in corrected("smollm2").items())),
    (README, "A pretrained SmolLM2-135M learns sums with grpo, dapo, cepo and rlcsd, and none is told apart from grpo.",
     lambda: all(p > 0.05 for (_, row, _), p in corrected("smollm2").items() if row != "opsa")),
    (STUDY, "dapo's area is {:.3f} above grpo's, which does not stand after correction (p {:.3f})",
     lambda: (minus("smollm2", "dapo", "grpo", area).mean, corrected("smollm2")["smollm2 tests", "dapo", "area"])),
    (STUDY, "rlcsd's, cepo's and the sparing form's intervals are on both sides of zero.",
     lambda: all(low < 0 < high for arm in ("rlcsd", "cepo", "spares") for _, low, high in [differences("smollm2", arm, "grpo", area)])),
    (STUDY, "{:+.3f} [{:+.3f}, {:+.3f}] in area, a comparison that was not among those chosen.",
     lambda: differences("smollm2", "spares", "rlcsd", area)),
    (STUDY, "its accuracy ends at {:.3f} and its entropy five times as high as grpo's.",
     lambda: (held_out("opsa"),)),
    (STUDY, "its entropy five times as high as grpo's.",
     lambda: about(end("smollm2", "opsa", "entropy") / end("smollm2", "grpo", "entropy"), 5, 0.5)),
    (STUDY, "a response has {:.0f} tokens, and two thirds of the groups are mixed on average.", lambda: (end("smollm2", "grpo", "length"),)),
    (STUDY, "two thirds of the groups are mixed on average.",
     lambda: all(about(means("smollm2", arm, "groups/mixed"), 2 / 3, 0.06) for arm in ("grpo", "dapo", "cepo", "rlcsd", "spares"))),
    (STUDY, "512 responses, log-normal with a mean of {:,.0f} tokens and a spread of {:.1f}, cut at {:,.0f}",
     lambda: (misaligned.MEAN, misaligned.SIGMA, misaligned.LIMIT)),
    (STUDY, "entropy falls to a third and hardly a line is worked any more, as under sdpo. With the contrast four fifths of the entropy and half of the worked lines stay.",
     lambda: all(about(end("drift", f"rlcsd-{s}", "entropy") / start("drift", "rlcsd", "entropy"), 1 / 3) and end("drift", f"rlcsd-{s}", "worked") < 0.02 for s in ("solution", "rollout")) and about(end("drift", "rlcsd", "entropy") / start("drift", "rlcsd", "entropy"), 0.8) and about(end("drift", "rlcsd", "worked") / start("drift", "rlcsd", "worked"), 0.55)),
    (STUDY, "In opsd it takes back most of the rise of entropy and three fifths of the growth of responses",
     lambda: share_of_change("drift", "opsd_ectr", "opsd", "entropy") < 0.3 and about(1 - share_of_change("drift", "opsd_ectr", "opsd", "length"), 0.6, 0.03)),
    (STUDY, "Accuracy on the trained kind is told apart in one comparison only, rlsd's contrast against an own rollout ({:+.3f}, p {:.3f}).",
     lambda: (minus("drift", "rlsd_ectr", "rlsd-rollout", seen).mean, corrected("drift")["plugin gains", "rlsd: contrast − own rollout", "test"])),
    (STUDY, "is told apart in one comparison only",
     lambda: sum((p < 0.05 for (table, _, column), p in corrected("drift").items() if (table, column) == ("plugin gains", "test"))) == 1),
    (README, "an oracle for right and wrong decisions ends {:.3f} above grpo. The published rlcsd is not told apart from grpo.",
     lambda: (minus("credit", "oracle", "grpo", seen).mean,)),
    (README, "(`variant=spare_agreed_tokens`) has a mean training accuracy {:.3f} above rlcsd's, at the price of entropy. That it beats grpo is not shown.",
     lambda: (minus("confirm", "spares", "rlcsd", area).mean,)),
    (README, "That it beats grpo is not shown.", lambda: corrected("confirm")["confirm against grpo", "spares", "area"] > 0.05),
    (STUDY, "lose {:.1f} to {:.1f} nats under a correct hint, and under wrong ones too", lambda: spread_of_style("teacher_gap")),
    (STUDY, "in the contrast at most {:.2f} are left", lambda: spread_of_style("contrast")[1:]),
    (STUDY, "It costs entropy.", lambda: end("confirm", "spares", "entropy") < end("confirm", "rlcsd", "entropy")),
    ("docs/methods.md", "whose area under the learning curve [the study](../experiments/study.md#study-2-credit) finds above rlcsd's",
     lambda: corrected("confirm")["confirm against rlcsd", "spares", "area"] < 0.05 < minus("confirm", "spares", "rlcsd", area).mean * 100),
    (STUDY, "**no difference between grpo, rlcsd and rlcsd with hints marginalised on both sides is measured**",
     lambda: min(corrected("default").values()) > 0.05),
]  # fmt: skip


# Of the runs' settings, and of sentences about the paper; no results
SETTINGS = (
    "the base of study 1 on 192 training problems", "One seed, 40 steps", "paired seeds, 30 steps", "Study 4 has these methods", "Rates below 3e-5 might do better", "The published rate of 1e-6 is small", "at temperature 1.1",
    "where rewards are 0 or 1", "from a rate of 1e-4: a rate of 3e-4", "a limit of 56 tokens", "The limit of 56 tokens", "when a fifth of the other tokens is labelled",
    "one base of 0.9 M parameters, and 30 steps", "trains on answers of 3, 5, 8 and 12 decisions with groups of 4 and 8", "The paper's section 4.3", "names the same nine for Qwen3-4B",
    "the 0.9 M-parameter base in the package", "40 steps of 16 prompts × 8 rollouts", "learning rate 1e-4, reference KL 0.", "Each accuracy is 150 test puzzles × 2 samples at T = 1",
    "± 95 % t-interval over seeds", "The learning rate (1e-4 against 3e-4)", "with seed 1.", "drifts in 40 steps",
    "On 2026-08-20 the authors fixed a fault of the published code (THU-BPM/RLCSD, issue 6, commit 83bbd06)", "and 0 beyond the end of its response", "a log-prob of 0, a probability of one",
    "(in study 1 a teacher that follows",
    "64 rollouts a step", "those of study 1.", "The task of study 2", "not that of study 2's records", "on the tasks of studies 1 and 2",
    "is that of study 1, each method", "second that of study 2.", "micro-batches have about one rollout for rlcsd and four", "the published 1e-6 is small",
    "learns for 200 steps at 1e-5", "On the task of study 2:",
    "SmolLM2-135M-Instruct", "sums of three one-digit numbers", "top-p 0.95 and top-k 20, on the task of study 1 at each method's rate of study 1.", "adapters of rank 16, learns sums",
    "20 steps of 4 prompts × 8 rollouts, one update each, learning rate 1e-4 for all, 64 held-out sums", "at 3e-4 rlcsd has nearly all right",
    "the records are of one H200", "lowers the least likely fifth of the tokens",
    "weight 0 outside 0.5 to 2 (", "cut at 2 or 0 outside 0.5 to 2", "is outside 0.98 to 1.02", "No token's ratio is outside 0.5 to 2",
)  # fmt: skip


@cache
def prose(page, begin=0, end=None):
    """The page without tables, code, figures and headings, its white space single."""
    text = (ROOT / page).read_text(encoding="utf-8")[begin:end]
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "#", "!", "<!--"))]
    return " ".join(" ".join(lines).split())


def checked(text, figures):
    """The text with its figures from the records."""
    found = figures()
    if isinstance(found, tuple):
        return text.format(*map(float, found))
    assert found, text
    return text


@pytest.mark.parametrize(("page", "text", "figures"), CLAIMS, ids=[f"{page}: {text[:50]}" for page, text, _ in CLAIMS])
def test_a_sentence_says_what_the_records_say(page, text, figures):
    assert checked(text, figures) in prose(page)


FIGURE = re.compile(
    r"(?<![\w.])[+−-]?\d+(?:[.,]\d+)?(?![\w.]*\d*e-)|\b(?:third|thirds|half|twice|doubles?|triples?|quarter|fourths?|fifths?|times)\b"
)


def test_no_figure_of_a_study_stands_in_a_sentence_unchecked():
    page = (ROOT / STUDY).read_text(encoding="utf-8")
    begin, end_ = page.index("## What a hint says"), page.index("### Where the signal is")
    left = prose(STUDY, begin, end_)
    for text in sorted(
        [*SETTINGS, *(checked(text, figures) for p, text, figures in CLAIMS if p == STUDY)], key=len, reverse=True
    ):
        left = left.replace(text, " … ")
    assert [
        left[max(0, m.start() - 60) : m.end() + 40] for m in FIGURE.finditer(re.sub(r"`[^`]*`|\]\([^)]*\)", "", left))
    ] == []


def test_the_conclusions_quote_the_tables():
    """The page opens with them: each interval stands in a table, those called sure have a p below 0.001 there."""
    page = (ROOT / STUDY).read_text(encoding="utf-8")
    conclusions = page.split("## Conclusions")[1].split("\n## ")[0]
    quoted = re.findall(r"[+-][\d.]+ \[[^]]*\]", conclusions)
    assert len(quoted) == 17 and page.index("## Conclusions") < page.index("\n|")
    in_tables = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    assert [interval for interval in quoted if interval not in in_tables] == []
    assert all(f"{interval}, p < 0.001" in in_tables for interval in quoted[:4])
