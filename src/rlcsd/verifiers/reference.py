"""Write down which Python code a verifier is, so that another process can import it again, and import it.

A reference is JSON data and holds no code: a module or a file, a name in it, and hashes of its source, by which a later
reader sees that the code has changed.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import inspect
import json
import linecache
import sys
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import InputError, first_line
from ..plugins import load_attribute

Reference = dict[str, Any]
_FROM_FILE = "rlcsd_user_"  # modules that `plugins.load_attribute` made of a file


class NotImportableError(ValueError):
    """The code cannot be imported again; the message says why, as the end of "it cannot be rebuilt: …"."""


# ------------------------------------------------------------------ writing


def reference_to(code: Any) -> Reference:
    """The reference to a function, class, method, partial, or object whose state is plain.

    Plain is an object without attributes of its own, which its class makes without arguments, or a dataclass whose
    fields are JSON values.

    Raises:
        NotImportableError: a lambda, a function within another one, code of a notebook, an object with other state.
    """
    if isinstance(code, partial):
        state = {"arguments": list(code.args), "keywords": dict(code.keywords)}
        return {"partial": reference_to(code.func), **_plain(state, f"the arguments of {_name(code.func)}")}
    if inspect.ismethod(code):
        return {"method": code.__name__, "of": reference_to(code.__self__)}
    if isinstance(code, type) or hasattr(code, "__qualname__"):
        return _by_name(code)
    made_of = _by_name(type(code))
    if dataclasses.is_dataclass(code):
        state = {field.name: getattr(code, field.name) for field in dataclasses.fields(code) if field.init}
        return {"made": made_of, "fields": _plain(state, f"the fields of {type(code).__name__}")}
    if getattr(code, "__dict__", None):
        raise NotImportableError(
            f"a {type(code).__name__} has attributes of its own, and only a dataclass says how it is made"
        )
    return {"made": made_of, "fields": {}}


def label_of(reference: Reference) -> str:
    """The reference for a reader: `file.py:name` or `module:name`."""
    for inner in ("partial", "of", "made"):
        if inner in reference:
            return label_of(reference[inner])
    return f"{reference.get('file') or reference['module']}:{reference['name']}"


def _by_name(code: Any) -> Reference:
    """The module or file of a function or class, and its name there."""
    module = sys.modules.get(getattr(code, "__module__", None) or "")
    name = _name_in(module, code)
    if module is None or name is None:
        raise NotImportableError(
            f"{_name(code)} has no name in a module, like a lambda or a function within another one"
        )
    file = getattr(module, "__file__", None)
    found: Reference = {"name": name, "module": None, "file": None, "source": _hash_of_source(code), "whole": None}
    if file is not None:
        found |= {"file": str(Path(file).resolve()), "whole": _hash(Path(file).read_bytes())}
    if module.__name__ == "__main__":
        if (spec := getattr(module, "__spec__", None)) is not None:  # python -m MODULE
            return {**found, "module": spec.name}
        if file is None:
            raise NotImportableError(f"{name} was defined in a notebook or at a prompt, in no file")
        if not _is_guarded(Path(file)):
            raise NotImportableError(
                f'{file} has no `if __name__ == "__main__":`, so importing {name} would run it again'
            )
        return found
    return found if module.__name__.startswith(_FROM_FILE) else {**found, "module": module.__name__}


def _name_in(module: ModuleType | None, code: Any) -> str | None:
    """The dotted name under which the module has this very object."""
    if module is None:
        return None
    name = getattr(code, "__qualname__", "")
    try:
        if attrgetter(name)(module) is code:
            return str(name)
    except AttributeError:
        pass
    return next((key for key, value in vars(module).items() if value is code), None)  # score = lambda …


def _is_guarded(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body)


def _plain(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        same: dict[str, Any] = json.loads(json.dumps(values))
    except (TypeError, ValueError):
        same = {}
    if same != values:
        raise NotImportableError(f"{what} are not all plain JSON values")
    return same


def _name(code: Any) -> str:
    return str(getattr(code, "__qualname__", type(code).__name__))


def _hash_of_source(code: Any) -> str | None:
    linecache.checkcache()
    try:
        return _hash(inspect.getsource(code).encode())
    except (OSError, TypeError):  # built-in
        return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------ reading


def referred(reference: Reference, warn: Callable[[str], None]) -> Any:
    """What a reference refers to, imported again; `warn` is told if its source is not what it was.

    Raises:
        InputError: it is not there any more, or cannot be imported or made.
    """
    try:
        if "partial" in reference:
            return partial(referred(reference["partial"], warn), *reference["arguments"], **reference["keywords"])
        if "method" in reference:
            return getattr(referred(reference["of"], warn), reference["method"])
        if "made" in reference:
            return referred(reference["made"], warn)(**reference["fields"])
    except (TypeError, AttributeError) as error:
        raise InputError(f"verifier={label_of(reference)}: it cannot be made again ({first_line(error)})") from None
    code = _imported(reference)
    if reference["source"] != _hash_of_source(code):
        warn(f"the source of {label_of(reference)} has changed since the run began; it may judge differently")
    elif (
        reference["whole"]
        and _hash(Path(str(sys.modules[code.__module__].__file__)).read_bytes()) != reference["whole"]
    ):
        warn(
            f"the file of {label_of(reference)} has changed since the run began, though not {reference['name']} itself"
        )
    return code


def _imported(reference: Reference) -> Any:
    """The attribute in its module, or in its file where the module cannot be imported from here."""
    if reference["module"] is not None:
        try:
            return attrgetter(reference["name"])(importlib.import_module(reference["module"]))
        except Exception as error:  # a module may do anything
            if reference["file"] is None:
                raise InputError(
                    f"verifier={label_of(reference)}: it cannot be imported ({first_line(error)})"
                ) from None
    name = f"{reference['file']}:{reference['name']}"
    code = load_attribute("verifier", name)
    if code is None:
        raise InputError(f"verifier={name}: the file has no such name any more")
    return code
