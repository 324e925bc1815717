"""The gripper's tasks: what is seen and earned by hand, and that they can be done."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs import manipulation
from o2ojax.envs.manipulation import HORIZON, NUM_STARTS, OPEN, REST, Scene, Sight
from o2ojax.envs.mjx_physics import mjx_physics
from o2ojax.envs.physics import PhysicsState, c_physics
from o2ojax.envs.scripted import SCRIPTED
from tests.envs.test_mjx import assert_agree

NUM_EPISODES = 20

dense_tasks = pytest.mark.parametrize("name", manipulation.DENSE)
make = functools.cache(lambda name: envs.make(name, "mujoco"))


def scene(qpos=(0.0,) * 9, qvel=(0.0,) * 9, goal=()):
    numbers = [np.float32(x) for x in (qpos, qvel, (), (0.0,) * 9)]
    physics = PhysicsState(*numbers, np.zeros((0, 3), np.float32))
    return Scene(physics, np.float32(goal))


def sight(hand=(0.0, 0.0, 0.1), opening=0.0, cube=(0.0, 0.0, REST), goal=()):
    return Sight(*(jnp.array(x, jnp.float32) for x in (hand, opening, cube, goal)))


def follow(env, policy, noise=0.0):
    """Episodes of a policy: physics before [T, W], and transitions [T, W]."""

    @jax.jit
    def followed(key):
        keys = jax.random.split(key, 1 + HORIZON)
        tasks = jnp.arange(NUM_EPISODES) % env.spec.num_tasks
        state = jax.vmap(env.reset)(jax.random.split(keys[0], NUM_EPISODES), tasks)

        def step(state, key):
            action = jax.vmap(policy)(state.obs)
            drawn = jax.random.normal(key, action.shape)
            action = jnp.clip(action + noise * drawn, -1.0, 1.0)
            step_keys = jax.random.split(key, NUM_EPISODES)
            after, transition = jax.vmap(env.step)(state, action, step_keys)
            return after, (state.physics.physics, transition)

        return jax.lax.scan(step, state, keys[1:])[1]

    return followed(jax.random.key(0))


@functools.cache
def solved(name):
    """Transitions [T, W] of a task's scripted policy."""
    return follow(make(name), SCRIPTED[name])[1]


def test_an_observation_is_positions_velocities_and_goal():
    """Metres are seen as decimetres; the ninth coordinate is an angle."""
    qpos = [0.1, 0.2, 0.3, 0.04, 0.01, -0.1, -0.2, 0.025, 0.5]
    qvel = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    seen = [1, 2, 3, 0.4, 0.1, -1, -2, 0.25, 0.5, 10, 20, 30, 40, 50, 60, 70, 80, 9]
    obs = manipulation.observe(scene(qpos, qvel))
    np.testing.assert_allclose(obs, seen, rtol=1e-6)
    obs = manipulation.observe(scene(qpos, qvel, goal=[0.2, 0.1, 0.05]))
    np.testing.assert_allclose(obs, [*seen, 2, 1, 0.5], rtol=1e-6)


def test_what_is_read_from_an_observation_is_in_metres():
    qpos = [0.1, 0.2, 0.3, 0.04, 0.01, -0.1, -0.2, 0.025, 0.5]
    obs = manipulation.observe(scene(qpos, goal=[0.2, 0.1, 0.05]))
    read = manipulation.see(jnp.stack([obs, obs]))
    expected = sight((0.1, 0.2, 0.3), 0.05, (-0.1, -0.2, 0.025), (0.2, 0.1, 0.05))
    for ours, by_hand in zip(read, expected, strict=True):
        np.testing.assert_allclose(ours[1], by_hand, rtol=1e-6)


@pytest.mark.parametrize(
    "action, expected",
    [
        ([0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.0, 0.0]),
        ([1.0, -1.0, 0.5], [0.12, 0.18, 0.31, 0.0, 0.0]),  # 0.02 m for 1
        ([9.0, jnp.nan, jnp.inf], [0.12, 0.2, 0.3, 0.0, 0.0]),
        ([0.0, 0.0, 0.0, 1.0], [0.1, 0.2, 0.3, 0.0, 0.0]),
        ([0.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, OPEN / 2, OPEN / 2]),
        ([0.0, 0.0, 0.0, -1.0], [0.1, 0.2, 0.3, OPEN, OPEN]),
    ],
)
def test_the_hand_is_pulled_ahead_and_the_fingers_to_their_place(action, expected):
    physics = scene([0.1, 0.2, 0.3, 0, 0, 0, 0, 0, 0]).physics
    found = manipulation.control(physics, jnp.array(action))
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize(
    "name, action, seen, expected",
    [
        # 5 dm from the goal: -5 - 0.15 * (1 + 0.25)
        ("reach", [1, 0, -0.5], sight((0.3, 0.4, 0.1), goal=(0, 0, 0.1)), -5.1875),
        ("push", [1, 0, -0.5], sight(cube=(0.3, 0.4, 0), goal=(0, 0, 0)), -5.1875),
        # 1 dm above rest, 0.2 dm from the hand: 1 - 0.002
        ("lift", [1, 1, 1, 1], sight((0, 0, 0.145), cube=(0, 0, 0.125)), 0.998),
        # higher than asked: 1.5 - 0
        ("lift", [0, 0, 0, 1], sight((0, 0, 0.275), cube=(0, 0, 0.275)), 1.5),
        ("reach_sparse", [1, 0, 0], sight(goal=(0, 0, 0.1)), 1.0),
        ("reach_sparse", [1, 0, 0], sight(goal=(0, 0, 0.2)), 0.0),
    ],
)
def test_reward_by_hand(name, action, seen, expected):
    reward = manipulation.TASKS[name].reward(jnp.float32(action), seen)
    np.testing.assert_allclose(reward, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name, seen, expected",
    [
        ("reach", sight((0.03, 0.039, 0.1), goal=(0, 0, 0.1)), True),  # 0.0492 m
        ("reach", sight((0.03, 0.041, 0.1), goal=(0, 0, 0.1)), False),  # 0.0508 m
        ("push", sight(cube=(0.03, 0.039, 0), goal=(0, 0, 0)), True),
        ("push", sight(cube=(0.03, 0.041, 0), goal=(0, 0, 0)), False),
        ("lift", sight(cube=(0, 0, 0.176)), True),  # 0.151 m above rest
        ("lift", sight(cube=(0, 0, 0.174)), False),
    ],
)
def test_success_by_hand(name, seen, expected):
    assert manipulation.TASKS[name].success(seen) == expected
    assert manipulation.TASKS[f"{name}_sparse"].success(seen) == expected


