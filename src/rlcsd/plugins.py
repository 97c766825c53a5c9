"""Code that is found by name: a user's own method or task in a Python file, this package's experiments, libraries."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from pathlib import Path
from typing import Any

from .errors import InputError

_EXPERIMENTS = "rlcsd.experiments"  # imported by name alone: no module of the core imports it


def described(error: BaseException, path: str) -> str:
    """Type, message and line within the user's file."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(Path(path).resolve())
    ]
    where = f", line {lines[-1]}" if lines else f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
    message = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {message}{where}"


def load_attribute(field: str, name: str) -> Any:
    """The attribute that `path/to/file.py:Name` names (dotted names too), None if the file has none of that name.

    A file runs once, and again when it has changed: that of a verifier may load a model.

    Raises:
        InputError: there is no such file, or it cannot be imported.
    """
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise InputError(f"{field}={name}: there is no file {path!r}")
    spec = importlib.util.spec_from_file_location(f"rlcsd_user_{field}_{Path(path).stem}", Path(path).resolve())
    assert spec is not None and spec.loader is not None
    facts = Path(path).stat()
    version = (spec.origin, facts.st_mtime_ns, facts.st_size)
    module = sys.modules.get(spec.name)
    if module is None or module.__dict__.get("__rlcsd_version__") != version:
        module = importlib.util.module_from_spec(spec)
        module.__dict__["__rlcsd_version__"] = version
        sys.modules[spec.name] = module  # dataclasses and pydantic look their module up by name
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[spec.name]
            raise InputError(f"{field}={name}: {path} cannot be imported ({described(error, path)})") from None
    try:
        return attrgetter(attribute)(module)
    except AttributeError:
        return None


def load_experiments() -> None:
    """Register the methods and tasks of `rlcsd.experiments`.

    Registries call this for a name that they do not know, so that the core depends on no experiment.
    """
    importlib.import_module(_EXPERIMENTS).register()


def add_experiment_commands(commands: Any) -> None:
    """Add the commands of `rlcsd.experiments` to the subparsers of the command line."""
    importlib.import_module(f"{_EXPERIMENTS}.commands").add_commands(commands)


def installed_version(name: str) -> str | None:
    """The version of an installed distribution or of its CPU build, None without either."""
    for each in (name, f"{name}-cpu"):  # vLLM's CPU build has a name of its own
        with suppress(PackageNotFoundError):
            return version(each)
    return None
