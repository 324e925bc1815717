"""D4RL's files of ants in mazes, with their faults, and data of another ant."""

import functools
import warnings

import gymnasium
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.data import DataError, DataWarning, fit, hold_ant, read
from o2ojax.data.antmaze import OTHER_ANT, decision_time, recognised
from o2ojax.envs import antmaze
from o2ojax.envs.physics import host_step

NUM_ROWS = 60
SPEC = envs.make("antmaze-umaze", "mujoco").spec


def walk(num_rows=NUM_ROWS, seconds=0.1):
    """An ant that goes in circles, its decisions `seconds` apart: [num_rows, 29]."""
    time = seconds * np.arange(num_rows)
    obs = np.zeros((num_rows, 29), np.float32)
    obs[:, 0], obs[:, 1] = 2 * np.sin(time), 2 - 2 * np.cos(time)
    obs[:, 2], obs[:, 3] = 0.5, 1.0  # upright
    obs[:, 15], obs[:, 16] = 2 * np.cos(time), 2 * np.sin(time)
    return obs


def marks(*rows):
    return np.isin(np.arange(NUM_ROWS), rows)


def columns(**changes):
    """One episode as D4RL's files have it, cut after its last row."""
    plain = {
        "observations": walk(),
        "actions": np.tile(np.linspace(-0.5, 0.5, NUM_ROWS)[:, None], 8),
        "rewards": np.zeros(NUM_ROWS, np.float32),
        "terminals": marks(),
        "timeouts": marks(NUM_ROWS - 1),
    }
    changed = plain | changes
    return {key: x for key, x in changed.items() if x is not None}


def written(tmp_path, name="antmaze-umaze-v2", **changes):
    path = tmp_path / f"{name}.hdf5"
    with h5py.File(path, "w") as file:
        for key, values in columns(**changes).items():
            file[key] = values
        file["infos/goal"] = np.zeros((NUM_ROWS, 2))
        file["infos/qpos"] = np.zeros((NUM_ROWS, 15))
    return path


def read_quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(path).transitions


def test_a_file_without_faults_is_read_as_it_is(tmp_path):
    """Also one whose ant stays at the goal: each row is an end, with its reward."""
    at_goal = marks(30, 31, 32)
    path = written(tmp_path, rewards=np.float32(at_goal), terminals=at_goal)
    rows = read_quietly(path)
    assert len(rows.reward) == NUM_ROWS - 1  # the last has no next observation
    np.testing.assert_array_equal(np.flatnonzero(rows.reward), [30, 31, 32])
    np.testing.assert_array_equal(np.flatnonzero(rows.discount == 0), [30, 31, 32])
    np.testing.assert_array_equal(np.flatnonzero(rows.last), [30, 31, 32, 58])
    np.testing.assert_array_equal(rows.next_obs[0], walk()[1])


def test_time_limits_that_are_marked_as_terminals_are_told_and_read_as_timeouts(
    tmp_path,
):
    """As D4RL's generator writes them."""
    path = written(tmp_path, terminals=marks(20, 59), timeouts=None)
    with pytest.warns(DataWarning, match="2 rows end .* without the reward.*in row 20"):
        rows = read(path).transitions
    assert (rows.discount == 1).all()
    np.testing.assert_array_equal(np.flatnonzero(rows.last), [19, 57])  # of 58 rows
    np.testing.assert_array_equal(rows.obs[20], walk()[21])


def test_rewards_after_which_the_episode_goes_on_are_told_and_end_it(tmp_path):
    at_goal = marks(30, 31)
    path = written(tmp_path, rewards=np.float32(at_goal), terminals=marks(31))
    with pytest.warns(DataWarning, match=r"1 rows have the goal's reward.*in row 30"):
        rows = read(path).transitions
    np.testing.assert_array_equal(np.flatnonzero(rows.discount == 0), [30, 31])
    np.testing.assert_array_equal(np.flatnonzero(rows.last), [30, 31, 58])


