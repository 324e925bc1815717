"""reach, push and lift: tasks of a gripper, a cube and a table, modelled on FOWM's.

Feng et al., "Finetuning Offline World Models in the Real World" (2023),
arxiv.org/abs/2310.16029. Actions and success criteria follow its tasks; the scene is
our own, with state observations. Departures: an episode has 50 decisions (50 steps in
FOWM, too, but there each action is applied twice). Rewards have the same terms, but
distances are in decimetres, so the control cost has a tenth of the weight, and lift has
no bonuses. A task whose name ends in `_sparse` has a reward of 1 for each decision
after which the success criterion holds, else 0.

Success does not terminate an episode, and the time limit only truncates it: the
criterion has to be kept. Success is measured in the last state of an episode; FOWM
counts success at any step.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax.envs.entry import EnvEntry, Options
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
FRAME_SKIP = 5  # simulation steps of 0.01 s
NUM_STARTS = 1024
ASSETS = Path(__file__).parent / "assets"

STEP = 0.02  # m, offset of the hand's target for an action of 1
OPEN = 0.045  # m, from a fingertip to the centre of the open gripper
REST = 0.025  # m, height of the cube's centre on the table
SINK = 5e-6  # m, penetration at which the cube rests in equilibrium
NEAR = 0.05  # m, distance below which a goal is reached
LIFT = 0.15  # m, height above REST from which the cube is lifted

# Observations and rewards are in dm, dm/s, rad and rad/s, which are of order one, as
# suits networks. In metres, the control cost of a push would exceed its reward.
PER_METRE = 10.0
PER_UNIT = np.float32([PER_METRE] * 8 + [1.0])  # the ninth coordinate is an angle


class Scene(NamedTuple):
    """State of an episode: the physics and the goal.

    physics: qpos [9] is x, y, z of the hand, left and right finger, x, y, z of the
        cube, all in metres, and the yaw of the cube in radians. A tenth number is how
        far a drawer is open, in metres.
    goal: [3] in metres, or [0] for a task without a goal.
    """

    physics: PhysicsState
    goal: Array


class Sight(NamedTuple):
    """Quantities that rewards and policies read from an observation, in metres.

    hand:    [..., 3]  point between the fingertips.
    opening: [...]     distance between the fingertips.
    cube:    [..., 3]  centre of the cube.
    goal:    [..., 3], or [..., 0] for a task without a goal.
    drawer:  [...], how far the drawer is open; 0 for a scene without one.
    """

    hand: Array
    opening: Array
    cube: Array
    goal: Array
    drawer: Array | float = 0.0


class Task(NamedTuple):
    """Definition of a manipulation task.

    action_dim: 3 moves the closed gripper; a fourth number opens it (-1) or closes it
        (1).
    hand: mean initial position of the hand, m [3].
    finger: initial position of each finger, m.
    goal: (generator, cube [3]) -> [3], or [0] for none.
    reward: (action [..., A], Sight after the action) -> [...].
    success: (Sight) -> [...] bool.
    cube: mean initial position of the cube on the table, m [2].
    spread: maximum distance of the cube from there, along x and y, m.
    scene: name of the model in `assets`.
    horizon: decisions of an episode.
    camera: the model's camera that sees it where it is seen as pictures.
    """

    action_dim: int
    hand: tuple[float, float, float]
    finger: float
    goal: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    reward: Callable[[Array, Sight], Array]
    success: Callable[[Sight], Array]
    cube: tuple[float, float] = (0.0, 0.0)
    spread: float = 0.1
    scene: str = "gripper"
    horizon: int = HORIZON
    camera: str = "close"


def observe(scene: Scene) -> Array:
    """Positions, velocities and the goal: [21], or [18] without a goal.

    The position and velocity of a drawer stand in the place of a goal: [20].
    """
    physics, num = scene.physics, len(PER_UNIT)
    seen = physics.qpos[:num] * PER_UNIT, physics.qvel[:num] * PER_UNIT
    others = physics.qpos[num:], physics.qvel[num:], scene.goal
    return jnp.concatenate([*seen, *(other * PER_METRE for other in others)])


def see(obs: Array) -> Sight:
    """Converts an observation, [..., O], to a Sight."""
    metres = obs / PER_METRE
    others = metres[..., 2 * len(PER_UNIT) :]
    has_drawer = others.shape[-1] == 2
    return Sight(
        hand=metres[..., :3],
        opening=metres[..., 3] + metres[..., 4],
        cube=metres[..., 5:8],
        goal=others[..., :0] if has_drawer else others,
        drawer=others[..., 0] if has_drawer else jnp.zeros(metres.shape[:-1]),
    )


def pose_seen(obs: Array) -> Pose:
    """The poses that observations [N, O] show, of NumPy or of JAX as they are."""
    arrays, num = obs.__array_namespace__(), len(PER_UNIT)
    qpos, others = obs[:, :num] / PER_UNIT, obs[:, 2 * num :] / PER_METRE
    has_drawer = others.shape[1] == 2
    goal = others[:, :0] if has_drawer else others
    qpos = arrays.concat([qpos, others[:, :1]], axis=1) if has_drawer else qpos
    return Pose(qpos, arrays.zeros_like(qpos), goal)


def control(physics: PhysicsState, action: Array) -> Array:
    """Position targets of the actuators: x, y, z of the hand and both fingers, m [5].

    The hand's target is relative to its position; the model clips it to the workspace.
    """
    # NaN actions of one member must not corrupt the workspaces that all share.
    action = jnp.clip(jnp.where(jnp.isfinite(action), action, 0.0), -1.0, 1.0)
    closing = jnp.append(action, 1.0)[3]  # closed if there are only three numbers
    finger = OPEN * (1.0 - closing) / 2
    hand = physics.qpos[:3] + STEP * action[:3]
    return jnp.concatenate([hand, finger[None], finger[None]])


def distance(a: Array, b: Array) -> Array:
    """Euclidean distance of points [..., 3]: [...]."""
    return jnp.sqrt(jnp.square(a - b).sum(-1))


def effort(action: Array) -> Array:
    """Squared norm of the part of an action that moves the hand, [...]."""
    return jnp.square(action[..., :3]).sum(-1)


def reached(sight: Sight) -> Array:
    """Whether the hand is within NEAR of the goal."""
    return distance(sight.hand, sight.goal) <= NEAR


def pushed(sight: Sight) -> Array:
    """Whether the cube is within NEAR of the goal."""
    return distance(sight.cube, sight.goal) <= NEAR


def lifted(sight: Sight) -> Array:
    """Whether the cube is LIFT above its rest height, or higher."""
    return sight.cube[..., 2] >= REST + LIFT


def reach_reward(action: Array, sight: Sight) -> Array:
    """-(|hand - goal| + 0.15 |a_xyz|^2), in dm."""
    return -(PER_METRE * distance(sight.hand, sight.goal) + 0.15 * effort(action))


def push_reward(action: Array, sight: Sight) -> Array:
    """-(|cube - goal| + 0.15 |a_xyz|^2), in dm."""
    return -(PER_METRE * distance(sight.cube, sight.goal) + 0.15 * effort(action))


def lift_reward(action: Array, sight: Sight) -> Array:
    """min(height above rest, 1.5) - |hand - cube| / 100, in dm."""
    del action
    height = jnp.minimum(sight.cube[..., 2] - REST, LIFT)
    return PER_METRE * (height - distance(sight.hand, sight.cube) / 100)


def in_the_air(generator: np.random.Generator, cube: np.ndarray) -> np.ndarray:
    """Draws a goal above the table, within the reach of the hand, m [3]."""
    del cube
    return generator.uniform([-0.2, -0.2, 0.05], [0.2, 0.2, 0.25])


def ahead(generator: np.random.Generator, cube: np.ndarray) -> np.ndarray:
    """Draws a goal on the table, ahead of the cube in x, within 27 degrees, m [3]."""
    return cube + generator.uniform([0.12, -0.06, 0.0], [0.2, 0.06, 0.0])


def nowhere(generator: np.random.Generator, cube: np.ndarray) -> np.ndarray:
    """The goal of a task without one, [0]."""
    del generator, cube
    return np.zeros(0)


def by_success(success: Callable[[Sight], Array]) -> Callable[[Array, Sight], Array]:
    """A reward of 1 for success, else 0."""

    def reward(action: Array, sight: Sight) -> Array:
        del action
        return success(sight).astype(jnp.float32)

    return reward


def sparse(task: Task) -> Task:
    """Replaces the reward of a task by success."""
    return task._replace(reward=by_success(task.success))


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


def path_of(scene: str) -> Path:
    """The MJCF file of a scene."""
    return ASSETS / f"{scene}.xml"


@functools.cache
def load_models(simulator: Simulator, scene: str = "gripper") -> Models:
    """Builds the variants of a scene; deterministic."""
    path = str(path_of(scene))
    models = [mujoco.MjModel.from_xml_path(path) for _ in range(simulator.variants)]
    return randomise_dynamics(models, simulator)


def start_states(
    task: Task, model: mujoco.MjModel, spread: float | None = None
) -> Scene:
    """Draws NUM_STARTS initial states; deterministic.

    Args:
        spread: maximum distance of the cube from its mean position, along x and y, m;
            None for the task's own.
    """
    generator = np.random.default_rng(0)
    spread = task.spread if spread is None else spread
    positions, goals = [], []
    for _ in range(NUM_STARTS):
        hand = task.hand + generator.uniform(-0.02, 0.02, 3)
        level = task.cube + generator.uniform(-spread, spread, 2)
        cube = np.array([*level, REST - SINK])
        closed = [0.0] * (model.nq - len(PER_UNIT))  # a drawer
        positions.append([*hand, task.finger, task.finger, *cube, 0.0, *closed])
        goals.append(task.goal(generator, cube))
    at_rest = np.zeros((NUM_STARTS, model.nv))
    return Scene(place(model, positions, at_rest, ()), np.float32(goals))


def manipulation(
    name: str,
    task: Task,
    make_physics: Callable[[Models, int, tuple[str, ...]], Advance],
    simulator: Simulator = Simulator(),  # noqa: B008
    repeat: int = 1,
) -> Env:
    """Builds the environment of a task on a physics.

    Args:
        repeat: decisions of the task in one of the environment, which repeats its
            action and adds up the rewards; as many fewer are an episode.
    """
    models = load_models(simulator, task.scene)
    move = make_physics(models, FRAME_SKIP, ())
    starts = start_states(task, models[0])

    def advance_once(before: Scene, action: Array, variant: Array):
        physics = move(before.physics, control(before.physics, action), variant)
        after = Scene(physics, before.goal)
        return after, task.reward(action, see(observe(after))), jnp.array(False)

    def advance(before: Scene, action: Array, variant: Array):
        if repeat == 1:
            return advance_once(before, action, variant)

        def again(scene: Scene, _: None) -> tuple[Scene, Array]:
            scene, reward, _ = advance_once(scene, action, variant)
            return scene, reward

        after, rewards = jax.lax.scan(again, before, length=repeat)
        return after, rewards.sum(), jnp.array(False)

    spec = EnvSpec(
        name,
        vector(2 * models[0].nq + starts.goal.shape[1]),
        task.action_dim,
        task.horizon // repeat,
        simulator.variants,
        decision_time=models[0].opt.timestep * FRAME_SKIP * repeat,
        full=True,
    )
    return restarting(
        spec,
        starts,
        advance,
        observe,
        lambda after, transition: task.success(see(transition.next_obs)),
        renderer(models[0], pose_of, NEAR),
    )


def pose_of(scene: Scene) -> Pose:
    """Poses to render for scenes with leaves [T, ...]."""
    return Pose(scene.physics.qpos, scene.physics.qvel, scene.goal)


def build(name: str, options: Options) -> Env:
    """Builds one of `TASKS`, as the registry asks for it."""
    return manipulation(name, TASKS[name], options.make_physics, options.simulator)


ENTRY = EnvEntry(build)
