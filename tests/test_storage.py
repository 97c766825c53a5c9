"""A folder appears whole or not at all."""

from __future__ import annotations

import errno

import pytest

from rlcsd.errors import InputError
from rlcsd.storage import append_jsonl, read_jsonl, whole_folder


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with whole_folder(tmp_path / "a" / "b") as partial:
        (partial / "x").write_text("1")
        assert not (tmp_path / "a/b").exists()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a/b/x").read_text() == "1"


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path):
    (tmp_path / "step").mkdir()
    (tmp_path / "step/old").write_text("kept")

    def fill():
        with whole_folder(tmp_path / "step", replace=True) as partial:
            (partial / "half").write_text("…")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="no space is left on the disk"):
        fill()
    assert [p.name for p in tmp_path.iterdir()] == ["step"]
    assert [p.name for p in (tmp_path / "step").iterdir()] == ["old"]


def test_any_failure_removes_the_half(tmp_path):
    def fail():
        with whole_folder(tmp_path / "x"):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_what_a_process_of_another_host_is_writing_is_left_alone(tmp_path, monkeypatch):
    def begin(host: str, process: int) -> None:
        monkeypatch.setattr("rlcsd.storage._HOST", host)
        monkeypatch.setattr("rlcsd.storage.os.getpid", lambda: process)
        monkeypatch.setattr("rlcsd.storage.shutil.rmtree", lambda *args, **kwargs: None)  # the process is killed
        with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "data"):
            raise KeyboardInterrupt
        monkeypatch.undo()

    for host in ("here", "elsewhere"):
        begin(host, 2**22 + 1)  # above the largest process id
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr("rlcsd.storage._HOST", "here")
    with whole_folder(tmp_path / "data") as partial:
        (partial / "x").write_text("")
    assert sorted(path.name.split(".")[:3] for path in tmp_path.iterdir()) == [["", "data", "elsewhere"], ["data"]]


def test_a_folder_that_another_process_makes_meanwhile_is_kept(tmp_path):
    def other() -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data/theirs").write_text("")

    with pytest.raises(InputError, match="already there"), whole_folder(tmp_path / "data"):
        other()
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "theirs"]


def test_replacing_takes_leave_and_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    with pytest.raises(InputError, match="already there"), whole_folder(tmp_path / "full"):
        pass
    with whole_folder(tmp_path / "full", replace=True) as partial:
        (partial / "y").write_text("")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["y"]
    with pytest.raises(InputError, match="cannot be written"), whole_folder(tmp_path / "full/y/z"):
        pass


def test_lines_end_with_line_feeds_alone(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two\x85three"}\n{"text": "four"}\n', encoding="utf-8")
    assert [record["text"] for record in read_jsonl(tmp_path / "a.jsonl")] == ["one\u2028two\x85three", "four"]
    assert read_jsonl(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("there", "kept"), [('{"a": 1}\n{"b"', [{"a": 1}]), ('{"a": 1}', [{"a": 1}]), ("", []), ("{", [])]
)
def test_a_record_after_a_torn_line_stands_on_a_line_of_its_own(there, kept, tmp_path):
    (tmp_path / "log").write_text(there)
    append_jsonl(tmp_path / "log", {"c": 2})
    append_jsonl(tmp_path / "log", {"d": 3})
    assert read_jsonl(tmp_path / "log") == [*kept, {"c": 2}, {"d": 3}]