@dense_tasks
def test_an_environment_tells_success_from_what_is_seen(name):
    played = solved(name)
    expected = manipulation.TASKS[name].success(manipulation.see(played.next_obs))
    np.testing.assert_array_equal(make(name).success((), played), expected)


def test_a_task_that_is_never_done_has_no_success():
    assert make("hopper").success is None


def test_the_numbers_here_are_the_models():
    model = manipulation.load_models(envs.Simulator())[0]
    cube = model.body("cube").geomadr[0]
    np.testing.assert_allclose(model.geom_size[cube], REST)
    np.testing.assert_allclose(model.actuator_ctrlrange[3:], [[0, OPEN], [0, OPEN]])
    limits = [[-0.3, 0.3], [-0.3, 0.3], [0.02, 0.3]]
    np.testing.assert_allclose(model.actuator_ctrlrange[:3], limits)


@dense_tasks
def test_episodes_begin_undone_each_elsewhere_and_within_reach(name):
    task = manipulation.TASKS[name]
    model = manipulation.load_models(envs.Simulator())[0]
    starts = manipulation.start_states(task, model)
    seen = manipulation.see(jax.vmap(manipulation.observe)(starts))
    assert task.success(seen).mean() < 0.05
    assert len(np.unique(seen.cube, axis=0)) == NUM_STARTS
    np.testing.assert_allclose(seen.cube[:, 2], REST, rtol=1e-3)
    low, high = model.actuator_ctrlrange[:3].T
    for place in (seen.hand, seen.cube, *([seen.goal] if starts.goal.size else [])):
        assert (np.min(place, axis=0) > low).all()
        assert (np.max(place, axis=0) < high).all()


@dense_tasks
def test_the_scripted_policy_does_its_task(name):
    success = make(name).success((), solved(name))  # [T, W]
    assert success[-1].mean() >= 0.95


def test_hands_and_cubes_of_other_masses_and_frictions_lift_as_well():
    varied = envs.Simulator(variants=5, mass=0.3, friction=0.3)
    env = envs.make("lift", "mujoco", varied)
    _, played = follow(env, SCRIPTED["lift"])
    assert env.success((), played)[-1].mean() >= 0.95


@dense_tasks
def test_an_episode_is_cut_after_its_horizon_and_never_ends(name):
    played = solved(name)
    assert (played.discount == 1.0).all()
    assert played.last[-1].all()
    assert not played.last[:-1].any()


def test_a_sparse_task_is_its_dense_one_rewarded_by_success():
    played, dense = solved("lift_sparse"), solved("lift")
    np.testing.assert_array_equal(played.next_obs, dense.next_obs)
    success = make("lift").success((), dense)
    np.testing.assert_array_equal(played.reward, np.float32(success))


@dense_tasks
def test_without_action_nothing_moves_but_an_opening_finger(name):
    """To a tenth of a millimetre, in 50 decisions."""
    num_actions = make(name).spec.action_dim
    before, _ = follow(make(name), lambda obs: jnp.zeros(num_actions))
    still = np.array([0, 1, 2, 5, 6, 7, 8])  # all but the fingers
    moved = np.abs(before.qpos - before.qpos[:1])[..., still]
    assert moved.max() < 1e-4


def test_a_held_cube_stays_in_the_gripper():
    seen = manipulation.see(solved("lift").next_obs)
    held = seen.cube[25:, :, 2] > REST + 0.05
    apart = manipulation.distance(seen.hand, seen.cube)[25:]
    assert held.mean() > 0.95
    assert apart[held].max() < 0.015


def test_mjx_moves_the_gripper_and_the_cube_as_the_c_library_does():
    """From the states of noisy lifts, some of which press, drop or turn the cube."""
    before, played = follow(make("lift"), SCRIPTED["lift"], noise=0.3)
    given = jax.tree.map(jnp.concatenate, (before, played.action))  # [T * W]
    control = jax.vmap(manipulation.control)(*given)
    variant = np.zeros(len(control), np.int32)
    models = manipulation.load_models(envs.Simulator())

    def moved(make_physics):
        advance = make_physics(models, manipulation.FRAME_SKIP, ())
        return jax.jit(jax.vmap(advance))(given[0], control, variant)

    expected = moved(c_physics)
    assert (expected.qpos[:, 7] > REST + 0.05).sum() > 20  # lifted
    assert_agree(moved(mjx_physics), expected)