def test_an_ant_that_leaps_is_told_and_cut(tmp_path):
    """Timeouts beside the end of an episode, as in D4RL's version 0."""
    obs = walk()
    obs[41:, :2] += 8.0  # as if put down elsewhere, after row 40
    path = written(tmp_path, observations=obs, timeouts=marks(38, 59))
    with pytest.warns(DataWarning, match="1 rows are more than 1 m .*in row 40"):
        rows = read(path).transitions
    ends = [37, 38, 56]  # of 57 rows, without rows 38, 40 and 59
    np.testing.assert_array_equal(np.flatnonzero(rows.last), ends)
    assert np.abs(rows.next_obs - rows.obs)[:, :2].max() < 0.5


def test_a_file_without_timeouts_is_cut_where_the_ant_leaps(tmp_path):
    obs = walk()
    obs[41:, :2] += 8.0
    path = written(tmp_path, observations=obs, timeouts=None)
    with pytest.warns(DataWarning, match="1 rows are more than 1 m"):
        rows = read(path).transitions
    np.testing.assert_array_equal(np.flatnonzero(rows.last), [39, 57])


@pytest.mark.parametrize(
    "changes",
    [
        {"observations": walk()[:, :28]},  # another robot
        {"observations": walk(seconds=0.05)},  # another ant
        {"observations": np.roll(walk(), 1, axis=1)},  # another order
        {"rewards": -np.ones(NUM_ROWS)},  # another reward
    ],
)
def test_other_logs_are_left_alone(tmp_path, changes):
    path = written(tmp_path, terminals=marks(20), **changes)
    rows = read_quietly(path)
    np.testing.assert_array_equal(np.flatnonzero(rows.discount == 0), [20])


def played(num_steps=200):
    """Random play in the environment: transitions [num_steps]."""
    env = envs.make("antmaze-umaze", "mujoco")

    def step(state, key):
        return env.step(state, jax.random.uniform(key, (8,), minval=-1.0), key)

    state = env.reset(jax.random.key(0), jnp.int32(0))
    keys = jax.random.split(jax.random.key(1), num_steps)
    return jax.device_get(jax.jit(lambda: jax.lax.scan(step, state, keys))()[1])


def test_the_pace_of_an_ant_is_told_by_its_displacements():
    rows = played()
    assert recognised(rows.obs, rows.action)
    assert decision_time(rows.obs, rows.next_obs) == pytest.approx(0.1, rel=0.1)
    for seconds in (0.05, 0.1):
        obs = walk(seconds=seconds)
        found = decision_time(obs[:-1], obs[1:])
        assert found == pytest.approx(seconds, rel=0.02)
    still = np.tile(walk()[:1], (50, 1)) * ([1.0] * 15 + [0.0] * 14)
    assert np.isnan(decision_time(still, still))


def dataset(tmp_path, obs):
    return read(written(tmp_path, "ant", observations=obs))


def test_data_of_the_same_ant_are_held(tmp_path):
    held = dataset(tmp_path, walk())
    hold_ant(held, SPEC)
    fit(held, SPEC)


@pytest.mark.parametrize(
    "obs, message",
    [
        (walk(seconds=0.05), "has steps of 0.05 s.*of 0.1 s: it looks like"),
        (np.tile(walk(), 2)[:, :31], "size 31, but antmaze-umaze of 29: it looks like"),
        (walk()[:, 2:], "size 27, but antmaze-umaze of 29: it looks like"),
        (np.roll(walk(), -2, axis=1), "numbers 3 to 6 are no quaternion"),
    ],
)
def test_data_of_another_ant_are_refused_in_a_sentence(tmp_path, obs, message):
    with pytest.raises(DataError, match=message):
        hold_ant(dataset(tmp_path, obs), SPEC)


