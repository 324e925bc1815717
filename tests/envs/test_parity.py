"""Our tasks against Gymnasium's, from Gymnasium's own states."""

import functools
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs import locomotion
from o2ojax.envs.physics import PhysicsState, c_physics, host_step
from o2ojax.types import EnvState

THEIRS = {
    "halfcheetah": "HalfCheetah-v4",
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
    "ant": "Ant-v4",
}
NUM_STATES = 200

every_task = pytest.mark.parametrize("name", envs.ENVS)


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
    rows, places = host_step(model, frame_skip, tracked)(given)
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
def test_one_step_leads_where_gymnasiums_does(name):
    _, _, theirs, *_ = their_steps(name)
    ours = our_steps(name)
    for field in PhysicsState._fields:
        np.testing.assert_allclose(
            getattr(ours, field), getattr(theirs, field), atol=1e-9, err_msg=field
        )


@every_task
def test_reward_end_and_observation_are_gymnasiums(name):
    before, action, _, obs, reward, ended = their_steps(name)
    after = our_steps(name)
    task = locomotion.TASKS[name]
    theirs = make_theirs(name)

    def judge(before, action, after):
        return locomotion.judge(task, theirs.dt, before, action, after)

    with jax.enable_x64(True):
        our_reward, our_ended = jax.vmap(judge)(before, action, after)
        our_obs = jax.vmap(task.observe)(after)
    np.testing.assert_allclose(our_reward, reward, atol=1e-9)
    np.testing.assert_allclose(our_obs, obs, atol=1e-9)
    np.testing.assert_array_equal(our_ended, ended)


@pytest.mark.parametrize("name", ["hopper", "walker2d"])
def test_the_random_episodes_have_ends_to_agree_on(name):
    *_, ended = their_steps(name)
    assert 0 < ended.sum() < NUM_STATES


@every_task
def test_ends_are_gymnasiums_just_inside_and_just_outside_every_bound(name):
    """Height, angle and speed, moved one at a time away from the rest state."""
    theirs, task = make_theirs(name), locomotion.TASKS[name]
    theirs.reset(seed=0)
    rest = read_state(name, theirs)
    moves = [
        ("qpos", at, value)
        for at in (1, 2)
        for bound in (-1.0, -0.2, 0.2, 0.7, 0.8, 1.0, 2.0, 100.0)
        for value in (bound - 1e-3, bound + 1e-3)
    ]
    moves += [("qvel", 0, value) for value in (-100.1, -99.9, 99.9, 100.1)]
    for field, at, value in moves:
        moved = getattr(rest, field).copy()
        moved[at] = value
        state = rest._replace(**{field: moved})
        theirs.data.qpos[:], theirs.data.qvel[:] = state.qpos, state.qvel
        expected = getattr(theirs, "terminated", False)  # halfcheetah never ends
        ours = ~task.alive(jax.tree.map(jnp.asarray, state))
        assert bool(ours) == bool(expected), (field, at, value)


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
    placed = c_physics(model, task.frame_skip, task.bodies).place(qpos, qvel)
    expected = read_state(name, theirs)
    for ours, their in zip(placed, expected, strict=True):
        np.testing.assert_allclose(ours, their, atol=1e-9)


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


@every_task
def test_a_wild_action_does_not_poison_the_simulation(name):
    """MuJoCo would warn of these, and keep a log file in the working directory."""
    env, heard = make_ours(name), []
    quiet = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(heard.append)
    start = env.reset(jax.random.key(4), jnp.int32(0))
    wild = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)
    actions = jnp.repeat(wild[:, None], env.spec.action_dim, axis=1)
    step = jax.jit(jax.vmap(env.step, (None, 0, None)))
    states, transitions = step(start, actions, jax.random.key(0))
    mujoco.set_mju_user_warning(quiet)
    assert heard == []
    for leaf in jax.tree.leaves((states, transitions.next_obs)):
        assert jnp.isfinite(leaf).all()


@every_task
def test_a_row_in_company_is_the_row_alone_bit_for_bit(name):
    """Which thread, after which other rows, leaves no trace."""
    task = locomotion.TASKS[name]
    model = locomotion.load_model(task.file)
    before, action, *_ = their_steps(name)
    given = np.concatenate([*before[:4], action], axis=-1)[::5]
    step = host_step(model, task.frame_skip, tracked_bodies(name, model))
    together = step(given)
    for at in reversed(range(len(given))):
        alone = step(given[at : at + 1])
        np.testing.assert_array_equal(alone[0][0], together[0][at])
        np.testing.assert_array_equal(alone[1][0], together[1][at])


def test_members_and_environments_arrive_in_their_places():
    task = locomotion.TASKS["ant"]
    model = locomotion.load_model(task.file)
    physics = c_physics(model, task.frame_skip, task.bodies)
    before, action, *_ = their_steps("ant")
    rows = jax.tree.map(lambda x: np.float32(x[:6]), (before, action))
    grid = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), rows)
    after = jax.vmap(jax.vmap(physics.advance))(*grid)
    alone = stack(
        [
            physics.advance(*jax.tree.map(lambda x, at=at: x[at], rows))
            for at in range(6)
        ]
    )
    for ours, expected in zip(after, alone, strict=True):
        np.testing.assert_array_equal(ours.reshape(expected.shape), expected)
