"""From command-line overrides to a checked `Config`: Hydra composes, pydantic checks.

Every complaint is one `InputError` that names the key, its value, and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ..errors import InputError
from ..methods import Method, method_class
from ..methods.base import ContrastConfig
from .engines import ENGINES
from .messages import as_input_error, known_keys, suggestion
from .schema import Config

__all__ = ["build_method", "choices", "first_complaint", "from_yaml", "load", "to_yaml", "validated"]

GROUPS = Path(__file__).parent / "groups"
_GROUP_NAMES = ("model", "task", "method", "engine")


DEFAULTS: dict[str, str] = {
    group: choice
    for entry in yaml.safe_load((GROUPS / "config.yaml").read_text())["defaults"]
    for group, choice in entry.items()
}


def choices() -> dict[str, list[str]]:
    """The named choices of each config group."""
    return {group: sorted(path.stem for path in (GROUPS / group).glob("*.yaml")) for group in _GROUP_NAMES}


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r}: an override reads key=value, for example learning_rate=1e-6")
    if not re.fullmatch(r"\+{0,2}[A-Za-z_][\w-]*(\.[\w-]+)*", key, re.ASCII) or re.match(r"\+*hydra(\.|$)", key):
        raise InputError(
            f"{override!r}: {key!r} is no key of the config; an override reads key=value, for example "
            "sampling.top_p=0.9"
        )
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
            plugins.pop(key, None)  # the last one counts
            kept.append(override)
    return kept, plugins


def _with_variant(overrides: Sequence[str]) -> list[str]:
    """Replace `variant=NAME` by what `variants/NAME.yaml` sets for the chosen method; later overrides win."""
    given = dict(map(_split, overrides))
    variant = given.get("variant", "published")
    kept = [override for override in overrides if _split(override)[0] != "variant"]
    if variant == "published":
        return kept
    tables = {path.stem: path for path in sorted((GROUPS.parent / "variants").glob("*.yaml"))}
    if variant not in tables:
        raise InputError(f"variant={variant}: must be one of published, {', '.join(tables)}")
    table = yaml.safe_load(tables[variant].read_text())
    method, task = given.get("method", DEFAULTS["method"]), given.get("task", DEFAULTS["task"])
    if method not in table:
        raise InputError(f"variant={variant}: there is none for method={method}; it exists for {', '.join(table)}")
    chosen = [*table[method].get("always", []), *table[method].get(task, [])]
    return [
        *(o for o in kept if _split(o)[0] in _GROUP_NAMES),
        *chosen,
        *(o for o in kept if _split(o)[0] not in _GROUP_NAMES),
    ]


def _by_model(overrides: Sequence[str]) -> dict[str, str]:
    """The parameters of the chosen task's composition that follow from the chosen model (by_model.yaml)."""
    chosen = {**DEFAULTS, **dict(map(_split, overrides))}
    table = yaml.safe_load((GROUPS.parent / "by_model.yaml").read_text()).get(chosen["task"], {})
    return {name: row.get(chosen["model"], row["other"]) for name, row in table.items()}


def _check_references(value: Any, key: str = "") -> None:
    """Raises InputError for a `${…}` other than a plain reference to a key: a resolver could read the environment."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_references(part, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for part in value:
            _check_references(part, key)
    elif isinstance(value, str) and value.count("${") != len(re.findall(r"\$\{[A-Za-z_][\w.]*\}", value)):
        raise InputError(
            f"{key}={value}: only another key may be referred to, for example ${{prompts_per_step}}; write the "
            "value itself"
        )


def _check_groups(overrides: Sequence[str]) -> None:
    available = choices()
    for override in overrides:
        key, value = _split(override)
        if key in available and value not in available[key]:
            raise InputError(f"{key}={value}: unknown {key}; {suggestion(value, set(available[key]) - {'plugin'})}")


def validated(values: Mapping[str, Any]) -> Config:
    """A plain nested mapping as a Config, its method's fields filled in and checked too.

    Raises:
        InputError: on the first key or value that is not right.
    """
    try:
        config = Config.model_validate(dict(values))
    except ValidationError as error:
        raise as_input_error(error, known={*known_keys(Config), *_engine_keys(values), "variant"}) from None
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


def _engine_keys(values: Mapping[str, Any]) -> list[str]:
    """The keys of the engine that is chosen, to suggest from."""
    engine = values.get("engine")
    name = engine.get("name") if isinstance(engine, Mapping) else None
    return list(known_keys(ENGINES.get(str(name), ENGINES["local"]), "engine."))


def build_method(config: Config) -> Method:
    """The config's method. Raises InputError for an unknown one or a hyper-parameter out of range."""
    name = str(config.method.get("name", DEFAULTS["method"]))
    cls = method_class(name)
    try:
        return cls(cls.Config(**{**config.method, "name": name}))
    except ValidationError as error:
        raise as_input_error(error, "method.", [f"method.{key}" for key in cls.Config.model_fields]) from None


