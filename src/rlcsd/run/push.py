"""A checkpoint for others: upload it to the Hugging Face hub with a model card, or write it as a plain model folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..config.schema import ModelConfig
from ..errors import InputError, MissingError, first_line
from ..evaluation import markdown_table, summaries_of
from ..report.run_results import label_of_method, read_config
from ..storage import read_jsonl, whole_folder
from .checkpoint import best_step, checkpoint_of, step_of
from .folder import is_run


def check_hub(repository: str | None) -> None:
    """Raise MissingError if an upload to `repository` would fail (name, token, offline mode). None: there is none."""
    if repository is None:
        return
    _check_name(repository)
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise MissingError(f"push_to_hub={repository}: HF_HUB_OFFLINE is set, so nothing can be uploaded")
    if get_token() is None:
        raise MissingError(f"push_to_hub={repository}: there is no token for the hub; `hf auth login`, or set HF_TOKEN")


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise MissingError(f"push_to_hub={repository}: no name of a model on the hub ({first_line(error)})") from None
    if "/" not in repository:
        raise MissingError(f"push_to_hub={repository}: reads owner/name")


def plan_push(run: Path, repository: str, step: int | None = None) -> str:
    """What `push` would upload, with the model card; needs neither network nor token.

    Raises:
        InputError: no such run or checkpoint, or no name of a repository.
    """
    _check_name(repository)
    folder = checkpoint_of(run, step)
    paths = [*_uploaded(folder).items(), ("rlcsd.yaml", run / "config.yaml")]
    sizes = {name: path.stat().st_size for name, path in paths}
    lines = [f"{repository}: {len(sizes) + 1} files of {folder}, {sum(sizes.values()) / 1e6:,.1f} MB"]
    lines += [f"  {size:>14,}  {name}" for name, size in sizes.items()]
    return "\n".join([*lines, "  README.md:", "", model_card(run, step_of(folder))])


def _uploaded(folder: Path) -> dict[str, Path]:
    """Name in the repository → file of a checkpoint, without what only rlcsd needs, and without peft's own card."""
    left_out = ("state", "manifest.json", "README.md", "base.json")
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name.as_posix(): path for name, path in files.items() if name.parts[0] not in left_out}


def push(run: Path, repository: str, step: int | None = None, private: bool = False) -> str:
    """Upload the checkpoint of `step`, by default the newest, with a model card in one commit; returns its URL.

    Raises:
        InputError: no such run or checkpoint, or the hub does not take it.
    """
    check_hub(repository)
    folder = checkpoint_of(run, step)
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(name, str(path)) for name, path in _uploaded(folder).items()]
    operations.append(CommitOperationAdd("README.md", model_card(run, step_of(folder)).encode()))
    operations.append(CommitOperationAdd("rlcsd.yaml", str(run / "config.yaml")))
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message=f"rlcsd, step {step_of(folder)}")
    except Exception as error:  # no network, no rights, no such owner: no common class
        raise InputError(
            f"push_to_hub={repository}: could not be uploaded ({first_line(error)}); the run is whole in {run}, and "
            f"`rlcsd push {run} {repository}` tries again"
        ) from None
    return str(done.commit_url)


def model_card(run: Path, step: int) -> str:
    """The model card of a run's checkpoint: base model, method, task and held-out accuracy."""
    config = read_config(run)
    base, method, task = config["model"]["path"], label_of_method(config), config["task"].get("name")
    adapter = config["model"].get("lora") is not None and (checkpoint_of(run, step) / "adapter_config.json").is_file()
    head = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rlcsd", method],
    }
    if _is_on_hub(base, run):
        head["base_model"] = base
    evaluations = {record["step"]: record for record in read_jsonl(run / "evaluations.jsonl")}
    lines = ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", f"# {run.resolve().name}", ""]
    lines.append(f"`{base}` after {step} steps of {method} on {task}, trained with rlcsd (`rlcsd.yaml`: its config).")
    if step in evaluations and evaluations[step]["sets"]:
        before = summaries_of(evaluations[0]) if 0 in evaluations and evaluations[0]["sets"] else []
        lines += ["", "Held-out accuracy:", "", markdown_table(summaries_of(evaluations[step]), before)]
    best = best_step([(at, summaries_of(record)) for at, record in evaluations.items()])
    if best is not None and best != step:
        lines += ["", f"The best held-out accuracy of this run was that of step {best}."]
    return "\n".join(lines) + "\n"


def _is_on_hub(base: str, run: Path) -> bool:
    """Whether a model.path can only be a name on the hub: `owner/name`, and no folder beside the run, here or there."""
    try:
        _check_name(base)
    except MissingError:
        return False
    return not any((folder / base).exists() for folder in (Path(), *run.resolve().parents))


def export(source: Path, out: Path, step: int | None = None, dtype: str | None = None) -> str:
    """Write a run's checkpoint (of `step`, by default the newest) or a model folder as a plain model folder; returns
    its number format.

    Adapters are merged into their base. transformers, vLLM and converters to GGUF load the result without rlcsd.

    Args:
        out: a folder that is new or empty.
        dtype: float32 or bfloat16, by default `export_dtype` of the run, or float32.

    Raises:
        InputError: no such run, checkpoint or model, or `out` cannot be written.
    """
    import torch

    from ..engine.local.export import export_model

    model = ModelConfig(path=str(source))
    if is_run(source):
        dtype = dtype or _dtype_of(read_config(source))
        model = model.model_copy(update={"path": str(checkpoint_of(source, step))})
    elif step is not None:
        raise InputError(f"--step {step}: {source} is not the folder of a run")
    dtype = dtype or "float32"
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype={dtype} for {source}: it is float32 or bfloat16")
    with whole_folder(out) as partial:
        export_model(model, partial, getattr(torch, dtype))
    return dtype


def _dtype_of(config: Mapping[str, Any]) -> str:
    """The number format that a run asks for, or that its policy is computed in (docs/models.md).

    `config` is read as data alone, so that exporting a run from elsewhere imports nothing that it names.
    """
    model = config.get("model")
    narrow = isinstance(model, Mapping) and model.get("dtype") == "bfloat16" and model.get("lora") is None
    return str(config.get("export_dtype") or ("bfloat16" if narrow else "float32"))
