"""The fields of a run's config.

A config is an `ml_collections.ConfigDict`, returned by `get_config(task)` of a Python
file. `resolve.resolve` turns it into a `RunConfig`, which is typed, validated and
frozen; the rest of the package uses only that.
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
from o2ojax.fields import choice, count, flag, number, section, special, text, whole
from o2ojax.replay import STORES, TASKS, Needs, NoOptions, Store

RETURN_RANGE = "return_range"
FORMAT = 3  # version of the format of checkpoints and config.json
MAX_SEEDS = 100_000


def _scale(value: Any) -> float | str:
    plain = fields.field_of(number(1.0))
    return value if value == RETURN_RANGE else plain.accept(value)


def _score(value: Any) -> float:
    value = fields.field_of(number(0.0, infinite=True)).accept(value)
    if value == -math.inf:
        raise ValueError
    return value


def parse_seeds(value: Any) -> tuple[int, ...]:
    """Parses seeds: a list of seeds, or a number n for the seeds 0, ..., n - 1."""
    if isinstance(value, str):
        value = fields.literal(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    seed = fields.field_of(whole(0, at_most=2**32 - 1))
    if isinstance(value, (tuple, list, range)) and len(value) <= MAX_SEEDS:
        found = tuple(seed.accept(one) for one in value)
    else:
        found = seed.accept(value)
        found = tuple(range(min(found, MAX_SEEDS + 1)))
    if not 0 < len(found) <= MAX_SEEDS or len(set(found)) < len(found):
        raise ValueError
    return found


ACTION_BOUNDS = (
    "auto or env, for the bounds of the environment's actions; unit, for -1 and 1;"
    " data, for the dataset's least and greatest; or two numbers, as -2,2"
)


def _action_bounds(value: Any) -> str | tuple[float, float]:
    """Parses the bounds that a dataset's actions are given in."""
    if isinstance(value, str) and value in ("auto", "env", "unit", "data"):
        return value
    if isinstance(value, str):
        value = fields.literal(value)
    plain = fields.field_of(number(0.0))
    low, high = map(plain.accept, value)
    if not low < high:
        raise ValueError
    return low, high


@section
class Tasks:
    """Numbers of training and test tasks of a family; 0 for all."""

    train: int = whole(0)
    test: int = whole(0)


@section
class Reward:
    """The agent learns from scale * reward + shift, both offline and online.

    A scale of "return_range" is 1000 / (max - min episode return of the dataset).
    """

    scale: float | str = special(1.0, f"a finite number, or {RETURN_RANGE}", _scale)
    shift: float = number(0.0)


@section
class Replay:
    """The online store. The options of the store are further fields of this section.

    capacity: rows of the online ring; 0 keeps every step. In a store of tasks, rows of
        the ring of each task; 0 keeps three times the task's share of the steps.
    """

    name: str = text("uniform", "the name of a store")
    capacity: int = whole(0)
    options: Any = NoOptions()


@section
class Offline:
    """The offline phase.

    from: a run directory whose offline agents are loaded; RUN@20000 for those after so
        many updates, if `checkpoint.keep` kept them; RUN@online for those with which
        its online phase ended.
    held_out: where there is no environment, the share of episodes that judge.
    fitted_q: where there is none, updates of fitted Q evaluation.
    """

    updates: int = whole(1_000_000)
    source: str = text("", "a run directory", name="from")
    held_out: float = number(0.1, above=0, below=1, traced=False)
    fitted_q: int = count(10_000)


