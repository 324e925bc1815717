"""A film of a trained agent: it plays an episode, MuJoCo draws it, Pillow writes it.

The episode is one compiled scan; what is drawn is the positions and velocities that the
run's own physics went through. No screen is needed, but a library that draws without
one: EGL, or else OSMesa.
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
from o2ojax.report import Result, statistics
from o2ojax.run import population, training
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.job import Job, describe_member, make_env, prepare
from o2ojax.run.resolve import from_json
from o2ojax.types import Buffer, Env, EnvSpec, EnvState, Key, Policy, Run, Transition

MAX_FRAMES = 500
SHORTEST = 0.02  # s; a frame that lasts less is shown for longer than it should be


def film(result: Result, path: Path, member: int | None = None) -> str:
    """Writes a GIF of one fresh episode of a finished run's agent.

    Of a family of tasks, it is the one that counts: a trial's last, in the first of the
    tasks that agents are judged on.

    Args:
        member: which of the run's; None for the one with the best final score.
    Returns:
        what it shows, in words.
    Raises:
        UserError: the run cannot be restored, there is nothing to draw, or nothing
            here can draw.
        OSError: the file cannot be written.
    """
    member = choose(result, member)
    directory = Path(result.name)
    config = from_json(result.config | {"devices": {}})  # one device is enough
    env = make_env(config)
    if env.render is None:
        raise UserError(f"there is no video of {config.env}: it has nothing to draw")
    find_backend()  # before the work begins
    job = prepare(config, directory, on=jax.devices()[:1])
    if job.fingerprint != result.config.get("data_fingerprint"):
        raise UserError(f"{config.dataset} is not what {directory} has learned from")
    states, earned = episode_of(job, env, *restore(job, directory), member)
    num_decisions, decision_time = len(states.age), env.spec.decision_time
    every, durations = timing(num_decisions, decision_time)
    shown = jax.tree.map(lambda x: x[::every], states)
    write(path, env.render(shown), durations)
    return (
        f"member {member} ({describe_member(job, member)}){describe_task(job)},"
        f" {num_decisions} decisions in {num_decisions * decision_time:.1f} s,"
        f" return {earned:.1f}"
    )


def describe_task(job: Job) -> str:
    """Which task of a family is played, and which episode of a trial; "" of one task.

    What sets the task apart is told where it is a few numbers.
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
    """Episodes of a trial, the last of which counts."""
    return job.config.entry.trial(job.config.agent) or 1


def choose(result: Result, member: int | None) -> int:
    """The member asked for, or the one with the best final score.

    Raises:
        UserError: there is no such member, or none has a score.
    """
    score = statistics.scores(result.curves, result.config["env"])[-1]
    if member is None:
        if np.isnan(score).all():
            raise UserError(f"{result.name}: all members have died of NaN")
        earned = statistics.mean_return(result.curves)[-1]
        best = np.nanmax(score)  # of several with as many successes, the richest
        return int(np.nanargmax(np.where(score == best, earned, np.nan)))
    if not 0 <= member < len(score):
        raise UserError(
            f"{result.name} has no member {member}: they are 0 to {len(score) - 1}"
        )
    return member


def restore(job: Job, directory: Path) -> tuple[Run, str]:
    """The Run of the newest checkpoint, and its phase.

    Raises:
        UserError: there is none.
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
    """The last episode of a fresh trial of a member's judged policy.

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
    """A fresh trial as `loop.evaluate` plays its first one, [trial * horizon].

    What follows the `last` of its last episode is of another.

    Returns:
        the states before each decision, and what came of it.
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
    """Which states become frames, and for how long each is shown.

    Returns:
        every how many there is one, and the milliseconds of each frame: whole
        hundredths of a second, as GIF has them, that do not drift from real time.
    """
    decision_time = decision_time or SHORTEST  # where time means nothing
    every = max(
        math.ceil(num_decisions / MAX_FRAMES), math.ceil(SHORTEST / decision_time)
    )
    num_frames = math.ceil(num_decisions / every)
    ends = np.arange(num_frames + 1) * every * decision_time
    return every, (10 * np.diff(np.round(100 * ends).astype(int))).tolist()


def write(path: Path, frames: np.ndarray, durations: Sequence[int]) -> None:
    """Writes frames [T, H, W, 3] as a GIF that goes on for ever.

    Args:
        durations: milliseconds of each frame.
    """
    # One palette for all, without dithering: a smaller file, and nothing flickers.
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
