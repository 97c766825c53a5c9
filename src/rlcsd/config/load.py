"""Make a checked `Config` from overrides, a mapping or a file: Hydra composes the YAML groups, pydantic checks.

Every error is one `InputError` that names the key, its value, and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ..errors import InputError, suggestion
from ..methods import METHODS, OBJECTIVES, Method, MethodConfig, ObjectiveConfig, method_class
from ..validation import as_input_error, flat_config, known_keys
from .names import FORMER_VARIANTS, current_names, unknown_key
from .schema import DEFAULT_METHOD, ENGINES, Config

GROUPS = Path(__file__).parent / "groups"
_GROUP_NAMES = ("model", "task", "method", "objective", "engine")

# The choice of each group if none is given; that of the objective follows from the method.
DEFAULTS: dict[str, str] = {
    group: choice
    for entry in yaml.safe_load((GROUPS / "config.yaml").read_text())["defaults"]
    for group, choice in entry.items()
    if not group.startswith("optional ")
}


def choices() -> dict[str, list[str]]:
    """The named choices of each config group."""
    return {group: sorted(path.stem for path in (GROUPS / group).glob("*.yaml")) for group in _GROUP_NAMES}


# ------------------------------------------------------------------------------------------------ ways to make a config


def load(overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> Config:
    """The default config changed by `key=value` overrides in Hydra's grammar, then by nested or dotted `values`.

    Raises:
        InputError: unknown key or choice (with the nearest valid name), wrong type, value out of range.
    """
    given, plugins = _without_plugins(_with_variant(_with_choices(overrides, values or {})))
    _check_groups(given)
    derived = _by_model(given)
    given = [_digits_kept(_path_quoted(override)) for override in given]
    given = [*(f"task.{name}='{value}'" for name, value in derived.items()), *given]
    # `++` lets Hydra add any key that is not a group's name: the schemas check them, and name the nearest valid one.
    grammar = [o if split_override(o)[0] in _GROUP_NAMES else "++" + o.lstrip("+") for o in given]
    _check_values(grammar)
    plain = _composed(overrides, grammar, values or {})
    for group, plugin in plugins.items():
        plain[group] = {**(plain.get(group) or {}), "name": plugin}
    _check_objective(given, plain)
    if isinstance(plain.get("task"), dict):
        plain["task"] = {name: value for name, value in plain["task"].items() if name not in derived}
    return validated(plain)


def as_config(
    config: Config | Mapping[str, Any] | Sequence[str] | Path | None = None, task: str | None = None
) -> Config:
    """A checked Config from any form that `rlcsd.train` takes.

    >>> import rlcsd
    >>> rlcsd.load_config({"method": "grpo", "sampling": {"max_tokens": 64}}).sampling.max_tokens
    64
    >>> rlcsd.load_config(["method=grpo", "sampling.max_tokens=64"]).method.name
    'grpo'

    Args:
        config: a `Config`; overrides as on the command line; a mapping of nested or dotted keys, in which a group's
            name with a text value chooses an entry of that group, as in `{"model": "qwen3_4b"}`; the path of a YAML
            file, such as the `config.yaml` of a run; or None for the default config.
        task: the choice of the task if `config` makes none.

    Raises:
        InputError: unknown key or choice (with the nearest valid name), wrong type, value out of range, no such file.
    """
    if isinstance(config, str) and "=" in config and not Path(config).exists():
        raise InputError(f"{config!r}: overrides come in a list, [{config!r}]")
    if isinstance(config, str | Path):
        return from_yaml(config)
    if isinstance(config, Config):
        return validated(config.model_dump())
    if isinstance(config, Mapping):
        config = config if task is None or "task" in config else {"task": task, **config}
        groups = {name: config[name] for name in (*_GROUP_NAMES, "variant") if isinstance(config.get(name), str)}
        values = {key: value for key, value in config.items() if key not in groups}
        return load([f"{name}={choice}" for name, choice in groups.items()], values)
    overrides = list(config or [])
    chosen = task is None or any(split_override(override)[0] == "task" for override in overrides)
    return load(overrides if chosen else [f"task={task}", *overrides])


def as_overrides(values: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """A list of overrides, or a mapping of keys to values as overrides."""
    return [f"{key}={literal(value)}" for key, value in values.items()] if isinstance(values, Mapping) else list(values)


def literal(value: Any) -> str:
    """A value in the grammar of overrides."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(literal, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if isinstance(value, int | float) or re.fullmatch(r"[\w./:-]+", text):
        return text
    # Before a quote and at the end a backslash is doubled; elsewhere it stands for itself.
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", text)) + "'"


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """A config with a few keys changed by `key=value` overrides. Raises InputError as in `load`."""
    pairs = parsed(overrides)
    try:
        values = config.model_dump()
        if any(key.startswith("method.") for key, _ in pairs):
            values["method"] = _not_derived(config.method)
        merged = OmegaConf.create(values)
        for key, value in pairs:
            if OmegaConf.is_list(OmegaConf.select(merged, key.rpartition(".")[0])):
                raise InputError(f"{' '.join(overrides)}: {key} is in a list; a list is given whole, KEY=[a,b]")
            OmegaConf.update(merged, key, value, force_add=True)
        _clear(merged, overrides, {})
        plain = OmegaConf.to_container(merged)
    except OmegaConfBaseException as error:
        raise InputError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    assert isinstance(plain, dict)
    return validated({str(key): value for key, value in plain.items()})


