"""What a run is given: the fields that every config has.

A config is an `ml_collections.ConfigDict` that a Python file's `get_config(task)`
returns. `resolve.resolve` turns it, once, into a `RunConfig`: typed, checked and
frozen, which is all that the rest of the package looks at.
"""

import dataclasses
import math
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from o2ojax import agents, envs, fields, registry
from o2ojax.envs import Simulator
from o2ojax.fields import count, flag, number, section, special, text, whole
from o2ojax.replay import STORES, TASKS, Needs, NoOptions, Store

RETURN_RANGE = "return_range"
FORMAT = 2  # of run directories: what checkpoints and config.json hold
MAX_SEEDS = 100_000


def _scale(value: Any) -> float | str:
    plain = fields.field_of(number(1.0))
    return value if value == RETURN_RANGE else plain.accept(value)


def _score(value: Any) -> float:
    value = fields.field_of(number(0.0, infinite=True)).accept(value)
    if value == -math.inf:
        raise ValueError
    return value


def _seeds(value: Any) -> tuple[int, ...]:
    """Seeds themselves, or how many there are of them, counted from 0."""
    if isinstance(value, str):
        value = fields.literal(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    seed = fields.field_of(whole(0, at_most=2**32 - 1))
    if isinstance(value, (tuple, list, range)):
        found = tuple(seed.accept(one) for one in value)
    else:
        found = seed.accept(value)
        found = tuple(range(min(found, MAX_SEEDS + 1)))
    if not 0 < len(found) <= MAX_SEEDS or len(set(found)) < len(found):
        raise ValueError
    return found


@section
class Tasks:
    """Of a family, how many; 0 for all that it has."""

    train: int = whole(0)
    test: int = whole(0)


@section
class Reward:
    """What the agent sees is scale * reward + shift, offline and online alike.

    A scale of "return_range" is 1000 / (max - min return of the dataset).
    """

    scale: float | str = special(1.0, f"a finite number, or {RETURN_RANGE}", _scale)
    shift: float = number(0.0)


@section
class Replay:
    """The online store. A store's own options are fields beside these.

    capacity: rows of the online ring; 0 keeps every step. Of tasks: of each one's ring;
    0 keeps three times its share of the steps.
    """

    name: str = text("uniform", "the name of a store")
    capacity: int = whole(0)
    options: Any = NoOptions()


@section
class Offline:
    """The offline phase. `from`: a run directory to take the offline agents from."""

    updates: int = whole(1_000_000)
    source: str = text("", "a run directory", name="from")


@section
class Online:
    """The online phase.

    steps:   per member, all its environments together.
    envs:    per member.
    updates_per_step: per transition.
    round:   transitions between two bouts of updates; 0: as few as come out whole.
    first_round: so many times as many updates after the first round.
    warmup:  of the steps, those gathered before the first update.
    until:   stop early once a member scores this.
    """

    steps: int = whole(1_000_000)
    envs: int = count(1)
    updates_per_step: float = number(1.0, above=0)
    round: int = whole(0)
    first_round: int = count(1)
    warmup: int = whole(0)
    until: float = special(math.inf, "a score, or inf", _score)


@section
class Eval:
    """When agents are judged, and by how many episodes of each member."""

    every: int = count(10_000)
    episodes: int = count(10)


@section
class Devices:
    """Beside those that members are divided over.

    per_batch:   that share each batch; each has the same members.
    cut_dataset: each of those has its part of the dataset alone.
    """

    per_batch: int = count(1)
    cut_dataset: bool = flag(False)


@section
class Checkpoint:
    """How often everything is saved."""

    every: int = count(50_000)


@section
class Log:
    """How often metrics are written."""

    every: int = count(1_000)


@section
class RunConfig:
    """All that a run is given, checked. The values are those that most configs keep.

    env, algorithm: names in their registries, or doors.
    dataset:    a shipped name, a file, or a door; "" for none.
    clip_actions: of a dataset that leaves [-1, 1], rather than refuse.
    physics:    auto, or a name in `envs.PHYSICS`.
    simulator:  where it differs from the task's own.
    agent:      the algorithm's own config.
    batch:      rows of a batch.
    seeds:      as many members, times the population's product.
    population: values to try, by field of `agent`.
    wandb:      a Weights & Biases project, if one is wanted.
    """

    algorithm: str = text("", "the name of an algorithm")
    env: str = text("", "the name of an environment")
    dataset: str = text("", "the name of a dataset")
    clip_actions: bool = flag(False)
    physics: str = text("auto", "the name of a physics")
    simulator: Simulator = Simulator()
    tasks: Tasks = Tasks()
    agent: Any = None
    batch: int = count(256)
    reward: Reward = Reward()
    replay: Replay = Replay()
    offline: Offline = Offline()
    online: Online = Online()
    eval: Eval = Eval()
    seeds: tuple[int, ...] = special(
        (0, 1, 2, 3),
        f"a number of seeds from 1 to {MAX_SEEDS:,}, or as many different whole numbers"
        " from 0 to 2**32 - 1",
        _seeds,
    )
    population: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    devices: Devices = Devices()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()
    wandb: str = text("", "the name of a project")

    @property
    def entry(self) -> agents.Algorithm:
        """The algorithm's entry in its registry."""
        return agents.AGENTS.find(self.algorithm)

    @property
    def store(self) -> Store:
        """The online store's entry in its registry."""
        return STORES.find(self.replay.name)

    @cached_property
    def needs(self) -> Needs:
        """What the agent asks of its stores."""
        return self.entry.needs(self.agent)

    @property
    def update_ratio(self) -> Fraction:
        """Updates per transition, as a fraction of whole numbers."""
        return Fraction(self.online.updates_per_step).limit_denominator(1000)

    @property
    def shortest_round(self) -> int:
        """Transitions of the shortest round in which the updates come out whole."""
        return (self.update_ratio * self.online.envs).denominator * self.online.envs

    @property
    def _rounds_in_one(self) -> int:
        return max(1, self.online.round // self.shortest_round)

    @property
    def steps_per_round(self) -> int:
        """Steps of every environment in an online round.

        The shortest round in which the updates per transition come out whole has one
        step and one update for a ratio of 1, five steps and sixteen updates for 3.2. A
        round is as many of these as `online.round` has room for.
        """
        ratio = self.update_ratio * self.online.envs
        return self._rounds_in_one * ratio.denominator

    @property
    def updates_per_round(self) -> int:
        """Updates in an online round."""
        ratio = self.update_ratio * self.online.envs
        return self._rounds_in_one * ratio.numerator

    @property
    def transitions_per_round(self) -> int:
        """Transitions that a member gathers in a round."""
        return self.steps_per_round * self.online.envs

    def described(self) -> dict[str, Any]:
        """The config as `config.json` has it: plain, physics and doors spelt out."""
        physics = envs.OWN
        if envs.ENVS.find(self.env).any_physics:
            physics = envs.choose_physics(self.physics)
        return as_json(self) | {
            "physics": physics,
            "format": FORMAT,
            "doors": {
                name: registry.fingerprint(door)
                for name, door in (
                    ("algorithm", self.algorithm),
                    ("env", self.env),
                    ("dataset", self.dataset),
                    ("replay.name", self.replay.name),
                )
                if registry.is_door(door)
            },
        }

    def caveats(self) -> list[str]:
        """What someone should know before a run begins."""
        entry = envs.ENVS.find(self.env)
        found = []
        if entry.any_physics:
            found = envs.caveats(envs.choose_physics(self.physics))
        if entry.parameters and self.needs.kind != TASKS:
            found.append(
                f"{self.algorithm} is blind to the tasks of {self.env}: it cannot see"
                " or infer which one it plays, and acts alike in all; smac and pearl"
                " infer it"
            )
        return found


def defaults(algorithm: str, task: str) -> ConfigDict:
    """Every field, with the values that most configs keep.

    Args:
        algorithm: a name in `agents.AGENTS`, or a door; its config fills `agent`.
        task: `ENV-KIND`, a dataset's name that begins with its environment's; `ENV`
            alone, for a run without data; or an environment's door.
    """
    env, kind = envs.split(task)
    run = RunConfig(
        algorithm=algorithm,
        env=env,
        dataset=task if kind else "",
        agent=agents.AGENTS.find(algorithm).config(),
    )
    config = ConfigDict(_nested(run), type_safe=False)
    config.seeds = len(run.seeds)
    return config


def _nested(run: RunConfig) -> dict[str, Any]:
    """The fields as a user sees them: a store's options beside its name."""
    found = fields.values(run)
    found["replay"] |= found["replay"].pop("options")
    return found


def as_json(run: RunConfig) -> dict[str, Any]:
    """Plain lists, dicts and numbers; infinity by its name."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(child) for name, child in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(child) for child in value]
        return str(value) if value == math.inf else value

    return plain(_nested(run))


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
