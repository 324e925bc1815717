"""A film of a trained agent: it plays an episode, MuJoCo draws it, Pillow writes it.

The episode is one compiled scan; what is drawn is the positions and velocities that the
run's own physics went through. No screen is needed, but a library that draws without
one: EGL, or else OSMesa.
"""

import copy
import importlib
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from o2ojax import agents, envs, loop
from o2ojax.data.files import write_whole
from o2ojax.envs import locomotion, manipulation
from o2ojax.errors import UserError
from o2ojax.meta import families
from o2ojax.report import Result, statistics
from o2ojax.run import config as settings
from o2ojax.run import population, training
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.job import Job, describe_member, prepare
from o2ojax.types import (
    Buffer,
    Env,
    EnvSpec,
    EnvState,
    Key,
    Policy,
    Run,
    Transition,
)

WIDTH, HEIGHT = 320, 240  # pixels
MAX_FRAMES = 500
SHORTEST = 0.02  # s; a frame that lasts less is shown for longer than it should be
GOAL_COLOUR = (0.1, 0.7, 0.2, 0.4)

# Families of tasks: whose body moves (masses aside), and those in which none does.
BODIES = {
    "cheetah-vel": families.CHEETAH,
    "ant-dir": locomotion.TASKS["ant"],
    "humanoid-dir": families.HUMANOID,
    "hopper-params": locomotion.TASKS["hopper"],
    "walker-params": locomotion.TASKS["walker2d"],
}
POINTS = ("point-robot", "point-robot-sparse")

BACKENDS = ("egl", "osmesa")  # modules of mujoco's, in the order in which to try them
NO_BACKEND = (
    "there is no video: nothing here draws without a screen. It takes EGL (on Debian"
    " and Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri) or OSMesa (apt-get"
    " install libosmesa6)"
)
PROBE = """
import mujoco, mujoco.{backend}
context = mujoco.{backend}.GLContext(8, 8)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50).free()
context.free()
"""


class Episode(NamedTuple):
    """What a film shows. T decisions, or fewer: every so many of them.

    qpos: [T, nq]  positions before each decision.
    qvel: [T, nv]  velocities.
    goal: [T, 3]   m, or [T, 0] where a task has none.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    goal: np.ndarray


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
    config, directory = config_of(result.config), Path(result.name)
    config.devices = {"per_batch": 1, "cut_dataset": False}  # one device is enough
    model, decision_time = stage(config.env, envs.Simulator(**config.simulator))
    backend = find_backend()
    job = prepare(config, directory, on=jax.devices()[:1])
    if job.fingerprint != result.config.get("data_fingerprint"):
        raise UserError(f"{config.dataset} is not what {directory} has learned from")
    episode, earned = episode_of(job, *restore(job, directory), member)
    num_decisions = len(episode.qpos)
    every, durations = timing(num_decisions, decision_time)
    shown = Episode(*(x[::every] for x in episode))
    write(path, draw(model, shown, backend), durations)
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
    if config.env not in families.FAMILIES:
        return ""
    task, trial = task_of(spec), trial_of(job)
    numbers = families.split(config.env, spec.num_train, spec.num_test)[task]
    told = f" ({', '.join(f'{x:.2f}' for x in numbers)})" if len(numbers) < 4 else ""
    which = f", the last of a trial's {trial} episodes" if trial > 1 else ""
    return f", task {task} of {config.env}{told}{which}"


def task_of(spec: EnvSpec) -> int:
    """The first of the tasks that `loop.evaluate` plays."""
    return spec.num_train if spec.num_test else 0


def trial_of(job: Job) -> int:
    """Episodes of a trial, the last of which counts."""
    algorithm = agents.find(job.config.algorithm)
    return algorithm.trial(settings.agent_config(job.config)) or 1


def find_backend() -> str:
    """The first of BACKENDS that draws here.

    Each is tried in a process of its own: the first that is loaded, working or not,
    keeps the others out.

    Raises:
        UserError: none does; the message names the packages.
    """
    for backend in BACKENDS:
        probe = [sys.executable, "-c", PROBE.format(backend=backend)]
        if subprocess.run(probe, capture_output=True).returncode == 0:
            return backend
    raise UserError(NO_BACKEND)


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


def config_of(described: dict[str, Any]) -> ConfigDict:
    """The config of a run, from its `config.json`."""
    config = settings.defaults(described["algorithm"], described["env"])
    told = {name: described[name] for name in config if name in described}
    config.update(_with_infinity(told))
    return config


def _with_infinity(value: Any) -> Any:
    """The number, where `settings.as_json` wrote its name."""
    if isinstance(value, dict):
        return {name: _with_infinity(child) for name, child in value.items()}
    return math.inf if value == "inf" else value


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


def episode_of(job: Job, run: Run, phase: str, member: int) -> tuple[Episode, float]:
    """The last episode of a fresh trial of a member's judged policy, and its return."""
    config, trial = job.config, trial_of(job)
    simulator, tasks = envs.Simulator(**config.simulator), config.tasks
    env = envs.make(config.env, config.physics, simulator, tasks.train, tasks.test)
    algorithm = agents.find(config.algorithm)
    recipe_of = population.recipes(algorithm, env.spec, job.sizes)

    def one(run, who, dataset):
        recipe = recipe_of(who, dataset)
        agent, buffer = getattr(recipe, phase), getattr(recipe, f"{phase}_buffer")
        key = jax.random.fold_in(who.keys, population.FILM)
        return play(env, agent.exploit, buffer, run, key, trial)

    run, who = jax.tree.map(lambda leaf: leaf[member], (run, job.members))
    played = jax.device_get(jax.jit(one)(run, who, job.dataset))
    ends = np.flatnonzero(played[1].last)[:trial] + 1
    first, end = [0, *ends][-2:]
    states, transitions = jax.tree.map(lambda leaf: leaf[first:end], played)
    return seen(states), float(transitions.reward.sum())


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