def _not_derived(method: MethodConfig) -> dict[str, Any]:
    """The method's values without those that follow from its others, so that they follow from changed ones too."""
    values = method.model_dump()

    def follows(name: str) -> bool:
        if name == "name" or isinstance(values[name], dict):
            return False
        try:
            alone = type(method).model_validate({key: value for key, value in values.items() if key != name})
        except ValidationError:
            return False
        return bool(getattr(alone, name) == getattr(method, name))

    return {name: value for name, value in values.items() if not follows(name)}


def validated(values: Mapping[str, Any]) -> Config:
    """A plain nested mapping as a Config.

    Raises:
        InputError: on the first key or value that is not right.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise as_input_error(error, known=_known_keys(values), unknown_key=_unknown_key) from None


def from_yaml(path: str | Path) -> Config:
    """A config written by `to_yaml`, also by an older version. Raises InputError if it is missing or not valid."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise InputError(f"{path}: {'there is no such file' if not Path(path).exists() else error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that there is not, for example
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a config is a mapping of keys to values")
    return validated(current_names(values))


def to_yaml(config: Config) -> str:
    """The resolved config as YAML, to be read again with `from_yaml`."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def build_method(config: Config) -> Method:
    """The config's method, its `constant_length` filled in."""
    cls = method_class(config.method.name)
    fields = config.method.model_dump()
    if fields["reduction"] == "constant" and fields["constant_length"] is None:
        fields["constant_length"] = config.sampling.max_tokens
    return cls(cls.Config.model_validate(fields))


def _known_keys(values: Mapping[str, Any]) -> set[str]:
    """All valid keys, those of the chosen engine, method and task included."""

    def name_of(group: str) -> str:
        section = values.get(group)
        return str(section.get("name", "")) if isinstance(section, Mapping) else ""

    engine = ENGINES.get(name_of("engine"), ENGINES["local"])
    method = method_class(name_of("method") or DEFAULT_METHOD)
    return {*known_keys(Config), "variant", *known_keys(engine, "engine."), *known_keys(method.Config, "method.")}


def _unknown_key(key: str, known: Iterable[str]) -> str:
    if key in ("variant", "objective"):
        return f"{key}=NAME takes one name and composes a new config; in one that is there, set the keys it stands for"
    elsewhere: dict[str, list[str]] = {}
    schemas = {f"engine={name}": cls for name, cls in ENGINES.items()}
    schemas |= {f"method={name}": method_class(name).Config for name in choices()["method"] if name != "plugin"}
    for choice, schema in schemas.items():
        for field in schema.model_fields:
            elsewhere.setdefault(f"{choice.partition('=')[0]}.{field}", []).append(choice)
    return unknown_key(key, known, {name: owners for name, owners in elsewhere.items() if name not in known})


# ----------------------------------------------------------------------------------------------------------- overrides


def split_override(override: str) -> tuple[str, str]:
    """Key and value of `key=value`, without `+` before the key. Raises InputError for anything else."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r}: an override reads key=value, for example learning_rate=1e-6")
    if not re.fullmatch(r"\+{0,2}[A-Za-z_][\w-]*(\.[\w-]+)*", key, re.ASCII) or re.match(r"\+*hydra(\.|$)", key):
        raise InputError(
            f"{override!r}: {key!r} is no key of the config; an override reads key=value, for example "
            "sampling.top_p=0.9"
        )
    return key.lstrip("+"), value


def _with_choices(overrides: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """`method.name=NAME`, there or in `values`, as the choice `method=NAME`, which sets keys beside its group too."""
    available = choices()

    def choice(key: str, value: Any) -> list[str]:
        group, _, last = key.rpartition(".")
        named = last == "name" and group in ("method", "task", "engine") and isinstance(value, str)
        return [f"{group}={value}"] if named and (value in available[group] or ".py:" in value) else []

    sections = {f"{key}.name": value.get("name") for key, value in values.items() if isinstance(value, Mapping)}
    return [
        *(one for override in overrides for one in choice(*split_override(override)) or [override]),
        *(one for key, value in {**values, **sections}.items() for one in choice(key, value)),
    ]


def _without_plugins(overrides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Replace `method=file.py:Name` and `task=file.py:Name` by the group's choice `plugin`; returns both, by group."""
    kept, plugins = [], {}
    for override in overrides:
        key, value = split_override(override)
        if key in ("method", "task") and ".py" in value:
            plugins[key] = value
            kept.append(f"{key}=plugin")
        else:
            plugins.pop(key, None)  # the last one counts
            kept.append(override)
    return kept, plugins


def _with_variant(overrides: Sequence[str]) -> list[str]:
    """Replace `variant=NAME` by what `variants/NAME.yaml` sets for the chosen method; later overrides win."""
    given = dict(map(split_override, overrides))
    variant = given.get("variant", "published")
    kept = [override for override in overrides if split_override(override)[0] != "variant"]
    if variant == "published":
        return kept
    tables = {path.stem: path for path in sorted((GROUPS.parent / "variants").glob("*.yaml"))}
    if variant in FORMER_VARIANTS:
        raise InputError(f"variant={variant}: its name is {FORMER_VARIANTS[variant]!r} now")
    if variant not in tables:
        raise InputError(f"variant={variant}: must be one of published, {', '.join(tables)}")
    table = yaml.safe_load(tables[variant].read_text())
    method, task = given.get("method", DEFAULTS["method"]), given.get("task", DEFAULTS["task"])
    if method not in table:
        raise InputError(f"variant={variant}: there is none for method={method}; it exists for {', '.join(table)}")
    chosen = [*table[method].get("always", []), *table[method].get(task, [])]
    objective = _keys_of_objective(given.get("objective") or given.get("method.objective", ""))
    chosen = [override for override in chosen if split_override(override)[0] not in objective]
    return [
        *(o for o in kept if split_override(o)[0] in _GROUP_NAMES),
        *chosen,
        *(o for o in kept if split_override(o)[0] not in _GROUP_NAMES),
    ]


def _keys_of_objective(name: str) -> set[str]:
    """The dotted keys that `objective=NAME` sets; none for what is no objective."""
    if name not in OBJECTIVES:
        return set()
    beside = flat_config(yaml.safe_load((GROUPS / "objective" / f"{name}.yaml").read_text()))
    return {*(f"method.{key}" for key in OBJECTIVES[name]), *beside}


def _by_model(overrides: Sequence[str]) -> dict[str, str]:
    """The parameters of the chosen task's composition that follow from the chosen model (by_model.yaml)."""
    chosen = {**DEFAULTS, **dict(map(split_override, overrides))}
    table = yaml.safe_load((GROUPS.parent / "by_model.yaml").read_text()).get(chosen["task"], {})
    return {name: row.get(chosen["model"], row["other"]) for name, row in table.items()}


def _digits_kept(override: str) -> str:
    """`task.band=6_8` with its value quoted, since Hydra's grammar reads 6_8 as the number 68."""
    key, value = split_override(override)
    return f"{key}='{value}'" if key == "task.band" and re.fullmatch(r"[\d._]+", value) else override


def _path_quoted(override: str) -> str:
    """An override whose value is a path that exists, with the value quoted if the grammar would read it otherwise.

    Runs of a sweep lie in folders such as `method=grpo,seed=0`.
    """
    key, value = split_override(override)
    if is_special_path(value):
        return f"{key}='" + value.replace("'", "\\'") + "'"
    return override


def is_special_path(value: str) -> bool:
    """Whether a value is an existing path with characters that mean something in the grammar of overrides."""
    if value[:1] in ("", "'", '"', "[", "{") or not re.search(r"[^\w./:~+-]", value):
        return False
    with suppress(OSError, ValueError):  # too long for a path, a NUL in it
        return Path(value).expanduser().exists()
    return False


def _emptied(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys that `values` sets to an empty mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _emptied(value, f"{prefix}{key}.") if value else (f"{prefix}{key}",)


def _clear(merged: Any, overrides: Iterable[str], values: Mapping[str, Any]) -> None:
    """Empty the mappings that were set to `{}`, which merging alone leaves as they are; entries given later stay."""
    given = list(map(split_override, overrides))
    emptied = [(key, given[number + 1 :]) for number, (key, value) in enumerate(given) if value.strip() == "{}"]
    for key, later in [*emptied, *((key, []) for key in _emptied(values))]:
        old = OmegaConf.select(merged, key)
        names = {other.removeprefix(f"{key}.").partition(".")[0] for other in (*(o for o, _ in later), *values)}
        if OmegaConf.is_dict(old):
            kept = {name: old[name] for name in old if name in names}
            OmegaConf.update(merged, key, kept, merge=False, force_add=True)


def _composed(overrides: Sequence[str], grammar: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The groups composed with the overrides and `values`, as plain nested values with references resolved.

    `overrides` is what the user wrote, for messages, and `grammar` the same in Hydra's grammar.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(GROUPS), version_base="1.3"):
            composed = compose("config", overrides=list(grammar))
        dotted = OmegaConf.create()
        for key, value in values.items():
            OmegaConf.update(dotted, key, value, force_add=True)
        OmegaConf.set_struct(composed, False)
        rates = composed.pop("learning_rates", None)
        defaults = Config().model_dump(exclude={"engine", "method", "task"})  # these depend on what is chosen
        merged = OmegaConf.merge(defaults, composed, dotted)
        if rates is not None and not any("learning_rate" in given for given in (composed, dotted)):
            merged.learning_rate = rates[_trained_weights(merged)]
        given = {split_override(override)[0] for override in overrides} | {*values}
        if rates is not None and "epochs" in given and "steps" not in given:
            merged.steps = None
        _clear(merged, overrides, values)
        _check_references(OmegaConf.to_container(merged, resolve=False))
        resolved = OmegaConf.to_container(merged, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _trained_weights(config: Any) -> str:
    """What kind of weights a composed config trains: a key of `learning_rates` in groups/task/own.yaml."""
    model = config.model
    if (GROUPS.parents[1] / "bases" / str(model.path)).is_dir():
        return "packaged"
    return "all_weights" if model.get("lora") is None else "lora"


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
        key, value = split_override(override)
        if key in available and value not in available[key]:
            raise InputError(f"{key}={value}: unknown {key}; {suggestion(value, set(available[key]) - {'plugin'})}")


def _check_objective(overrides: Sequence[str], values: Mapping[str, Any]) -> None:
    """Raises InputError for `objective=NAME` with a method that has no such loss, or one of its own name."""
    chosen = dict(map(split_override, overrides)).get("objective")
    method = values.get("method")
    if chosen is None or not isinstance(method, Mapping):
        return
    name = str(method.get("name", DEFAULT_METHOD))
    schema = method_class(name).Config
    if not issubclass(schema, ObjectiveConfig):
        some = ", ".join(name for name, method in METHODS.items() if issubclass(method.Config, ObjectiveConfig))
        own = "its Config has to derive from rlcsd.methods.ObjectiveConfig as well"
        reason = own if ".py:" in name else f"its loss is no policy gradient; methods with one: {some}"
        raise InputError(f"objective={chosen}: not for method={name}; {reason}")
    if chosen not in get_args(schema.model_fields["objective"].annotation):
        raise InputError(f"objective={chosen}: method={name} is grpo with objective={name}; use method=grpo")


def parsed(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """Keys and values of `key=value` overrides as Hydra's grammar reads them. Raises InputError as in `load`."""
    grammar = [_digits_kept(f"{key}={value}") for key, value in map(split_override, overrides)]
    return _check_values([f"++{_path_quoted(override)}" for override in grammar])


def _check_values(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """Keys and values. Raises InputError for a value that Hydra's grammar cannot read, or reads as several values."""
    parser, found = OverridesParser.create(), list[tuple[str, Any]]()
    for override in overrides:
        key, value = split_override(override)
        plain = override.lstrip("+")
        quote = f"text with special characters goes in quotes, '{key}=\"…\"', and a list in brackets, {key}=[a,b]"
        try:
            read = parser.parse_override(override)
        except HydraException:
            raise InputError(f"{plain}: the value {value!r} cannot be read; {quote}") from None
        if read.is_sweep_override():
            several = f"`rlcsd sweep {plain}` makes a run of each"
            raise InputError(f"{plain}: the value {value!r} is more than one; {several}; {quote}")
        if value == "???":
            raise InputError(f"{plain}: a value is needed, {key}=…")
        found.append((key, read.value()))
    return found
