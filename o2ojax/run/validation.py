"""Configs that cannot work: the field, what is wrong with it, what would be right.

Everything is said before anything compiles.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from o2ojax import agents, envs, replay
from o2ojax.agents import base
from o2ojax.errors import UserError, unknown
from o2ojax.run import config as settings
from o2ojax.types import EnvSpec


def check(config: ConfigDict) -> None:
    """Refuses what cannot work.

    Raises:
        UserError: names the field, what is wrong with it, and what would be right.
    """
    algorithm = agents.find(config.algorithm)
    known = settings.fields(settings.defaults(config.algorithm, config.env))
    for name in settings.fields(config):
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
    _check_windows(algorithm.horizon(settings.agent_config(config)), config)
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
    finite = 0 < updates < float("inf")
    if not finite or abs(settings.update_ratio(config) / updates - 1) > 1e-6:
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
        if value != settings.RETURN_RANGE and not abs(value) < float("inf"):
            raise UserError(f"config.{name} is {value}; it must be a finite number")
    if not config.online.until > -float("inf"):
        raise UserError(
            f"config.online.until is {config.online.until}; it must be a score, or inf"
        )
    seeds = settings.seeds(config)
    if not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        raise UserError(
            f"config.seeds is {config.seeds}; it takes a number of seeds, or whole"
            " numbers from 0 to 2**32 - 1"
        )
    if not seeds:
        raise UserError("config.seeds names no seed; it takes a number above 0")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"config.seeds {seeds} names a seed twice")


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
    steps = settings.round_shape(config)[0] * config.online.envs
    if config.online.round not in (0, steps):
        raise UserError(
            f"config.online.round is {config.online.round}; it must be 0, or a multiple"
            f" of {settings.shortest_round(config)}, the fewest transitions for which"
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
    warmed = config.online.warmup // config.online.envs
    steps = max(settings.round_shape(config)[0], warmed)
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
    context_sampling = algorithm.context_sampling(settings.agent_config(config))
    if context_sampling and config.env not in envs.families.FAMILIES:
        raise UserError(
            f"{config.algorithm} learns families of tasks, and {config.env} is one"
            f" task; choose one of {', '.join(envs.families.FAMILIES)}"
        )
    of_tasks = config.replay.name == "tasks"
    if of_tasks != (context_sampling is not None):
        raise UserError(
            f"config.replay.name is {config.replay.name!r}, but {config.algorithm}"
            + (
                " infers its task from that task's own rows: set config.replay.name"
                " to 'tasks'"
                if context_sampling
                else " knows nothing of tasks: 'tasks' is for those that infer them"
            )
        )
    if not context_sampling:
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
    if sharing > 1 and config.physics == "mjx-warp" and config.online.steps:
        raise UserError(
            f"config.devices.per_batch is {sharing}, and each of those devices steps"
            " the same environments, which must stay the same: config.physics=mjx-warp"
            " is not deterministic; take mjx, or set config.devices.per_batch=1"
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
    algorithm, agent = agents.find(config.algorithm), settings.agent_config(config)
    if spec.num_test and config.eval.episodes % spec.num_test:
        raise UserError(
            f"config.eval.episodes is {config.eval.episodes}; agents are judged on"
            f" {spec.num_test} test tasks of {spec.name}, each as often: give a"
            f" multiple of {spec.num_test}"
        )
    if not algorithm.context_sampling(agent):
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