def _digits_kept(override: str) -> str:
    """`task.band=6_8` with its value quoted, since Hydra's grammar reads 6_8 as the number 68."""
    key, value = _split(override)
    return f"{key}='{value}'" if key == "task.band" and re.fullmatch(r"[\d._]+", value) else override


def _check_values(overrides: Sequence[str]) -> None:
    """Raises InputError for an override whose value Hydra's grammar cannot read, or reads as several values."""
    parser = OverridesParser.create()
    for override in overrides:
        key, value = _split(override)
        plain = override.lstrip("+")
        quote = f"text with special characters goes in quotes, '{key}=\"…\"', and a list in brackets, {key}=[a,b]"
        try:
            parsed = parser.parse_override(override)
        except HydraException:
            raise InputError(f"{plain}: the value {value!r} cannot be read; {quote}") from None
        if parsed.is_sweep_override():
            several = f"`rlcsd sweep {plain}` makes a run of each"
            raise InputError(f"{plain}: the value {value!r} is more than one; {several}; {quote}")
        if value == "???":
            raise InputError(f"{plain}: a value is needed, {key}=…")


def load(overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> Config:
    """The embedded default changed by `key=value` overrides in Hydra's grammar, then by plain nested `values`.

    Raises:
        InputError: unknown key or choice (with the nearest valid name), wrong type, value out of range.
    """
    kept, plugins = _plugins(_with_variant(overrides))
    _check_groups(kept)
    # Hydra may add any key that is not a group's name: the schemas check them, and name the nearest valid one.
    derived = _by_model(kept)
    kept = [*(f"task.{name}='{value}'" for name, value in derived.items()), *(_digits_kept(o) for o in kept)]
    grammar = [o if _split(o)[0] in _GROUP_NAMES else "++" + o.lstrip("+") for o in kept]
    _check_values(grammar)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(GROUPS), version_base="1.3"):
            composed = compose("config", overrides=grammar)
        dotted = OmegaConf.create()
        for key, value in (values or {}).items():
            OmegaConf.update(dotted, key, value, force_add=True)
        OmegaConf.set_struct(composed, False)
        merged = OmegaConf.merge(Config().model_dump(exclude={"engine"}), composed, dotted)
        _check_references(OmegaConf.to_container(merged, resolve=False))
        resolved = OmegaConf.to_container(merged, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    assert isinstance(resolved, dict)
    plain = {str(key): value for key, value in resolved.items()}
    for group, plugin in plugins.items():
        plain[group] = {**(plain.get(group) or {}), "name": plugin}
    if isinstance(plain.get("task"), dict):
        plain["task"] = {name: value for name, value in plain["task"].items() if name not in derived}
    return validated(plain)


def as_config(config: Config | Mapping[str, Any] | Sequence[str] | None) -> Config:
    """A checked Config from any form that `rlcsd.train` takes.

    The forms are a `Config`, overrides as on the command line, a mapping, or None for the embedded default. In a
    mapping, a group's name with a text value chooses an entry of that group, as in `{"model": "qwen3_4b"}`.

    Raises:
        InputError: as in `load`.
    """
    if isinstance(config, Config):
        return validated(config.model_dump())
    if isinstance(config, Mapping):
        groups = {name: config[name] for name in (*_GROUP_NAMES, "variant") if isinstance(config.get(name), str)}
        values = {key: value for key, value in config.items() if key not in groups}
        return load([f"{name}={choice}" for name, choice in groups.items()], values)
    return load(list(config or []))


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """A config with a few keys changed by `key=value` overrides. Raises InputError as in `load`."""
    for override in overrides:
        _split(override)
    _check_values(["++" + override.lstrip("+") for override in overrides])
    try:
        merged = OmegaConf.merge(config.model_dump(), OmegaConf.from_dotlist(list(overrides)))
        plain = OmegaConf.to_container(merged)
    except OmegaConfBaseException as error:
        reason = f"{str(error).splitlines()[0]}; a list is given whole, KEY=[a,b]"
        raise InputError(f"{' '.join(overrides)}: {reason}") from None
    assert isinstance(plain, dict)
    return validated({str(key): value for key, value in plain.items()})


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
