"""Every mistake of one table ends in one sentence and exit code 2, and leaves nothing behind.

docs/mistakes.md shows a few of them: python -m tests.cli.test_mistakes > docs/mistakes.md
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlcsd.cli import main
from rlcsd.engine.local.model import TINY

PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
SMALL = (
    "steps=1 prompts_per_step=2 prompts_per_update=2 group_size=3 sampling.max_tokens=16 evaluation.every=0 evaluation.before=false "
    "evaluation.sampling.max_tokens=16 engine.self_check=false engine.threads=1 trackers=[] figures=false run_name=mine"
)
PUZZLES = "task.train_per_size=4 task.eval_per_size=2"


@dataclass(frozen=True)
class Mistake:
    """`command` is what is typed behind `rlcsd`; `words` must be in the sentence; `files` are made before.

    `hidden` are overrides that keep the test quick, and are not shown. A `late` mistake shows only when the run has begun,
    so the run's folder stays. `harm` is done to a copy of the tiny model in `model`.
    """

    command: str
    words: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    hidden: str = ""
    late: bool = False
    harm: str = ""


def _files(name: str, content: str | bytes, words: str, more: str = "") -> Mistake:
    return Mistake(f"train task=files task.train={name}{more}", words, {name: content})


def _verifier(body: str, words: str, late: bool = False) -> Mistake:
    """A task of the user's own whose verifier has `body`."""
    code = (
        "from rlcsd import Problem, Task\n\n\n"
        f"def verify(response, answer):\n    {body}\n\n\n"
        "def task():\n    problems = [Problem(f'{n}?', str(n)) for n in range(4)]\n"
        "    return Task('mine', problems, {'more': problems}, verify, verifier_seconds=1)\n"
    )
    return Mistake("train task=mine.py:task", words, {"mine.py": code}, f"method=grpo {SMALL}", late)


def _task(body: str, words: str) -> Mistake:
    """A task file whose `task()` returns `body`."""
    code = (
        "from rlcsd import Problem, Task\n\nP = [Problem('1?', '1')]\n\n\n"
        f"def verify(response, answer):\n    return response == answer\n\n\ndef task():\n    return {body}\n"
    )
    return Mistake("train task=mine.py:task", words, {"mine.py": code})


FINE = '{"question": "1?", "answer": "1"}\n'

