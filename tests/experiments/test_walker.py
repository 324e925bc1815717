"""The walker of AntMaze's data: what it sees, and where it is sent."""

from collections import deque

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from experiments import antmaze, collect
from o2ojax import data, envs
from o2ojax.envs.antmaze import CELL, MAZES
from o2ojax.run import job, resolve


def turned(qpos, qvel, angle):
    """The same ant in a world that is turned about the vertical."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    qpos, qvel = qpos.copy(), qvel.copy()
    half = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
    mujoco.mju_mulQuat(qpos[3:7], half, qpos[3:7].copy())
    qpos[:2], qvel[:2] = turn @ qpos[:2], turn @ qvel[:2]
    return qpos, qvel, turn


@pytest.mark.parametrize("seed", range(6))
def test_the_walker_sees_the_same_whichever_way_it_is_sent(seed):
    draw = np.random.default_rng(seed)
    qpos, qvel = draw.normal(size=15), draw.normal(size=14)
    qpos[3:7] /= np.linalg.norm(qpos[3:7])
    angle = draw.uniform(-np.pi, np.pi)
    way = np.array([np.cos(angle), np.sin(angle)])
    seen = antmaze.facing(jnp.asarray(qpos), jnp.asarray(qvel), jnp.asarray(way))
    assert seen.shape == (antmaze.SIZE,)
    other_qpos, other_qvel, turn = turned(qpos, qvel, draw.uniform(-np.pi, np.pi))
    again = antmaze.facing(
        jnp.asarray(other_qpos), jnp.asarray(other_qvel), jnp.asarray(turn @ way)
    )
    np.testing.assert_allclose(seen, again, atol=2e-6)
    # speed ahead, and to the left
    np.testing.assert_allclose(seen[13], qvel[:2] @ way, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        seen[14], qvel[:2] @ [-way[1], way[0]], rtol=1e-4, atol=1e-6
    )


def test_an_ant_on_its_back_is_told():
    level = jnp.zeros(15).at[3].set(1.0)
    assert antmaze.upright(level) == 1.0
    assert antmaze.upright(level.at[3].set(0.0).at[4].set(1.0)) == -1.0


@pytest.fixture(scope="module")
def ground():
    config = resolve.resolve(resolve.load("experiments/configs/walker.py"))
    env = job.make_env(config)
    return env, jax.jit(env.reset), jax.jit(env.step)


def test_the_walker_learns_to_go_where_it_is_told(ground):
    """Speed along the way, m/s, and 1; the way turns every STEPS decisions."""
    env, reset, step = ground
    state = reset(jax.random.key(3), jnp.int32(0))
    ways = state.physics.ways
    for at in range(antmaze.STEPS + 2):
        before = state.physics.physics.qpos[:2]
        action = jnp.sin(jnp.arange(8) + at)
        state, made = step(state, action, jax.random.key(at))
        assert not made.last
        moved = (state.physics.physics.qpos[:2] - before) / 0.1
        earned = 1 + moved @ ways[at // antmaze.STEPS]
        np.testing.assert_allclose(made.reward, earned, atol=1e-3)
        now = state.physics
        way = ways[(at + 1) // antmaze.STEPS]
        seen = antmaze.facing(now.physics.qpos, now.physics.qvel, way)
        np.testing.assert_allclose(made.next_obs, seen, atol=1e-5)
    assert np.abs(ways[0] - ways[1]).max() > 0.1


def test_an_ant_that_lies_on_its_back_begins_anew(ground):
    env, reset, step = ground
    state = reset(jax.random.key(3), jnp.int32(0))
    physics = state.physics.physics
    qpos = physics.qpos.at[2:7].set(jnp.array([0.3, 0.0, 1.0, 0.0, 0.0]))
    over = state.physics._replace(physics=physics._replace(qpos=qpos))
    after, made = step(state._replace(physics=over), jnp.zeros(8), jax.random.key(0))
    assert made.last and made.discount == 0 and after.age == 0


def steps_between(maze, start, end):
    """Cells on the shortest path, found by breadth first."""
    free = {tuple(cell) for cell in antmaze.PLACES["diverse"](maze)}
    queue, seen = deque([(tuple(start), 0)]), {tuple(start)}
    while queue:
        (x, y), far = queue.popleft()
        if (x, y) == tuple(end):
            return far
        for step in ((CELL, 0), (-CELL, 0), (0, CELL), (0, -CELL)):
            beside = (x + step[0], y + step[1])
            if beside in free - seen:
                seen.add(beside)
                queue.append((beside, far + 1))
    raise AssertionError("no path")


@pytest.mark.parametrize("name", MAZES)
def test_paths_are_the_shortest(name):
    maze = MAZES[name]
    cells, onward = antmaze.next_cells(maze)
    for start in range(len(cells)):
        for end in range(len(cells)):
            at, far = start, 0
            while at != end:
                assert np.abs(cells[onward[at, end]] - cells[at]).sum() == CELL
                at, far = onward[at, end], far + 1
            assert far == steps_between(maze, cells[start], cells[end])


def test_places_are_free_cells():
    for maze in MAZES.values():
        free = {tuple(cell) for cell in antmaze.PLACES["diverse"](maze)}
        for kind, places in antmaze.PLACES.items():
            assert {tuple(cell) for cell in places(maze)} <= free, kind
    [goal] = antmaze.PLACES["fixed"](MAZES["antmaze-umaze"])
    np.testing.assert_array_equal(goal, [0, 8])


def test_the_walker_that_ships_reaches_the_goal():
    """As the shipped data say: more than half of the episodes, in 350 steps each."""
    env = envs.make("antmaze-umaze", "mujoco")
    policy = antmaze.steered("antmaze-umaze", "fixed")

    class Bar:
        def advance(self, *given):
            pass

    rows = collect.gather(env, policy, (), jax.random.key(0), 7_000, Bar())
    reached = (rows.discount == 0).sum()
    assert reached > 20
    np.testing.assert_array_equal(rows.reward, rows.discount == 0)


def test_kinds_of_a_maze(tmp_path, capsys):
    path = tmp_path / "out"
    command = ["--config=experiments/configs/sac.py:antmaze-umaze", f"--out={path}"]
    assert collect.main([*command, "--kinds=medium", "--rows=10"]) == 2
    assert "kind of dataset of antmaze-umaze" in capsys.readouterr().err
    assert collect.main([*command, "--kinds=diverse", "--rows=400"]) == 0
    made = data.read(str(path / "antmaze-umaze-diverse.npz")).transitions
    starts = made.obs[np.append(0, np.flatnonzero(made.last)[:-1] + 1), :2]
    assert np.ptp(starts, axis=0).min() > CELL  # from anywhere
    assert made.obs.shape[1] == 29


def test_other_arguments_of_a_maze_are_refused():
    with pytest.raises(Exception, match="takes anywhere=True"):
        envs.make("antmaze-umaze", "mujoco", args={"start": 3})
