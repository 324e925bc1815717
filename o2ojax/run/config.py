"""What a run is given: the fields that every config has, and overrides.

A config is an `ml_collections.ConfigDict` that a Python file's `get_config(task)`
returns. What cannot work is refused in `validation`, before anything compiles.
"""

import ast
import dataclasses
import importlib.util
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from o2ojax import agents, envs, replay
from o2ojax.errors import UserError, unknown

RETURN_RANGE = "return_range"


def defaults(algorithm: str, task: str) -> ConfigDict:
    """Every field, with the values that most configs keep.

    Args:
        algorithm: a name in `agents.AGENTS`; its config fills `agent`.
        task: `ENV-KIND`, a dataset's name that begins with its environment's; or `ENV`
            alone, for a run without data.
    """
    env, kind = envs.split(task)
    fields = dict(
        algorithm=algorithm,
        env=env,
        dataset=task if kind else "",  # a shipped name or a file; "" for none
        clip_actions=False,  # of a dataset that leaves [-1, 1], rather than refuse
        physics="auto",  # auto | mujoco | mjx | mjx-warp
        simulator=envs.Simulator()._asdict(),  # where it differs from the task's own
        tasks=dict(train=0, test=0),  # of a family; 0: all that it has
        agent=dataclasses.asdict(agents.find(algorithm).config()),
        batch=256,
        # what the agent sees is scale * reward + shift, offline and online alike
        reward=dict(
            scale=1.0,  # or "return_range": 1000 / (max - min return of the dataset)
            shift=0.0,
        ),
        replay=dict(
            name="uniform",  # uniform | symmetric | balanced | online | tasks
            capacity=0,  # rows of the online ring; 0 keeps every step. Of tasks: of
            # each one's ring; 0: three times its share of the steps
            balanced=replay.balanced.Options()._asdict(),
            windows=replay.windows.Options()._asdict(),
        ),
        offline={
            "updates": 1_000_000,
            "from": "",  # a run directory to take the offline agents from
        },
        online=dict(
            steps=1_000_000,  # per member, all its environments together
            envs=1,  # per member
            updates_per_step=1.0,  # per transition
            round=0,  # transitions between two bouts of updates; 0: as few as come out
            first_round=1,  # so many times as many updates after the first round
            warmup=0,  # of the steps, those gathered before the first update
            until=float("inf"),  # stop early once a member scores this
        ),
        eval=dict(every=10_000, episodes=10),
        seeds=4,  # how many, counted from 0; or a tuple of them
        population={},  # agent field -> values; members are seeds x their product
        devices=dict(  # beside those that members are divided over
            per_batch=1,  # that share each batch; each has the same members
            cut_dataset=False,  # each of those has its part of the dataset alone
        ),
        checkpoint=dict(every=50_000),
        log=dict(every=1_000),
        wandb="",  # a Weights & Biases project, if one is wanted
    )
    return ConfigDict(fields, type_safe=False)


def load(path_and_task: str) -> ConfigDict:
    """Runs `get_config` of a file: `FILE.py` or `FILE.py:TASK`.

    Raises:
        UserError: no such file, or no `get_config` in it.
    """
    path, _, task = path_and_task.partition(":")
    if not Path(path).is_file():
        raise UserError(f"--config={path}: there is no such file")
    spec = importlib.util.spec_from_file_location("config_file", path)
    if spec is None:
        raise UserError(f"--config={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"--config={path}: the file defines no get_config()")
        return module.get_config(*([task] if task else []))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"--config={path}: the file fails with {type(error).__name__}: {error}"
        ) from error


def override(config: ConfigDict, arguments: Iterable[str]) -> None:
    """Applies `--config.FIELD=VALUE` arguments, in place.

    Raises:
        UserError: an unknown field, with the nearest one; a value of a wrong type.
    """
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not name.startswith("--config.") or not equals:
            raise UserError(
                f"cannot read {argument!r}; overrides look like --config.FIELD=VALUE"
            )
        _set(config, name.removeprefix("--config."), text)


def _set(config: ConfigDict, name: str, text: str) -> None:
    if name.startswith("population."):
        field = name.removeprefix("population.")
        config.population[field] = _sequence(name, _parse(text))
        return
    *path, field = name.split(".")
    node = config
    for part in path:
        node = node.get(part)
        if not isinstance(node, ConfigDict):
            raise _unknown_field(config, name)
    if field not in node or isinstance(node[field], ConfigDict):
        raise _unknown_field(config, name)
    node[field] = _like(name, node[field], _parse(text), text)


