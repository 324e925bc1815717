"""Films of trained agents: plays an episode, renders it with MuJoCo, writes a GIF.

The episode is one compiled scan in the run's own physics, whose positions and
velocities are rendered. Off-screen rendering needs EGL or OSMesa.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from o2ojax import envs, loop
from o2ojax.data.files import write_whole
from o2ojax.envs.rendering import find_backend
from o2ojax.errors import UserError
from o2ojax.report import Result, choose
from o2ojax.run import population, training
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.job import Job, describe_member, make_env, prepare
from o2ojax.run.resolve import from_json
from o2ojax.types import Buffer, Env, EnvSpec, EnvState, Key, Policy, Run, Transition
from o2ojax.vision import image_parts

MAX_FRAMES = 500
SHORTEST = 0.02  # s; GIF viewers show shorter frames for too long


def film(result: Result, path: Path, member: int | None = None) -> str:
    """Writes a GIF of one new episode of a finished run's agent.

    In a family of tasks, it is the last episode of a trial, in the first test task.

    Args:
        member: number of a member; None for the one with the best final score.
    Returns:
        a description of the film.
    Raises:
        UserError: the run cannot be restored, its environment has no rendering, or
            there is no rendering backend.
        OSError: the file cannot be written.
    """
    member = choose(result, member)
    directory = Path(result.name)
    config = from_json(result.config | {"devices": {}})  # one device is enough
    if config.env == envs.NONE:
        raise UserError(f"there is no video of {directory}: it has no environment")
    env = make_env(config)
    if env.render is None:
        raise UserError(f"there is no video of {config.env}: it has nothing to draw")
    find_backend()  # fails early
    job = prepare(config, directory, on=jax.devices()[:1])
    if job.fingerprint != result.config.get("data_fingerprint"):
        raise UserError(f"{config.dataset} is not what {directory} has learned from")
    states, earned = episode_of(job, env, *restore(job, directory), member)
    num_decisions, decision_time = len(states.age), env.spec.decision_time
    every, durations = timing(num_decisions, decision_time)
    shown = jax.tree.map(lambda x: x[::every], states)
    write(path, beside_what_is_seen(env.render(shown), shown, env.spec), durations)
    return (
        f"member {member} ({describe_member(job, member)}){describe_task(job)},"
        f" {num_decisions} decisions in {num_decisions * decision_time:.1f} s,"
        f" return {earned:.1f}"
    )


def beside_what_is_seen(
    frames: np.ndarray, states: EnvState, spec: EnvSpec
) -> np.ndarray:
    """Frames [T, H, W, 3], and to their right the images that the agent sees.

    Of a stack, it is the newest frame, as large as it fits by whole pixels.
    """
    height, columns = frames.shape[1], [frames]
    for name, part in image_parts(spec.obs).items():
        channels = part.shape[-1] // spec.stack
        seen = np.asarray(states.obs[name])[..., -channels:]
        seen = np.repeat(seen[..., :1], 3, axis=-1) if channels < 3 else seen[..., :3]
        factor = max(1, height // seen.shape[1])
        large = seen.repeat(factor, axis=1).repeat(factor, axis=2)[:, :height]
        margin = ((0, 0), (0, height - large.shape[1]), (4, 0), (0, 0))
        columns.append(np.pad(large, margin))
    return np.concatenate(columns, axis=2)


def describe_task(job: Job) -> str:
    """Describes the task of a family and the episode of its trial; "" for one task.

    It includes the parameters of the task if they are few.
    """
    config, spec = job.config, job.spec
    parameters = envs.ENVS.find(config.env).parameters
    if parameters is None:
        return ""
    task, trial = task_of(spec), trial_of(job)
    numbers = parameters(config.env, spec.num_train, spec.num_test)[task]
    shown = f" ({', '.join(f'{x:.2f}' for x in numbers)})" if len(numbers) < 4 else ""
    which = f", the last of a trial's {trial} episodes" if trial > 1 else ""
    return f", task {task} of {config.env}{shown}{which}"


def task_of(spec: EnvSpec) -> int:
    """The first of the tasks that `loop.evaluate` plays."""
    return spec.num_train if spec.num_test else 0


def trial_of(job: Job) -> int:
    """Number of episodes of a trial, of which the last one counts."""
    return job.config.entry.trial(job.config.agent) or 1


def restore(job: Job, directory: Path) -> tuple[Run, str]:
    """Restores the Run of the newest checkpoint, and its phase.

    Raises:
        UserError: there is no checkpoint.
    """
    checkpoints = Checkpoints(directory / "checkpoints", read_only=True)
    restored = training.restore(job, checkpoints)
    checkpoints.close()
    if restored is None:
        raise UserError(f"{directory} holds no checkpoint to take the agent from")
    run, record = restored
    return run, record.phase


def episode_of(
    job: Job, env: Env, run: Run, phase: str, member: int
) -> tuple[EnvState, float]:
    """Plays the last episode of a new trial with a member's `exploit` policy.

    Returns:
        the states before each decision, leaves [T, ...], and the episode's return.
    """
    trial = trial_of(job)
    stages_of = population.stages(job.config.entry, env.spec, job.sizes)

    def one(run, who, dataset):
        agent, buffer = getattr(stages_of(who, dataset), phase)
        key = jax.random.fold_in(who.key, population.FILM)
        return play(env, agent.exploit, buffer, run, key, trial)

    run, who = jax.tree.map(lambda leaf: leaf[member], (run, job.members))
    played = jax.device_get(jax.jit(one)(run, who, job.dataset))
    ends = np.flatnonzero(played[1].last)[:trial] + 1
    first, end = [0, *ends][-2:]
    states, transitions = jax.tree.map(lambda leaf: leaf[first:end], played)
    return states, float(transitions.reward.sum())


def play(
    env: Env, policy: Policy, buffer: Buffer, run: Run, key: Key, trial: int = 1
) -> tuple[EnvState, Transition]:
    """Plays a new trial as the first one of `loop.evaluate`, with T = trial * horizon.

    Steps after the end of the trial's last episode belong to another episode.

    Returns:
        the states before each decision and the transitions, leaves [T, ...].
    """
    key_start, key_step = jax.random.split(key)
    tasks = jnp.full(1, task_of(env.spec))
    workers = loop.start_workers(
        env, policy, buffer, run.agent, run.replay, key_start, 1, tasks
    )

    def step(workers, key):
        after, transition = loop.collect(env, policy, run.agent, workers, key[None])
        return after, (workers.env, loop.flat(transition))

    keys = loop.keys_from(key_step, 0, trial * env.spec.horizon)
    _, played = jax.lax.scan(step, workers, keys)
    return jax.tree.map(lambda leaf: leaf[:, 0], played)


def timing(num_decisions: int, decision_time: float) -> tuple[int, list[int]]:
    """Selects the states that become frames, and the duration of each frame.

    Returns:
        the number of states per frame, and the duration of each frame in milliseconds:
        multiples of 10, as GIF requires, without drift from real time.
    """
    decision_time = decision_time or SHORTEST  # no physical time
    every = max(
        math.ceil(num_decisions / MAX_FRAMES), math.ceil(SHORTEST / decision_time)
    )
    num_frames = math.ceil(num_decisions / every)
    ends = np.arange(num_frames + 1) * every * decision_time
    return every, (10 * np.diff(np.round(100 * ends).astype(int))).tolist()


def write(path: Path, frames: np.ndarray, durations: Sequence[int]) -> None:
    """Writes frames [T, H, W, 3] as a GIF that loops for ever.

    Args:
        durations: duration of each frame in milliseconds.
    """
    # One palette for all frames, without dithering: a smaller file without flicker.
    some = frames[:: max(1, len(frames) // 16)]
    palette = Image.fromarray(np.concatenate(some)).quantize()
    first, *rest = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    )
    write_whole(
        path,
        lambda unfinished: first.save(
            unfinished,
            format="GIF",
            save_all=True,
            append_images=rest,
            duration=list(durations),
            loop=0,
        ),
    )
