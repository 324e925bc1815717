"""halfcheetah, hopper, walker2d and ant: Gymnasium's `-v4` tasks, as used by D4RL.

Observations, rewards, terminations, frame skips and initial states are Gymnasium's; the
models are the MJCF files of the installed gymnasium package. Ant has the 27-dimensional
observation without contact forces.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gymnasium
import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax.envs.entry import EnvEntry
from o2ojax.envs.physics import (
    Advance,
    Models,
    PhysicsState,
    Simulator,
    place,
    randomise_dynamics,
)
from o2ojax.envs.rendering import pose_of, renderer
from o2ojax.envs.restart import restarting
from o2ojax.types import Array, Env, EnvSpec, vector

HORIZON = 1000
NUM_STARTS = 1024
ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


class Task(NamedTuple):
    """Definition of a locomotion task.

    file:       MJCF file among gymnasium's assets.
    frame_skip: simulation steps per decision.
    noise:      scale of the noise added to the model's rest state at resets.
    velocity_noise: (generator, size) -> velocity noise of unit scale.
    observe:    (state) -> obs [O].
    progress:   (before, after) -> forward displacement in metres, [].
    alive:      (state) -> bool [], False if the episode terminates.
    alive_reward: reward per decision.
    action_cost:  cost per unit of squared action.
    bodies:     names of bodies whose positions the reward needs.
    """

    file: str
    frame_skip: int
    noise: float
    velocity_noise: Callable
    observe: Callable[[PhysicsState], Array]
    progress: Callable[[PhysicsState, PhysicsState], Array]
    alive: Callable[[PhysicsState], Array]
    alive_reward: float
    action_cost: float
    bodies: tuple[str, ...] = ()


def normal(generator: np.random.Generator, size: int) -> np.ndarray:
    """Standard normal noise, [size]."""
    return generator.standard_normal(size)


def uniform(generator: np.random.Generator, size: int) -> np.ndarray:
    """Uniform noise in [-1, 1], [size]."""
    return generator.uniform(-1.0, 1.0, size)


def all_but(num_hidden: int, max_speed: float = np.inf) -> Callable:
    """Returns an observe function of qpos[num_hidden:] and clipped velocities."""

    def observe(state: PhysicsState) -> Array:
        speed = jnp.clip(state.qvel, -max_speed, max_speed)
        return jnp.concatenate([state.qpos[num_hidden:], speed])

    return observe


def root_progress(before: PhysicsState, after: PhysicsState) -> Array:
    """Displacement of the root joint along x, m."""
    return after.qpos[0] - before.qpos[0]


def torso_progress(before: PhysicsState, after: PhysicsState) -> Array:
    """Displacement of the torso along x, m, from the lagging body position."""
    return after.bodies[0, 0] - before.bodies[0, 0]


def always(state: PhysicsState) -> Array:
    """Never terminates."""
    return jnp.full(state.qpos.shape[:-1], True)


def hopper_alive(state: PhysicsState) -> Array:
    """Whether the hopper is upright, above the ground and within bounds."""
    height, angle = state.qpos[1], state.qpos[2]
    rest = jnp.concatenate([state.qpos[2:], state.qvel])
    bounded = (jnp.abs(rest) < 100.0).all() & (height < jnp.inf)
    return bounded & (height > 0.7) & (jnp.abs(angle) < 0.2)


def walker2d_alive(state: PhysicsState) -> Array:
    """Whether the walker is upright, at a walking height."""
    height, angle = state.qpos[1], state.qpos[2]
    return (height > 0.8) & (height < 2.0) & (jnp.abs(angle) < 1.0)


def ant_alive(state: PhysicsState) -> Array:
    """Whether the torso's height is in [0.2, 1.0] m and the state is finite."""
    finite = jnp.isfinite(state.qpos).all() & jnp.isfinite(state.qvel).all()
    return finite & (state.qpos[2] >= 0.2) & (state.qpos[2] <= 1.0)


