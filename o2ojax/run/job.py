"""The constant parts of a run (`Job`) and its host-side state (`Record`)."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax import agents, data, envs, replay
from o2ojax.errors import UserError
from o2ojax.parallel import devices, processes
from o2ojax.replay.frames import Album
from o2ojax.report import statistics
from o2ojax.run import doors, estimation, population, room, validation
from o2ojax.run import workdir as workdirs
from o2ojax.run.config import RETURN_RANGE, RunConfig
from o2ojax.run.estimation import HeldOut
from o2ojax.run.population import Member, Programs, Sizes
from o2ojax.types import Env, EnvSpec, Run, Transition


class Job(NamedTuple):
    """The constant parts of a run."""

    config: RunConfig
    spec: EnvSpec
    workdir: Path
    sizes: Sizes
    layout: devices.Layout
    members: Member  # all members, placed on their devices
    programs: Programs
    dataset: Transition | Album | None  # on every device
    fingerprint: str  # of the dataset
    observations: dict[str, Any]  # mean and std of the dataset's
    check: Callable[[], None]  # `Env.check`

    @property
    def num_members(self) -> int:
        """Number of members: seeds times settings."""
        return self.layout.num_members

    def description(self) -> dict[str, Any]:
        """The content of `config.json`."""
        seeds, grid = self.config.seeds, self.config.population
        members = [
            {"seed": seed} | dict(zip(grid, values, strict=True))
            for values in itertools.product(*grid.values())
            for seed in seeds
        ]
        return self.config.described() | {
            "members": members,
            "data_fingerprint": self.fingerprint,
            "spec": described_spec(self.spec),
            "observations": self.observations,
            "store_steps": self.sizes.store_steps,
        }


def _spread(dataset: Transition | Album | None) -> dict[str, Any]:
    """Mean and standard deviation of each number that a dataset observes.

    Raises:
        UserError: one of them is beyond float32.
    """
    if not isinstance(dataset, Transition) or isinstance(dataset.obs, dict):
        return {}
    mean, std = jax.jit(lambda obs: (obs.mean(axis=0), obs.std(axis=0)))(dataset.obs)
    mean, std = np.float64(mean), np.float64(std)
    if not np.isfinite(mean + std).all():
        at = int(np.isfinite(mean + std).argmin())
        raise UserError(
            f"number {at} of the dataset's observations reaches"
            f" {np.abs(dataset.obs[:, at]).max():g}, and its mean or its variance is"
            " beyond float32: scale it, in the environment too"
        )
    return {"mean": mean.tolist(), "std": std.tolist()}


def described_spec(spec: EnvSpec) -> dict[str, Any]:
    """An EnvSpec as plain values."""
    obs = {
        jax.tree_util.keystr(path, simple=True, separator="/"): [
            list(part.shape),
            str(part.dtype),
        ]
        for path, part in jax.tree_util.tree_leaves_with_path(spec.obs)
    }
    return json.loads(json.dumps(spec._asdict() | {"obs": obs}))  # lists for tuples


def spec_from(described: Mapping[str, Any]) -> EnvSpec:
    """The EnvSpec that `described_spec` has described."""
    given = dict(described["spec"])
    parts = {
        name: jax.ShapeDtypeStruct(tuple(shape), dtype)
        for name, (shape, dtype) in given["obs"].items()
    }
    given["obs"] = parts.get("", parts)
    return EnvSpec(**given)


def plan_from(described: Mapping[str, Any]) -> agents.Plan:
    """What a recipe knew of the run that is described."""
    known = described["observations"] or {"mean": 0.0, "std": 1.0}
    return agents.Plan(
        described["offline"]["updates"],
        described["online"]["steps"],
        jnp.float32(known["mean"]),
        jnp.float32(known["std"]),
    )


@dataclasses.dataclass
class Record:
    """The host-side state of a run, which checkpoints store as JSON.

    phase:   "offline" or "online".
    step:    updates offline, transitions per member online.
    points:  evaluations so far: {"phase", "step", "returns" [M][episodes]}, with
             "success" [M][episodes] if the environment defines success, and
             "adaptation", name -> [M], if the agent infers tasks.
    dead:    member -> the step by which its weights were no longer finite.
    log_size: size of metrics.jsonl in bytes.
    seconds: time spent in the chunks of each phase, without compilation.
    reached: whether a member has reached the score `online.until`.
    updates_taken: offline updates that the agents did in another run.
    rise_taken: the `rise` of their critics there, by member; [] if it was not measured.
    due:     whether the evaluation after this step is still to be done.
    """

    phase: str = "offline"
    step: int = 0
    points: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dead: dict[str, str] = dataclasses.field(default_factory=dict)
    log_size: int = 0
    seconds: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"offline": 0.0, "online": 0.0}
    )
    reached: bool = False
    updates_taken: int = 0
    rise_taken: list[float] = dataclasses.field(default_factory=list)
    due: bool = False


def prepare(
    config: RunConfig, workdir: Path, on: Sequence[jax.Device] | None = None
) -> Job:
    """Builds a job. All errors of config and data are raised here, before compiling.

    Args:
        on: the devices to use; by default all.
    Raises:
        UserError: the config or the dataset is invalid, they do not fit together, or
            the processes of a run have different ones.
    """
    held = HeldOut()
    if config.env == envs.NONE:
        dataset, held, env, scale = _recorded(config)
        validation.check_task(config, env.spec)
    else:
        env = make_env(config)
        validation.check_task(config, env.spec)
        dataset, scale = _read(config, env)
    before = workdirs.read_description(workdir) or {}
    store_steps = before.get("store_steps") or config.online.steps
    sizes = sizes_of(config, scale, store_steps)
    sizes = sizes._replace(held_out=held)
    members = population.members(config.agent, config.seeds, config.population)
    one = jax.tree.map(lambda leaf: leaf[0], members)
    names = config.algorithm, config.replay.name
    doors.check(names, config.entry, env.spec, sizes, one, dataset)
    layout = devices.assign_devices(
        len(members.key), on, **dataclasses.asdict(config.devices)
    )
    room.check(config.entry, env.spec, sizes, layout, one, dataset)
    job = Job(
        config=config,
        spec=env.spec,
        observations=_spread(dataset),
        check=env.check,
        workdir=workdir,
        sizes=sizes,
        layout=layout,
        members=devices.shard(layout, members),
        programs=population.programs(config.entry, env, sizes, layout.mesh),
        dataset=devices.replicate(layout, dataset),
        fingerprint="" if dataset is None else data.fingerprint(dataset),
    )
    processes.agree(
        json.dumps(job.description(), sort_keys=True),
        "its config or its dataset differs; all processes run the same command",
    )
    return job


def make_env(config: RunConfig) -> Env:
    """Builds the environment of a config."""
    tasks = config.tasks
    return envs.make(
        config.env,
        config.physics,
        config.simulator,
        tasks.train,
        tasks.test,
        native=config.native,
        args=config.env_args,
        keys=config.env_keys,
        horizon=config.horizon,
        host=config.host,
        pixels=config.pixels,
    )


def _recorded(config: RunConfig) -> tuple[Transition, HeldOut, Env, float]:
    """Data without an environment: its rows, those that judge, what it tells, and the
    scale of rewards.
    """
    bounds = None if config.action_bounds in ("auto", "unit") else config.action_bounds
    if bounds == "env":
        raise UserError("config.action_bounds is env, and config.env is none")
    logged = data.read(config.dataset, config.clip_actions, bounds, config.env_keys)
    if logged.frames:
        raise UserError(
            f"config.env is none, and {config.dataset} has images; without an"
            " environment, policies are judged on numbers alone: name one"
        )
    scale = _reward_scale(config, logged)
    logged = _with_extras(config, logged, scale)
    rows, share = logged.transitions, config.offline.held_out
    units = logged.action_bounds
    rows, held = estimation.hold_out(rows, share, config.offline.fitted_q)
    return rows, held, estimation.no_environment(rows, units), scale


def _bounds(config: RunConfig, spec: EnvSpec) -> Any:
    """The bounds of the dataset's actions, as for `data.read`."""
    chosen = config.action_bounds
    if chosen in ("auto", "env"):
        return spec.action_bounds
    return None if chosen == "unit" else chosen