OVERRIDES = [
    Mistake("train nonsense", "key=value"),
    Mistake("train =5", "key=value"),
    Mistake("train ~steps", "~steps"),
    Mistake("train steps=", "steps="),
    Mistake("train steps=[1", "steps=[1"),
    Mistake("train steps=???", "a value is needed"),
    Mistake("train größe=1", "größe"),
    Mistake("train run_name=a,b", "more than one"),
    Mistake("train 'steps=choice(1,2)'", "more than one"),
    Mistake("train learning_rte=1", "did you mean 'learning_rate'"),
    Mistake("train num_generations=8", "did you mean 'group_size'"),
    Mistake("train grad_norm=1", "its name is 'max_grad_norm' now"),
    Mistake("train sampling.top_q=1", "did you mean 'sampling.top_p'"),
    Mistake("train engine.name=lokal", "did you mean 'local'"),
    Mistake("train ~method", "~method"),
    Mistake("train 'task.forms=[atom,'", "cannot be read"),
    Mistake("train sampling.max_tokns=1", "did you mean 'sampling.max_tokens'"),
    Mistake("train engine.thread=1", "did you mean 'engine.threads'"),
    Mistake("train model.lora.rnk=8", "did you mean 'model.lora.rank'"),
    Mistake("train model.lora.target_modules=[]", "model.lora.target_modules=[]: must have at least 1 item"),
    Mistake("train method=opsa objective=dapo", "set refill_batches=0"),
    Mistake("train method=opsa group_size=1 refill_batches=2", "refill_batches=2"),
    Mistake("train method=sdpo method.unusable=plain", "must be 'drop'"),
    Mistake("train method=rlcds", "did you mean 'rlcsd'"),
    Mistake("train model=tyni", "did you mean 'tiny'"),
    Mistake("train task=kk_tny", "did you mean 'kk_tiny'"),
    Mistake("train engine=lokal", "did you mean 'local'"),
    Mistake("train method.taux=1", "did you mean 'method.tau'"),
    Mistake("train task.train_size=[3]", "did you mean 'task.train_sizes'"),
    Mistake("train hydra.run.dir=x", "hydra.run.dir"),
    Mistake("train +hydra.verbose=true", "hydra.verbose"),
    Mistake("train 'project=${oc.env:HF_TOKEN}'", "only another key may be referred to"),
    Mistake("train 'project=${nobody}'", "nobody"),
    Mistake("train 'steps=${steps}'", "steps"),
    Mistake("train model=tiny model=[tiny]", "model"),
    Mistake("train sampling=5", "section of keys"),
    Mistake("train variant=nobody", "published, as_run, authors, pw_opsd, sdft, spare_agreed_tokens"),
    Mistake("train variant=authors method=opsd_ectr", "opsd_ectr"),
]
VALUES = [
    Mistake("train steps=true", "must be an integer"),
    Mistake("train steps=many", "must be an integer"),
    Mistake("train steps=1.5", "must be an integer"),
    Mistake("train learning_rate=abc", "must be a number"),
    Mistake("train prompts_per_step=1.5", "must be an integer"),
    Mistake("train group_size=2", "at least 3"),
    Mistake("train steps=0", "at least 1"),
    Mistake("train steps=-1", "at least 1"),
    Mistake("train steps=99999999999", "at most"),
    Mistake("train seed=-1", "at least 0"),
    Mistake("train epochs=0", "at least 1"),
    Mistake("train learning_rate=0", "greater than 0"),
    Mistake("train learning_rate=-1e-6", "greater than 0"),
    Mistake("train learning_rate=nan", "finite"),
    Mistake("train learning_rate=inf", "finite"),
    Mistake("train learning_rate=1e-6x", "must be a number"),
    Mistake("train weight_decay=-1", "at least 0"),
    Mistake("train max_grad_norm=0", "greater than 0"),
    Mistake("train kl_coefficient=-1", "at least 0"),
    Mistake("train importance_weight_cap=0", "greater than 0"),
    Mistake("train rollout_correction=sequence", "rollout_correction"),
    Mistake("train importance_weight_floor=3", "must be at most importance_weight_cap=2"),
    Mistake("train rollout_rejection=[2,0.5]", "rollout_rejection"),
    Mistake("train rollout_rejection=[-1,2]", "such as [0.5,2]"),
    Mistake("train sampling_mask=true sampling.top_p=0.9 sampling.top_k=0", "sampling.top_k=0 puts no bound"),
    Mistake("train group_size=1", "at least 3"),
    Mistake("train group_size=1 method=grpo", "at least 2"),
    Mistake("train prompts_per_update=5", "must divide prompts_per_step=16"),
    Mistake("train figures=perhaps", "true or false"),
    Mistake("train sampling.temperature=-1", "at least 0"),
    Mistake("train sampling.top_p=0", "greater than 0"),
    Mistake("train sampling.top_p=1.5", "at most 1"),
    Mistake("train sampling.top_k=-1", "at least 0"),
    Mistake("train sampling.max_tokens=0", "at least 1"),
    Mistake("train sampling.max_tokens=5000", "use at most"),
    Mistake("train evaluation.samples=0", "at least 1"),
    Mistake("train max_prompt_tokens=10", "max_prompt_tokens=10"),
    Mistake("train max_teacher_tokens=0", "at least 1"),
    Mistake("train guard.policy=halt", "skip"),
    Mistake("train guard.entropy=[1]", "must have at least 2 items"),
    Mistake("train guard.entropy=[2,1]", "low"),
    Mistake("train guard.weight_growth=1", "greater than 1"),
    Mistake("train keep_last=0", "at least 1"),
    Mistake("train save_every=-1", "at least 0"),
    Mistake("train trackers=[tensorbord]", "tensorboard"),
    Mistake("train trackers=tensorboard", "must be a list"),
    Mistake("train trackers=[swanlab]", "not installed"),
    Mistake("train method.tau=-1", "greater than 0"),
    Mistake("train method.k_max=0", "at least 1"),
    Mistake("train method.hint_source=own", "self_rollout"),
    Mistake("train method.template=fancy", "neutral"),
    Mistake("train method=opd", "teacher_model"),
    Mistake("train method.teacher=model", "teacher_model"),
    Mistake("train method.teacher_model=tiny", "teacher=model"),
    Mistake("train method=sdpo method.alpha=2", "at most 1"),
    Mistake("train method=/nowhere/mine.py:Mine", "no file"),
]
PATHS = [
    Mistake("train run_name=../elsewhere", "inside output_dir"),
    Mistake("train run_name=/tmp/elsewhere", "inside output_dir"),
    Mistake("train run_name=" + "x" * 300, "at most 200 bytes"),
    Mistake("train \"run_name='a\0b'\"", "control characters"),
    Mistake("train 'run_name=\"\"'", "must not be empty"),
    Mistake("train output_dir=/proc/nowhere", "output_dir=/proc/nowhere"),
    Mistake("train output_dir=afile", "afile", {"afile": "x"}),
    Mistake("train --resume nowhere", "no such file"),
    Mistake("train --resume afile", "afile", {"afile": "x"}),
    Mistake("train --resume old", "not YAML", {"old/config.yaml": "a: [1"}),
    Mistake("train --resume old", "mapping", {"old/config.yaml": "- a list"}),
    Mistake("train --resume old", "did you mean 'steps'", {"old/config.yaml": "stepz: 5"}),
    Mistake("eval model.path=nowhere", "model.path=nowhere"),
    Mistake("eval --out afile", "afile", {"afile": "x"}),
    Mistake("eval --out mine", "mine", {"mine/thesis.tex": "x"}),
    Mistake("compare nowhere", "nowhere"),
    Mistake("compare afile", "afile", {"afile": "x"}),
    Mistake("inspect method=grpo", "contrastive"),
    Mistake("inspect --problems -1", "--problems -1"),
    Mistake("inspect --problems 0", "--problems 0"),
    Mistake("inspect --problems many", "--problems"),
    Mistake("trian", "trian"),
    Mistake("train --dry-rnu", "--dry-rnu"),
    Mistake("data kk", "--out"),
    Mistake("inspect --figure nowhere/signals.png", "--figure nowhere/signals.png"),
    Mistake("inspect --figure signals.xyz", "--figure signals.xyz"),
    Mistake("inspect nowhere", "nowhere"),
    Mistake("show nowhere", "nowhere"),
    Mistake("show afile", "afile", {"afile": "x"}),
    Mistake("compare", "at least one run"),
    Mistake("chat nowhere hello", "nowhere"),
    Mistake("sweep", "sweep"),
    Mistake("sweep method=grpo,rlcds", "did you mean 'rlcsd'"),
    Mistake("sweep --resume nowhere", "nowhere"),
    Mistake("sweep --resume nowhere --out new", "--out new"),
    Mistake("train -m seed=1,2 --config some.yaml", "--config some.yaml"),
    Mistake("train -m seed=1,2 --progress off", "--progress off"),
    Mistake("train --config some.yaml variant=authors", "variant=NAME takes one name", {"some.yaml": "steps: 3"}),
    Mistake("compare --published --pair seed", "leave --pair out"),
    Mistake("compare --published --by steps", "leave --by out"),
    Mistake("demo drift --steps 0", "--steps 0"),
    Mistake("warmstart kk_huge --out new", "kk_huge"),
    Mistake("warmstart kk_tiny layerz=3 --out new", "did you mean 'layers'"),
    Mistake("warmstart kk_tiny layers=0 --out new", "at least 1"),
    Mistake("warmstart kk_tiny heads=3 --out new", "heads=3"),
    Mistake("warmstart kk_tiny sizes=[40] --out new", "sizes"),
    Mistake("warmstart kk_tiny --device warp --out new", "warp"),
    Mistake("data kk --out new --sizes four", "--sizes four"),
    Mistake("data kk --out new --sizes 40", "2 to 11"),
    Mistake("data kk --out new --sizes 4 --unseen 4", "among --sizes"),
    Mistake("data kk --out new --train 0", "at least 1"),
    Mistake("data kk --out new --processes 0", "at least 1"),
    Mistake("data kk --out afile", "afile", {"afile": "x"}),
    Mistake("data deepmath --band 6", "6"),
    Mistake("data deepmath --band 8_6", "8_6"),
    Mistake("data deepmath --band 6_8 --source nowhere.jsonl", "nowhere.jsonl"),
    Mistake("data competitions --source aime26", "NAME=SOURCE"),
    Mistake("config show x=1", "unknown key"),
    Mistake("config keys --only nothing.", "no key begins so"),
]
TASKS = [
    Mistake("train task.forms=[xor]", "task.forms"),
    Mistake("train task.train_sizes=[1]", "2 to people"),
    Mistake("train task.train_sizes=[]", "task.train_sizes=[]"),
    Mistake("train task.train_sizes=[3] task.unseen_sizes=[3]", "training size as well"),
    Mistake("train task.train_per_size=0", "at least 1"),
    Mistake("train task.train_per_size=4 prompts_per_step=16", "prompts_per_step=16"),
    Mistake("train task=files", "task.train"),
    Mistake("train task=files task.trian=a.jsonl", "did you mean 'task.train'"),
    Mistake("train task=files task.train=.", "is a folder"),
    Mistake(
        "train task=files task.train=a.jsonl 'task.rewards=[{verifer: exact}]'",
        "did you mean 'task.rewards.0.verifier'",
        {"a.jsonl": FINE},
    ),
    Mistake("train task=files task.train=a.jsonl task.evaluations.average=a.jsonl", "'average'", {"a.jsonl": FINE}),
    Mistake("train task=files task.train=nowhere.jsonl", "no such file"),
    Mistake("train task=files task.train=hub:owner", "hub:owner/name"),
    Mistake("train task=files task.train=a.jsonl task.verifier=maths", "did you mean 'math'", {"a.jsonl": FINE}),
    Mistake("train task=files task.train=a.jsonl task.answer=target", "no column 'target'", {"a.jsonl": FINE}),
    Mistake("train task=files task.train=a.jsonl task.evaluations.more=b.jsonl", "b.jsonl", {"a.jsonl": FINE}),
    _files("a.txt", "x", ".jsonl, .json, .csv or .parquet"),
    _files("a.jsonl", "", "no problems in 'train'"),
    _files("a.jsonl", "5\n", "line 1 must be an object"),
    _files("a.jsonl", FINE + "{oops\n", "line 2 is not JSON"),
    _files("a.jsonl", '{"question": "1?"}', "no column 'answer'"),
    _files("a.jsonl", '{"question": " ", "answer": "1"}', "row 0: the question"),
    _files("a.jsonl", '{"question": 7, "answer": "1"}', "row 0: the question"),
    _files("a.jsonl", '{"question": "1?", "answer": ""}', "row 0: the answer"),
    _files("a.jsonl", '{"question": "1?", "answer": {"a": 1}}', "row 0: the answer"),
    _files("a.jsonl", '{"question": "1?", "answer": null}', "row 0: the answer"),
    _files("a.jsonl", '{"question": "1?", "answer": NaN}', "row 0: the answer"),
    _files("a.jsonl", '{"question": "1?", "answer": true}', "row 0: the answer"),
    _files("a.jsonl", b"\xff\xfe\x00", "cannot be read as jsonl"),
    _files("a.jsonl", '{"question": "1?", "answer": "\\ud800"}', "lone surrogate"),
    _files("a.jsonl", FINE, "without a solution", " method=opsd prompts_per_step=1 prompts_per_update=1"),
    _files(
        "a.jsonl",
        json.dumps({"question": "1+" * 10_000_000, "answer": "2"}),
        "every training prompt is longer",
        " method=grpo",
    ),
    _files("a.parquet", "no parquet", "cannot be read as parquet"),
    _files("a.csv", "q,a\n1,1\n", "no column 'question'"),
    _files("a.csv", "question,answer\n1?,1,2\n", "more fields than the 2 columns"),
    _files("a.csv", "question,answer,answer\n1?,1,2\n", "two columns are called 'answer'"),
    Mistake("train task=nowhere.py:task", "no file"),
    Mistake("train task=mine.py", "mine.py", {"mine.py": "x = 1\n"}),
    Mistake("train task=mine.py:task", "SyntaxError", {"mine.py": "def oops(:\n"}),
    Mistake("train task=mine.py:task", "ModuleNotFoundError", {"mine.py": "import nowhere_at_all\n"}),
    Mistake("train task=mine.py:task", "KeyError", {"mine.py": "def task():\n    raise KeyError('x')\n"}),
    Mistake("train task=mine.py:task", "no such rlcsd.Task", {"mine.py": "task = 3\n"}),
    _task("Task('t', (p for p in P), {}, verify)", "must be a list of problems, not a generator"),
    _task("Task('t', [], {}, verify)", "no problems in 'train'"),
    _task("Task('t', ['1?'], {}, verify)", "must be a rlcsd.Problem, not a str"),
    _task("Task('t', P, {'more': []}, verify)", "no problems in 'more'"),
    _task("Task('t', P, [P], verify)", "must map names to lists"),
    _task("Task('t', P, {}, 3)", "must be a function or a name, not 3"),
    _task("Task('t', P, {}, 'maths')", "did you mean 'math'"),
    _task("Task('t', [Problem('1?', ' ')], {}, verify)", "the answer of problem 0 in 'train' is empty"),
    _task("Task('t', P, {'more': P}, verify, verifier_seconds=-1)", "verifier_seconds"),
    _verifier("return None", "returned None"),
    _verifier("return 'yes'", "returned 'yes'"),
    _verifier("return [1.0]", "returned [1.0]"),
    _verifier("return float('nan')", "returned nan"),
    _verifier("return float('inf')", "returned inf"),
    _verifier("return 10**400", "returned 1000"),
    _verifier("if response: raise ValueError('late')\n    return 1.0", "raised ValueError (late)", late=True),
    _verifier("return 1.0 if response == '' else {}", "returned {}", late=True),
    _verifier("while True: pass", "took longer than 1 s"),
    _verifier("import os; os._exit(3)", "ended its process (exit code 3)"),
    _verifier("import os; os.kill(os.getpid(), 9)", "ended its process (exit code -9)"),
    _verifier("return response.nothing", "raised AttributeError"),
]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3590488\n"


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _edited(**changes: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def _without(layer: str) -> Callable[[Path], None]:
    def drop(path: Path) -> None:
        save_file(
            {name: tensor for name, tensor in load_file(path).items() if layer not in name}, path, {"format": "pt"}
        )

    return drop


def _pickled(path: Path) -> None:
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()


# What is done to a copy of the tiny model: the harm in words, the file, and how.
HARMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "weights that were never fetched (a pointer of git-lfs)": (
        "model.safetensors",
        lambda path: path.write_text(POINTER),
    ),
    "weights cut off while copying": ("model.safetensors", _cut),
    "weights of no known format": ("model.safetensors", lambda path: path.write_bytes(b"weights" * 999)),
    "weights that are not there": ("model.safetensors", Path.unlink),
    "weights without one layer": ("model.safetensors", _without("layers.2.mlp")),
    "pickled weights": ("model.safetensors", _pickled),
    "another vocab_size in config.json": ("config.json", _edited(vocab_size=1234)),
    "another hidden_size in config.json": ("config.json", _edited(hidden_size=64)),
    "an unknown model_type in config.json": ("config.json", _edited(model_type="nobody")),
    "config.json cut off": ("config.json", lambda path: path.write_text(path.read_text()[:80])),
    "no config.json": ("config.json", Path.unlink),
    "no tokenizer": ("tokenizer.json", Path.unlink),
    "tokenizer.json cut off": ("tokenizer.json", _cut),
    "no chat template": ("chat_template.jinja", Path.unlink),
    "a chat template that leaves out the question": ("chat_template.jinja", lambda path: path.write_text("Hello.")),
    "a chat template that raises": ("chat_template.jinja", lambda path: path.write_text("{{ raise_exception('no') }}")),
    "a chat template that is none": ("chat_template.jinja", lambda path: path.write_text("{% for m in messages %}")),
}
ANSWERS = {
    "weights that were never fetched (a pointer of git-lfs)": "git lfs pull",
    "pickled weights": "pickles can run code",
    "weights without one layer": "layers.2.mlp",
    "another vocab_size in config.json": "embed_tokens",
    "another hidden_size in config.json": "model.path=model",
    "no chat template": "chat template",
    "a chat template that leaves out the question": "leaves out the user's message",
    "a chat template that raises": "cannot be rendered",
    "a chat template that is none": "cannot be rendered",
    "no tokenizer": "no tokenizer",
}
BROKEN = [
    Mistake(
        "train model.path=model",
        ANSWERS.get(harm, "model.path=model"),
        {},
        "task.train_per_size=16 task.eval_per_size=2",
        harm=harm,
    )
    for harm in HARMS
]
MODELS = [
    Mistake("train model.path=nowhere", "model.path=nowhere"),
    Mistake("train model.path=empty", "model.path=empty", {"empty/readme": "x"}),
    Mistake("train model.path=tiny model.gguf_file=x.gguf", "no such file in model.path=tiny"),
    Mistake("train model.dtype=float16", "bfloat16"),
    Mistake("train model.lora.rank=0", "at least 1", {}, "+model.lora.alpha=1"),
    Mistake(
        "train model.lora.target_modules=[nowhere]", "model.lora.target_modules=['nowhere']", {}, SMALL + " " + PUZZLES
    ),
    Mistake("train model.lora=5", "section of keys"),
    Mistake("train engine.device=warp", "engine.device='warp'"),
    Mistake("train engine.device=cuda", "engine.device=cuda"),
    Mistake("train engine.device=warp --dry-run", "engine.device='warp'"),
    Mistake("train engine.device=mps", "float64"),
    Mistake("train engine.threads=100000", "at most 1024"),
    Mistake("train engine.sampler=vllm", "vllm"),
    Mistake("train engine.optimizer=adamw_8bit", "quantization", {}, SMALL + " " + PUZZLES),
    Mistake("train engine.sample_gib=0", "greater than 0"),
]

