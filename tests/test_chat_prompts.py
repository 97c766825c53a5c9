"""Questions that are chats, system prompts, chat templates of one's own, and feedback as a hint, down to token ids."""

from __future__ import annotations

import copy
import json

import pyarrow
import pyarrow.parquet as parquet
import pytest

from rlcsd import InputError, Problem, Task
from rlcsd.config.load import from_yaml, load, to_yaml
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import load_tokenizer
from rlcsd.prompts import TEMPLATES, question_text, student_prompt
from rlcsd.records import Hint
from rlcsd.stages.hint import teacher_context
from rlcsd.tasks.parquet_layout import from_row, to_rows
from rlcsd.tasks.registry import build_task
from rlcsd.tasks.task import overlaps

CHAT = [
    {"role": "system", "content": "Be exact."},
    {"role": "user", "content": "Who is Alice?"},
    {"role": "assistant", "content": "A knight."},
    {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "Bob?"}]},
]
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


@pytest.fixture(scope="module")
def chat():
    return load_tokenizer(ModelConfig(chat_template=TEMPLATE))


def test_a_chat_becomes_its_question_and_what_stands_before():
    problem = Problem(CHAT, "a knave")
    assert problem.question == "And Bob?"
    assert problem.history == (("system", "Be exact."), ("user", "Who is Alice?"), ("assistant", "A knight."))
    assert problem.text == "system: Be exact.\n\nuser: Who is Alice?\n\nassistant: A knight.\n\nAnd Bob?"
    assert Problem("And Bob?", "a knave").text == "And Bob?"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "a list of messages"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, *CHAT[3:]], "tool_calls"),
        (CHAT[:3], "the last message of a chat must be the user's, not the assistant's"),
        ([{"role": "tool", "content": "4"}], "must|the role of a message is system, user or assistant, not 'tool'"),
        ([{"role": "user"}], "has a role and a content"),
        (["Who?"], "has a role and a content"),
        ([{"role": "user", "content": [{"type": "image", "image": "x.png"}]}], "must be text"),
        ([{"role": "user", "content": "  "}], "question"),
    ],
)
def test_a_chat_that_is_none_is_one_sentence_with_its_row(messages, said, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(
        json.dumps({"prompt": CHAT, "answer": "a"}) + "\n" + json.dumps({"prompt": messages, "answer": "a"})
    )
    config = load(["task=files", f"task.train={path}", "task.question=prompt"])
    with pytest.raises(InputError, match=said) as error:
        build_task(config.task)
    assert "row 1" in str(error.value)


def test_the_template_gets_the_whole_chat_and_the_hint_goes_into_the_last_turn(chat):
    problem = Problem(CHAT, "a knave")
    asked = "[system] Be exact.\n[user] Who is Alice?\n[assistant] A knight.\n[user] And Bob?"
    ending = "\n[assistant] "
    boxed = " Put the final answer in \\boxed{}."
    assert chat.decode(student_prompt(chat, problem)) == asked + boxed + ending
    context, _ = teacher_context(chat, problem, Hint("Bob lies.", "a knave"))
    words = "\n\n" + TEMPLATES["neutral"].format(hint="Bob lies.\n\nCorrect final answer: a knave")
    assert chat.decode(context) == asked + boxed + words + ending


def test_an_instruction_in_the_system_prompt_is_not_said_again():
    system = ("system", "Put it in \\boxed{}.")
    assert question_text("Q?", history=[system]) == "Q?"
    assert question_text("Q?", history=[("assistant", "\\boxed{1}")]) != "Q?"


def test_a_template_that_drops_a_message_or_refuses_a_role_is_named(chat):
    forgetful = copy.copy(chat)
    forgetful.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(InputError, match="leaves out the system's message"):
        student_prompt(forgetful, Problem(CHAT, "a"))
    forgetful.chat_template = "{{ messages[0].content }}"
    with pytest.raises(InputError, match="leaves out the user's message"):
        student_prompt(forgetful, Problem(CHAT, "a"))
    forgetful.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(InputError, match="System role not supported"):
        student_prompt(forgetful, Problem(CHAT, "a"))


# ------------------------------------------------------------------ tasks


def test_the_system_prompt_is_for_problems_without_one():
    task = Task(
        "t", [Problem("Q?", "a"), Problem(CHAT, "a")], {"e": [Problem("R?", "a")]}, "exact", system_prompt="Go."
    )
    assert [problem.history[0] for problem in task.train] == [("system", "Go."), ("system", "Be exact.")]
    assert len(task.train[1].history) == 3
    assert task.evaluations["e"][0].history == (("system", "Go."),)


def test_rows_with_chats_in_jsonl_parquet_and_the_published_layout(tmp_path):
    row = {"prompt": [*CHAT[:3], {"role": "user", "content": "And Bob?"}], "answer": "a"}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "data.parquet")
    for name in ("data.jsonl", "data.parquet"):
        values = load(["task=files", f"task.train={tmp_path / name}", "task.question=prompt", "task.system_prompt=No."])
        assert build_task(values.task).train[0].history == Problem(CHAT, "a").history
    (layout,) = to_rows([Problem(CHAT, "a")], "mine", "chat", "train")
    assert layout["prompt"][:3] == CHAT[:3] and layout["prompt"][3]["content"].startswith("And Bob? Put")
    assert from_row("row", layout)[1].history == Problem(CHAT, "a").history


def test_chats_with_the_same_last_words_do_not_overlap():
    one, other = Problem(CHAT, "a"), Problem([{"role": "user", "content": "Hi"}, *CHAT[2:]], "a")
    assert overlaps([one], {"e": [other, one]})[0].exact == 1


# ------------------------------------------------------------------ templates of one's own


def test_a_chat_template_may_be_a_file_or_its_text(tmp_path):
    path = tmp_path / "base.jinja"
    path.write_text(TEMPLATE)
    by_file, by_text = load([f"model.chat_template={path}"]), load(values={"model.chat_template": TEMPLATE})
    assert by_file.model.chat_template == by_text.model.chat_template == TEMPLATE
    (tmp_path / "config.yaml").write_text(to_yaml(by_file))
    path.unlink()  # the run keeps the text
    assert from_yaml(tmp_path / "config.yaml") == by_file
    tokenizer = load_tokenizer(by_file.model)
    assert tokenizer.decode(student_prompt(tokenizer, "Hi", "")) == "[user] Hi\n[assistant] "
    typed = load(['model.chat_template="{{ messages[0].content }}"'])
    assert typed.model.chat_template == "{{ messages[0].content }}"


@pytest.mark.parametrize("value", ["gone.jinja", "plain.txt"])
def test_a_chat_template_that_is_none_is_one_sentence(value, tmp_path):
    (tmp_path / "plain.txt").write_text("no template")
    with pytest.raises(InputError, match=r"model.chat_template=.*must be a file with a chat template"):
        load([f"model.chat_template={tmp_path / value}"])
