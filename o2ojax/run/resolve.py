"""Loads configs from files, command lines and run directories, and validates them."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from o2ojax import agents, envs, fields, registry, replay
from o2ojax.data import minari
from o2ojax.data.minari import PREFIX as MINARI
from o2ojax.errors import RAISED, UserError, first_line, unknown
from o2ojax.run import rhythm, validation
from o2ojax.run.config import Replay, RunConfig


def load(path_and_task: str, folder: Path | None = None) -> ConfigDict:
    """Calls `get_config` of `FILE.py`, or with an argument of `FILE.py:TASK`.

    Args:
        folder: where files are that need no path and no ending, as `iql:hopper-random`.
    Raises:
        UserError: there is no such file, it has no `get_config`, it fails, or it
            returns no config.
    """
    path, _, task = path_and_task.partition(":")
    if folder and os.path.isfile(folder / f"{path}.py"):
        path = str(folder / f"{path}.py")
    if not path.endswith(".py") or not os.path.isfile(path):
        named = sorted(x.stem for x in folder.glob("[!_]*.py")) if folder else ()
        known = f", nor a config of the names {', '.join(named)}" if named else ""
        raise UserError(f"--config={path}: there is no such Python file{known}")
    try:
        module = registry.load_file(Path(path))
        if not hasattr(module, "get_config"):
            raise UserError("the file defines no get_config()")
        config = module.get_config(*([task] if task else []))
        if not isinstance(config, (ConfigDict, Mapping)):
            raise UserError(
                f"get_config() returns a {type(config).__name__}; it must return what"
                " o2ojax.run.config.defaults() returns, changed as you like"
            )
        return config if isinstance(config, ConfigDict) else ConfigDict(config)
    except UserError as error:
        raise UserError(f"--config={path}: {error}") from error
    except RAISED as error:
        raise UserError(f"--config={registry.failure(path, error)}") from error


FIRST = ("algorithm", "replay.name")  # fields that reset others


def override(config: ConfigDict, arguments: Iterable[str]) -> None:
    """Applies `--config.FIELD=VALUE` arguments, in place.

    A new algorithm resets `agent` to its defaults, and a new store resets the options
    of `replay`, so these two are applied first.

    Raises:
        UserError: a field is unknown (the message suggests the nearest one), or a value
            has the wrong type.
    """
    given = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name.startswith("--config.") or not equals:
            raise UserError(
                f"cannot read {argument!r}; overrides look like --config.FIELD=VALUE"
            )
        given.append((name.removeprefix("--config."), value))
    with config.unlocked():
        for name, value in sorted(given, key=lambda item: item[0] not in FIRST):
            _set(config, name, value)
        _forget_env(config, dict(given))


def _forget_env(config: ConfigDict, given: Mapping[str, Any]) -> None:
    """Leaves the environment to a dataset of Minari, which names its own."""
    if str(given.get("dataset", "")).startswith(MINARI) and "env" not in given:
        _put(config, "env", "")


def put(config: ConfigDict, given: Mapping[str, Any]) -> None:
    """Sets fields by their dotted names, in place, in the order of `override`.

    Raises:
        UserError: as `override`.
    """
    with config.unlocked():
        for name in sorted(given, key=lambda name: name not in FIRST):
            _set(config, name, given[name], fields.parse)
        _forget_env(config, given)


def _set(
    config: ConfigDict, name: str, value: Any, parse: Callable = fields.from_text
) -> None:
    if name.startswith("population."):
        parsed: Any = _listed(value)
    elif name.startswith("env_args."):
        parsed = fields.literal(value) if isinstance(value, str) else value
    else:
        known = _declared(config)
        if name not in known:
            raise unknown("config field", name, known)
        parsed = parse(known[name], f"config.{name}", value)
    *path, last = name.split(".")
    node = config
    for part in path:
        if not isinstance(node.get(part), ConfigDict):
            _put(node, part, ConfigDict({}, type_safe=False))
        node = node[part]
    _put(node, last, parsed)
    if name == "algorithm":
        values = fields.values(agents.AGENTS.find(parsed).config())
        _put(config, "agent", ConfigDict(values, type_safe=False))
    if name == "replay.name":
        values = fields.values(replay.STORES.find(parsed).options())
        kept = {"name": parsed, "capacity": config.replay.get("capacity", 0)}
        _put(config, "replay", ConfigDict(kept | values, type_safe=False))


def _put(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a field, also to a value of another type than ConfigDict saw there first.

    (`ConfigDict.ignore_type` would walk through all that values hold, as a long range.)
    """
    try:
        config[name] = value
    except (TypeError, ValueError, OverflowError):
        del config[name]
        config[name] = value


