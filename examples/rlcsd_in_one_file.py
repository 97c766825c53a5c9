"""RLCSD in one file: reinforcement learning with contrastive self-distillation (Pan et al., arXiv 2606.11709).

    python examples/rlcsd_in_one_file.py                          # this repository's tiny model learns puzzles
    python examples/rlcsd_in_one_file.py --model NAME --data problems.jsonl --learning-rate 1e-6 --max-tokens 1024

Read it from top to bottom, with docs/learn.md beside it. It needs torch and transformers alone. One training step:

    sample    the policy writes G responses to each prompt: a group
    grade     a verifier compares answers; the rewards of a group become advantages
    hint      each response gets one correct sibling and up to K wrong ones, which a teacher will be shown
    score     log-probs of the same response ids under each hint; their contrast e_t
    credit    e_t shifts the advantage of the tokens on which correct and wrong hints disagree
    update    a clipped surrogate with two means, over the shifted tokens and over the others; AdamW

The library (`rlcsd train`) does the same, which a test checks. It also has what is left out here for brevity:

* speed: here prompts and hints are computed again for every response, and generate() samples;
* memory: here weights are float32 and all logits of a pass are kept; no adapters, no checkpointing, no cluster;
* importance weights for a sampler that differs from the trainer, reference KL, entropy bonus, cutting long hints;
* verifiers that understand mathematics, checkpoints, logs, guards, and the other methods.

Shapes: G responses of a group, B rows of a forward pass, T tokens of a response (of the longest, if padded), N response
tokens of a mini-batch laid end to end, n of a part of it, K wrong hints, V vocabulary.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

# Settings; each is an option of the command line.
GROUP = 8  # G, responses to each prompt
K = 4  # most wrong hints of a response
TAU = 0.02  # contrast at which the residual saturates, in nats
LAM = 0.5  # size of a saturated residual, against advantages of about 1
BOUND = 2.0  # bound of the residual
DELTA = 0.02  # a residual above this selects its token
ETA = 1.0  # weight of the selected tokens' mean
EPSILON = 0.2  # clip range of the probability ratio
SNAPSHOT_EVERY = 10  # optimizer steps after which the teacher becomes a copy of the policy
STEPS = 40
PROMPTS = 16  # problems of a step
PROMPTS_PER_UPDATE = 4  # so four optimizer steps for each batch of responses
LEARNING_RATE = 1e-4  # the paper has 1e-6, for models of 1.7 to 8 billion parameters
WARMUP = 5  # steps in which the learning rate rises
MAX_TOKENS = 256  # of a response
ROWS = 16  # responses of one forward pass
SEED = 0
MODEL = str(Path(__file__).parents[1] / "src/rlcsd/bases/tiny")  # a chat model: name on the hub, folder or GGUF file
DATA = str(Path(__file__).parent / "puzzles.jsonl")  # lines with "question", which asks for \boxed{}, and "answer"
HELD_OUT = 128  # the first problems of DATA, for the accuracy before and after
SETTINGS = {name: value for name, value in globals().items() if name.isupper()}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Rollout:
    """One response, and what the stages find out about it."""

    problem: dict[str, str]  # question, answer
    prompt: list[int]
    response: list[int]  # [T], with the end-of-turn token
    text: str
    answer: str | None  # the content of its last box
    correct: bool
    old: Tensor | None = None  # [T] log-probs under the policy that sampled
    advantage: float = 0.0
    hints: list[Rollout] = field(default_factory=list)  # a correct sibling, then the wrong ones


# ---- sample and grade ----


def chat(tokenizer, content: str) -> list[int]:
    """Ids of a user's message, up to where the assistant begins to write."""
    message = [{"role": "user", "content": content}]
    return list(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))


def left_padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of rows that end at the right edge, both [B, longest]."""
    tensors = [torch.tensor(row, device=DEVICE) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=-1, padding_side="left")
    return ids.clamp(min=0), (ids >= 0).long()


@torch.no_grad()
def sample(policy, tokenizer, problems: list[dict[str, str]], n: int) -> list[list[Rollout]]:
    """A group of n verified responses to each problem, from the policy's whole distribution."""
    end = tokenizer.eos_token_id
    asked = [(problem, chat(tokenizer, problem["question"])) for problem in problems for _ in range(n)]
    ids, mask = left_padded([prompt for _, prompt in asked])
    whole = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "eos_token_id": end, "pad_token_id": end}
    written = policy.generate(ids, attention_mask=mask, max_new_tokens=MAX_TOKENS, **whole)
    rollouts = []
    for (problem, prompt), row in zip(asked, written[:, ids.shape[1] :].tolist(), strict=True):
        response = row[: row.index(end) + 1] if end in row else row
        text = tokenizer.decode(response, skip_special_tokens=True)
        boxes = re.findall(r"\\boxed\{([^{}]*)\}", text)
        answer = boxes[-1].strip() if boxes else None
        rollouts.append(Rollout(problem, prompt, response, text, answer, answer == problem["answer"]))
    old = log_probs(policy, [r.prompt for r in rollouts], [r.response for r in rollouts])
    for rollout, values in zip(rollouts, old, strict=True):
        rollout.old = values
    return [rollouts[start : start + n] for start in range(0, len(rollouts), n)]


