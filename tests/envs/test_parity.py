"""Our tasks against Gymnasium's, from Gymnasium's own states and from recordings."""

import functools
import warnings
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs import locomotion
from o2ojax.envs.physics import PhysicsState, c_physics, host_step, place
from o2ojax.types import EnvState

THEIRS = {
    "halfcheetah": "HalfCheetah-v4",
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
    "ant": "Ant-v4",
}
NUM_STATES = 200
RECORDINGS = Path(__file__).parents[2].parent / "shared" / "data" / "mujoco_expert"

every_task = pytest.mark.parametrize("name", locomotion.TASKS)


@functools.cache
def make_theirs(name):
    with warnings.catch_warnings():  # `-v4` is deprecated, and what D4RL used
        warnings.simplefilter("ignore")
        return gymnasium.make(THEIRS[name]).unwrapped


make_ours = functools.cache(envs.make)


def tracked_bodies(name, model):
    return [model.body(body).id for body in locomotion.TASKS[name].bodies]


def read_state(name, theirs):
    data = theirs.data
    leaves = (data.qpos, data.qvel, data.act, data.qacc_warmstart)
    bodies = data.xpos[tracked_bodies(name, theirs.model)]
    return PhysicsState(*(leaf.copy() for leaf in leaves), bodies)


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


@functools.cache
def their_steps(name):
    """States, actions, and what Gymnasium made of them; leaves [NUM_STATES, ...]."""
    theirs = make_theirs(name)
    generator = np.random.default_rng(0)
    theirs.reset(seed=0)
    steps = []
    for _ in range(NUM_STATES):
        before = read_state(name, theirs)
        action = generator.uniform(-1.0, 1.0, theirs.model.nu)
        obs, reward, ended, _, _ = theirs.step(action)
        after = read_state(name, theirs)
        steps.append((before, action, after, obs, np.float64(reward), np.bool(ended)))
        if ended:
            theirs.reset()
    return stack(steps)


def advance_rows(model, frame_skip, tracked, before, action):
    """One decision for a batch, in double precision."""
    given = np.concatenate(
        [before.qpos, before.qvel, before.act, before.warm, action], axis=-1
    )
    step = host_step([model], frame_skip, tracked)
    rows, places = step(given, np.zeros(len(given), int))
    sizes = (model.nq, model.nv, model.na)
    return PhysicsState(*np.split(rows, np.cumsum(sizes), axis=-1), places)


def our_steps(name):
    """What we make of the same states and actions."""
    task = locomotion.TASKS[name]
    model = locomotion.load_model(task.file)
    before, action, *_ = their_steps(name)
    tracked = tracked_bodies(name, model)
    return advance_rows(model, task.frame_skip, tracked, before, action)


@every_task
def test_the_model_is_gymnasiums(name):
    ours = locomotion.load_model(locomotion.TASKS[name].file)
    theirs = make_theirs(name).model
    arrays = [
        field
        for field in dir(theirs)
        if not field.startswith("_") and isinstance(getattr(theirs, field), np.ndarray)
    ]
    assert "body_mass" in arrays
    for field in arrays:
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


@every_task
def test_one_step_leads_where_gymnasiums_does_bit_for_bit(name):
    """Also in the warm start and the lagging bodies, which the next step needs."""
    _, _, theirs, *_ = their_steps(name)
    ours = our_steps(name)
    for field in PhysicsState._fields:
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