def _declared(config: Mapping) -> dict[str, fields.Field]:
    """The declaration of each field of a config, by its dotted name."""
    algorithm = agents.AGENTS.find(_name(config, "algorithm"))
    store = replay.STORES.find(_name(config, "replay", "name"))
    return {
        **_declared_of(RunConfig),
        **_declared_of(algorithm.config, "agent."),
        **_declared_of(store.options, "replay."),
    }


def _declared_of(kind: type, prefix: str = "") -> dict[str, fields.Field]:
    found = {}
    for declared in dataclasses.fields(kind):
        name = prefix + fields.known_as(declared)
        if dataclasses.is_dataclass(declared.default):
            found |= _declared_of(type(declared.default), f"{name}.")
        elif declared.name not in ("agent", "population"):
            found[name] = fields.field_of(declared)
    return found


def _name(config: Mapping, *path: str) -> str:
    """Reads a field that holds a name from a config that is not yet validated."""
    value: Any = config
    for part in path:
        value = value.get(part) if isinstance(value, (Mapping, ConfigDict)) else None
    if value is None and path == ("replay", "name"):
        return RunConfig().replay.name
    if not isinstance(value, str) or not value:
        name = ".".join(path)
        raise UserError(f"config.{name} is {fields.shown(value)}; it must be a name")
    return value


def resolve(config: Mapping | ConfigDict, check: bool = True) -> RunConfig:
    """Parses and validates a config.

    The checks that need the data or the environment's sizes are in `job.prepare`.

    Args:
        check: whether the fields must fit together. If not, the environment need not
            be there.
    Raises:
        UserError: the config is invalid; the message names the field, the problem and a
            valid value.
    """
    given = _plain(config)
    unnamed = given.get("env") is None or str(given["env"]) == ""
    if unnamed and str(given.get("dataset", "")).startswith(MINARI):
        for name, value in minari.environment(str(given["dataset"])).items():
            if str(given.get(name)) in ("None", "", "0", "{}"):  # not told by the user
                given[name] = value
    run = _parsed(given)
    if check:
        run = rhythm.fitted(run)
        validation.check(run)
    return run


def _plain(config: Mapping | ConfigDict) -> dict[str, Any]:
    """Converts a config to nested dicts, with its references resolved."""
    try:
        if isinstance(config, ConfigDict):
            config = config.copy_and_resolve_references().to_dict()
        return {
            name: _plain(value) if isinstance(value, Mapping) else value
            for name, value in config.items()
        }
    except Exception as error:  # a missing or circular reference
        raise UserError(f"the config cannot be read: {first_line(error)}") from error