TASKS = {
    "halfcheetah": Task(
        file="half_cheetah.xml",
        frame_skip=5,
        noise=0.1,
        velocity_noise=normal,
        observe=all_but(1),
        progress=root_progress,
        alive=always,
        alive_reward=0.0,
        action_cost=0.1,
    ),
    "hopper": Task(
        file="hopper.xml",
        frame_skip=4,
        noise=5e-3,
        velocity_noise=uniform,
        observe=all_but(1, max_speed=10.0),
        progress=root_progress,
        alive=hopper_alive,
        alive_reward=1.0,
        action_cost=1e-3,
    ),
    "walker2d": Task(
        file="walker2d.xml",
        frame_skip=4,
        noise=5e-3,
        velocity_noise=uniform,
        observe=all_but(1, max_speed=10.0),
        progress=root_progress,
        alive=walker2d_alive,
        alive_reward=1.0,
        action_cost=1e-3,
    ),
    "ant": Task(
        file="ant.xml",
        frame_skip=5,
        noise=0.1,
        velocity_noise=normal,
        observe=all_but(2),
        progress=torso_progress,
        alive=ant_alive,
        alive_reward=1.0,
        action_cost=0.5,
        bodies=("torso",),
    ),
}


def load_model(file: str) -> mujoco.MjModel:
    """Loads one of gymnasium's models.

    Half-cheetah's file sets the total mass by an attribute for which MuJoCo prints a
    warning to stderr. It is removed and applied here, which gives the same model.
    """
    spec = mujoco.MjSpec.from_file(str(ASSETS / file))
    total_mass, spec.compiler.settotalmass = spec.compiler.settotalmass, 0.0
    model = spec.compile()
    if total_mass > 0:
        mujoco.mj_setTotalmass(model, total_mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


@functools.cache
def load_models(file: str, simulator: Simulator) -> Models:
    """Builds the variants of one of gymnasium's models; deterministic."""
    return randomise_dynamics(
        [load_model(file) for _ in range(simulator.variants)], simulator
    )


def start_states(task: Task, model: mujoco.MjModel) -> PhysicsState:
    """Draws the initial states of episodes: leaves [NUM_STARTS, ...]; deterministic."""
    generator = np.random.default_rng(0)
    drawn = [
        (uniform(generator, model.nq), task.velocity_noise(generator, model.nv))
        for _ in range(NUM_STARTS)
    ]
    positions, velocities = (task.noise * np.stack(x) for x in zip(*drawn, strict=True))
    return place(model, model.qpos0 + positions, velocities, task.bodies)


def reward_and_done(
    task: Task,
    decision_time: float,
    before: PhysicsState,
    action: Array,
    after: PhysicsState,
) -> tuple[Array, Array]:
    """Reward [] of a decision of `decision_time` seconds, and termination, bool [].

    The reward is forward speed in m/s, plus `alive_reward`, minus the action cost.
    """
    speed = task.progress(before, after) / decision_time
    cost = task.action_cost * jnp.square(action).sum()
    return speed + task.alive_reward - cost, ~task.alive(after)


def locomotion(
    name: str,
    make_physics: Callable[[Models, int, tuple[str, ...]], Advance],
    simulator: Simulator = Simulator(),  # noqa: B008
) -> Env:
    """Builds one of `TASKS` on a physics."""
    task = TASKS[name]
    models = load_models(task.file, simulator)
    model = models[0]
    move = make_physics(models, task.frame_skip, task.bodies)
    decision_time = model.opt.timestep * task.frame_skip  # seconds
    starts = start_states(task, model)

    def advance(before: PhysicsState, action: Array, variant: Array):
        # NaN actions of one member must not corrupt the workspaces that all share.
        control = jnp.where(jnp.isfinite(action), action, 0.0)
        after = move(before, control, variant)
        return after, *reward_and_done(task, decision_time, before, action, after)

    first = PhysicsState(*(leaf[0] for leaf in starts))
    spec = EnvSpec(
        name,
        vector(len(task.observe(first))),
        model.nu,
        HORIZON,
        simulator.variants,
        decision_time=decision_time,
    )
    render = renderer(model, pose_of)
    return restarting(spec, starts, advance, task.observe, render=render)


ENTRY = EnvEntry(
    lambda name, options: locomotion(name, options.make_physics, options.simulator)
)