def set_advantages(group: list[Rollout]) -> None:
    """A = (r − mean) / std over the group, as in GRPO. The reward r is 1 for a correct response, else 0."""
    rewards = [float(rollout.correct) for rollout in group]
    mean, std = statistics.mean(rewards), statistics.stdev(rewards)
    for rollout, reward in zip(group, rewards, strict=True):
        rollout.advantage = (reward - mean) / (std + 1e-6)


# ---- hint ----


def draw_hints(group: list[Rollout], rng: random.Random) -> None:
    """For each response one correct sibling and up to K wrong ones. Without both it has no hints and is left out.

    A response is never its own hint: the teacher would read there what it is to judge.
    """
    for rollout in group:
        siblings = [other for other in group if other is not rollout]
        correct = [other for other in siblings if other.correct]
        wrong = [other for other in siblings if not other.correct and other.answer]
        if correct and wrong:
            rollout.hints = [rng.choice(correct), *rng.sample(wrong, min(K, len(wrong)))]


def teacher_message(rollout: Rollout, hint: Rollout) -> str:
    """Correct and wrong hints stand in the very same words, so that the effect of these words cancels."""
    reference = f"Reference Solution:\n{hint.text.strip()}\n\nCorrect final answer: {hint.answer}"
    return f"{rollout.problem['question']}\n\n{reference}\n\nNow give your own solution to the question above."


# ---- score and credit ----


def log_probs(model, contexts: list[list[int]], responses: list[list[int]]) -> list[Tensor]:
    """log π(y_t | context, y_<t) of each response, [T] each."""
    scores = []
    for start in range(0, len(responses), ROWS):
        part = responses[start : start + ROWS]
        ids, mask = left_padded([a + b for a, b in zip(contexts[start : start + ROWS], part, strict=True)])
        longest = max(map(len, part))
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        out = model(ids, attention_mask=mask, position_ids=places, logits_to_keep=longest + 1, use_cache=False)
        log_p = out.logits[:, :-1].log_softmax(-1)  # [B, T, V]: each place predicts the token after it
        rows = log_p.gather(-1, ids[:, -longest:, None])[..., 0]  # [B, T]
        scores += [row[-len(response) :] for row, response in zip(rows, part, strict=True)]
    return scores


def contrast(under: Tensor) -> Tensor:
    """e_t = log π_T(y_t | correct hint) − log (1/K) Σ_k π_T(y_t | wrong hint k);  [1 + K, T] → [T]."""
    correct, wrong = under[0], under[1:]
    return correct - (wrong.logsumexp(0) - math.log(len(wrong)))


@torch.no_grad()
def score(teacher, tokenizer, batch: list[Rollout]) -> Tensor:
    """The contrast of every token, [N]: the teacher reads the same response ids after each hint."""
    pairs = [(rollout, hint) for rollout in batch for hint in rollout.hints]
    contexts = [chat(tokenizer, teacher_message(rollout, hint)) for rollout, hint in pairs]
    scores = iter(log_probs(teacher, contexts, [rollout.response for rollout, _ in pairs]))
    return torch.cat([contrast(torch.stack([next(scores) for _ in r.hints])) for r in batch])


