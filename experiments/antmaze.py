"""A walker for AntMaze's ant, and how it is steered to make datasets.

    python -m experiments.run --config=experiments/configs/walker.py
    python -m experiments.export runs/walker ...

The ground is `walk`: an ant in the open is paid for its speed along a way that turns
every five seconds. The ant sees itself as if that way were the x axis, so it learns one
thing alone, to walk ahead, whichever way it faces; see `facing`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax.envs import antmaze
from o2ojax.envs.antmaze import FRAME_SKIP, TIME_STEP
from o2ojax.envs.physics import PhysicsState, Simulator, place, randomise_dynamics
from o2ojax.envs.restart import restarting
from o2ojax.types import Array, Env, EnvSpec, vector

NUM_STARTS = 1024
NUM_WAYS, STEPS = 4, 50  # ways of an episode, and decisions that each of them lasts
OPEN = antmaze.Maze(("S",), horizon=NUM_WAYS * STEPS)


def facing(qpos: Array, qvel: Array, way: Array) -> Array:
    """What the walker sees, [27]: all but its place, as if `way` were the x axis.

    Args:
        qpos: [15]; its quaternion turns the torso's frame into the world's.
        qvel: [14]; the torso's linear velocity is the world's, all else its own.
        way: where to go, a unit vector [2].
    """
    cos, sin = way
    half_cos = jnp.sqrt(jnp.maximum((1 + cos) / 2, 0.0))
    half_sin = jnp.sqrt(jnp.maximum((1 - cos) / 2, 0.0)) * jnp.where(sin < 0, -1.0, 1.0)
    w, x, y, z = qpos[3:7]
    turned = jnp.stack(  # the turn by minus the way's angle, times the quaternion
        [
            half_cos * w + half_sin * z,
            half_cos * x + half_sin * y,
            half_cos * y - half_sin * x,
            half_cos * z - half_sin * w,
        ]
    )
    turned = turned * jnp.where(turned[0] < 0, -1.0, 1.0)  # of two that mean the same
    ahead = jnp.stack([cos * qvel[0] + sin * qvel[1], cos * qvel[1] - sin * qvel[0]])
    return jnp.concatenate([qpos[2:3], turned, qpos[7:], ahead, qvel[2:]])


def upright(qpos: Array) -> Array:
    """Height of the torso's own up, as a unit vector's: 1 if level, -1 if overturned."""
    return 1 - 2 * (qpos[4] ** 2 + qpos[5] ** 2)


class Stroll(NamedTuple):
    """State of an episode: the physics, the ways [NUM_WAYS, 2], and decisions so far."""

    physics: PhysicsState
    ways: Array
    age: Array

    @property
    def way(self) -> Array:
        """The way of now, a unit vector [2]."""
        return self.ways[jnp.minimum(self.age // STEPS, NUM_WAYS - 1)]


@functools.cache
def _model(simulator: Simulator) -> tuple[mujoco.MjModel, ...]:
    return randomise_dynamics([antmaze.load_model(OPEN)], simulator)


def walk(make_physics, simulator: Simulator) -> Env:
    """The open ground. A decision earns its speed along the way, m/s, and 1 besides.

    An episode ends where the ant lies on its back.
    """
    models = _model(simulator)
    model, move = models[0], make_physics(models, FRAME_SKIP, ())
    generator = np.random.default_rng(0)
    positions = model.qpos0 + generator.uniform(-0.1, 0.1, (NUM_STARTS, model.nq))
    yaw = generator.uniform(-np.pi, np.pi, NUM_STARTS) / 2
    positions[:, 3:7] += np.stack([np.cos(yaw) - 1, 0 * yaw, 0 * yaw, np.sin(yaw)], 1)
    velocities = 0.3 * generator.standard_normal((NUM_STARTS, model.nv))
    angle = generator.uniform(-np.pi, np.pi, (NUM_STARTS, NUM_WAYS))
    ways = np.float32(np.stack([np.cos(angle), np.sin(angle)], axis=-1))
    starts = Stroll(
        place(model, positions, velocities, ()), ways, np.zeros(NUM_STARTS, np.int32)
    )

    def observe(now: Stroll) -> Array:
        return facing(now.physics.qpos, now.physics.qvel, now.way)

    def advance(before: Stroll, action: Array, variant: Array):
        control = jnp.where(jnp.isfinite(action), action, 0.0)
        physics = move(before.physics, control, variant)
        moved = physics.qpos[:2] - before.physics.qpos[:2]
        speed = jnp.dot(moved, before.way) / (TIME_STEP * FRAME_SKIP)
        after = Stroll(physics, before.ways, before.age + 1)
        return after, 1.0 + speed, upright(physics.qpos) < 0

    spec = EnvSpec(
        "ant-walk",
        vector(27),
        model.nu,
        OPEN.horizon,
        decision_time=TIME_STEP * FRAME_SKIP,
    )
    return restarting(spec, starts, advance, observe)