def _unknown_field(config: ConfigDict, name: str) -> UserError:
    return unknown("config field", name, fields(config))


def fields(config: ConfigDict, prefix: str = "") -> list[str]:
    """The dotted names of all fields that hold a value."""
    names = []
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            names += fields(value, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if text in ("true", "false"):
            return text == "true"
        return float(text) if text in ("inf", "-inf") else text


def _sequence(name: str, value: Any) -> tuple:
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not value or not all(isinstance(x, (int, float)) for x in value):
        raise UserError(f"config.{name} takes numbers, as in 0.7,0.9; got {value!r}")
    return tuple(float(x) for x in value)


def _like(name: str, old: Any, new: Any, text: str) -> Any:
    """`new` as the type of `old`, or a refusal."""
    if name == "seeds" and isinstance(new, (int, tuple, list)):
        return new if isinstance(new, int) else tuple(new)
    if name == "reward.scale" and text == RETURN_RANGE:
        return text
    kind = float if name == "reward.scale" else type(old)
    if kind is str:
        return text
    if kind is tuple and not isinstance(new, str):
        return tuple(new) if isinstance(new, (tuple, list)) else (new,)
    if kind is float and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if kind is int and isinstance(new, float) and new.is_integer():
        return int(new)
    if type(new) is not kind:
        raise UserError(
            f"config.{name} takes a value of type {kind.__name__}, as {old!r};"
            f" got {text!r}"
        )
    return new


def seeds(config: ConfigDict) -> tuple[int, ...]:
    """The seeds themselves."""
    if not isinstance(config.seeds, int):
        return tuple(config.seeds)
    if config.seeds > 100_000:
        raise UserError(f"config.seeds is {config.seeds}; that is more than 100,000")
    return tuple(range(config.seeds))


def round_shape(config: ConfigDict) -> tuple[int, int]:
    """Steps of every environment, and updates, in one online round.

    The shortest round in which the updates per transition come out whole: one step and
    one update for a ratio of 1, five steps and sixteen updates for 3.2. Or as many of
    these as `online.round` has room for.
    """
    ratio = update_ratio(config) * config.online.envs
    times = max(1, config.online.round // shortest_round(config))
    return times * ratio.denominator, times * ratio.numerator


def shortest_round(config: ConfigDict) -> int:
    """Transitions of the shortest round in which the updates come out whole."""
    ratio = update_ratio(config) * config.online.envs
    return ratio.denominator * config.online.envs


def update_ratio(config: ConfigDict) -> Fraction:
    """Updates per transition, as a fraction of whole numbers."""
    return Fraction(config.online.updates_per_step).limit_denominator(1000)


def caveats(config: ConfigDict) -> list[str]:
    """What someone should know before a run begins."""
    found = envs.caveats(envs.choose_physics(config.physics))
    infers = agents.find(config.algorithm).context_sampling(agent_config(config))
    if config.env in envs.families.FAMILIES and not infers:
        found.append(
            f"{config.algorithm} is blind to the tasks of {config.env}: it cannot see"
            " or infer which one it plays, and acts alike in all; smac and pearl infer"
            " it"
        )
    return found


def agent_config(config: ConfigDict) -> Any:
    """The algorithm's own dataclass, filled from `config.agent`."""
    kind = agents.find(config.algorithm).config
    return kind(**{name: config.agent[name] for name in config.agent})


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Plain lists, dicts and numbers; infinity by its name."""

    def plain(value):
        if isinstance(value, ConfigDict):
            return {name: plain(child) for name, child in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(child) for child in value]
        return str(value) if value == float("inf") else value

    return plain(config)


def described(config: ConfigDict) -> dict[str, Any]:
    """The config as `config.json` has it: physics, seeds and settings spelt out."""
    return as_json(config) | {
        "physics": envs.choose_physics(config.physics),
        "seeds": list(seeds(config)),
        "population": {
            name: list(values) for name, values in grid(config.population).items()
        },
    }


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """The fields in which two `as_json` configs differ, as `name: old -> new`."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name}: {a!r} -> {b!r}")
    return found


def grid(population: dict[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """The population as a plain dict of tuples, in a fixed order."""
    return {name: tuple(population[name]) for name in sorted(population)}
