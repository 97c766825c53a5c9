"""Cost model of a training step: tokens as the engine computes them, FLOPs, and an estimate of seconds on a GPU.

Tokens are expected values, given lengths and how many rollouts of a group are correct: distinct prefixes count once,
rollouts without a usable hint are not scored, rows without a gradient are not updated. Seconds are FLOPs and bytes over
the rates of a data sheet, times the shares of them that `Efficiency` assumes. `benchmarks/costs.py` compares tokens and
seconds with measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config.schema import Config, VerlEngineConfig
from ..errors import InputError
from ..methods.base import ContrastConfig, HintedConfig, Method
from .local.memory import Shape, load_shape
from .throughput import PEAK_TFLOPS
from .work import Work, after, flops


@dataclass(frozen=True)
class Device:
    """`flops` per second of dense bf16 matrix products, `bandwidth` and `memory` in bytes, from the data sheet."""

    flops: float
    bandwidth: float
    memory: float


_MEMORY = {  # bytes a second and bytes, from the data sheets
    "A100": (2.04e12, 80e9),
    "H100": (3.35e12, 80e9),
    "H200": (4.8e12, 141e9),
    "H20": (4.0e12, 96e9),
    "B200": (8.0e12, 180e9),
}
DEVICES: Mapping[str, Device] = {
    name: Device(dict(PEAK_TFLOPS)[name] * 1e12, *memory) for name, memory in _MEMORY.items()
}


@dataclass(frozen=True)
class Efficiency:
    """Assumed shares of a device's rates.

    `forward` and `update`: of `flops`, in passes without gradient and in the update. `decode`: of `bandwidth`. `cache`:
    of `memory`, for the KV caches of responses.
    """

    forward: float = 0.45
    update: float = 0.35
    decode: float = 0.5
    cache: float = 0.4


@dataclass(frozen=True)
class Batch:
    """The rollouts of one training step; lengths are mean numbers of tokens.

    `longest` is the longest response, for which the step waits. `solution` is the data set's, and `template` the
    wording around a hint with its final answer. `correct` are the probabilities that 0, 1, … G rollouts of a group are
    correct, by default equal.
    """

    prompts: int
    group_size: int
    prompt: float
    response: float
    longest: float
    solution: float = 512
    template: float = 32
    correct: Sequence[float] | None = None

    @property
    def outcomes(self) -> list[tuple[int, float]]:
        """Pairs of (correct rollouts in a group, expected number of such groups)."""
        count = self.group_size + 1
        shares = self.correct or [1 / count] * count
        return [(correct, self.prompts * share) for correct, share in enumerate(shares)]


def update_flops(shape: Shape, work: Work, config: Config) -> float:
    """FLOPs of a forward and a backward pass.

    What is not kept is computed again: all of it under gradient checkpointing, and the head in any case, unless a
    micro-batch is a single chunk.
    """
    again = Work(head=work.head) if config.engine.micro_batch_tokens > config.engine.head_chunk else Work()
    return 3 * flops(shape, work) + flops(shape, work if config.model.gradient_checkpointing else again)


# ------------------------------------------------------------------ tokens of each phase


@dataclass(frozen=True)
class HintCounts:
    """Expected numbers in one group: rows with a usable hint, pairs to score, distinct contexts by kind of hint."""

    rows: float
    pairs: float
    siblings: float
    solutions: float


def hint_counts(correct: int, size: int, method: Method) -> HintCounts:
    """Expected hints of a group with `correct` correct rollouts of `size`.

    As `stages.hint` draws them: at most `max_correct_hints` correct and `k_max` wrong ones, never the rollout itself.
    """
    config = method.config
    assert isinstance(config, HintedConfig)
    wrong = size - correct
    if not method.scores_zero_advantage and wrong * correct == 0:
        return HintCounts(0, 0, 0, 0)
    max_wrong, max_correct = 0, 1
    if isinstance(config, ContrastConfig) and method.needs_contrast:
        max_wrong, max_correct = config.k_max, config.max_correct_hints
    if isinstance(config, ContrastConfig) and str(config.hint_source) == "answer_pair":
        return _answer_pair_counts(correct, wrong, config)
    from_group = config.hint_source in ("own_rollout", "self_rollout")
    rows = pairs = 0.0
    unused_correct, unused_wrong = 1.0, 1.0  # probability that a given rollout is in no hint
    for own, count in ((1, correct), (0, wrong)):  # correct rollouts, then wrong ones
        others, others_wrong = correct - own, wrong - (1 - own)
        if count == 0 or (from_group and others == 0) or (max_wrong and others_wrong == 0):
            continue
        drawn = min(max_wrong, others_wrong)
        shown = min(max_correct, others) if from_group else 1
        rows, pairs = rows + count, pairs + count * (shown + drawn)
        if from_group:
            unused_correct *= (1 - shown / others) ** (count - own)
        if drawn:
            unused_wrong *= (1 - drawn / others_wrong) ** (count - (1 - own))
    siblings = wrong * (1 - unused_wrong) + (correct * (1 - unused_correct) if from_group else 0.0)
    return HintCounts(rows, pairs, siblings, 0.0 if from_group or rows == 0 else 1.0)


def _answer_pair_counts(correct: int, wrong: int, config: ContrastConfig) -> HintCounts:
    """All rollouts see the same answers, except that with `exclude_self` a worst rollout sees the next one's."""
    others = wrong - config.exclude_self  # those that a wrong rollout may be shown
    each = ((correct, min(config.k_max, wrong)), (wrong, min(config.k_max, others)))
    rows = sum(count for count, drawn in each if drawn > 0)
    pairs = sum(count * (1 + drawn) for count, drawn in each if drawn > 0)
    shown = min(config.k_max + config.exclude_self, wrong) if others > 0 else min(config.k_max, wrong) * (correct > 0)
    return HintCounts(rows, pairs, 0.0, 1.0 + shown if rows else 0.0)


