"""From command-line overrides to a checked `Config`: Hydra composes, pydantic checks.

Every complaint is one `InputError` that names the key, its value, and what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from ..errors import InputError
from ..methods import Method, method_class
from ..methods.base import ContrastConfig
from .schema import Config

GROUPS = Path(__file__).parent / "groups"
_GROUP_NAMES = ("model", "task", "method", "engine")


def choices() -> dict[str, list[str]]:
    """The named choices of each config group."""
    return {group: sorted(path.stem for path in (GROUPS / group).glob("*.yaml")) for group in _GROUP_NAMES}


def _nearest(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r}: an override reads key=value, for example learning_rate=1e-6")
    return key.lstrip("+"), value


def _plugins(overrides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take `method=file.py:Name` and `task=file.py:Name` out of the overrides: they are no files of a group."""
    kept, plugins = [], {}
    for override in overrides:
        key, value = _split(override)
        if key in ("method", "task") and ".py" in value:
            plugins[key] = value
            kept.append(f"{key}=plugin")
        else:
            kept.append(override)
    return kept, plugins


def _with_variant(overrides: Sequence[str]) -> list[str]:
    """Replace `variant=authors` by the overrides of the chosen method's own authors; later overrides win."""
    given = dict(map(_split, overrides))
    variant = given.get("variant", "published")
    kept = [override for override in overrides if _split(override)[0] != "variant"]
    if variant == "published":
        return kept
    if variant != "authors":
        raise InputError(f"variant={variant}: must be published or authors")
    table = yaml.safe_load((GROUPS.parent / "authors.yaml").read_text())
    method, task = given.get("method", "rlcsd"), given.get("task", "")
    if method not in table:
        raise InputError(f"variant=authors: there is none for method={method}; it exists for {', '.join(table)}")
    chosen = [*table[method].get("always", []), *table[method].get(task, [])]
    return [*(o for o in kept if _split(o)[0] in _GROUP_NAMES), *chosen, *(o for o in kept if _split(o)[0] not in _GROUP_NAMES)]


def _check_groups(overrides: Sequence[str]) -> None:
    available = choices()
    for override in overrides:
        key, value = _split(override)
        if key in available and value not in available[key]:
            raise InputError(f"{key}={value}: unknown {key}; {_nearest(value, set(available[key]) - {'plugin'})}")


def _known_keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    keys = set()
    for name, field in model.model_fields.items():
        keys.add(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= _known_keys(field.annotation, f"{prefix}{name}.")
    return keys


def first_complaint(error: ValidationError, prefix: str = "", known: Iterable[str] = ()) -> InputError:
    """The first thing that a schema found wrong, as one sentence; `known` are the keys to suggest from."""
    first = error.errors()[0]
    key = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return InputError(f"{key}: unknown key; {_nearest(key, known)}")
    if first["type"] == "missing":
        return InputError(f"{key}: a value is needed, {key}=…")
    if not first["loc"]:
        return InputError(first["msg"].removeprefix("Value error, "))
    message = first["msg"].removeprefix("Value error, ")
    return InputError(f"{key}={first['input']!r}: {message[0].lower()}{message[1:]}")


def validated(values: Mapping[str, Any]) -> Config:
    """A plain nested mapping as a Config, its method's fields filled in and checked too.

    Raises:
        InputError: on the first key or value that is not right.
    """
    try:
        config = Config.model_validate(dict(values))
    except ValidationError as error:
        raise first_complaint(error, known=_known_keys(Config)) from None
    method = build_method(config)
    c = method.config
    if isinstance(c, ContrastConfig) and c.hint_source == "self_rollout" and c.exclude_self and config.group_size < 3:
        raise InputError(
            f"group_size={config.group_size}: method={config.method['name']} shows the teacher a correct and a wrong "
            "sibling of each rollout, so a group needs at least 3 rollouts"
        )
    if config.group_size < 2:
        raise InputError(f"group_size={config.group_size}: a group advantage needs at least 2 rollouts")
    return config.model_copy(update={"method": method.config.model_dump()})


def build_method(config: Config) -> Method:
    """The config's method. Raises InputError for an unknown one or a hyper-parameter out of range."""
    name = str(config.method.get("name", "rlcsd"))
    cls = method_class(name)
    try:
        return cls(cls.Config(**{**config.method, "name": name}))
    except ValidationError as error:
        raise first_complaint(error, "method.", [f"method.{key}" for key in cls.Config.model_fields]) from None


def load(overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> Config:
    """The embedded default changed by `key=value` overrides in Hydra's grammar, then by plain nested `values`.

    Raises:
        InputError: unknown key or choice (with the nearest valid name), wrong type, value out of range.
    """
    kept, plugins = _plugins(_with_variant(overrides))
    _check_groups(kept)
    # Hydra may add any key that is not a group's name: the schemas check them, and name the nearest valid one.
    grammar = [o if _split(o)[0] in _GROUP_NAMES else "++" + o.lstrip("+") for o in kept]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(GROUPS), version_base="1.3"):
            composed = compose("config", overrides=grammar)
        dotted = OmegaConf.create()
        for key, value in (values or {}).items():
            OmegaConf.update(dotted, key, value, force_add=True)
        OmegaConf.set_struct(composed, False)
        resolved = OmegaConf.to_container(OmegaConf.merge(composed, dotted), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    assert isinstance(resolved, dict)
    plain = {str(key): value for key, value in resolved.items()}
    for group, plugin in plugins.items():
        plain[group] = {**(plain.get(group) or {}), "name": plugin}
    return validated(plain)


def to_yaml(config: Config) -> str:
    """The resolved config as YAML, loadable again with `from_yaml`."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def from_yaml(path: str | Path) -> Config:
    """A config written by `to_yaml`. Raises InputError if the file is missing or not a valid config."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise InputError(f"{path}: {'there is no such file' if not Path(path).exists() else error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a config is a mapping of keys to values")
    return validated(values)
