"""The tray and the drawer: what counts as done, and that there is no shorter way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs import containers, manipulation
from o2ojax.envs.containers import HANDLE, INSIDE, ROOF, TASKS, TRAY
from o2ojax.envs.manipulation import LIFT, NUM_STARTS, REST, see
from o2ojax.envs.mjx_physics import mjx_physics
from o2ojax.envs.physics import c_physics
from o2ojax.envs.scripted import SCRIPTED, grasp, raised
from tests.envs.test_manipulation import sight
from tests.envs.test_mjx import assert_agree

NUM_EPISODES = 20

tasks = pytest.mark.parametrize("name", TASKS)
make = functools.cache(lambda name: envs.make(name, "mujoco"))


def follow(name, policy):
    """A whole episode of each of NUM_EPISODES environments, [T, W]."""
    env = make(name)

    @jax.jit
    def followed(key):
        keys = jax.random.split(key, 1 + env.spec.horizon)
        none = jnp.zeros(NUM_EPISODES, jnp.int32)
        state = jax.vmap(env.reset)(jax.random.split(keys[0], NUM_EPISODES), none)

        def step(state, key):
            action = jax.vmap(policy)(state.obs)
            step_keys = jax.random.split(key, NUM_EPISODES)
            return jax.vmap(env.step)(state, action, step_keys)

        return jax.lax.scan(step, state, keys[1:])[1]

    return followed(jax.random.key(0))


solved = functools.cache(lambda name: follow(name, SCRIPTED[name]))


@tasks
def test_the_scripted_policy_does_its_task(name):
    success = make(name).success((), solved(name))
    assert success[-1].mean() >= 0.95


@tasks
def test_a_reward_is_success(name):
    played = solved(name)
    success = make(name).success((), played)
    np.testing.assert_array_equal(played.reward, np.float32(success))
    assert 0 < success.mean() < 1
    assert (played.discount == 1).all() and played.last[-1].all()


@pytest.mark.parametrize(
    "cube, expected",
    [
        ((TRAY[0], TRAY[1], REST), True),
        ((TRAY[0] + 0.06, TRAY[1] - 0.06, REST), True),
        ((TRAY[0] + 0.065, TRAY[1], REST), False),  # on the rim
        ((TRAY[0], TRAY[1] - 0.065, REST), False),
        ((TRAY[0], TRAY[1], REST + 0.01), False),  # still in the air
    ],
)
def test_what_is_put_away_lies_inside_the_tray(cube, expected):
    assert containers.put_away(sight(cube=cube)) == expected


def test_the_drawer_is_seen_in_the_place_of_a_goal():
    played = solved("drawer_sparse")
    assert played.obs.shape[-1] == 20
    seen = see(played.next_obs)
    assert seen.goal.shape[-1] == 0
    np.testing.assert_allclose(see(played.obs).drawer[0], 0.0, atol=1e-6)
    assert (seen.drawer[-1] > 0.12).all()
    np.testing.assert_array_equal(seen.drawer, played.next_obs[..., 18] / 10)


@tasks
def test_episodes_begin_undone_each_elsewhere(name):
    task = TASKS[name]
    model = manipulation.load_models(envs.Simulator(), task.scene)[0]
    starts = manipulation.start_states(task, model)
    seen = see(jax.vmap(manipulation.observe)(starts))
    assert not task.success(seen).any()
    assert len(np.unique(seen.cube, axis=0)) == NUM_STARTS
    off = np.abs(np.asarray(seen.cube)[:, :2] - np.float32(task.cube)).max(axis=0)
    np.testing.assert_allclose(off, task.spread, rtol=0.05)


def test_the_numbers_here_are_the_models():
    tray = manipulation.load_models(envs.Simulator(), "tray")[0]
    np.testing.assert_allclose(tray.body("tray").pos[:2], TRAY)
    rim = tray.geom_size[tray.geom_bodyid == tray.body("tray").id][1, 0]
    np.testing.assert_allclose(INSIDE, 0.075 - rim)
    drawer = manipulation.load_models(envs.Simulator(), "drawer")[0]
    roof, bar = drawer.geom("roof"), drawer.geom("handle")
    np.testing.assert_allclose(roof.pos[0] + roof.size[0], ROOF)
    np.testing.assert_allclose(drawer.body("drawer").pos[0] + bar.pos[0], HANDLE)


def test_the_roof_keeps_the_cube_in_a_closed_drawer():
    """The same hand that lifts it out of an open one."""

    def impatient(obs):
        seen = see(obs)
        return grasp(seen, raised(seen))

    seen = see(follow("drawer_sparse", impatient).next_obs)
    assert seen.cube[..., 2].max() < REST + LIFT / 3
    assert (seen.drawer < 0.05).all()


def test_the_rim_keeps_out_a_cube_that_is_pushed():
    goal = jnp.array([*TRAY, REST]) * manipulation.PER_METRE

    def push(obs):
        return jnp.append(SCRIPTED["push"](jnp.concatenate([obs, goal])), 1.0)

    seen = see(follow("tray_sparse", push).next_obs)
    before_rim = TRAY[1] - 0.075 - 0.012 - REST  # of the cube's centre, m
    assert (seen.cube[-1, :, 1] > before_rim - 0.01).mean() > 0.5
    assert not containers.put_away(seen).any()


@pytest.mark.slow
@tasks
def test_mjx_moves_the_scene_as_the_c_library_does(name):
    """From the states of scripted play, four episodes."""
    env, task = make(name), TASKS[name]

    @jax.jit
    def played(key):
        keys = jax.random.split(key, 1 + task.horizon)
        state = jax.vmap(env.reset)(jax.random.split(keys[0], 4), jnp.zeros(4, int))

        def step(state, key):
            action = jax.vmap(SCRIPTED[name])(state.obs)
            after, _ = jax.vmap(env.step)(state, action, jax.random.split(key, 4))
            return after, (state.physics.physics, action)

        return jax.lax.scan(step, state, keys[1:])[1]

    given = jax.tree.map(jnp.concatenate, played(jax.random.key(0)))  # [T * W]
    control = jax.vmap(manipulation.control)(*given)
    variant = np.zeros(len(control), np.int32)
    models = manipulation.load_models(envs.Simulator(), task.scene)

    def moved(make_physics):
        advance = make_physics(models, manipulation.FRAME_SKIP, ())
        return jax.jit(jax.vmap(advance))(given[0], control, variant)

    assert_agree(moved(mjx_physics), moved(c_physics))