def scoring_work(batch: Batch, method: Method, shared: bool = True) -> Work:
    """The teacher's forward passes: a question once, each distinct hint once, each response under each of its hints.

    Without `shared` prefixes, question and hint are computed again for each response.
    """
    if not method.hinted:
        return Work()
    total = Work()
    solution = batch.template + (batch.solution if method.config.hint_source == "gt_cot" else 0)
    sibling = batch.template + batch.response
    for correct, groups in batch.outcomes:
        counts = hint_counts(correct, batch.group_size, method)
        contexts = counts.siblings + counts.solutions
        if not contexts:
            continue
        hint = (counts.siblings * sibling + counts.solutions * solution) / contexts
        once = after(0, batch.prompt) + after(batch.prompt, hint) * contexts
        group = once if shared else after(0, batch.prompt + hint) * counts.pairs
        total += (group + after(batch.prompt + hint, batch.response, head=True) * counts.pairs) * groups
    return total


def _rows(batch: Batch, method: Method, regularised: bool) -> list[tuple[float, float]]:
    """Pairs of (rows with a gradient in one group, expected number of such groups)."""
    rows = []
    for correct, groups in batch.outcomes:
        kept = float(batch.group_size)
        if method.hinted and method.config.unusable == "drop":
            # Some methods do not score a group whose advantages are all 0, yet it stays in the mini-batch.
            alike = correct in (0, batch.group_size) and not method.scores_zero_advantage
            kept = kept if alike else hint_counts(correct, batch.group_size, method).rows
        needed = regularised or method.uses_advantage != "always" or 0 < correct < batch.group_size
        rows.append((kept if needed else 0.0, groups))
    return rows


