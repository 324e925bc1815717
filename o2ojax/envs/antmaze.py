"""antmaze-umaze, antmaze-medium and antmaze-large: D4RL's AntMaze.

Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020),
arxiv.org/abs/2004.07219; code: github.com/Farama-Foundation/D4RL, `d4rl/locomotion`.
An ant walks through a maze to a goal that it does not see. The mazes, starts, goals,
rewards and ends are those that D4RL evaluates in, its `-v2`: the goal lies in one cell
of the maze and is redrawn within it for each episode.

The model is gymnasium's `ant.xml` with D4RL's numbers: decisions of 0.1 s instead of
0.05 s, torques of 30 instead of 150 Nm, and softer contacts. Departure: an episode
begins in one of 1024 pairs of a first state and a goal, which are drawn once.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax.envs.entry import EnvEntry, Options
from o2ojax.envs.locomotion import ASSETS
from o2ojax.envs.physics import (
    Models,
    PhysicsState,
    Simulator,
    place,
    randomise_dynamics,
)
from o2ojax.envs.rendering import Pose, renderer
from o2ojax.envs.restart import restarting
from o2ojax.errors import UserError
from o2ojax.types import Array, Env, EnvSpec, vector

CELL = 4.0  # m
WALL_HEIGHT = 2.0  # m
NEAR = 0.5  # m, distance from which a goal is reached
TIME_STEP, FRAME_SKIP = 0.02, 5  # seconds, and simulation steps per decision
TORQUE = 30.0  # Nm, of an action of 1
SOFTNESS = (0.8, 0.8, 0.01, 0.5, 2.0)  # impedance of contacts, MuJoCo's `solimp`
MARGIN = 0.01  # m, of each geom; two of them push each other from twice that on
NUM_STARTS = 1024

# At most four walls are as near to a geom of the ant as one that it touches, and few of
# its 25 possible contacts with the floor and of those with walls exist at once. MJX in
# JAX would otherwise compute each geom's contacts with each wall of the maze.
MJX_LIMITS = {"max_geom_pairs": 48, "max_contact_points": 32}


class Maze(NamedTuple):
    """Definition of a maze.

    rows: its cells, southernmost row first: # is a wall, S the start, G the goal's.
    horizon: decisions after which an episode is truncated.
    """

    rows: tuple[str, ...]
    horizon: int

    def cells(self, kinds: str) -> np.ndarray:
        """Centres (x, y) of the cells of some kinds, m [N, 2]; the start is (0, 0)."""
        grid = np.array([list(row) for row in self.rows])
        place = np.argwhere(np.isin(grid, list(kinds)))
        return CELL * (place - np.argwhere(grid == "S"))[:, ::-1]


MAZES = {
    "antmaze-umaze": Maze(
        (
            "#####",
            "#S..#",
            "###.#",
            "#G..#",
            "#####",
        ),
        horizon=700,
    ),
    "antmaze-medium": Maze(
        (
            "########",
            "#S.##..#",
            "#..#...#",
            "##...###",
            "#..#...#",
            "#.#..#.#",
            "#...#.G#",
            "########",
        ),
        horizon=1000,
    ),
    "antmaze-large": Maze(
        (
            "############",
            "#S...#.....#",
            "#.##.#.#.#.#",
            "#......#...#",
            "#.####.###.#",
            "#..#.#.....#",
            "##.#.#.#.###",
            "#..#...#.G.#",
            "############",
        ),
        horizon=1000,
    ),
}


class Walk(NamedTuple):
    """State of an episode: the physics and the goal, m [2]."""

    physics: PhysicsState
    goal: Array


def observe(walk: Walk) -> Array:
    """Positions, from the torso's x and y on, and velocities: [29]. Not the goal."""
    return jnp.concatenate([walk.physics.qpos, walk.physics.qvel])


def reached(walk: Walk) -> Array:
    """Whether the torso is within NEAR of the goal, bool []."""
    return jnp.linalg.norm(walk.physics.qpos[:2] - walk.goal) <= NEAR


def load_model(maze: Maze, swollen: bool = False) -> mujoco.MjModel:
    """Builds the ant in a maze, whose walls are one box per cell, as D4RL's are.

    Boxes of several cells would be fewer, but would push a leg at a seam differently.

    Args:
        swollen: whether walls are thicker by the margin within which they push an ant,
            and have none. MJX in JAX ignores the margin of a box and a capsule.
    """
    spec = mujoco.MjSpec.from_file(str(ASSETS / "ant.xml"))
    spec.option.timestep = TIME_STEP
    for actuator in spec.actuators:
        actuator.gear[0] = TORQUE
    half = np.array([CELL / 2, CELL / 2, WALL_HEIGHT / 2])
    for x, y in maze.cells("#"):
        wall = spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, pos=[x, y, half[2]], size=half
        )
        wall.conaffinity = 1  # the ant touches it
        if swollen:
            wall.size, wall.margin = half + 2 * MARGIN, -MARGIN
    for geom in spec.geoms:
        geom.solimp = SOFTNESS
    for numeric in list(spec.numerics):  # none is used, and MJX counts from the first
        spec.delete(numeric)
    for name, limit in MJX_LIMITS.items():
        spec.add_numeric(name=name, data=[limit], size=1)
    _make_visible(spec, maze)
    return spec.compile()


