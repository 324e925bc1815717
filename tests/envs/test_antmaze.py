"""D4RL's ant in its mazes: against OGBench's, which is the same, and by hand."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import ogbench  # noqa: F401  registers its environments
import pytest

from o2ojax import data, envs
from o2ojax.envs import antmaze, mjx_physics
from o2ojax.envs.antmaze import CELL, FRAME_SKIP, MAZES, Walk
from o2ojax.envs.physics import PhysicsState, c_physics, host_step
from o2ojax.types import EnvState
from tests.envs.test_mjx import assert_agree

NUM_STATES = 200
THEIRS = {
    "antmaze-medium": "antmaze-medium-v0",
    "antmaze-large": "antmaze-large-v0",
}

every_maze = pytest.mark.parametrize("name", MAZES)
make = functools.cache(lambda name: envs.make(name, "mujoco"))
load = functools.cache(lambda name: antmaze.load_model(MAZES[name]))


def rolled(model, rows, actions):
    """Decisions from rows (qpos, qvel, warm start), in double precision."""
    step = host_step([model], FRAME_SKIP, np.zeros(0, np.int32))
    for action in actions:
        rows, _ = step(np.concatenate([rows, action], axis=1), np.zeros(len(rows), int))
    return rows


@functools.cache
def states_and_actions(name):
    """Rows (qpos, qvel, warm start) from all over a maze, with actions.

    Ants are put down about a metre from a wall, move towards it, and play for four
    decisions, after which many touch it.
    """
    model, generator = load(name), np.random.default_rng(0)
    place, ahead = beside_walls(MAZES[name], generator)
    qpos = np.tile(model.qpos0, (NUM_STATES, 1))
    qpos[:, :2] = place
    qpos[:, 2] = generator.uniform(0.4, 0.75, NUM_STATES)
    qpos[:, 7:] += generator.uniform(-0.3, 0.3, (NUM_STATES, 8))
    speed = generator.standard_normal((NUM_STATES, model.nv))
    speed[:, :2] += ahead
    rows = np.concatenate([qpos, speed, np.zeros_like(speed)], axis=1)
    actions = generator.uniform(-1.0, 1.0, (5, NUM_STATES, model.nu))
    return rolled(model, rows, actions[:4]), actions[4]


def beside_walls(maze, generator):
    """Places near walls, and the directions to them: [NUM_STATES, 2] each."""
    free = {tuple(cell) for cell in maze.cells("S.G")}
    sides = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
    pairs = [
        (cell, side)
        for cell in sorted(free)
        for side in sides
        if tuple(cell + CELL * side) not in free
    ]
    chosen = generator.integers(len(pairs), size=NUM_STATES)
    cell, ahead = (np.array(x)[chosen] for x in zip(*pairs, strict=True))
    away, beside = generator.uniform([[0.9], [-1.0]], [[1.5], [1.0]], (2, NUM_STATES))
    along = ahead[:, ::-1]
    place = cell + (CELL / 2 - away)[:, None] * ahead + beside[:, None] * along
    return place, ahead


def split_rows(model, rows):
    qpos, qvel, warm = np.split(rows, np.cumsum([model.nq, model.nv]), axis=1)
    none = np.zeros((len(rows), 0))
    return PhysicsState(qpos, qvel, none, warm, np.zeros((len(rows), 0, 3)))


@functools.cache
def touching(name):
    """Whether a wall pushes the ant in the decision from each state, [NUM_STATES]."""
    model, (rows, actions) = load(name), states_and_actions(name)
    wall = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
    simulation, found = mujoco.MjData(model), []
    for row, action in zip(rows, actions, strict=True):
        parts = np.split(row, np.cumsum([model.nq, model.nv]))
        simulation.qpos[:], simulation.qvel[:], simulation.qacc_warmstart[:] = parts
        simulation.ctrl[:], touched = action, False
        for _ in range(FRAME_SKIP):
            mujoco.mj_step(model, simulation)
            touched |= wall[simulation.contact.geom].any()
        found.append(touched)
    return np.array(found)


@every_maze
def test_the_states_to_agree_on_touch_walls_here_and_there(name):
    assert 30 <= touching(name).sum() <= 170


@pytest.mark.parametrize("name", THEIRS)
def test_a_step_leads_where_ogbenchs_does(name):
    """Also in what the ant sees."""
    theirs = gymnasium.make(THEIRS[name]).unwrapped
    theirs.reset(seed=0)
    rows, actions = states_and_actions(name)
    ours, expected, seen = rolled(load(name), rows, [actions]), [], []
    for row, action in zip(rows, actions, strict=True):
        qpos, qvel, warm = np.split(row, [15, 29])
        theirs.set_state(qpos, qvel)
        theirs.data.qacc_warmstart[:] = warm
        seen.append(theirs.step(action)[0])
        moved = theirs.data
        expected.append(np.concatenate([moved.qpos, moved.qvel, moved.qacc_warmstart]))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
    physics = jax.tree.map(np.float32, split_rows(load(name), ours))
    obs = jax.vmap(antmaze.observe)(Walk(physics, np.zeros((NUM_STATES, 2))))
    np.testing.assert_array_equal(obs, np.float32(seen))


def test_umaze_stands_where_d4rls_does():
    """Its walls by hand; the ant begins at the origin, and each cell has 4 m."""
    model = load("antmaze-umaze")
    walls = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
    free = {(0, 0), (4, 0), (8, 0), (8, 4), (0, 8), (4, 8), (8, 8)}
    every = {(x, y) for x in range(-4, 13, 4) for y in range(-4, 13, 4)}
    centres = {(x, y) for x, y, _ in model.geom_pos[walls].tolist()}
    assert centres == every - free
    assert walls.sum() == len(centres)
    np.testing.assert_array_equal(model.geom_size[walls], [[2, 2, 1]] * len(centres))
    np.testing.assert_array_equal(model.geom_pos[walls, 2], 1.0)


@every_maze
def test_the_ant_of_every_maze_is_the_same(name):
    ours, reference = load(name), load("antmaze-medium")
    assert (ours.nq, ours.nv, ours.nu) == (15, 14, 8)
    assert ours.opt.timestep * FRAME_SKIP == 0.1
    np.testing.assert_array_equal(ours.actuator_gear[:, 0], 30.0)
    np.testing.assert_array_equal(ours.actuator_ctrlrange, [[-1.0, 1.0]] * 8)
    np.testing.assert_array_equal(ours.body_mass, reference.body_mass)
    np.testing.assert_array_equal(
        ours.geom_solimp[:, :3], [[0.8, 0.8, 0.01]] * ours.ngeom
    )


# Row and column of the goal's cell, from the northwest of D4RL's drawings.
GOALS = {
    "antmaze-umaze": (3, 1),
    "antmaze-medium": (6, 6),
    "antmaze-large": (7, 9),
}


@every_maze
def test_starts_and_goals_are_spread_as_d4rls(name):
    """By counting 4000 resets, each bound five standard errors or more."""
    num = 4000
    keys = jax.random.split(jax.random.key(0), num)
    reset = jax.vmap(make(name).reset, (0, None))
    walk = jax.device_get(reset(keys, jnp.int32(0)).physics)
    row, column = GOALS[name]
    shift = walk.goal - np.array([CELL * (column - 1), CELL * (row - 1)])
    # U(0, 1) + U(0, 1/2): a trapezoid, a half of it between 1/2 and 1
    assert shift.min() >= 0.0 and shift.max() <= 1.5
    np.testing.assert_allclose(shift.mean(axis=0), 0.75, atol=0.06)
    np.testing.assert_allclose(shift.std(axis=0), np.sqrt(1.25 / 12), rtol=0.08)
    shares = [(shift < 0.5).mean(axis=0), (shift > 1.0).mean(axis=0)]
    np.testing.assert_allclose(shares, 0.25, atol=0.08)
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.15
    noise = walk.physics.qpos - load(name).qpos0
    assert np.abs(noise).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(noise.std(axis=0), 0.1 / np.sqrt(3), rtol=0.12)
    np.testing.assert_allclose(walk.physics.qvel.std(axis=0), 0.1, rtol=0.12)
    assert np.abs(walk.physics.qvel).max() > 0.3  # normal, not uniform


def stepped(name, away, age=0):
    """A step from rest in which the goal is about `away` metres to the east."""
    env, model = make(name), load(name)
    state = env.reset(jax.random.key(0), jnp.int32(0))
    rest = state.physics.physics._replace(
        qpos=jnp.float32(model.qpos0).at[2].set(0.6), qvel=jnp.zeros(model.nv)
    )
    walk = Walk(rest, jnp.array([away, 0.0]))
    state = EnvState(walk, antmaze.observe(walk), jnp.int32(age), state.task)
    step = jax.jit(env.step)
    after, made = step(state, jnp.zeros(8), jax.random.key(1))
    np.testing.assert_allclose(made.next_obs[:2], 0.0, atol=0.01)
    return env, *jax.device_get((after, made))


@every_maze
def test_half_a_metre_from_the_goal_an_episode_ends_with_reward_1(name):
    env, after, made = stepped(name, 0.48)
    assert (made.reward, made.discount, made.last) == (1.0, 0.0, True)
    assert env.success(after, made)
    assert after.age == 0  # the next episode has begun
    assert np.abs(after.physics.goal - MAZES[name].cells("G")).max() <= 1.5


@every_maze
def test_elsewhere_it_goes_on_without_reward_until_time_is_up(name):
    horizon = {"antmaze-umaze": 700}.get(name, 1000)
    for age, last in ((0, False), (horizon - 2, False), (horizon - 1, True)):
        env, after, made = stepped(name, 0.52, age)
        assert (made.reward, made.discount, made.last) == (0.0, 1.0, last)
        assert not env.success(after, made)


def test_the_goal_is_not_seen():
    _, _, near = stepped("antmaze-umaze", 2.0)
    _, _, far = stepped("antmaze-umaze", 20.0)
    np.testing.assert_array_equal(near.next_obs, far.next_obs)


def test_a_score_is_success_in_percent():
    """Of episodes of which one in four reaches the goal."""
    for name in MAZES:
        np.testing.assert_array_equal(data.score(name, [0, 0, 0, 1]), [0, 0, 0, 100])


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
@pytest.mark.parametrize("kind", ["", "play", "diverse"])
def test_names_of_d4rl_lead_to_the_maze(maze, kind):
    task = f"antmaze-{maze}-{kind}".strip("-")
    assert envs.split(task) == (f"antmaze-{maze}", kind)


@pytest.mark.slow
@every_maze
def test_mjx_moves_the_ant_as_the_c_library_does(name):
    """Though it looks at the nearest walls only, and those are swollen.

    With round friction cones, whose direction MJX chooses otherwise. A swollen wall
    rubs a leg a centimetre further out, and its edges are less round. Single precision
    takes some touch-downs for a moment earlier or later.
    """
    rows, actions = states_and_actions(name)
    before = jax.tree.map(np.float32, split_rows(load(name), rows))
    given = before, np.float32(actions), np.zeros(NUM_STATES, np.int32)

    def moved(make_physics, swollen=False):
        model = antmaze.load_model(MAZES[name], swollen)
        model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        advance = make_physics([model], FRAME_SKIP, ())
        return jax.device_get(jax.jit(jax.vmap(advance))(*given))

    ours, expected = moved(mjx_physics.mjx_physics, True), moved(c_physics)
    free, near = (
        [jax.tree.map(lambda leaf, at=at: leaf[at], x) for x in (ours, expected)]
        for at in (~touching(name), touching(name))
    )
    assert_agree(*free, worst=2e-3)
    for field, most, limit in (("qpos", 3e-3, 1e-2), ("qvel", 0.15, 1.0)):
        error = np.abs(getattr(near[0], field) - getattr(near[1], field)).max(axis=1)
        assert np.quantile(error, 0.9) < most, field
        assert error.max() < limit, field


def program(physics, native="auto"):
    env = envs.make("antmaze-umaze", physics, native=native)
    state = jax.eval_shape(env.reset, jax.random.key(0), jnp.int32(0))
    action = jax.ShapeDtypeStruct((8,), jnp.float32)
    return jax.jit(env.step).lower(state, action, jax.random.key(0)).as_text()


def test_nothing_of_the_host_is_in_a_step_on_mjx():
    assert "callback" in program("mujoco", "never")  # how it would look
    on_mjx = program("mjx")
    assert "callback" not in on_mjx and "o2ojax_" not in on_mjx