def assign_credit(advantage: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages A'_t and the selected tokens, both [N], from the group advantage and the contrast, both [N]."""
    residual = (LAM * torch.tanh(e / TAU)).clamp(-BOUND, BOUND)
    selected = residual.abs() > DELTA
    shifted = advantage + torch.where(selected, residual, 0.0)
    # The anchor: hints may change how far a token is pushed; the verifier alone says whether up or down.
    return torch.where(advantage > 0, shifted.clamp(min=0), shifted.clamp(max=0)), selected


# ---- update ----


def path_weights(selected: Tensor) -> Tensor:
    """[N] weights of two means, each with its own count: over the selected tokens, and over the others."""
    count = selected.sum()
    return torch.where(selected, ETA / count.clamp(min=1), 1 / (len(selected) - count).clamp(min=1))


def clipped_loss(log_prob: Tensor, old: Tensor, credit: Tensor) -> Tensor:
    """−min(ρ A', clip(ρ, 1 − ε, 1 + ε) A') of each token, where ρ = π / π_old (PPO); all [n]."""
    ratio = (log_prob - old).exp()
    return -torch.minimum(ratio * credit, ratio.clamp(1 - EPSILON, 1 + EPSILON) * credit)


def backward(policy, batch: list[Rollout], credit: Tensor, weight: Tensor) -> float:
    """Add the gradient of the mini-batch's loss to the policy, a few rows at a time; returns the loss."""
    old, total, first = torch.cat([rollout.old for rollout in batch]), 0.0, 0
    for start in range(0, len(batch), ROWS):
        part = batch[start : start + ROWS]
        log_prob = torch.cat(log_probs(policy, [r.prompt for r in part], [r.response for r in part]))  # [n]
        tokens = slice(first, first := first + len(log_prob))
        loss = (weight[tokens] * clipped_loss(log_prob, old[tokens], credit[tokens])).sum()
        loss.backward()
        total += loss.item()
    return total


class Learner:
    """The policy, its teacher, which is an earlier copy of it, and the optimizer."""

    def __init__(self, policy, tokenizer) -> None:
        self.policy, self.tokenizer = policy, tokenizer
        self.teacher = copy.deepcopy(policy).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        self.rng, self.steps, self.updates = random.Random(SEED), 0, 0

    def step(self, problems: list[dict[str, str]]) -> dict[str, float]:
        """One training step; returns what is worth printing."""
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, self.steps / WARMUP)
        groups, selected = sample(self.policy, self.tokenizer, problems, GROUP), []
        for group in groups:
            set_advantages(group)
            draw_hints(group, self.rng)
        for start in range(0, len(groups), PROMPTS_PER_UPDATE):
            if batch := [r for group in groups[start : start + PROMPTS_PER_UPDATE] for r in group if r.hints]:
                selected.append(self.update(batch))
        rollouts = [rollout for group in groups for rollout in group]
        return {
            "reward": statistics.mean(r.correct for r in rollouts),
            "length": statistics.mean(len(r.response) for r in rollouts),
            "hinted": statistics.mean(bool(r.hints) for r in rollouts),
            "selected": statistics.mean(selected or [0.0]),
        }

    def update(self, batch: list[Rollout]) -> float:
        """One optimizer step; returns the share of selected tokens."""
        e = score(self.teacher, self.tokenizer, batch)
        advantage = torch.cat([torch.full_like(r.old, r.advantage) for r in batch])
        credit, selected = assign_credit(advantage, e)
        self.optimizer.zero_grad()
        backward(self.policy, batch, credit, path_weights(selected))
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.updates += 1
        if self.updates % SNAPSHOT_EVERY == 0:
            self.teacher.load_state_dict(self.policy.state_dict())
        return selected.float().mean().item()


# ---- main ----


def load(path: str):
    """A model and its tokenizer. In evaluation mode, so that no dropout makes ρ differ from 1."""
    gguf = {"gguf_file": Path(path).name} if path.endswith(".gguf") else {}
    folder = Path(path).parent if gguf else path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **gguf).to(DEVICE)
    return model.eval(), AutoTokenizer.from_pretrained(folder, **gguf)


def accuracy(policy, tokenizer, problems: list[dict[str, str]]) -> float:
    return statistics.mean(rollout.correct for group in sample(policy, tokenizer, problems, 2) for rollout in group)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in SETTINGS.items():
        parser.add_argument("--" + name.lower().replace("_", "-"), type=type(value), default=value, dest=name)
    globals().update(vars(parser.parse_args()))
    torch.manual_seed(SEED)
    problems = [json.loads(line) for line in Path(DATA).read_text(encoding="utf-8").splitlines()]
    held_out, training = problems[:HELD_OUT], problems[HELD_OUT:]
    policy, tokenizer = load(MODEL)
    learner = Learner(policy, tokenizer)
    print(f"accuracy before {accuracy(policy, tokenizer, held_out):.3f}, on {len(held_out)} held-out problems")
    for number in range(1, STEPS + 1):
        figures = learner.step(learner.rng.sample(training, PROMPTS))
        shown = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        print(f"step {number}  {shown}", flush=True)
    print(f"accuracy after {accuracy(policy, tokenizer, held_out):.3f}")


if __name__ == "__main__":
    main()