def _parsed(given: dict[str, Any]) -> RunConfig:
    entry = agents.AGENTS.find(_name(given, "algorithm"))
    store = replay.STORES.find(_name(given, "replay", "name"))
    known = {fields.known_as(field) for field in dataclasses.fields(RunConfig)}
    for name in given:
        if name not in known:
            raise unknown("config field", str(name), known)
    parts: dict[str, Any] = {}
    for declared in dataclasses.fields(RunConfig):
        name = declared.name
        if name not in given or name in ("agent", "population", "replay"):
            continue
        if dataclasses.is_dataclass(declared.default):
            parts[name] = _section(
                type(declared.default), f"config.{name}", given[name]
            )
        else:
            field = fields.field_of(declared)
            parts[name] = fields.parse(field, f"config.{name}", given[name])
    parts["agent"] = _section(
        entry.config,
        "config.agent",
        given.get("agent", {}),
        f"hyper-parameter of {given['algorithm']}",
    )
    parts["replay"] = _replay(store, given.get("replay", {}))
    parts["population"] = _population(
        entry.config, given["algorithm"], given.get("population", {})
    )
    return RunConfig(**parts)


def _section(kind: type, name: str, given: Any, what: str = "") -> Any:
    _refuse_no_mapping(name, given)
    return fields.build(kind, name, given, what or f"field of {name}")


def _refuse_no_mapping(name: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        raise UserError(
            f"{name} is {fields.shown(given)}; it must be a dict of fields, as"
            " defaults() makes it"
        )


def _replay(store: replay.Store, given: Any) -> Replay:
    _refuse_no_mapping("config.replay", given)
    own = {"name", "capacity"}
    options = {name: value for name, value in given.items() if name not in own}
    known = [fields.known_as(field) for field in dataclasses.fields(store.options)]
    for name in options:
        if name not in known:
            raise unknown("field of config.replay", str(name), [*own, *known])
    common = {name: given[name] for name in own if name in given}
    made = fields.build(Replay, "config.replay", common, "field of config.replay")
    chosen = fields.build(
        store.options, "config.replay", options, "option of the store"
    )
    return dataclasses.replace(made, options=chosen)


def _population(kind: type, algorithm: str, given: Any) -> dict[str, tuple[float, ...]]:
    """Parses the values to try per hyper-parameter, sorted by name."""
    _refuse_no_mapping("config.population", given)
    traced = {
        fields.known_as(declared): declared
        for declared in dataclasses.fields(kind)
        if fields.is_traced(declared)
    }
    found = {}
    for name in sorted(given, key=str):
        if name not in traced:
            what = f"config.population field (of the numbers that {algorithm} traces)"
            error = unknown(what, str(name), traced)
            raise UserError(
                f"{error}. What is compiled in, as sizes and a store's options, is"
                " varied by a sweep"
            )
        where, field = f"config.population.{name}", fields.field_of(traced[name])
        values = tuple(
            fields.parse(field, where, value) for value in _listed(given[name])
        )
        if not values:
            raise UserError(f"{where} lists no value; give one or more, as 0.7,0.9")
        if not all(map(math.isfinite, values)):
            raise UserError(f"{where} is {values}; all values must be finite")
        if len({np.float32(value) for value in values}) < len(values):
            raise UserError(f"{where} is {values}, which has a value twice in float32")
        found[str(name)] = values
    return found


def _listed(value: Any) -> Sequence:
    if isinstance(value, str):
        value = fields.literal(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return value if isinstance(value, (tuple, list)) else (value,)


def from_json(described: Mapping[str, Any], check: bool = True) -> RunConfig:
    """Restores the config of a run from the content of its `config.json`.

    Args:
        check: as for `resolve`.
    Raises:
        UserError: the content is of another format, or damaged.
    """
    known = {fields.known_as(field) for field in dataclasses.fields(RunConfig)}
    given = {name: value for name, value in described.items() if name in known}
    _name(given, "env")
    if given.get("physics") == envs.OWN:
        given["physics"] = "auto"
    return resolve(_with_infinity(given), check)


def _with_infinity(value: Any) -> Any:
    """Replaces "inf" and "-inf", as `as_json` writes them, by the numbers."""
    if isinstance(value, dict):
        return {name: _with_infinity(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_with_infinity(child) for child in value]
    return float(value) if value in ("inf", "-inf") else value
