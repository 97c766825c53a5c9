"""The page of `rlcsd show` without a browser: its data, what is escaped, and what is refused in a sentence."""

import base64
import json
import random
import re

import numpy as np
import pytest

from rlcsd.cli import main
from rlcsd.report import page as pages
from rlcsd.report.page import embedded_json, thinned, write_page
from rlcsd.report.rollout_reader import read_groups

from .folders import group, lines, rollout, write_config, write_run

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>&lt;b&gt; \u2028 <!--"


def data_of(path):
    blocks = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    assert len(blocks) == 1
    return json.loads(blocks[0])


def column(packed, kind=np.float16):
    return np.frombuffer(base64.b64decode(packed), dtype=kind)


def test_every_signal_of_every_token_is_in_the_page(tmp_path):
    run = write_run(tmp_path / "run", steps=2, groups=2, size=3, tokens=25)
    write_page(run, tmp_path / "page.html")
    data = data_of(tmp_path / "page.html")
    recorded = [one for group in read_groups(run) for one in group.rollouts]
    shown = [one for group in data["groups"] for one in group["rollouts"]]
    assert len(shown) == len(recorded) == 12
    for ours, theirs in zip(recorded, shown, strict=True):
        assert (
            set(theirs["signals"])
            == set(ours.signals)
            == {signal["key"] for signal in data["signals"]} - {"divergence"}
        )
        for key, values in ours.signals.items():
            np.testing.assert_allclose(column(theirs["signals"][key]), values, rtol=1e-3, atol=1e-6)
            place, size = theirs["largest"][key]
            assert size == pytest.approx(np.abs(values).max(), abs=1e-6) and abs(values[place]) == np.abs(values).max()
        units = theirs["text"].encode("utf-16-le")
        lengths = column(theirs["lengths"], np.uint16)
        pieces = [
            units[2 * a : 2 * b].decode("utf-16-le")
            for a, b in zip(np.cumsum([0, *lengths]), np.cumsum(lengths), strict=False)
        ]
        assert pieces == [ours.text[a:b] for a, b in ours.spans]  # what the page cuts out in JavaScript's units


def test_what_a_record_says_becomes_the_signals(tmp_path):
    record = rollout(random.Random(0), 3, True)
    record |= {"log_prob": [-1.0, -2.0, -3.0], "teacher": [-0.5, -2.0, -1.0], "wrong": [-1.5, -1.0, -3.0]}
    record |= {"contrast": [1.0, -1.0, 2.0], "advantage": 0.5, "final_advantage": [0.75, 0.5, 0.0]}
    record["hints"]["correct"]["kind"] = "feedback"
    record["hints"]["wrong"][0] |= {"kind": "answer", "text": None}
    lines(write_config(tmp_path) / "rollouts.jsonl", [group(1, 0, [record])])
    (found,) = read_groups(tmp_path)[0].rollouts
    assert found.signals["teacher_gap"].tolist() == [0.5, 0.0, 2.0]
    assert found.signals["wrong_gap"].tolist() == [-0.5, 1.0, 0.0]
    assert found.signals["credit"].tolist() == [0.25, 0.0, -0.5]
    kinds = [(hint.index, hint.correct, hint.kind) for hint in found.hints]
    assert kinds == [(1, True, "feedback"), (2, False, "answer")]


def test_tokens_that_share_a_character_and_large_ones(tmp_path):
    record = rollout(random.Random(0), 4, True, False, text="a🙂z", start=[0, 1, 1, 2], end=[1, 2, 2, 3])
    lines(write_config(tmp_path, "grpo") / "rollouts.jsonl", [group(1, 0, [record])])
    write_page(tmp_path, tmp_path / "page.html")
    (one,) = data_of(tmp_path / "page.html")["groups"][0]["rollouts"]
    assert column(one["lengths"], np.uint16).tolist() == [1, 2, 0, 1]