@section
class Online:
    """The online phase.

    steps:   transitions per member, summed over its environments.
    envs:    environments per member.
    updates_per_step: updates per transition.
    round:   transitions per round of collecting and updating; 0 for the fewest that
        give a whole number of updates.
    first_round: factor on the number of updates of the first round.
    warmup:  transitions before the first update; they are part of `steps`.
    until:   the run stops once a member reaches this score.
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
    """When policies are judged.

    every:    steps between two evaluations.
    early:    environment steps after which there is one besides, as 100,500: falls
        right after the hand-over are short.
    episodes: of each member in an evaluation.
    """

    every: int = count(10_000)
    early: tuple[int, ...] = fields.sizes(or_none=True)
    episodes: int = count(10)


@section
class Devices:
    """Data parallelism, besides the division of members over devices.

    per_batch:   devices that share each batch; they hold the same members.
    cut_dataset: whether each of these devices holds only its part of the dataset.
    """

    per_batch: int = count(1)
    cut_dataset: bool = flag(False)


@section
class Checkpoint:
    """When a run is saved. It keeps its two newest checkpoints.

    every: steps between two.
    best:  whether the one of the best mean score is kept, too.
    keep:  offline updates after which one is kept for good; `offline.from=RUN@UPDATES`
        starts from it.
    """

    every: int = count(50_000)
    best: bool = flag(False)
    keep: tuple[int, ...] = fields.sizes(or_none=True)


@section
class Log:
    """Steps between two lines of metrics."""

    every: int = count(1_000)


@section
class RunConfig:
    """A validated config, with the default values of all configs.

    env, algorithm: names in their registries, or doors; an environment of Gymnasium is
        named gymnasium:ID.
    env_args:   keyword arguments of the environment.
    env_keys:   entries of Dict observations to join, in order; () for all.
    horizon:    steps after which an episode is cut; 0 for the environment's own limit.
    action_bounds: the units of a dataset's actions, see `ACTION_BOUNDS`.
    dataset:    a shipped name, a file, or a door; "" for none.
    clip_actions: clips actions outside [-1, 1] in a dataset, which else are an error.
    physics:    "auto", or a name in `envs.PHYSICS`.
    native:     whether XLA calls MuJoCo's C library itself: "auto", where it can be
        compiled, "never" or "require". It changes speed and no number. (Environments of
        Gymnasium are always called by XLA itself, where that can be.)
    simulator:  changes to the simulator's model.
    agent:      config of the algorithm.
    batch:      rows per batch.
    seeds:      a member is trained for each seed and each population setting.
    population: name of a field of `agent` -> values to try.
    wandb:      a Weights & Biases project; "" for none.
    """

    algorithm: str = text("", "the name of an algorithm")
    env: str = text("", "the name of an environment")
    env_args: dict[str, Any] = fields.mapping()
    env_keys: tuple[str, ...] = fields.names()
    horizon: int = whole(0)
    host: envs.Host = envs.Host()
    pixels: envs.Pixels = envs.Pixels()
    dataset: str = text("", "the name of a dataset")
    action_bounds: Any = special("auto", ACTION_BOUNDS, _action_bounds)
    clip_actions: bool = flag(False)
    physics: str = text("auto", "the name of a physics")
    native: str = choice("auto", "never", "require")
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
        parse_seeds,
    )
    population: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    devices: Devices = Devices()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()
    wandb: str = text("", "the name of a project")

    @property
    def entry(self) -> agents.Algorithm:
        """The algorithm's registry entry."""
        return agents.AGENTS.find(self.algorithm)

    @property
    def store(self) -> Store:
        """The store's registry entry."""
        return STORES.find(self.replay.name)

    @cached_property
    def needs(self) -> Needs:
        """The agent's requirements of its stores."""
        return self.entry.needs(self.agent)

    @property
    def update_ratio(self) -> Fraction:
        """Updates per transition, as a fraction of integers."""
        return Fraction(self.online.updates_per_step).limit_denominator(1000)

    @property
    def shortest_round(self) -> int:
        """Transitions of the shortest round with a whole number of updates."""
        return (self.update_ratio * self.online.envs).denominator * self.online.envs

    @property
    def _rounds_in_one(self) -> int:
        return max(1, self.online.round // self.shortest_round)

    @property
    def steps_per_round(self) -> int:
        """Steps of every environment in an online round.

        The shortest round with a whole number of updates has, with one environment, one
        step and one update for a ratio of 1, and five steps and sixteen updates for
        3.2. A round consists of as many of these as fit into `online.round`.
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
        """Transitions that a member collects per round."""
        return self.steps_per_round * self.online.envs

    def described(self) -> dict[str, Any]:
        """The config as in `config.json`, with resolved physics and hashes of doors."""
        physics = envs.OWN
        if self.env != envs.NONE and envs.ENVS.find(self.env).any_physics:
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
        """Warnings to show before a run starts."""
        if self.env == envs.NONE:
            return [
                "there is no environment: a score is the policy's value, discounted, at"
                " the start of held-out episodes, as fitted Q evaluation estimates it."
                " It is no return"
            ]
        entry = envs.ENVS.find(self.env)
        found = []
        if entry.any_physics:
            found = envs.caveats(envs.choose_physics(self.physics), self.native)
        if entry.parameters and self.needs.kind != TASKS:
            found.append(
                f"{self.algorithm} is blind to the tasks of {self.env}: it cannot see"
                " or infer which one it plays, and acts alike in all; smac and pearl"
                " infer it"
            )
        return found


def defaults(algorithm: str, task: str) -> ConfigDict:
    """Returns a config with the default value of every field.

    Args:
        algorithm: a name in `agents.AGENTS`, or a door; `agent` gets its defaults.
        task: `ENV-KIND`, the name of a dataset of the environment `ENV`; `ENV`, for a
            run without data; or the door of an environment.
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
    """The fields as nested dicts, with a store's options beside its name."""
    found = fields.values(run)
    found["replay"] |= found["replay"].pop("options")
    return found


def with_newer_fields(described: dict[str, Any]) -> dict[str, Any]:
    """The content of a `config.json`, with defaults for fields newer than it is."""
    algorithm = described.get("algorithm", "")
    agent = agents.AGENTS.find(algorithm).config() if algorithm else None
    default = as_json(RunConfig(algorithm=algorithm, agent=agent))

    def filled(given: dict, default: dict) -> dict:
        return default | {
            name: filled(value, default[name])
            if isinstance(value, dict) and isinstance(default.get(name), dict)
            else value
            for name, value in given.items()
        }

    return filled(described, default)


def as_json(run: RunConfig) -> dict[str, Any]:
    """Converts a config to lists, dicts and numbers, with infinity as "inf", "-inf"."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(child) for name, child in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(child) for child in value]
        return str(value) if value in (math.inf, -math.inf) else value

    return plain(_nested(run))


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Lists the differences of two `as_json` configs, as `name: old -> new`."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name}: {a!r} -> {b!r}")
    return found
