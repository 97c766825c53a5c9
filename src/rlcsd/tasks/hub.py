"""Files of data sets on the Hugging Face hub: of one commit, downloads resumed, hashes checked.

`HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` count. The hub's library resumes a download only within one process, so
an incomplete file is kept as `<name>.partial`, and the next call resumes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ..errors import InputError, first_line
from ..storage import write_text

READABLE = (".parquet", ".jsonl", ".csv")
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?:-[0-9a-f]+)?$")
_WORDS = re.compile(r"[-._ ]")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: large ones are known by their SHA-256, small ones by the hash of their git blob."""

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None

    @property
    def stem(self) -> str:
        """The name without its ending and the number of its shard."""
        return _SHARD.sub("", PurePosixPath(self.path).stem)

    @property
    def digest(self) -> str:
        return f"sha256 {self.sha256}" if self.sha256 else f"git blob {self.blob}"


@dataclass(frozen=True)
class Snapshot:
    """What a data set's repository holds at one commit."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]


def endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def snapshot(field: str, repo: str, revision: str | None = None) -> Snapshot:
    """The files of a data set's repository at its newest commit, or at `revision`.

    Raises:
        InputError: no network, no such repository or revision, or no permission.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=endpoint()).dataset_info(repo, revision=revision, files_metadata=True)
    except Exception as error:  # each layer has its own
        raise InputError(f"{field}: {repo} could not be listed ({first_line(error)}); {_CHECK}") from None
    files = []
    for one in info.siblings or []:
        sha256 = one.lfs["sha256"] if one.lfs else None
        files.append(HubFile(one.rfilename, one.size or 0, sha256, one.blob_id))
    return Snapshot(repo, str(info.sha), tuple(files))


def remembered_snapshot(field: str, repo: str, folder: Path) -> Snapshot:
    """`snapshot`, stored below `folder`; where the hub cannot be reached, the one that was stored last."""
    kept = folder / repo / "snapshot.json"
    try:
        source = snapshot(field, repo)
    except InputError:
        if not kept.is_file():
            raise
        values = json.loads(kept.read_text(encoding="utf-8"))
        return Snapshot(values["repo"], values["commit"], tuple(HubFile(**file) for file in values["files"]))
    with contextlib.suppress(OSError):  # a folder that cannot be written will be named when files are put there
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(asdict(source)))
    return source


_CHECK = "check the name and the network (HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN count)"


def fetch(field: str, source: Snapshot, file: HubFile, folder: Path) -> Path:
    """The path of the file below `folder`, downloaded unless it is there already, complete and with the right hash.

    Raises:
        InputError: it could not be fetched, in which case what has arrived is kept for the next call; or its hash is
            not the one that the hub gives, in which case nothing is kept.
    """
    target = folder / source.repo / source.commit / file.path
    if target.is_file() and is_whole(target, file):
        return target
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        if not (partial.is_file() and partial.stat().st_size == file.size):
            _download(source, file, partial)
    except OSError as error:
        if error.filename is None:  # an error of the network, which some libraries derive from OSError
            raise InputError(_broken_off(field, source, file, error)) from None
        raise InputError(f"{field}: {partial} cannot be written ({error.strerror})") from None
    except Exception as error:
        raise InputError(_broken_off(field, source, file, error)) from None
    if not is_whole(partial, file):
        partial.unlink()
        raise InputError(
            f"{field}: {file.path} of {source.repo} arrived damaged (its hash is not {file.digest}); nothing of it was "
            "kept, run the same command again"
        )
    partial.replace(target)
    return target


def _broken_off(field: str, source: Snapshot, file: HubFile, error: Exception) -> str:
    return (
        f"{field}: {file.path} of {source.repo} could not be fetched ({first_line(error)}); what has arrived is kept, "
        "and the same command goes on with it"
    )


def _download(source: Snapshot, file: HubFile, partial: Path) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    url = hf_hub_url(source.repo, file.path, repo_type="dataset", revision=source.commit, endpoint=endpoint())
    if partial.is_file() and partial.stat().st_size > file.size:
        partial.unlink()
    with partial.open("ab") as handle:
        arrived = handle.tell()
        http_get(url, handle, resume_size=arrived, headers=build_hf_headers(), expected_size=file.size)
        handle.flush()
        os.fsync(handle.fileno())


def is_whole(path: Path, file: HubFile) -> bool:
    """Whether a file has the size and the hash that the hub gives."""
    if path.stat().st_size != file.size:
        return False
    if file.sha256:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == file.sha256
    if file.blob:
        head = f"blob {file.size}\0".encode()
        return hashlib.sha1(head + path.read_bytes(), usedforsecurity=False).hexdigest() == file.blob
    return True


def split_files(source: Snapshot, config: str | None, split: str) -> list[HubFile]:
    """The plain files of one split, by their names.

    None where the names leave a choice, which the datasets library makes: files of the split in several folders, of
    several endings, or with several stems.
    """
    kinds: dict[tuple[PurePosixPath, str, str], list[HubFile]] = {}
    for file in source.files:
        path = PurePosixPath(file.path)
        folders = path.parts[:-1]
        in_folder = split in folders
        if path.suffix not in READABLE or (config is not None and config not in folders):
            continue
        if in_folder or (split == file.stem if file.stem != path.stem else split in _WORDS.split(file.stem)):
            kinds.setdefault((path.parent, path.suffix, "" if in_folder else file.stem), []).append(file)
    return sorted(*kinds.values(), key=lambda file: file.path) if len(kinds) == 1 else []