def update_work(batch: Batch, method: Method, regularised: bool = False, shared: bool = True) -> Work:
    """The update's forward pass: each prompt once if `shared`, each row with a gradient once."""
    total = Work()
    for rows, groups in _rows(batch, method, regularised):
        prompts = min(rows, 1.0) if shared else rows
        row = after(batch.prompt, batch.response, head=True)
        total += (after(0, batch.prompt) * prompts + row * rows) * groups
    return total


def sampling_work(batch: Batch) -> tuple[Work, Work]:
    """Prefill, each prompt once, and decoding."""
    row = after(batch.prompt, batch.response, head=True)
    return after(0, batch.prompt) * batch.prompts, row * (batch.prompts * batch.group_size)


def step_work(batch: Batch, method: Method, config: Config, step: int = 1) -> dict[str, Work]:
    """Work of training step `step` by phase.

    `prefill` and `decode` are sampling, `score` is without gradient, `update` is one forward pass. `score` includes a
    pass for the policy's own log-probs where a server samples, whose arithmetic is not the trainer's.
    """
    e = config.engine
    cluster = isinstance(e, VerlEngineConfig)
    shared = e.share_prefixes if isinstance(e, VerlEngineConfig) else True
    regularised = config.kl_coefficient > 0 or config.entropy_coefficient > 0
    row = after(batch.prompt, batch.response, head=True)
    kept = sum(rows * groups for rows, groups in _rows(batch, method, True))
    own = after(0, batch.prompt) * (batch.prompts if shared else kept) + row * kept
    # The student's own top-k, the reference, and the log-probs that a server does not give.
    passes = (method.topk_from == "student") + (config.kl_coefficient > 0) + (getattr(e, "sampler", "vllm") != "local")
    score = (scoring_work(batch, method, shared) if method.asks_teacher(step) else Work()) + own * passes
    prefill, decode = sampling_work(batch)
    return {
        "prefill": prefill,
        "decode": decode,
        "score": score,
        "update": update_work(batch, method, regularised, not (cluster or config.model.gradient_checkpointing)),
    }


# ------------------------------------------------------------------ seconds


def step_seconds(
    shape: Shape,
    batch: Batch,
    method: Method,
    config: Config,
    device: Device,
    devices: int = 1,
    efficiency: Efficiency = Efficiency(),
    step: int = 1,
) -> dict[str, float]:
    """Estimated seconds of training step `step` by phase, in bf16, with the work spread evenly over all devices.

    An update takes at least as long as its longest row on the devices that share it. Transfers between devices are not
    counted apart; they are part of what `efficiency` leaves out.
    """
    work = step_work(batch, method, config, step)
    passes = efficiency.forward * device.flops * devices
    updates = config.prompts_per_step / config.prompts_per_update
    row = after(0, batch.prompt) + after(batch.prompt, batch.longest, head=True)
    whole, longest = (update_flops(shape, one, config) for one in (work["update"], row))
    busiest = max(whole / devices, updates * longest / getattr(config.engine, "sequence_parallel", 1) if whole else 0.0)
    return {
        "sample": sampling_seconds(shape, batch, config, device, devices, efficiency),
        "score": flops(shape, work["score"]) / passes,
        "update": busiest / (efficiency.update * device.flops),
    }


def sampling_seconds(
    shape: Shape,
    batch: Batch,
    config: Config,
    device: Device,
    devices: int = 1,
    efficiency: Efficiency = Efficiency(),
) -> float:
    """Estimated seconds until the last response of `batch` has ended, in bf16, by servers that vLLM runs."""
    passes = efficiency.forward * device.flops * devices
    prefill, decode = (flops(shape, work) / passes for work in sampling_work(batch))
    return prefill + max(decode, _reading(shape, batch, config, device, devices, efficiency))


def evaluations(config: Config, steps: int) -> int:
    """How often a run of `steps` steps measures held-out accuracy."""
    every = int(config.evaluation.every)  # whole steps: `prepare.with_whole_steps`
    during = steps // every if every else 0
    return int(config.evaluation.before) + during + int(not every or steps % every > 0)


