"""Checks for fields of a run's config that do not fit together.

The valid values of a single field are declared with the field, and the requirements of
an algorithm or a store are checked in its own module. All checks precede compilation.
"""

import math

from o2ojax import envs, replay, vision
from o2ojax.agents import AGENTS
from o2ojax.errors import UserError
from o2ojax.registry import is_door
from o2ojax.run.config import MAX_SEEDS, RunConfig
from o2ojax.types import EnvSpec


def check(run: RunConfig) -> None:
    """Checks a config.

    Raises:
        UserError: the config cannot work; the message names the field, the problem and
            a valid value.
    """
    if run.env == envs.NONE:
        _check_without_environment(run)
    else:
        envs.ENVS.find(run.env)
    if run.physics != "auto":  # resolving `auto` would initialise JAX
        envs.choose_physics(run.physics)
    _check_simulator(run)
    _check_members(run)
    _check_phases(run)
    _check_rhythm(run)
    _check_store(run)
    _check_devices(run)
    run.entry.check(run)


def check_task(run: RunConfig, spec: EnvSpec) -> None:
    """Checks a config against its environment. Raises UserError as `check` does."""
    if spec.num_test and run.eval.episodes % spec.num_test:
        raise UserError(
            f"config.eval.episodes is {run.eval.episodes}; agents are judged on"
            f" {spec.num_test} test tasks of {spec.name}, each as often: give a"
            f" multiple of {spec.num_test}"
        )
    _check_eyes(run, spec)
    run.entry.check_task(run, spec)


def _check_eyes(run: RunConfig, spec: EnvSpec) -> None:
    """Checks that an agent can see, where there are images to see."""
    if not vision.image_parts(spec.obs):
        return
    if not is_door(run.algorithm) and not hasattr(run.agent, "shift"):
        seeing = [name for name in AGENTS if hasattr(AGENTS.find(name).config, "shift")]
        raise UserError(
            f"config.algorithm is {run.algorithm}, which learns from numbers, and"
            f" {spec.name} shows images; those that see are {', '.join(seeing)}"
        )
    if run.devices.cut_dataset:
        raise UserError(
            f"config.devices.cut_dataset divides rows, not frames, and {spec.name}"
            " shows images: leave it out"
        )


def _check_without_environment(run: RunConfig) -> None:
    if not run.dataset:
        raise UserError(
            "config.env is none, so there is nothing but data to learn from, and"
            " config.dataset names none"
        )
    if run.online.steps:
        raise UserError(
            "config.env is none, so there is nothing to play in: set"
            " config.online.steps=0"
        )
    if run.needs.kind != replay.ROWS:
        raise UserError(
            f"config.env is none, and {run.algorithm} learns from {run.needs.kind}; its"
            " policy can only be judged by playing it: name an environment"
        )


def _check_simulator(run: RunConfig) -> None:
    simulator = run.simulator
    varies = simulator.mass > 0 or simulator.friction > 0
    if varies != (simulator.variants > 1):
        raise UserError(
            f"config.simulator.variants is {simulator.variants}, but mass is"
            f" {simulator.mass} and friction is {simulator.friction}; several variants"
            " need one of them above 0, and a single one is Gymnasium's own model"
        )


def _check_members(run: RunConfig) -> None:
    settings = math.prod(map(len, run.population.values()))
    if settings * len(run.seeds) > MAX_SEEDS:
        raise UserError(
            f"config.population has {settings:,} settings, each trained for"
            f" {len(run.seeds):,} config.seeds; there may be at most {MAX_SEEDS:,}"
            " members"
        )


def _check_phases(run: RunConfig) -> None:
    """Checks that there is work to do and data to learn from."""
    if not run.dataset and run.offline.updates:
        raise UserError(
            "config.offline.updates is not 0, but there is no config.dataset to learn"
            " from; name a dataset, or set config.offline.updates=0"
        )
    if run.offline.source and run.offline.updates:
        raise UserError(
            "config.offline.from takes the offline agents of another run, so"
            " config.offline.updates must be 0"
        )
    if run.offline.updates == 0 and run.online.steps == 0:
        raise UserError(
            "nothing to do: config.offline.updates and config.online.steps are both 0"
        )