def _read(config: RunConfig, env: Env) -> tuple[Transition | Album | None, float]:
    """Reads the dataset, if any, and checks it against environment and agent.

    Returns:
        its transitions, and the scale of rewards.
    """
    if not config.dataset:
        return None, _reward_scale(config, None)
    needs, spec = config.needs, env.spec
    bounds = _bounds(config, spec)
    logged = data.read(config.dataset, config.clip_actions, bounds, config.env_keys)
    data.hold_ant(logged, spec)
    logged = data.only_seen(logged, spec)
    data.fit(logged, spec)
    if env.seen is not None:
        data.warn_of_another(logged, env.seen)
    if {"return_to_go", "next_action"} & set(needs.extras):
        data.hold_episodes(logged, spec, "what follows a row would be of another one")
    scale = _reward_scale(config, logged)
    logged = _with_extras(config, logged, scale)
    if needs.kind == replay.WINDOWS:
        data.hold_windows(logged, spec, needs.horizon)
    if needs.kind != replay.TASKS:
        return _on_film(logged, spec), scale
    parameters = envs.ENVS.find(config.env).parameters(
        config.env, config.tasks.train, config.tasks.test
    )
    known = parameters[: spec.num_train]
    return data.hold_tasks(logged, spec, known, needs.context.context), scale


