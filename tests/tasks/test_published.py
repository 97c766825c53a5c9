"""The authors' data from a small hub on this machine: fetched, broken off, damaged, missing; then used and compared."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow
import pyarrow.parquet as parquet
import pytest

from rlcsd.cli import main
from rlcsd.config.load import load
from rlcsd.tasks.hub import HubFile, Snapshot, split_files
from rlcsd.tasks.parquet_layout import MARK, is_published, read_layout, reads_published
from rlcsd.tasks.published import EVALUATION, TRAINING, located, others
from rlcsd.tasks.registry import build_task
from rlcsd.tasks.tabular import read_rows

COMMIT = "c0ffee" * 6 + "beef"


class Hub(ThreadingHTTPServer):
    """`files` by repository and path; `trouble` says what happens to the requests for a path, one after the other."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.small: set[str] = set()  # files that are in git itself, not in large-file storage
        self.trouble: dict[str, list[object]] = defaultdict(list)
        self.asked: list[tuple[str, str | None]] = []


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, code, body, **headers):
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        listing = re.match(r"/api/datasets/([\w-]+/[\w-]+)(?:/revision/[^?]+)?\?", self.path + "?")
        if listing:
            return self.listing(listing[1])
        repo, path = re.match(rf"/datasets/([\w-]+/[\w-]+)/resolve/{COMMIT}/([^?]+)", self.path).groups()
        path = path.replace("%2B", "+")
        self.server.asked.append((path, self.headers.get("Range")))
        body = self.server.files[repo].get(path)
        trouble = self.server.trouble[path].pop(0) if self.server.trouble[path] else None
        if body is None or trouble == "gone":
            return self.answer(404, b"", X_Error_Code="EntryNotFound")
        if trouble == "down":
            return self.answer(500, b"")
        if trouble == "damage":
            body = body[:-1] + bytes([body[-1] ^ 1])
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")[1])
        headers = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        rest = body[start:]
        if isinstance(trouble, int):  # the connection ends after so many bytes
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[:trouble])
            self.close_connection = True
            return None
        return self.answer(206 if start else 200, rest, **headers)

    def listing(self, repo):
        files = self.server.files.get(repo)
        if files is None:
            return self.answer(404, b'{"error": "not found"}', X_Error_Code="RepoNotFound")
        siblings = []
        for path, body in files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            one = {"rfilename": path, "size": len(body), "blobId": blob}
            if path not in self.server.small:
                one["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
            siblings.append(one)
        return self.answer(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    yield server
    server.shutdown()
    server.server_close()


def table(rows) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def row(source, question, answer, **extra):
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": f"{question} Answer in \\boxed{{}}."}],
        "ability": "x",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"index": 0, "problem": question, "solution": f"\\boxed{{{answer}}}", **extra},
    }


def fill(hub) -> dict[str, bytes]:
    """All published sets, under a few of the names that such files have."""
    files = hub.files["Leyiii/RLCSD"]
    people = "Alice is a knight, and Bob is a knave"
    for name in TRAINING:
        answer = people if name.startswith("kk") else "3"
        files[f"{name}/train.parquet"] = table([row(name, f"{name} {i}?", answer) for i in range(3)])
    for name in ("amc23", "aime24", "aime25"):
        files[f"{name}/val.parquet"] = table([row("math", f"{name}?", "7")])
    for name in ("kk_4to8_test", "kk_9", "kk_10", "kk_11"):
        files[f"{name}.parquet"] = table([row("kk", f"{name}?", people)])
    files["extra/notes.parquet"] = table([row("extra", "Why?", "so")])
    files["README.md"] = b"# RLCSD"
    return files