def _make_visible(spec: mujoco.MjSpec, maze: Maze) -> None:
    """Colours the model, and adds a camera that sees the whole maze from above."""
    for geom in spec.geoms:
        is_ant = geom.conaffinity == 0
        geom.rgba = (0.8, 0.2, 0.1, 1.0) if is_ant else (0.3, 0.35, 0.45, 1.0)
    floor = spec.geom("floor")
    floor.material, floor.rgba = "", (0.7, 0.7, 0.7, 1.0)
    cells = np.concatenate([maze.cells(kind) for kind in "#S.G"])
    low, high = cells.min(axis=0) - CELL / 2, cells.max(axis=0) + CELL / 2
    width, depth = high - low
    height = max(0.75 * width, depth) / 2 / np.tan(np.deg2rad(45) / 2)  # frames are 4:3
    x, y = (low + high) / 2
    spec.worldbody.add_camera(name="above", pos=[x, y, height + WALL_HEIGHT], fovy=45)


@functools.cache
def load_models(name: str, simulator: Simulator, swollen: bool) -> Models:
    """Builds the variants of a maze's model; deterministic."""
    models = [load_model(MAZES[name], swollen) for _ in range(simulator.variants)]
    return randomise_dynamics(models, simulator)


def start_states(maze: Maze, model: mujoco.MjModel, anywhere: bool = False) -> Walk:
    """Draws the initial states of episodes: leaves [NUM_STARTS, ...]; deterministic.

    The ant begins at rest at the origin, but for noise of U(-0.1, 0.1) in each position
    and 0.1 N(0, 1) in each velocity. The goal is the centre of its cell, shifted by
    U(0, 1) + U(0, 0.5) m in both x and y.

    Args:
        anywhere: begin in any free cell instead, up to 1 m from its centre.
    """
    generator = np.random.default_rng(0)
    positions = model.qpos0 + generator.uniform(-0.1, 0.1, (NUM_STARTS, model.nq))
    velocities = 0.1 * generator.standard_normal((NUM_STARTS, model.nv))
    shift = generator.uniform(0.0, [[[1.0]], [[0.5]]], (2, NUM_STARTS, 2)).sum(axis=0)
    goals = np.float32(maze.cells("G") + shift)
    if anywhere:
        free = np.concatenate([maze.cells(kind) for kind in "S.G"])
        positions[:, :2] += free[generator.integers(len(free), size=NUM_STARTS)]
        positions[:, :2] += generator.uniform(-1.0, 1.0, (NUM_STARTS, 2))
    return Walk(place(model, positions, velocities, ()), goals)


def antmaze(name: str, options: Options, anywhere: bool = False) -> Env:
    """Builds one of `MAZES` on a physics; episodes may begin `anywhere`."""
    maze, simulator = MAZES[name], options.simulator
    models = load_models(name, simulator, options.physics == "mjx")
    model = models[0]
    move = options.make_physics(models, FRAME_SKIP, ())
    starts = start_states(maze, model, anywhere)

    def advance(before: Walk, action: Array, variant: Array):
        # NaN actions of one member must not corrupt the workspaces that all share.
        control = jnp.where(jnp.isfinite(action), action, 0.0)
        after = Walk(move(before.physics, control, variant), before.goal)
        done = reached(after)
        return after, done.astype(jnp.float32), done

    spec = EnvSpec(
        name,
        vector(model.nq + model.nv),
        model.nu,
        maze.horizon,
        simulator.variants,
        decision_time=TIME_STEP * FRAME_SKIP,
    )
    return restarting(
        spec,
        starts,
        advance,
        observe,
        # Only the goal ends an episode, but for the time limit, which has a discount.
        lambda after, transition: transition.discount == 0.0,
        renderer(model, pose_of, NEAR),
    )


def pose_of(walk: Walk) -> Pose:
    """Poses to render for states with leaves [T, ...]."""
    goal = np.asarray(walk.goal)
    height = np.full_like(goal[:, :1], NEAR)
    physics = walk.physics
    return Pose(physics.qpos, physics.qvel, np.concatenate([goal, height], axis=1))


def _build(name: str, options: Options) -> Env:
    given = dict(options.args)
    anywhere = given.pop("anywhere", False)
    if given or not isinstance(anywhere, bool):
        raise UserError(
            f"config.env_args is {dict(options.args)}; {name} takes anywhere=True, for"
            " episodes that begin in any cell, and nothing else"
        )
    return antmaze(name, options, anywhere)


ENTRY = EnvEntry(_build, takes=("args",))