@functools.cache
def their_maze():
    robotics = pytest.importorskip("gymnasium_robotics")
    gymnasium.register_envs(robotics)
    with warnings.catch_warnings():  # `-v4` is deprecated
        warnings.simplefilter("ignore")
        return gymnasium.make("AntMaze_UMaze-v4").unwrapped


def test_how_far_apart_the_ants_steps_are_is_what_the_sentence_says():
    """Medians over 200 states of random play where neither ant meets a wall."""
    ours, num = antmaze.load_model(antmaze.MAZES["antmaze-umaze"]), 200
    ant = their_maze().ant_env
    generator, nobody = np.random.default_rng(0), np.zeros(0, np.int32)
    qpos = np.tile(ours.qpos0, (num, 1))
    qpos[:, 2] = 0.6
    qpos[:, 7:] += generator.uniform(-0.3, 0.3, (num, 8))
    speed = 0.5 * generator.standard_normal((num, ours.nv))
    rows = np.concatenate([qpos, speed, np.zeros_like(speed)], axis=1)

    def step(model, frame_skip, rows, action):
        variants = np.zeros(num, int)
        given = np.concatenate([rows, action], axis=1)
        return host_step([model], frame_skip, nobody)(given, variants)[0]

    *before, action = generator.uniform(-1.0, 1.0, (4, num, ours.nu))
    for earlier in before:
        rows = step(ours, antmaze.FRAME_SKIP, rows, earlier)
    shift = np.zeros(rows.shape[1])  # each begins in its maze's first free cell
    shift[:2] = their_maze().maze.cell_rowcol_to_xy(np.array([1, 1]))
    mine = step(ours, antmaze.FRAME_SKIP, rows, action)
    theirs = step(ant.model, ant.frame_skip, rows + shift, action) - shift

    def apart(a, b):
        return np.median(np.linalg.norm((a - b)[:, :2], axis=1))

    joints = np.median(np.abs(mine - theirs)[:, 21:29])
    told = f"ends {100 * apart(mine, theirs):.1f} cm off, where ours covers"
    told = f"{told} {100 * apart(mine, rows):.1f} cm, and with joint speeds"
    assert f"{told} {joints:.1f} rad/s off" in OTHER_ANT
    gear = abs(ant.model.actuator_gear[:, 0])
    assert gear.tolist() == [150] * 8
    assert ant.model.opt.timestep * ant.frame_skip == pytest.approx(0.05)


def test_minaris_data_are_refused_however_they_are_joined(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env, generator = their_maze(), np.random.default_rng(0)
    env.reset(seed=0)
    steps = [env.step(generator.uniform(-1.0, 1.0, 8).astype("f")) for _ in range(100)]
    seen = {key: np.stack([step[0][key] for step in steps]) for key in steps[0][0]}
    ends = np.arange(99) == 98
    buffer = minari.data_collector.EpisodeBuffer(
        observations=seen,
        actions=generator.uniform(-1.0, 1.0, (99, 8)).astype("f"),
        rewards=np.zeros(99),
        terminations=np.zeros(99, bool),
        truncations=ends,
        infos={},
    )
    with warnings.catch_warnings():  # it has no author
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "D4RL/antmaze/umaze-v1",
            [buffer],
            observation_space=env.observation_space,
            action_space=env.action_space,
        )
    source = "minari:D4RL/antmaze/umaze-v1"
    for keys, message in (
        ("", "size 31"),
        (":observation", "size 27"),
        (":achieved_goal,observation", "steps of 0.05"),
        (":observation,achieved_goal", "no quaternion"),
    ):
        with pytest.raises(DataError, match=message):
            hold_ant(read(f"{source}{keys}"), SPEC)


def test_other_environments_take_what_they_will(tmp_path):
    other = envs.make("ant", "mujoco").spec
    hold_ant(dataset(tmp_path, walk(seconds=0.05)), other)
    pace = SPEC._replace(name="gymnasium:AntMaze_UMaze-v4")
    hold_ant(dataset(tmp_path, walk(seconds=0.05)), pace)