def _check_rhythm(run: RunConfig) -> None:
    """Checks that evaluations, checkpoints and rounds fall between chunks of work."""
    every, online = run.log.every, run.online
    for updates in run.checkpoint.keep:
        if updates % every or updates > run.offline.updates:
            raise UserError(
                f"config.checkpoint.keep has {updates}; each must be a multiple of"
                f" config.log.every, {every}, and at most config.offline.updates,"
                f" {run.offline.updates}"
            )
    for steps in run.eval.early:
        if steps % every or steps > online.steps:
            raise UserError(
                f"config.eval.early has {steps}; each must be a multiple of"
                f" config.log.every, {every}, and at most config.online.steps,"
                f" {online.steps}"
            )
    for name in ("eval", "checkpoint"):
        if getattr(run, name).every % every:
            raise UserError(
                f"config.{name}.every is {getattr(run, name).every}; it must be a"
                f" multiple of config.log.every, {every}"
            )
    updates = online.updates_per_step
    if abs(run.update_ratio / updates - 1) > 1e-6:
        raise UserError(
            f"config.online.updates_per_step is {updates}; it must be a positive number"
            " that is a fraction of whole numbers up to 1000, as 1, 0.25 or 3.2"
        )
    if not online.steps:
        return
    steps = run.transitions_per_round
    if online.round not in (0, steps):
        raise UserError(
            f"config.online.round is {online.round}; it must be 0, or a multiple of"
            f" {run.shortest_round}, the fewest transitions for which"
            " config.online.updates_per_step gives whole updates"
        )
    for name, value in (
        ("log.every", every),
        ("online.steps", online.steps),
        ("online.warmup", online.warmup),
    ):
        if value % steps:
            raise UserError(
                f"config.{name} is {value}; online, work comes in rounds of {steps}"
                " steps (config.online.round, or else config.online.envs environments"
                " times the steps that make the updates come out whole), so it must be"
                f" a multiple of {steps}"
            )
    if online.warmup >= online.steps:
        raise UserError(
            f"config.online.warmup is {online.warmup}; it is part of"
            f" config.online.steps, {online.steps}, and must be smaller"
        )


def _check_store(run: RunConfig) -> None:
    """Checks that the store provides what the agent learns from."""
    needs, store = run.needs, run.store
    if needs.kind == replay.TASKS and (
        run.env == envs.NONE or envs.ENVS.find(run.env).parameters is None
    ):
        raise UserError(
            f"{run.algorithm} learns families of tasks, and {run.env} is one task;"
            f" choose one of {', '.join(envs.FAMILIES)}"
        )
    if store.serves != needs.kind:
        fitting = [
            name
            for name in replay.STORES
            if replay.STORES.find(name).serves == needs.kind
        ]
        raise UserError(
            f"config.replay.name is {run.replay.name!r}, which hands out"
            f" {store.serves}, but {run.algorithm} learns from {needs.kind}: set"
            f" config.replay.name to {' or '.join(fitting)}"
        )
    if not run.online.steps:
        return
    if store.needs_dataset and not run.dataset:
        raise UserError(
            f"config.replay.name is {run.replay.name!r}, which draws from a dataset,"
            " and config.dataset names none; set config.replay.name=online"
        )
    missing = sorted(set(needs.extras) - set(needs.given) - set(store.extras))
    if missing and run.online.steps:
        raise UserError(
            f"{run.algorithm} learns from {', '.join(missing)}, which a dataset may"
            f" have, but replay {run.replay.name!r} cannot compute of what is gathered:"
            " set config.online.steps=0, or config.replay.name to a store that can"
        )
    at_once = max(run.transitions_per_round, run.online.warmup)
    if needs.kind != replay.TASKS and 0 < run.replay.capacity < at_once:
        raise UserError(
            f"config.replay.capacity is {run.replay.capacity}; the ring must hold the"
            f" warm-up and one round, {at_once} rows"
        )
    store.check(run)


def _check_devices(run: RunConfig) -> None:
    sharing, cut = run.devices.per_batch, run.devices.cut_dataset
    if sharing > 1 and run.entry.whole_batch:
        raise UserError(
            f"config.devices.per_batch is {sharing}, but a batch of {run.algorithm}"
            f" cannot be divided: {run.entry.whole_batch}; set it to 1"
        )
    if run.batch % sharing:
        raise UserError(
            f"config.batch is {run.batch}, which config.devices.per_batch={sharing}"
            " does not divide"
        )
    if sharing > 1 and run.physics == "mjx-warp" and run.online.steps:
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
    if cut and run.online.steps:
        raise UserError(
            "config.devices.cut_dataset is for runs that stay offline: online, a batch"
            " is of all the data and a member's own; set config.online.steps=0"
        )
