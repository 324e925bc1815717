"""reach, push and lift: a gripper, a cube and a table, after FOWM's simulated arm.

Feng et al., "Finetuning Offline World Models in the Real World" (2023),
arxiv.org/abs/2310.16029. Actions and what counts as success follow its tasks; the scene
is our own, and is seen as numbers. An episode has 50 decisions: theirs has 50 steps,
too, but repeats every action once. Rewards have their terms, with distances in
decimetres, so that effort weighs a tenth of theirs, and without the bonuses of their
lift. A name that ends in `_sparse` is the same task, earning 1 for each decision that
leaves it done and 0 for every other.

A task does not end when it is done, nor at the time limit: it is to be kept done, and
success is asked of an episode's last state. The authors count an episode that is done
at any step.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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
from o2ojax.envs.rendering import Pose, renderer
from o2ojax.envs.restart import restarting
from o2ojax.types import Array, Env, EnvSpec, vector

HORIZON = 50  # decisions
FRAME_SKIP = 5  # of 0.01 s
NUM_STARTS = 1024
SCENE = Path(__file__).parent / "assets" / "gripper.xml"

STEP = 0.02  # m, how far ahead of the hand an action of 1 puts its target
OPEN = 0.045  # m, from a fingertip to the middle of the open gripper
REST = 0.025  # m, height of the cube's centre on the table
SINK = 5e-6  # m, into the table, by its weight: placed so, the cube lies still
NEAR = 0.05  # m, from the goal, where it counts as reached
LIFT = 0.15  # m, above the table, where the cube counts as lifted

# Seen, and rewarded, in decimetres, dm/s, rad and rad/s: numbers of order one, as
# networks like them. In metres, a push would cost more effort than it earns.
PER_METRE = 10.0
PER_UNIT = np.float32([PER_METRE] * 8 + [1.0])  # the ninth coordinate is an angle


class Scene(NamedTuple):
    """What changes in an episode, and what is drawn for it.

    physics: qpos [9] is x, y, z of the hand, left and right finger, x, y, z of the
        cube, all in metres, and its turn in radians.
    goal: [3] in metres, or [0] where a task has none.
    """

    physics: PhysicsState
    goal: Array


class Sight(NamedTuple):
    """What rewards and policies read from an observation, in metres.

    hand:    [..., 3]  the point between the fingertips.
    opening: [...]     between the fingertips.
    cube:    [..., 3]  its centre.
    goal:    [..., 3], or [..., 0] where a task has none.
    """

    hand: Array
    opening: Array
    cube: Array
    goal: Array


class Task(NamedTuple):
    """What makes the scene a task.

    action_dim: 3 moves the closed gripper; with 4 it opens at -1 and closes at 1.
    hand: around where the hand begins, m [3].
    finger: where each finger begins, m.
    goal: (generator, cube [3]) -> [3], or [0] for none.
    reward: (action [..., A], Sight of what it led to) -> [...].
    success: (Sight) -> [...] bool.
    """

    action_dim: int
    hand: tuple[float, float, float]
    finger: float
    goal: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    reward: Callable[[Array, Sight], Array]
    success: Callable[[Sight], Array]


def observe(scene: Scene) -> Array:
    """Positions, velocities and the goal: [21], or [18] without a goal."""
    physics = scene.physics
    seen = physics.qpos * PER_UNIT, physics.qvel * PER_UNIT, scene.goal * PER_METRE
    return jnp.concatenate(seen)


def see(obs: Array) -> Sight:
    """Reads an observation, [..., O]."""
    metres = obs / PER_METRE
    return Sight(
        hand=metres[..., :3],
        opening=metres[..., 3] + metres[..., 4],
        cube=metres[..., 5:8],
        goal=metres[..., 18:],
    )


def control(physics: PhysicsState, action: Array) -> Array:
    """Where the actuators pull to: x, y, z of the hand and both fingers, m [5].

    The hand's target is ahead of where it is; the model clips it to the workspace.
    """
    # A member that died of NaN must not spoil the workspaces that all share.
    action = jnp.clip(jnp.where(jnp.isfinite(action), action, 0.0), -1.0, 1.0)
    closing = jnp.append(action, 1.0)[3]  # three numbers say nothing of it: closed
    finger = OPEN * (1.0 - closing) / 2
    hand = physics.qpos[:3] + STEP * action[:3]
    return jnp.concatenate([hand, finger[None], finger[None]])


def distance(a: Array, b: Array) -> Array:
    """Between points [..., 3]: [...]."""
    return jnp.sqrt(jnp.square(a - b).sum(-1))


def effort(action: Array) -> Array:
    """Squared length of the part that moves the hand, [...]."""
    return jnp.square(action[..., :3]).sum(-1)


def reached(sight: Sight) -> Array:
    """The hand is near the goal."""
    return distance(sight.hand, sight.goal) <= NEAR


def pushed(sight: Sight) -> Array:
    """The cube is near the goal."""
    return distance(sight.cube, sight.goal) <= NEAR


def lifted(sight: Sight) -> Array:
    """The cube is high above the table."""
    return sight.cube[..., 2] >= REST + LIFT


def reach_reward(action: Array, sight: Sight) -> Array:
    """-(|hand - goal| + 0.15 |a_xyz|^2), in dm."""
    return -(PER_METRE * distance(sight.hand, sight.goal) + 0.15 * effort(action))


def push_reward(action: Array, sight: Sight) -> Array:
    """-(|cube - goal| + 0.15 |a_xyz|^2), in dm."""
    return -(PER_METRE * distance(sight.cube, sight.goal) + 0.15 * effort(action))


def lift_reward(action: Array, sight: Sight) -> Array:
    """min(height, 1.5) - |hand - cube| / 100, in dm, over where the cube rests."""
    del action
    height = jnp.minimum(sight.cube[..., 2] - REST, LIFT)
    return PER_METRE * (height - distance(sight.hand, sight.cube) / 100)


def in_the_air(generator: np.random.Generator, cube: np.ndarray) -> np.ndarray:
    """Anywhere above the table that the hand can reach, m [3]."""
    del cube
    return generator.uniform([-0.2, -0.2, 0.05], [0.2, 0.2, 0.25])


def ahead(generator: np.random.Generator, cube: np.ndarray) -> np.ndarray:
    """On the table, further along x than the cube, up to 27 degrees aside, m [3]."""
    return cube + generator.uniform([0.12, -0.06, 0.0], [0.2, 0.06, 0.0])


def nowhere(generator: np.random.Generator, cube: np.ndarray) -> np.ndarray:
    """The goal of a task without one, [0]."""
    del generator, cube
    return np.zeros(0)


def sparse(task: Task) -> Task:
    """The same task, rewarded by success alone."""

    def reward(action: Array, sight: Sight) -> Array:
        del action
        return task.success(sight).astype(jnp.float32)

    return task._replace(reward=reward)


DENSE = {
    "reach": Task(
        action_dim=3,
        hand=(0.0, 0.0, 0.15),
        finger=0.0,
        goal=in_the_air,
        reward=reach_reward,
        success=reached,
    ),
    "push": Task(
        action_dim=3,
        hand=(-0.2, 0.0, 0.1),
        finger=0.0,
        goal=ahead,
        reward=push_reward,
        success=pushed,
    ),
    "lift": Task(
        action_dim=4,
        hand=(0.0, 0.0, 0.15),
        finger=OPEN,
        goal=nowhere,
        reward=lift_reward,
        success=lifted,
    ),
}
TASKS = DENSE | {f"{name}_sparse": sparse(task) for name, task in DENSE.items()}


@functools.cache
def load_models(simulator: Simulator) -> Models:
    """The variants of the scene, the same at every call."""
    models = [
        mujoco.MjModel.from_xml_path(str(SCENE)) for _ in range(simulator.variants)
    ]
    return randomise_dynamics(models, simulator)


def start_states(task: Task, model: mujoco.MjModel, spread: float = 0.1) -> Scene:
    """The states that episodes begin in, drawn once: leaves [NUM_STARTS, ...].

    Args:
        spread: how far from the middle the cube may lie, along x and y, m.
    """
    generator = np.random.default_rng(0)
    positions, goals = [], []
    for _ in range(NUM_STARTS):
        hand = task.hand + generator.uniform(-0.02, 0.02, 3)
        cube = np.array([*generator.uniform(-spread, spread, 2), REST - SINK])
        positions.append([*hand, task.finger, task.finger, *cube, 0.0])
        goals.append(task.goal(generator, cube))
    at_rest = np.zeros((NUM_STARTS, model.nv))
    return Scene(place(model, positions, at_rest, ()), np.float32(goals))


def manipulation(
    name: str,
    make_physics: Callable[[Models, int, tuple[str, ...]], Advance],
    simulator: Simulator = Simulator(),  # noqa: B008
) -> Env:
    """Builds one of `TASKS` on a physics."""
    task = TASKS[name]
    models = load_models(simulator)
    move = make_physics(models, FRAME_SKIP, ())
    starts = start_states(task, models[0])

    def advance(before: Scene, action: Array, variant: Array):
        physics = move(before.physics, control(before.physics, action), variant)
        after = Scene(physics, before.goal)
        return after, task.reward(action, see(observe(after))), jnp.array(False)

    spec = EnvSpec(
        name,
        vector(2 * len(PER_UNIT) + starts.goal.shape[1]),
        task.action_dim,
        HORIZON,
        simulator.variants,
        decision_time=models[0].opt.timestep * FRAME_SKIP,
    )
    return restarting(
        spec,
        starts,
        advance,
        observe,
        lambda obs: task.success(see(obs)),
        renderer(models[0], pose_of, NEAR),
    )


def pose_of(scene: Scene) -> Pose:
    """What is drawn of states, leaves [T, ...]."""
    return Pose(scene.physics.qpos, scene.physics.qvel, scene.goal)


ENTRY = EnvEntry(
    lambda name, options: manipulation(name, options.make_physics, options.simulator)
)