@every_task
def test_reward_end_and_observation_are_gymnasiums(name):
    before, action, _, obs, reward, ended = their_steps(name)
    after = our_steps(name)
    task = locomotion.TASKS[name]
    theirs = make_theirs(name)

    def judge(before, action, after):
        return locomotion.reward_and_done(task, theirs.dt, before, action, after)

    with jax.enable_x64(True):
        our_reward, our_ended = jax.vmap(judge)(before, action, after)
        our_obs = jax.vmap(task.observe)(after)
    np.testing.assert_allclose(our_reward, reward, rtol=0, atol=1e-9)
    np.testing.assert_allclose(our_obs, obs, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(our_ended, ended)


@pytest.mark.parametrize("name", ["hopper", "walker2d", "ant"])
def test_the_random_episodes_have_ends_to_agree_on(name):
    *_, ended = their_steps(name)
    assert 0 < ended.sum() < NUM_STATES


def moved_from(rest):
    """States with one number at, just below or just above what may be a bound."""
    bounds = (-100.0, -1.0, -0.2, 0.2, 0.7, 0.8, 1.0, 2.0, 100.0)
    values = [bound + step for bound in bounds for step in (-1e-3, 0.0, 1e-3)]
    for field, at in [("qpos", 1), ("qpos", 2), ("qpos", 3), ("qvel", 0)]:
        for value in (*values, np.nan, np.inf):
            moved = getattr(rest, field).copy()
            moved[at] = value
            yield rest._replace(**{field: moved})


@every_task
def test_ends_and_sights_are_gymnasiums_on_both_sides_of_every_bound(name):
    theirs, task = make_theirs(name), locomotion.TASKS[name]
    theirs.reset(seed=0)
    states = list(moved_from(read_state(name, theirs)))
    ends, sights = [], []
    for state in states:
        theirs.data.qpos[:], theirs.data.qvel[:] = state.qpos, state.qvel
        ends.append(getattr(theirs, "terminated", False))  # halfcheetah has none
        sights.append(theirs._get_obs())
    with jax.enable_x64(True):
        alive = jax.vmap(task.alive)(stack(states))
        obs = jax.vmap(task.observe)(stack(states))
    np.testing.assert_array_equal(~alive, ends)
    np.testing.assert_array_equal(obs, sights)


@every_task
def test_the_compiled_step_is_gymnasiums_in_single_precision(name):
    theirs, env = make_theirs(name), make_ours(name)
    theirs.reset(seed=1)
    physics = jax.tree.map(np.float32, read_state(name, theirs))
    obs = locomotion.TASKS[name].observe(jax.tree.map(jnp.asarray, physics))
    state = EnvState(physics, obs, jnp.int32(0), jnp.int32(0))
    step = jax.jit(env.step)
    generator = np.random.default_rng(1)
    for _ in range(3):
        action = generator.uniform(-1.0, 1.0, theirs.model.nu).astype(np.float32)
        obs, reward, ended, _, _ = theirs.step(action.astype(np.float64))
        state, transition = step(state, action, jax.random.key(0))
        np.testing.assert_allclose(transition.next_obs, obs, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(transition.reward, reward, rtol=1e-4, atol=1e-4)
        assert transition.discount == 1.0 - ended


@every_task
def test_an_episode_begins_as_gymnasiums_does(name):
    """Placing a model fills in the warm start and the positions of the bodies."""
    theirs, task = make_theirs(name), locomotion.TASKS[name]
    theirs.reset(seed=2)
    qpos = theirs.init_qpos + task.noise * np.linspace(-1.0, 1.0, theirs.model.nq)
    qvel = task.noise * np.linspace(1.0, -1.0, theirs.model.nv)
    theirs.set_state(qpos, qvel)
    model = locomotion.load_model(task.file)
    # the second time from a workspace that has been used
    placed = place(model, [model.qpos0, qpos], [10 * qvel, qvel], task.bodies)
    expected = read_state(name, theirs)
    for ours, their in zip(placed, expected, strict=True):
        np.testing.assert_array_equal(ours[1], np.float32(their))


@every_task
def test_first_observations_are_spread_as_gymnasiums(name):
    """500 of each; the bounds are five standard errors or more."""
    num = 500
    theirs, env = make_theirs(name), make_ours(name)
    theirs.reset(seed=3)
    expected = np.stack([theirs.reset()[0] for _ in range(num)])
    keys = jax.random.split(jax.random.key(3), num)
    reset = jax.vmap(env.reset, (0, None))
    obs = reset(keys, jnp.int32(0)).obs
    spread = expected.std(axis=0)
    error = np.abs(np.mean(obs, axis=0) - expected.mean(axis=0))
    assert (error < 5 * spread * np.sqrt(2 / num)).all()
    np.testing.assert_allclose(np.std(obs, axis=0), spread, rtol=0.25)


@pytest.fixture
def heard():
    """MuJoCo's warnings, which otherwise make it keep a log file."""
    messages, quiet = [], mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(messages.append)
    yield messages
    mujoco.set_mju_user_warning(quiet)


@every_task
def test_a_wild_action_is_clipped_or_left_out_and_nothing_is_logged(name, heard):
    env = make_ours(name)
    start = env.reset(jax.random.key(4), jnp.int32(0))
    step = jax.jit(jax.vmap(env.step, (None, 0, None)))

    def physics_after(numbers):
        actions = jnp.repeat(jnp.array(numbers)[:, None], env.spec.action_dim, axis=1)
        return step(start, actions, jax.random.key(0))[0].physics

    wild = physics_after([np.nan, np.inf, -np.inf, 1e30, -1e30])
    tame = physics_after([0.0, 0.0, 0.0, 1.0, -1.0])
    for ours, expected in zip(wild, tame, strict=True):
        assert jnp.isfinite(ours).all()
        np.testing.assert_array_equal(ours, expected)
    assert heard == []


def test_loading_a_model_says_nothing(heard, capfd):
    for task in locomotion.TASKS.values():
        locomotion.load_model(task.file)
    assert heard == []
    assert capfd.readouterr() == ("", "")


@every_task
def test_a_row_in_company_is_the_row_alone_bit_for_bit(name):
    """Which thread, after which other rows, leaves no trace."""
    task = locomotion.TASKS[name]
    model = locomotion.load_model(task.file)
    before, action, *_ = their_steps(name)
    given = np.concatenate([*before[:4], action], axis=-1)[::5]
    step = host_step([model], task.frame_skip, tracked_bodies(name, model))
    variants = np.zeros(len(given), int)
    together = step(given, variants)
    for at in reversed(range(len(given))):
        alone = step(given[at : at + 1], variants[:1])
        np.testing.assert_array_equal(alone[0][0], together[0][at])
        np.testing.assert_array_equal(alone[1][0], together[1][at])


def test_members_and_environments_arrive_in_their_places():
    task = locomotion.TASKS["ant"]
    model = locomotion.load_model(task.file)
    advance = c_physics([model], task.frame_skip, task.bodies)
    before, action, *_ = their_steps("ant")
    rows = jax.tree.map(lambda x: np.float32(x[:6]), (before, action))
    rows = (*rows, np.zeros(6, np.int32))
    grid = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), rows)
    after = jax.vmap(jax.vmap(advance))(*grid)
    alone = stack(
        [advance(*jax.tree.map(lambda x, at=at: x[at], rows)) for at in range(6)]
    )
    for ours, expected in zip(after, alone, strict=True):
        np.testing.assert_array_equal(ours.reshape(expected.shape), expected)


