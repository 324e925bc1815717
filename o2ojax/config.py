"""What a run is told: the fields that every config has, overrides, and refusals.

A config is an `ml_collections.ConfigDict` that a Python file's `get_config(task)`
returns. Everything that could go wrong with it is said here, before anything compiles.
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
from o2ojax.agents import base
from o2ojax.errors import UserError, unknown
from o2ojax.types import EnvSpec

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
    ratio = _ratio(config) * config.online.envs
    times = max(1, config.online.round // _shortest_round(config))
    return times * ratio.denominator, times * ratio.numerator


def _shortest_round(config: ConfigDict) -> int:
    """Transitions of the shortest round in which the updates come out whole."""
    ratio = _ratio(config) * config.online.envs
    return ratio.denominator * config.online.envs


def _ratio(config: ConfigDict) -> Fraction:
    return Fraction(config.online.updates_per_step).limit_denominator(1000)


def check(config: ConfigDict) -> None:
    """Refuses what cannot work.

    Raises:
        UserError: names the field, what is wrong with it, and what would be right.
    """
    algorithm = agents.find(config.algorithm)
    known = fields(defaults(config.algorithm, config.env))
    for name in fields(config):
        if name not in known and not name.startswith(("agent.", "population.")):
            raise unknown("config field", name, known)
    if config.env not in envs.ENVS:
        raise unknown("environment", config.env, envs.ENVS)
    envs.choose_physics(config.physics)
    if config.replay.name not in replay.BUFFERS:
        raise unknown("replay", config.replay.name, replay.BUFFERS)
    _check_numbers(config)
    _check_rhythm(config)
    _check_agent(algorithm.config, config)
    _check_windows(algorithm.horizon(agent_config(config)), config)
    _check_tasks(algorithm, config)
    _check_devices(algorithm, config)
    draws_data = config.replay.name not in ("online", "tasks")
    if not config.dataset and draws_data and config.online.steps:
        raise UserError(
            f"config.replay.name is {config.replay.name!r}, which draws from a dataset,"
            " and config.dataset names none; set config.replay.name=online"
        )
    if not config.dataset and config.offline.updates:
        raise UserError(
            "config.offline.updates is not 0, but there is no config.dataset to learn"
            " from; name a dataset, or set config.offline.updates=0"
        )
    if config.offline["from"] and config.offline.updates:
        raise UserError(
            "config.offline.from takes the offline agents of another run, so"
            " config.offline.updates must be 0"
        )
    if config.offline.updates == 0 and config.online.steps == 0:
        raise UserError(
            "nothing to do: config.offline.updates and config.online.steps are both 0"
        )


def _check_numbers(config: ConfigDict) -> None:
    at_least = {
        "batch": 1,
        "devices.per_batch": 1,
        "tasks.train": 0,
        "tasks.test": 0,
        "simulator.iterations": 0,
        "simulator.ls_iterations": 0,
        "simulator.variants": 1,
        "replay.capacity": 0,
        "offline.updates": 0,
        "online.steps": 0,
        "online.envs": 1,
        "online.warmup": 0,
        "online.round": 0,
        "online.first_round": 1,
        "eval.every": 1,
        "eval.episodes": 1,
        "checkpoint.every": 1,
        "log.every": 1,
    }
    for name, least in at_least.items():
        value = _get(config, name)
        if value < least:
            raise UserError(f"config.{name} is {value}; it must be at least {least}")
    updates = config.online.updates_per_step
    if not 0 < updates < float("inf") or abs(_ratio(config) / updates - 1) > 1e-6:
        raise UserError(
            f"config.online.updates_per_step is {updates}; it must be a positive number"
            " that is a fraction of whole numbers up to 1000, as 1, 0.25 or 3.2"
        )
    _check_variants(config)
    share = config.replay.balanced.first_share
    if not 0 < share < 1:
        raise UserError(
            f"config.replay.balanced.first_share is {share}; it must lie strictly"
            " between 0 and 1: of the first draws, so many go to online rows"
        )
    if config.replay.balanced.head not in replay.balanced.HEADS:
        raise unknown(
            "replay.balanced.head", config.replay.balanced.head, replay.balanced.HEADS
        )
    _check_range("replay.balanced.lr", config.replay.balanced.lr)
    _check_range("replay.balanced.widths", config.replay.balanced.widths)
    _check_range("replay.balanced.temper", config.replay.balanced.temper)
    for name in ("alpha", "beta"):
        _check_range(f"replay.windows.{name}", config.replay.windows[name])
    for name in ("reward.scale", "reward.shift"):
        value = _get(config, name)
        if value != RETURN_RANGE and not abs(value) < float("inf"):
            raise UserError(f"config.{name} is {value}; it must be a finite number")
    if not config.online.until > -float("inf"):
        raise UserError(
            f"config.online.until is {config.online.until}; it must be a score, or inf"
        )
    if not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds(config)):
        raise UserError(
            f"config.seeds is {config.seeds}; it takes a number of seeds, or whole"
            " numbers from 0 to 2**32 - 1"
        )
    if not seeds(config):
        raise UserError("config.seeds names no seed; it takes a number above 0")
    if len(set(seeds(config))) < len(seeds(config)):
        raise UserError(f"config.seeds {seeds(config)} names a seed twice")


def _check_variants(config: ConfigDict) -> None:
    simulator = config.simulator
    for name in ("mass", "friction"):
        if not 0 <= simulator[name] <= 1:
            raise UserError(
                f"config.simulator.{name} is {simulator[name]}; it must be between 0"
                f" and 1: each variant's {name} is scaled by a factor from"
                f" exp(U(-{name}, {name}))"
            )
    varies = simulator.mass > 0 or simulator.friction > 0
    if varies != (simulator.variants > 1):
        raise UserError(
            f"config.simulator.variants is {simulator.variants}, but mass is"
            f" {simulator.mass} and friction is {simulator.friction}; several variants"
            " need one of them above 0, and a single one is Gymnasium's own model"
        )


def _get(config: ConfigDict, name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config


def _check_rhythm(config: ConfigDict) -> None:
    """All that happens at times must fall between two chunks of work."""
    every = config.log.every
    for name in ("eval", "checkpoint"):
        if config[name].every % every:
            raise UserError(
                f"config.{name}.every is {config[name].every}; it must be a multiple"
                f" of config.log.every, {every}"
            )
    if not config.online.steps:
        return
    steps = round_shape(config)[0] * config.online.envs
    if config.online.round not in (0, steps):
        raise UserError(
            f"config.online.round is {config.online.round}; it must be 0, or a multiple"
            f" of {_shortest_round(config)}, the fewest transitions for which"
            " config.online.updates_per_step gives whole updates"
        )
    for name, value in (
        ("log.every", every),
        ("online.steps", config.online.steps),
        ("online.warmup", config.online.warmup),
    ):
        if value % steps:
            raise UserError(
                f"config.{name} is {value}; online, work comes in rounds of {steps}"
                " steps (config.online.round, or else config.online.envs environments"
                " times the steps that make the updates come out whole), so it must be"
                f" a multiple of {steps}"
            )
    if config.online.warmup >= config.online.steps:
        raise UserError(
            f"config.online.warmup is {config.online.warmup}; it is part of"
            f" config.online.steps, {config.online.steps}, and must be smaller"
        )
    at_once = max(steps, config.online.warmup)
    if config.replay.name != "tasks" and 0 < config.replay.capacity < at_once:
        raise UserError(
            f"config.replay.capacity is {config.replay.capacity}; the ring must hold"
            f" the warm-up and one round, {at_once} rows"
        )


def _check_agent(kind: type, config: ConfigDict) -> None:
    names = {field.name for field in dataclasses.fields(kind)}
    for name in config.agent:
        if name not in names:
            raise unknown(f"hyper-parameter of {config.algorithm}", name, names)
    for name, value in config.agent.items():
        _check_range(f"agent.{name}", value)
    _check_planner(config.agent)
    floats = {
        field.name
        for field in dataclasses.fields(kind)
        if field.metadata.get("pytree_node", True)
    }
    for name, values in config.population.items():
        if name not in floats:
            raise unknown(
                f"config.population field (of the numbers that {config.algorithm}"
                " traces)",
                name,
                floats,
            )
        if not len(values):
            raise UserError(f"config.population.{name} lists no value")
        for value in values:
            _check_range(f"population.{name}", value)


def _check_planner(agent: ConfigDict) -> None:
    """A planner keeps fewer plans than it makes, and one critic cannot disagree."""
    if "num_elites" not in agent:
        return
    if agent.num_critics < 2:
        raise UserError(
            f"config.agent.num_critics is {agent.num_critics}; it must be at least 2:"
            " plans pay for the disagreement of critics"
        )
    if not 0 < agent.min_std <= agent.max_std:
        raise UserError(
            f"config.agent.min_std is {agent.min_std} and max_std is {agent.max_std};"
            " it must be 0 < min_std <= max_std"
        )
    if agent.num_elites > agent.num_samples + agent.num_proposals:
        raise UserError(
            f"config.agent.num_elites is {agent.num_elites}, but only"
            f" {agent.num_samples} samples and {agent.num_proposals} proposals are"
            " there to choose from; set it no higher than their sum"
        )


def _check_windows(horizon: int, config: ConfigDict) -> None:
    """An agent that learns from windows needs a store of them, and whole ones in it."""
    if not horizon or not config.online.steps:
        return
    if config.replay.name not in replay.OF_WINDOWS:
        raise UserError(
            f"config.replay.name is {config.replay.name!r}, which hands out single"
            f" transitions; {config.algorithm} learns from windows of {horizon}: set"
            f" config.replay.name to {' or '.join(replay.OF_WINDOWS)}"
        )
    steps = max(round_shape(config)[0], config.online.warmup // config.online.envs)
    if steps < horizon:
        raise UserError(
            f"config.online.warmup is {config.online.warmup}; {config.algorithm} learns"
            f" from windows of {horizon} transitions, so before the first update every"
            f" environment must take {horizon} steps: set config.online.warmup or"
            f" config.online.round to {horizon * config.online.envs} or more"
        )


def _check_tasks(algorithm: base.Algorithm, config: ConfigDict) -> None:
    """An agent that infers its task needs a family, a store of tasks, and rewards as
    they are.
    """
    draws = algorithm.draws(agent_config(config))
    if draws and config.env not in envs.families.FAMILIES:
        raise UserError(
            f"{config.algorithm} learns families of tasks, and {config.env} is one"
            f" task; choose one of {', '.join(envs.families.FAMILIES)}"
        )
    of_tasks = config.replay.name == "tasks"
    if of_tasks != (draws is not None):
        raise UserError(
            f"config.replay.name is {config.replay.name!r}, but {config.algorithm}"
            + (
                " infers its task from that task's own rows: set config.replay.name"
                " to 'tasks'"
                if draws
                else " knows nothing of tasks: 'tasks' is for those that infer them"
            )
        )
    if not draws:
        return
    if (config.reward.scale, config.reward.shift) != (1.0, 0.0):
        raise UserError(
            f"config.reward is {config.reward.scale} and {config.reward.shift}, but"
            f" {config.algorithm} infers tasks from rewards as they are; leave scale 1"
            " and shift 0, and set config.agent.reward_scale"
        )
    labels = config.agent.get("labels")
    if labels == "decoder" and not config.dataset:
        raise UserError(
            "config.agent.labels is 'decoder', which learns from a dataset's rewards,"
            " and config.dataset names none; name one, or set config.agent.labels=true"
        )


def _check_devices(algorithm: base.Algorithm, config: ConfigDict) -> None:
    sharing, cut = config.devices.per_batch, config.devices.cut_dataset
    if sharing > 1 and algorithm.whole_batch:
        raise UserError(
            f"config.devices.per_batch is {sharing}, but a batch of {config.algorithm}"
            f" cannot be divided: {algorithm.whole_batch}; set it to 1"
        )
    if config.batch % sharing:
        raise UserError(
            f"config.batch is {config.batch}, which config.devices.per_batch={sharing}"
            " does not divide"
        )
    if cut and sharing == 1:
        raise UserError(
            "config.devices.cut_dataset divides the dataset over the devices that share"
            " a batch, and config.devices.per_batch is 1"
        )
    if cut and config.online.steps:
        raise UserError(
            "config.devices.cut_dataset is for runs that stay offline: online, a batch"
            " is of all the data and a member's own; set config.online.steps=0"
        )


def _check_range(name: str, value: Any) -> None:
    allowed, words = base.RANGES.get(name.split(".")[-1], (lambda x: True, ""))
    if not allowed(value):
        raise UserError(f"config.{name} is {value!r}; it must be {words}")


def check_trials(config: ConfigDict, spec: EnvSpec) -> None:
    """Trials are whole episodes, of all tasks that there are.

    Raises:
        UserError: names the field, what is wrong with it, and what would be right.
    """
    algorithm, agent = agents.find(config.algorithm), agent_config(config)
    if spec.num_test and config.eval.episodes % spec.num_test:
        raise UserError(
            f"config.eval.episodes is {config.eval.episodes}; agents are judged on"
            f" {spec.num_test} test tasks of {spec.name}, each as often: give a"
            f" multiple of {spec.num_test}"
        )
    if not algorithm.draws(agent):
        return
    if spec.num_train < 2:
        raise UserError(
            f"config.tasks.train is {config.tasks.train}; {config.algorithm} learns to"
            " tell tasks apart, so give at least 2"
        )
    num_envs, round_ = config.online.envs, config.online.round
    episode = num_envs * spec.horizon
    if config.online.steps and (not round_ or round_ % episode):
        raise UserError(
            f"config.online.round is {round_}; {config.algorithm} begins new trials in"
            f" every round, of whole episodes: give a multiple of {episode}, which is"
            f" {spec.horizon} steps in each of config.online.envs={num_envs}"
        )
    if config.online.steps and round_ // episode <= agent.prior_explore:
        raise UserError(
            f"config.online.round is {round_}, {round_ // episode} episode(s) of each"
            f" task, and in the first {agent.prior_explore} of them"
            f" {config.algorithm} explores by the prior (config.agent.prior_explore);"
            f" give at least {(agent.prior_explore + 1) * episode}"
        )
    warmed = config.online.warmup and num_envs >= spec.num_train
    if config.online.steps and not config.dataset and not warmed:
        raise UserError(
            f"without a dataset, every one of the {spec.num_train} training tasks needs"
            f" rows before the first update: set config.online.envs={spec.num_train} or"
            f" more (it is {num_envs}), and config.online.warmup above 0"
        )
    if agent.trial <= agent.prior_exploit:
        raise UserError(
            f"config.agent.trial is {agent.trial} episodes, and the first"
            f" {agent.prior_exploit} explore (config.agent.prior_exploit): none would"
            f" show what was inferred; give at least {agent.prior_exploit + 1}"
        )
    _check_explored(config, spec)


def _check_explored(config: ConfigDict, spec: EnvSpec) -> None:
    """Where contexts are of exploration alone, trials must be where they are sought."""
    agent, trial = config.agent, config.agent.trial_rows
    usual = agents.find(config.algorithm).config().explored_rows
    if not trial and agent.explored_rows not in (0, usual):
        raise UserError(
            f"config.agent.explored_rows is {agent.explored_rows}, which is of no use"
            " without config.agent.trial_rows, the rows of a whole trial: set that, or"
            " leave explored_rows out"
        )
    if not trial:
        return
    if config.online.steps:
        _check_explored_online(config, spec)
    if trial % spec.horizon:
        raise UserError(
            f"config.agent.trial_rows is {trial}; trials are whole episodes: give a"
            f" multiple of {spec.horizon}"
        )
    if not 1 <= agent.explored_rows <= trial:
        raise UserError(
            f"config.agent.explored_rows is {agent.explored_rows}; contexts are drawn"
            " from so many rows of a trial (config.agent.trial_rows): give 1 to"
            f" {trial}"
        )
    for name in ("replay.capacity", "agent.recent"):
        if _get(config, name) % trial:
            raise UserError(
                f"config.{name} is {_get(config, name)}; it must be a multiple of"
                f" {trial}, whole trials of config.agent.trial_rows={trial}"
            )


def _check_explored_online(config: ConfigDict, spec: EnvSpec) -> None:
    """A round is one trial in each environment, and so is the warm-up."""
    online, explored = config.online, config.agent.prior_explore * spec.horizon
    steps = online.round // online.envs
    for name, right in {"trial_rows": steps, "explored_rows": explored}.items():
        if config.agent[name] != right:
            raise UserError(
                f"config.agent.{name} is {config.agent[name]}, but a trial has {steps}"
                " steps (config.online.round over config.online.envs), the first"
                f" {explored} of exploration (config.agent.prior_explore): give"
                f" {right}; or change config.online.round or config.agent.prior_explore"
                " to suit; or give trial_rows=0 for contexts of all rows"
            )
    if online.warmup not in (0, online.round):
        raise UserError(
            f"config.online.warmup is {online.warmup}, which is"
            f" {online.warmup / online.round:g} rounds of {online.round}, but it is one"
            f" trial in each environment: give one round, {online.round}, or 0"
        )
    if online.envs > spec.num_train:
        raise UserError(
            f"config.online.envs is {online.envs}, more than the {spec.num_train}"
            " training tasks: two trials of a task would be mixed; give fewer, or"
            " config.agent.trial_rows=0"
        )


def caveats(config: ConfigDict) -> list[str]:
    """What someone should know before a run begins."""
    found = envs.caveats(envs.choose_physics(config.physics))
    infers = agents.find(config.algorithm).draws(agent_config(config))
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
