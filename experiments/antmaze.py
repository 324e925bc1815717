"""A walker for AntMaze's ant, and how it is steered through mazes to make datasets.

The walker that ships was made by

    python -m experiments.run --config=walker --workdir=runs/walker
    python -m experiments.export runs/walker experiments/ant-walker.o2o

It learns in the open, `walk`: it is paid for its speed along a way that turns every
five seconds. The ant sees itself as if that way were the x axis, so it learns one thing
alone, to walk ahead, whichever way it faces; see `facing`.

`steered` sends it from cell to cell along the shortest path, with noise, as D4RL does:
Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020),
arxiv.org/abs/2004.07219. Unlike there, an ant that arrives where it was sent goes on
from there to another place, and what is written is what the environment tells, where
D4RL's rewards and ends are computed afterwards from one goal.
"""

import functools
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax import networks
from o2ojax.envs import antmaze
from o2ojax.envs.antmaze import FRAME_SKIP, TIME_STEP
from o2ojax.envs.physics import PhysicsState, Simulator, place, randomise_dynamics
from o2ojax.envs.restart import restarting
from o2ojax.types import Array, Env, EnvSpec, Policy, vector

WALKER = Path(__file__).parent / "ant-walker.o2o"
WIDTHS = (128, 128)  # of the walker's policy
NOISE = 0.2  # standard deviation, on the walker's actions, as D4RL's
NEAR = 0.5  # m, from a place where the ant is sent, when it has arrived
SIZE = 27  # numbers that the walker sees
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
    """Height of the torso's own upward unit vector: 1 if level, -1 if overturned."""
    return 1 - 2 * (qpos[4] ** 2 + qpos[5] ** 2)


class Stroll(NamedTuple):
    """State of an episode: the physics, ways [NUM_WAYS, 2], and decisions so far."""

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
        vector(SIZE),
        model.nu,
        OPEN.horizon,
        decision_time=TIME_STEP * FRAME_SKIP,
    )
    return restarting(spec, starts, advance, observe)


def walker(path: Path = WALKER) -> Callable[[Array], Array]:
    """The walker's policy: what it sees [27], see `facing` -> action [8]."""
    net = networks.SquashedActor(8, WIDTHS)
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(SIZE))
    with zipfile.ZipFile(path) as file:
        arrays = np.load(io.BytesIO(file.read("weights.npz")), allow_pickle=False)
        leaves = [arrays[str(at)] for at in range(len(arrays.files))]
    params = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return lambda obs: net.apply(params, obs).mode()


# Where ants are sent, by the kind of dataset. All that are not `fixed` begin anywhere.
PLACES = {
    "fixed": lambda maze: maze.cells("G"),
    "diverse": lambda maze: np.concatenate([maze.cells(kind) for kind in "S.G"]),
    "play": lambda maze: np.concatenate(
        [maze.cells("S"), maze.cells("G"), corners(maze)]
    ),
}


def corners(maze: antmaze.Maze) -> np.ndarray:
    """The free cells that are nearest to the other two corners of a maze, m [2, 2]."""
    free = PLACES["diverse"](maze)
    low, high = free.min(axis=0), free.max(axis=0)
    ends = np.array([[low[0], high[1]], [high[0], low[1]]])
    distance = np.linalg.norm(free[:, None] - ends[None], axis=-1)
    return free[distance.argmin(axis=0)]


def next_cells(maze: antmaze.Maze) -> tuple[np.ndarray, np.ndarray]:
    """The free cells [N, 2], m, and the next one on the shortest path, [N, N].

    In row i and column j is the number of the cell to go to from i on the way to j.
    """
    cells = PLACES["diverse"](maze)
    apart = np.abs(cells[:, None] - cells[None]).sum(axis=-1)
    beside = np.isclose(apart, antmaze.CELL)
    distance = np.where(beside, 1.0, np.inf)
    np.fill_diagonal(distance, 0.0)
    for via in range(len(cells)):  # Floyd and Warshall's
        distance = np.minimum(distance, distance[:, [via]] + distance[[via]])
    onward = np.where(beside[:, :, None], distance[None], np.inf)  # [from, next, to]
    found = onward.argmin(axis=1)
    np.fill_diagonal(found, np.arange(len(cells)))
    return cells, found


def steered(name: str, kind: str, path: Path = WALKER) -> Policy:
    """The walker, sent through a maze: a policy that remembers where it is sent.

    Args:
        name: one of `antmaze.MAZES`.
        kind: one of PLACES. A place is a cell's centre, shifted as goals are.
    """
    maze, walk_ahead = antmaze.MAZES[name], walker(path)
    cells, onward = (jnp.asarray(x) for x in next_cells(maze))
    places = jnp.float32(PLACES[kind](maze))

    def draw(key: Array) -> Array:
        key_cell, key_shift = jax.random.split(key)
        cell = places[jax.random.randint(key_cell, (), 0, len(places))]
        shift = jax.random.uniform(key_shift, (2, 2)) * jnp.array([[1.0], [0.5]])
        return cell + shift.sum(axis=0)

    def cell_of(place: Array) -> Array:
        return jnp.linalg.norm(cells - place[None], axis=1).argmin()

    def start(agent_state, trial_context, key):
        return draw(key)

    def act(agent_state, sent, obs, key):
        key_send, key_noise = jax.random.split(key)
        here = obs[:2]
        arrived = jnp.linalg.norm(sent - here) <= NEAR
        sent = jnp.where(arrived, draw(key_send), sent)
        now, there = cell_of(here), cell_of(sent)
        toward = jnp.where(now == there, sent, cells[onward[now, there]]) - here
        way = toward / jnp.maximum(jnp.linalg.norm(toward), 1e-3)
        action = walk_ahead(facing(obs[:15], obs[15:], way))
        noise = NOISE * jax.random.normal(key_noise, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0), sent

    def observe(agent_state, sent, transition):
        return sent, transition

    return Policy(start, act, observe)