def replay(name):
    """Recorded decisions, made again from the recorded observations.

    The recording lacks the root's x, on which nothing depends, and the warm start,
    which moves the result by less than 1e-9: both are set to 0.

    Returns:
        (the recording, observations [N, O] of ours, rewards [N] of ours).
    """
    path = RECORDINGS / f"{THEIRS[name]}.npz"
    if not path.exists():
        pytest.skip("the recordings are not here")
    with np.load(path, allow_pickle=False) as file:
        recording = dict(file)
    task = locomotion.TASKS[name]
    model = locomotion.load_model(task.file)
    obs = recording["observations"]
    num_rows = len(obs)
    qpos, qvel = np.split(obs, [model.nq - 1], axis=-1)
    before = PhysicsState(
        qpos=np.concatenate([np.zeros((num_rows, 1)), qpos], axis=-1),
        qvel=qvel,
        act=np.zeros((num_rows, 0)),
        warm=np.zeros_like(qvel),
        bodies=np.zeros((num_rows, 0, 3)),
    )
    action = recording["actions"].astype(np.float64)  # beyond 1 here and there
    after = advance_rows(model, task.frame_skip, [], before, action)
    decision_time = model.opt.timestep * task.frame_skip

    def judge(before, action, after):
        return locomotion.reward_and_done(task, decision_time, before, action, after)[0]

    with jax.enable_x64(True):
        reward = jax.vmap(judge)(before, action, after)
        return recording, np.array(jax.vmap(task.observe)(after)), np.array(reward)


def test_halfcheetah_moves_as_recorded():
    recording, obs, reward = replay("halfcheetah")
    assert np.abs(recording["actions"]).max() > 1.0
    np.testing.assert_allclose(obs, recording["next_observations"], rtol=0, atol=1e-9)
    # The price of the action was added up in single precision.
    np.testing.assert_allclose(reward, recording["rewards"], rtol=0, atol=1e-6)


def test_hopper_flies_as_recorded():
    """Most rows. Those on the ground differ, in today's Gymnasium as much as here."""
    recording, obs, reward = replay("hopper")
    seen = [recording["observations"], recording["next_observations"]]
    speed = np.abs(np.stack(seen)[..., -6:]).max(axis=(0, 2))
    known = speed < 10.0  # what is observed of a velocity is clipped there
    assert known.mean() > 0.5
    error = np.abs(obs - recording["next_observations"]).max(axis=-1)
    assert np.median(error[known]) < 1e-9
    assert np.median(np.abs(reward - recording["rewards"])[known]) < 1e-6