def _on_film(logged: data.Dataset, spec: EnvSpec) -> Transition | Album:
    """The rows, with their frames where they have images."""
    if not logged.frames:
        return logged.transitions
    stacked = data.stacked(logged, spec.stack)
    return Album(stacked.transitions, stacked.frames)


def _with_extras(config: RunConfig, logged: data.Dataset, scale: float) -> data.Dataset:
    """The dataset with what the agent asks of it besides."""
    needs = config.needs
    if not needs.extras:
        return data.with_extras(logged, ())
    reward = scale, config.reward.shift
    return data.with_extras(logged, needs.extras, needs.gamma, reward)


def _reward_scale(config: RunConfig, dataset: data.Dataset | None) -> float:
    if config.reward.scale != RETURN_RANGE:
        return config.reward.scale
    if dataset is None:
        raise UserError(
            "config.reward.scale='return_range' is taken from a dataset, and"
            " config.dataset names none; give a number"
        )
    return 1000 / data.return_range(dataset.history)


def sizes_of(config: RunConfig, reward_scale: float, store_steps: int) -> Sizes:
    """What of a config is compiled into its programs."""
    return Sizes(
        offline_updates=config.offline.updates,
        online_steps=config.online.steps,
        num_envs=config.online.envs,
        warmup=config.online.warmup,
        steps_per_round=config.steps_per_round,
        updates_per_round=config.updates_per_round,
        first_round=config.online.first_round * config.updates_per_round,
        batch=config.batch,
        capacity=config.replay.capacity,
        eval_episodes=config.eval.episodes,
        reward_scale=reward_scale,
        reward_shift=config.reward.shift,
        store_steps=store_steps,
        store=config.store,
        options=config.replay.options,
    )


def total(job: Job, phase: str) -> int:
    """Length of a phase: updates offline, transitions per member online."""
    if phase == "offline":
        return job.sizes.offline_updates
    return job.sizes.online_steps


def number(job: Job, record: Record) -> int:
    """Number of a checkpoint: steps since the start, counting the hand-over as one."""
    if record.phase == "offline":
        return record.step
    return job.sizes.offline_updates + 1 + record.step


def shape(job: Job, phase: str) -> Run:
    """The shapes of a Run in a phase: leaves `jax.ShapeDtypeStruct`, [M, ...]."""
    run = jax.eval_shape(job.programs.init, job.members, job.dataset)
    if phase == "online":
        run = jax.eval_shape(job.programs.hand_over, run, job.members, job.dataset)
    num = job.num_members
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num, *x.shape[1:]), x.dtype), run
    )


def describe_member(job: Job, member: int) -> str:
    """Describes a member by its seed and the values of its population fields."""
    told = job.description()["members"][member]
    seed, settings_of = told.pop("seed"), told.items()
    return ", ".join([f"seed {seed}", *(f"{name} {x:g}" for name, x in settings_of)])


def curves(record: Record) -> statistics.Curves:
    """The evaluations so far, as arrays."""
    points, success = record.points, None
    if "success" in points[0]:
        success = np.array([p["success"] for p in points], np.float32)
    return statistics.Curves(
        returns=np.array([p["returns"] for p in points], np.float32),
        phase=np.array([p["phase"] for p in points]),
        step=np.array([p["step"] for p in points], np.int64),
        success=success,
    )