def seen(states: EnvState) -> Episode:
    """What of the states is drawn."""
    physics = states.physics
    if isinstance(physics, manipulation.Scene):
        physics, goal = physics
    else:
        goal = np.empty((len(physics.qpos), 0))
    return Episode(physics.qpos, physics.qvel, goal)


def stage(name: str, simulator: envs.Simulator) -> tuple[mujoco.MjModel, float]:
    """An environment's model (the first, where it has variants), and s per decision.

    Raises:
        UserError: it has none.
    """
    if name in POINTS:
        raise UserError(f"there is no video of {name}: a point has no model to draw")
    task = (locomotion.TASKS | BODIES).get(name)
    if task:
        model, skipped = (
            locomotion.load_models(task.file, simulator)[0],
            task.frame_skip,
        )
    else:
        model, skipped = manipulation.load_models(simulator)[0], manipulation.FRAME_SKIP
    return model, model.opt.timestep * skipped


def timing(num_decisions: int, decision_time: float) -> tuple[int, list[int]]:
    """Which states become frames, and for how long each is shown.

    Returns:
        every how many there is one, and the milliseconds of each frame: whole
        hundredths of a second, as GIF has them, that do not drift from real time.
    """
    every = max(
        math.ceil(num_decisions / MAX_FRAMES), math.ceil(SHORTEST / decision_time)
    )
    num_frames = math.ceil(num_decisions / every)
    ends = np.arange(num_frames + 1) * every * decision_time
    return every, (10 * np.diff(np.round(100 * ends).astype(int))).tolist()


def draw(model: mujoco.MjModel, episode: Episode, backend: str) -> np.ndarray:
    """The states, seen from the model's first camera: uint8 [T, HEIGHT, WIDTH, 3].

    Args:
        backend: as `find_backend` returns it.
    """
    model = lit(model)
    data, scene = mujoco.MjData(model), mujoco.MjvScene(model, maxgeom=1000)
    option, camera = mujoco.MjvOption(), mujoco.MjvCamera()
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    everything = mujoco.mjtCatBit.mjCAT_ALL
    area = mujoco.MjrRect(0, 0, WIDTH, HEIGHT)
    frames = np.empty((len(episode.qpos), HEIGHT, WIDTH, 3), np.uint8)
    with canvas(model, backend) as context:
        for frame, qpos, qvel, goal in zip(frames, *episode, strict=True):
            data.qpos[:], data.qvel[:] = qpos, qvel
            mujoco.mj_forward(model, data)
            mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)
            if len(goal):
                add_goal(scene, goal)
            mujoco.mjr_render(area, scene, context)
            mujoco.mjr_readPixels(frame, None, area, context)
    return frames[:, ::-1]  # OpenGL's first row is the lowest


def lit(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy with more light from ahead, and shadows that a CPU draws in time."""
    model = copy.copy(model)
    model.vis.headlight.ambient = 0.3, 0.3, 0.3
    model.vis.quality.shadowsize = 1024
    return model


def add_goal(scene: mujoco.MjvScene, goal: np.ndarray) -> None:
    """Puts a translucent sphere where the task is done, around a goal [3]."""
    mujoco.mjv_initGeom(
        scene.geoms[scene.ngeom],
        mujoco.mjtGeom.mjGEOM_SPHERE,
        np.full(3, manipulation.NEAR),
        np.float64(goal),
        np.eye(3).ravel(),
        np.float32(GOAL_COLOUR),
    )
    scene.ngeom += 1


@contextmanager
def canvas(model: mujoco.MjModel, backend: str) -> Iterator[mujoco.MjrContext]:
    """A place to draw that is no screen.

    `mujoco.Renderer` would take the one that the environment variable MUJOCO_GL named
    when mujoco was imported, which was long ago.
    """
    opened = importlib.import_module(f"mujoco.{backend}").GLContext(WIDTH, HEIGHT)
    opened.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    try:
        yield context
    finally:
        context.free()
        opened.free()


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