def evaluation_seconds(
    shape: Shape,
    problems: int,
    config: Config,
    device: Device,
    devices: int = 1,
    efficiency: Efficiency = Efficiency(),
) -> float:
    """Estimated seconds of one evaluation of `problems` problems; each batch waits for a response of full length."""
    e, limit = config.evaluation, config.evaluation.sampling.max_tokens
    size = e.batch or max(problems, 1)
    sizes = [size] * (problems // size) + [problems % size] * (problems % size > 0)
    batches = [Batch(count, e.samples, config.max_prompt_tokens / 4, limit / 2, limit) for count in sizes]
    return sum(sampling_seconds(shape, batch, config, device, devices, efficiency) for batch in batches)


def _reading(shape: Shape, batch: Batch, config: Config, device: Device, devices: int, efficiency: Efficiency) -> float:
    """Seconds of decoding, bound by memory bandwidth.

    Each decoding step reads the weights and the caches of the rows in flight; a row that ends is replaced by one that
    waits. A server divides both among its `engine.tensor_parallel` devices.
    """
    e, slot = config.engine, shape.layers * 2 * shape.keys * 2.0  # bytes of the cache for one token
    share, max_rows, memory = 1, batch.prompts * batch.group_size, efficiency.cache * device.memory
    if isinstance(e, VerlEngineConfig):
        share, max_rows = e.tensor_parallel, e.rollout_rows
        memory = e.rollout_memory * device.memory * share - 2.0 * shape.parameters
    rows = batch.prompts * batch.group_size * share / devices
    at_once = max(1.0, min(max_rows, memory / (slot * (batch.prompt + batch.response))))
    steps = max(batch.longest, rows * batch.response / at_once)
    caches = slot * after(batch.prompt, batch.response).attended * batch.prompts * batch.group_size
    reads = 2.0 * shape.parameters / share * steps + caches / devices
    return reads / (efficiency.decode * device.bandwidth)


def planned_batch(config: Config) -> Batch:
    """The batch that a plan assumes: prompts of a quarter and responses of half of their limit, one at the limit."""
    limit = config.sampling.max_tokens
    return Batch(config.prompts_per_step, config.group_size, config.max_prompt_tokens / 4, limit / 2, limit)


def hours_line(config: Config, method: Method, steps: int | None, problems: int | None = None) -> str:
    """One line for a run's plan: estimated hours on each kind of GPU, or why there is no estimate.

    Args:
        steps: the estimate is for 100 steps if their number is not known.
        problems: those of all evaluation sets; None: not known, and evaluation is not counted.
    """
    try:
        shape = load_shape(config.model)
    except InputError as error:
        return f"not estimated: {error}"
    devices = config.engine.gpus if isinstance(config.engine, VerlEngineConfig) else 1
    batch, count = planned_batch(config), steps or 100

    def evaluating(device: Device) -> float:
        return evaluations(config, count) * evaluation_seconds(shape, problems or 0, config, device, devices) / 3600

    def training(device: Device) -> float:
        def seconds(step: int) -> float:
            return sum(step_seconds(shape, batch, method, config, device, devices, step=step).values())

        asked = sum(map(method.asks_teacher, range(1, count + 1)))  # of some methods the first steps alone
        return (asked * seconds(1) + (count - asked) * seconds(count)) / 3600

    listed = ", ".join(f"{name} {_hours(training(one) + evaluating(one))}" for name, one in DEVICES.items())
    what = "estimated" if steps else "estimated for 100 steps"
    of_it = "without evaluation"
    if problems is not None:
        times = evaluations(config, count)
        shares = f", on H100 {_hours(evaluating(DEVICES['H100']))} hours of it" if problems else ""
        of_it = f"with {times} evaluation{'s' * (times != 1)} of {problems} problems{shares}"
    return f"{what} on {devices} × {listed} (responses of half the limit, sampled by vLLM; {of_it})"


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else "under 0.1"