def test_everything_is_fetched_used_and_told(hub, tmp_path, capsys):
    files, root = fill(hub), tmp_path / "verl"
    assert main(["data", "published", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    for name in (*TRAINING, *EVALUATION):
        split = "train" if name in TRAINING else "val"
        assert is_published(root / name)
        stored = (root / name / f"{split}.parquet").read_bytes()
        assert stored in files.values()
        assert hashlib.sha256(stored).hexdigest() in (root / name / "README.md").read_text()
        assert f"# {name}\n" in out and COMMIT in (root / name / MARK).read_text()
    assert not (root / "extra").exists() and not (root / ".downloads").exists()
    math = build_task(load(["task=math_deepmath", "model=qwen3_4b", f"task.root={root}"]).task)
    assert [p.question for p in math.train] == [f"deepmath_filtered_level6_8 {i}?" for i in range(3)]
    assert {name: [p.question for p in each] for name, each in math.evaluations.items()} == {
        "amc23": ["amc23?"], "aime24": ["aime24?"], "aime25": ["aime25?"]
    }  # fmt: skip
    logic = build_task(load(["task=logic_kk", f"task.published={root}"]).task)
    assert [p.question for p in logic.train] == [f"kk_4to8 {i}?" for i in range(3)]
    assert list(logic.evaluations) == ["kk_4to8_test", "kk_9", "kk_10", "kk_11"]
    assert logic.source and math.source
    assert logic.judge(logic.evaluations["kk_9"], [("\\boxed{Bob: knave, Alice: knight}",)])[0][0].correct
    asked = len(hub.asked)
    assert main(["data", "published", "--root", str(root), "--all"]) == 0  # only what is new is fetched
    assert [path for path, _ in hub.asked[asked:]] == ["extra/notes.parquet"]
    assert (root / "extra" / "val.parquet").is_file()


def test_generated_puzzles_are_in_the_sets_of_the_published_ones(tmp_path):
    """So that the average of an evaluation is the same mean of four, whatever is on the disk."""
    parameters = load(["task=logic_kk", f"task.published={tmp_path}", "task.eval_per_size=2"]).task
    few, counts = parameters.preview(64)
    assert counts == {"train": 4500, "kk_4to8_test": 10, "kk_9": 2, "kk_10": 2, "kk_11": 2}
    sets = build_task(few).evaluations
    assert {name: len(problems) for name, problems in sets.items()} == {n: counts[n] for n in counts if n != "train"}
    assert {problem.extra["size"] for problem in sets["kk_10"]} == {10}


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub, tmp_path, capsys):
    files = fill(hub)
    path, name = "kk_4to8/train.parquet", "kk_4to8"
    hub.trouble[path] = [100, 200, *["down"] * 8]
    assert main(["data", "published", name, "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "could not be fetched" in error and "goes on with it" in error and len(error.splitlines()) == 1
    assert not (tmp_path / name).exists()
    hub.trouble.clear()
    assert main(["data", "published", name, "--root", str(tmp_path)]) == 0
    assert hub.asked[-1] == (path, "bytes=300-")
    assert (tmp_path / name / "train.parquet").read_bytes() == files[path]


def test_a_damaged_file_is_not_kept(hub, tmp_path, capsys):
    files = fill(hub)
    for path, name in (("amc23/val.parquet", "amc23"), ("kk_9.parquet", "kk_9")):
        hub.small.add("kk_9.parquet")
        hub.trouble[path] = ["damage"]
        assert main(["data", "published", name, "--root", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "arrived damaged" in error and len(error.splitlines()) == 1
        assert not (tmp_path / name).exists()
        assert main(["data", "published", name, "--root", str(tmp_path)]) == 0
        assert (tmp_path / name / "val.parquet").read_bytes() == files[path]


def test_what_is_not_there_is_named(hub, tmp_path, capsys):
    fill(hub)
    del hub.files["Leyiii/RLCSD"]["kk_10.parquet"]
    hub.trouble["amc23/val.parquet"] = ["gone"]
    cases = [
        ([], "kk_10: Leyiii/RLCSD has no such data set at commit c0ffee"),
        (["amc23"], "amc23/val.parquet of Leyiii/RLCSD could not be fetched"),
        (["--repo", "no/such"], "no/such could not be listed"),
    ]
    for arguments, said in cases:
        assert main(["data", "published", *arguments, "--root", str(tmp_path / "verl")]) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1
    assert {path.name for path in (tmp_path / "verl").iterdir()} <= {".downloads"}


def test_our_own_build_is_kept_and_compared(hub, tmp_path, capsys):
    name = "deepmath_filtered_level6_8"
    theirs = [row(name, f"Find {d}.", str(d)) for d in (6.5, 7.0)] + [row(name, "Find $8.0$", "9")]
    hub.files["Leyiii/RLCSD"][f"{name}/train.parquet"] = table(theirs)
    rows = [{"question": f"Find {d}.", "final_answer": str(d), "difficulty": d} for d in (6.0, 6.5, 7.0, 8.0)]
    hub.files["zwhe99/DeepMath-103K"] |= {
        "data/train-00000-of-00002.parquet": table(rows[:2]),
        "data/train-00001-of-00002.parquet": table(rows[2:]),
    }
    assert main(["data", "deepmath", "--band", "6_8", "--root", str(tmp_path)]) == 0
    own = (tmp_path / name / "train.parquet").read_bytes()
    assert main(["data", "published", name, "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "3 published and 4 own problems; 2 in both as written, 3 normalised; 0 only published, 1 only own" in out
    assert "1 with another answer" in out
    assert "lower edge, difficulty 6: 0 of our 1 problems are published" in out
    assert "upper edge, difficulty 8: 1 of our 1 problems are published" in out
    assert (tmp_path / f"{name}.own" / "train.parquet").read_bytes() == own
    assert main(["data", "deepmath", "--band", "6_8", "--root", str(tmp_path)]) == 2
    assert "already there" in capsys.readouterr().err


def test_sources_on_the_hub_are_resumed_and_checked_too(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    for repo, path in (("amc23", "data/test-00000-of-00001.parquet"), ("aime25", "test.parquet")):
        hub.files[f"math-ai/{repo}"][path] = table([{"question": f"{repo}?", "answer": "7"}] * 40)
    hub.files["HuggingFaceH4/aime_2024"]["data/train-00000-of-00001.parquet"] = table(
        [{"problem": "p?", "answer": "033"}]
    )
    hub.trouble["test.parquet"] = ["damage"]
    assert main(["data", "competitions", "--root", str(tmp_path)]) == 2
    assert "test.parquet of math-ai/aime25 arrived damaged" in capsys.readouterr().err
    hub.trouble["test.parquet"] = [50]
    assert main(["data", "competitions", "--root", str(tmp_path)]) == 0
    assert "amc23 40, aime24 1, aime25 40" in capsys.readouterr().out
    assert hub.asked[-1] == ("test.parquet", "bytes=50-")
    hub.shutdown()  # without a network, what was fetched serves
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert len(read_rows("x", "hub:math-ai/amc23:test")) == 40


def paths(*names) -> Snapshot:
    return Snapshot("r", "c", tuple(HubFile(name, 1) for name in names))


def test_files_are_found_under_the_usual_names():
    assert list(located(paths("data/kk_4to8-00000-of-00001.parquet", "kk_4to8_test.parquet"), "kk_4to8")) == ["train"]
    assert list(located(paths("kk_4to8/train.parquet", "kk_4to8/val.parquet"), "kk_4to8")) == ["train", "val"]
    assert list(located(paths("kk_4to8/kk_4to8_test.parquet", "x/kk_9.parquet"), "kk_9")) == ["val"]
    assert list(located(paths("amc23_test.parquet"), "amc23")) == ["val"]
    assert located(paths("amc23+aime24/val.parquet", "amc23.json"), "amc23") == {}
    assert others(paths("kk_9.parquet", "more/train.parquet", "data/other.parquet", "x.md")) == ["more", "other"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet", "data/test.parquet"], [1, 0]),
        (["data/train-00000-of-00001-0a1b2c.parquet", "data/train_sft-00000-of-00001-0a1b2c.parquet"], [0]),
        (["train.jsonl", "test.jsonl", "README.md"], [0]),
        (["sums_train.csv", "sums_test.csv", "constraint.csv"], [0]),
        (["train/part-0.parquet", "train/part-1.parquet", "test/part-0.parquet"], [0, 1]),
        # None of the split, or a choice of the datasets library:
        (["data/train_sft-00000-of-00001.parquet", "data/train_gen-00000-of-00001.parquet"], []),
        (["my-train-test-split/a.parquet", "pre-train/b.parquet"], []),
        (["train.jsonl", "train_extra.jsonl"], []),
        (["train.jsonl", "train.csv"], []),
        (["a/train.parquet", "b/train.parquet"], []),
    ],
)
def test_the_files_of_a_split_are_those_that_its_name_leaves_no_doubt_of(names, found):
    assert [file.path for file in split_files(paths(*names), None, "train")] == [names[index] for index in found]


def test_a_config_is_a_folder():
    names = ("main/train-00000-of-00001.parquet", "socratic/train-00000-of-00001.parquet")
    assert [file.path for file in split_files(paths(*names), "socratic", "train")] == [names[1]]
    assert split_files(paths(*names), None, "train") == []


def test_the_authors_sets_one_by_one_are_read_before_our_own_build_of_them_together(hub, tmp_path, capsys):
    together, names = "amc23+aime24+aime25", ("amc23", "aime24", "aime25")
    own = [row(name, f"our {name}", "1") for name in names]
    (tmp_path / together).mkdir()
    (tmp_path / together / "val.parquet").write_bytes(table(own))
    assert [p.question for p in read_layout("task.evaluation", str(tmp_path), together, "val")["amc23"]] == [
        "our amc23"
    ]
    assert not reads_published(str(tmp_path), together, "val")
    for name in names:
        hub.files["Leyiii/RLCSD"][f"{name}/val.parquet"] = table([row(name, f"their {name}", "1")])
    assert main(["data", "published", *names, "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("1 published and 1 own problems; 0 in both as written") == 3
    found = read_layout("task.evaluation", str(tmp_path), together, "val")
    assert {name: [p.question for p in found[name]] for name in names} == {n: [f"their {n}"] for n in names}
    assert reads_published(str(tmp_path), together, "val")


def test_files_in_place_are_checked_again_and_a_damaged_mark_is_none(hub, tmp_path):
    name = "kk_9"
    hub.files["Leyiii/RLCSD"][f"{name}/val.parquet"] = whole = table([row(name, "Who?", "1")])
    fetch = ["data", "published", name, "--root", str(tmp_path)]
    for damage, written in (("val.parquet", table([row(name, "Another?", "1")])), (MARK, b'{"commit": ')):
        assert main(fetch) == 0
        (tmp_path / name / damage).write_bytes(written)
        assert main(fetch) == 0
        assert (tmp_path / name / "val.parquet").read_bytes() == whole