TABLE = [*OVERRIDES, *VALUES, *PATHS, *TASKS, *MODELS, *BROKEN]


def answer(mistake: Mistake, folder: Path) -> tuple[int, str, list[str]]:
    """Exit code, what is said on stderr, and what is left behind, after the command was run in `folder`."""
    for name, content in mistake.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if mistake.harm:
        shutil.copytree(TINY, folder / "model")
        file, do = HARMS[mistake.harm]
        do(folder / "model" / file)
    before = {path.name for path in folder.iterdir()}
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main([*shlex.split(mistake.command), *mistake.hidden.split()])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    left = sorted({path.name for path in folder.iterdir()} - before - {"__pycache__"})
    return code, said.getvalue().replace(str(folder), "."), left


@pytest.mark.parametrize("mistake", TABLE, ids=lambda mistake: f"{mistake.command[:60]} {mistake.words[:30]}")
def test_a_mistake_is_one_sentence_and_exit_code_two(mistake: Mistake, tmp_path):
    code, said, left = answer(mistake, tmp_path)
    assert code == 2
    assert said.startswith("rlcsd: ")
    assert said.count("\n") == 1
    assert mistake.words in said
    assert mistake.late or not left


# What docs/mistakes.md shows.
EXAMPLES = (
    "train learning_rte=1",
    "train num_generations=8",
    "train steps=1.5",
    "train prompts_per_update=5",
    "train task=files task.train=nowhere.jsonl",
)


def page() -> str:
    """docs/mistakes.md."""
    lines = [
        "# Errors",
        "",
        "Wrong input ends in one sentence on stderr that names the key, its value and what would be right, with exit code 2, before anything is",
        "sampled or written. In Python the same sentence is the text of a `rlcsd.InputError`. Anything else, a traceback above all, is an error of ours.",
        "",
    ]
    by_command = {mistake.command: mistake for mistake in TABLE}
    for command in EXAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            _, said, _ = answer(by_command[command], Path(folder).resolve())
        lines += [f"    $ rlcsd {command}", f"    {said}"]
    lines += ["`python -m rlcsd.config.names` prints the names that settings of TRL, verl and OpenRLHF have here."]
    return "\n".join(lines) + "\n"


def test_the_page_shows_what_the_command_line_answers():
    assert PAGE.read_text(encoding="utf-8") == page()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print(page(), end="")