def test_text_of_the_model_can_end_nothing(tmp_path):
    record = rollout(random.Random(0), 1, True, text=HOSTILE, start=[0], end=[len(HOSTILE)], boxed=HOSTILE)
    record["hints"]["correct"]["text"] = HOSTILE
    run = write_config(tmp_path / HOSTILE.replace("/", "")[:40], "rlcsd", task={"name": "<b>task</b>"})
    lines(run / "rollouts.jsonl", [group(1, 0, [record], question=HOSTILE, answer="\ud800 lone")])
    write_page(run, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2  # the data and the page's own
    assert "<img" not in text and "<b>" not in text
    data = data_of(tmp_path / "page.html")
    assert data["groups"][0]["rollouts"][0]["text"] == data["groups"][0]["question"] == HOSTILE
    assert data["title"] == "rlcsd on <b>task</b>"


def test_embedded_json_is_json():
    value = {"a": [HOSTILE, "plain", 1.5, None, True], "<": ">&"}
    assert json.loads(embedded_json(value)) == value
    assert not set(embedded_json(value)) & set("<>&\u2028\u2029")


def test_the_page_asks_nobody_and_allows_one_script(tmp_path):
    write_page(write_run(tmp_path / "run"), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert not re.search(r"""(?:src|href)=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)""", text)
    assert "default-src 'none'" in text and "script-src 'sha256-" in text


def test_methods_without_a_teacher_have_fewer_signals(tmp_path):
    write_page(write_run(tmp_path / "run", method="grpo"), tmp_path / "page.html")
    data = data_of(tmp_path / "page.html")
    assert [signal["key"] for signal in data["signals"]] == [
        "credit",
        "final_advantage",
        "entropy",
        "log_prob",
        "weight",
    ]
    assert data["groups"][0]["rollouts"][0]["hints"] is None


def test_the_format_before_is_read(tmp_path):
    record = rollout(random.Random(0), 5, True)
    record["credit"] = record.pop("final_advantage")
    del record["entropy"], record["finished"]
    lines(write_config(tmp_path) / "rollouts.jsonl", [group(1, 0, [record], schema=2)])
    signals = read_groups(tmp_path)[0].rollouts[0].signals
    assert signals["final_advantage"].tolist() == record["credit"]
    assert not {"entropy", "divergence", "weight"} & set(signals)


def test_a_run_that_is_still_going_shows_what_there_is(tmp_path, capsys):
    run = write_run(tmp_path / "run", steps=3, groups=1)
    path = run / "rollouts.jsonl"
    path.write_bytes(path.read_bytes()[:-40])  # the last record is torn
    assert main(["show", str(run)]) == 0
    assert "2 steps" in capsys.readouterr().out
    assert len(data_of(run / "rollouts.html")["groups"]) == 2


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda run: (run / "config.yaml").unlink(), "there is no run here"),
        (lambda run: (run / "config.yaml").write_text("a list, not a config"), "not the config of a run"),
        (lambda run: (run / "rollouts.jsonl").unlink(), "no rollouts are recorded here yet"),
        (lambda run: (run / "rollouts.jsonl").write_text(""), "no rollouts are recorded here yet"),
        (lambda run: write_config(run, log_rollouts=0) and (run / "rollouts.jsonl").unlink(), "log_rollouts=0"),
        (lambda run: lines(run / "rollouts.jsonl", [{"step": 1, "rollouts": []}]), "schema 1 cannot be read.*older"),
        (lambda run: lines(run / "rollouts.jsonl", [group(1, 0, [], schema=9)]), "schema 9 cannot be read"),
        (lambda run: lines(run / "rollouts.jsonl", [group(1, 0, [])]), "line 1: the record is damaged"),
        (lambda run: lines(run / "rollouts.jsonl", [group(1, 0, [{"text": "a"}])]), "line 1: the record is damaged"),
        (lambda run: lines(run / "rollouts.jsonl", [group(1, 0, [rollout(random.Random(0), 3, True, entropy=[1.0])])]), "entropy does not have 3"),
        (lambda run: lines(run / "rollouts.jsonl", [group(1, 0, [rollout(random.Random(0), 2, True, end=[1, 99])])]), "out of the text"),
        (lambda run: (run / "rollouts.jsonl").write_text('{"torn\n' + json.dumps(group(1, 0, []))), "line 1: not a JSON object"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_one_sentence(tmp_path, capsys, damage, sentence):
    run = write_run(tmp_path / "run", steps=1, groups=1)
    damage(run)
    assert main(["show", str(run)]) == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said) and said.count("\n") == 1
    assert not (run / "rollouts.html").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--steps", "5:9"], "no rollouts of these steps"),
        (["--steps", "a:b"], "--steps a:b"),
        (["--steps", "3:1"], "the first step is after the last"),
        (["--out", "."], "--out"),
        (["--out", "nowhere/page.html"], "--out nowhere/page.html"),
    ],
)
def test_options_that_cannot_be(tmp_path, capsys, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    assert main(["show", "run", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_steps_are_chosen_and_long_runs_are_thinned(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", steps=10, groups=2, size=2, tokens=10)
    assert main(["show", str(run), "--steps", "9:", "--out", str(tmp_path / "page.html")]) == 0
    data = data_of(tmp_path / "page.html")
    assert {g["step"] for g in data["groups"]} == {step for step, _ in data["reward"]} == {9, 10}
    kept = thinned(read_groups(run), 120)
    assert [g.step for g in kept] == [1, 1, 5, 5, 10, 10]
    assert [g.step for g in thinned(kept, 1)] == [1, 1]
    monkeypatch.setattr(pages, "MAX_TOKENS", 120)
    assert "3 steps, 12 rollouts, 120 tokens; 7 steps between them are left out" in write_page(
        run, tmp_path / "page.html"
    )


def test_a_value_that_is_not_finite_is_no_value(tmp_path):
    record = rollout(random.Random(0), 3, True, entropy=[None, 1.0, 2.0], boxed=None, answer="7")
    lines(write_config(tmp_path) / "rollouts.jsonl", [group(1, 0, [record])])
    write_page(tmp_path, tmp_path / "page.html")
    (one,) = data_of(tmp_path / "page.html")["groups"][0]["rollouts"]
    assert np.isnan(column(one["signals"]["entropy"])[0])
    assert one["largest"]["entropy"] == [2, 2.0] and one["answer"] == "7"
