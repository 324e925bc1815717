"""The truth of the environments: what is told where an episode stops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import envs, loop, policies
from o2ojax.agents.base import blank_transition
from o2ojax.envs.probes import PROBES, counter, telltale
from o2ojax.envs.rendering import find_backend
from o2ojax.envs.restart import restarting
from o2ojax.errors import UserError
from o2ojax.replay import uniform
from o2ojax.types import EnvSpec, vector

TASK = jnp.int32(0)


def play(env, num_steps, num_envs=1):
    """Uniform noise: the workers it started with, and all transitions [T, W]."""
    policy = policies.uniform(env.spec.action_dim)
    buffer = uniform.online(blank_transition(env.spec), capacity=1, batch=1)

    @jax.jit
    def played(key):
        key_start, key_step = jax.random.split(key)
        workers = loop.start_workers(
            env, policy, buffer, (), buffer.init(), key_start, num_envs
        )
        keys = jax.random.split(key_step, num_steps)
        return workers, loop.collect(env, policy, (), workers, keys)[1]

    return played(jax.random.key(0))


def count(num_steps, **kwargs):
    """The one worker of a counter, transitions [T]."""
    _, played = play(counter(**kwargs), num_steps)
    return jax.tree.map(lambda x: x[:, 0], played)


def numbered(num_starts, horizon=99):
    """Shows its start and stays there; ends where the action is above zero."""
    return restarting(
        EnvSpec("numbered", vector(1), 1, horizon),
        np.arange(num_starts, dtype=np.float32),
        lambda number, action, task: (number, number, action[0] > 0),
        lambda number: number[None],
    )


def test_next_obs_is_where_the_old_episode_stopped():
    played = count(6, end=3, horizon=99)
    np.testing.assert_array_equal(played.obs[:, 0], [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(played.next_obs[:, 0], [1, 2, 3, 1, 2, 3])


def test_an_end_closes_the_future():
    played = count(4, end=3, horizon=99)
    np.testing.assert_array_equal(played.discount, [1, 1, 0, 1])
    np.testing.assert_array_equal(played.last, [0, 0, 1, 0])


def test_a_time_limit_leaves_the_future_open():
    played = count(4, end=99, horizon=3)
    np.testing.assert_array_equal(played.discount, [1, 1, 1, 1])
    np.testing.assert_array_equal(played.last, [0, 0, 1, 0])
    np.testing.assert_array_equal(played.obs[:, 0], [0, 1, 2, 0])
    np.testing.assert_array_equal(played.next_obs[:, 0], [1, 2, 3, 1])


def test_an_end_at_the_time_limit_is_an_end():
    played = count(4, end=3, horizon=3)
    np.testing.assert_array_equal(played.discount, [1, 1, 0, 1])
    np.testing.assert_array_equal(played.last, [0, 0, 1, 0])


def test_age_begins_again_and_the_task_stays():
    env = counter(end=2, horizon=99)
    state = env.reset(jax.random.key(0), jnp.int32(7))
    ages, tasks = [], []
    for at in range(4):
        ages.append(int(state.age))
        state, transition = env.step(state, jnp.zeros(1), jax.random.key(at))
        tasks += [int(transition.task), int(state.task)]
    assert ages == [0, 1, 0, 1]
    assert set(tasks) == {7}


def test_a_time_limit_counts_from_the_restart():
    """The end after 3 steps leaves a whole time limit of 4 to the next episode."""
    played = count(9, end=3, horizon=4)
    np.testing.assert_array_equal(played.discount, [1, 1, 0, 1, 1, 0, 1, 1, 0])


def test_every_environment_has_a_start_of_its_own():
    workers, _ = play(numbered(1000), num_steps=1, num_envs=8)
    assert len(set(workers.env.obs[:, 0].tolist())) == 8


def test_restarts_draw_from_all_cached_starts_and_from_nothing_else():
    _, played = play(numbered(5), num_steps=100)
    obs, last = played.obs[:, 0, 0], played.last[:, 0]
    assert set(obs.tolist()) == {0, 1, 2, 3, 4}
    moved = obs[1:] != obs[:-1]
    assert moved.any()
    assert not (moved & ~last[:-1]).any()  # an episode keeps its start


def test_one_environment_restarts_while_its_neighbours_go_on():
    _, played = play(numbered(1000), num_steps=6, num_envs=8)
    moved = played.obs[1:, :, 0] != played.obs[:-1, :, 0]
    np.testing.assert_array_equal(moved, played.last[:-1])
    assert (moved.any(axis=1) & ~moved.all(axis=1)).any()


def test_a_telltale_tells_its_reward():
    _, played = play(telltale(), num_steps=20)
    np.testing.assert_array_equal(played.reward, played.obs[..., 0])
    assert set(played.reward[:, 0].tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    "name, rewards, lasts, discounts",
    [
        ("counter", [1, 1, 1, 1], [0, 0, 1, 0], [1, 1, 0, 1]),
        ("one_step", [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]),
        ("two_steps", [0, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0]),
        ("endless", [1, 1, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]),
    ],
)
def test_a_probe_has_the_value_it_claims(name, rewards, lasts, discounts):
    _, played = play(PROBES[name](), num_steps=4)
    np.testing.assert_array_equal(played.reward[:, 0], rewards)
    np.testing.assert_array_equal(played.last[:, 0], lasts)
    np.testing.assert_array_equal(played.discount[:, 0], discounts)


def test_aim_is_best_hit_at_its_target():
    env = PROBES["aim"](target=0.25)
    state = env.reset(jax.random.key(0), TASK)

    def reward(action):
        _, transition = env.step(state, jnp.array([action]), jax.random.key(0))
        assert transition.discount == 0.0
        return float(transition.reward)

    assert reward(0.25) == 0.0
    assert reward(0.75) == reward(-0.25) == -0.25  # 0.5^2


ASKED = [name for name in envs.ENVS if name not in envs.PICTURED]
ASKED += ["lift-pixels", "drawer_sparse-pixels"]  # of one kind
BUILDERS = PROBES | {name: functools.partial(envs.make, name) for name in ASKED}


@pytest.fixture(scope="module", params=BUILDERS)
def started(request):
    """An environment, and T = 8 steps of W = 4 workers, [T, W]."""
    if request.param in envs.PICTURED:
        try:
            find_backend()
        except UserError as error:
            pytest.skip(str(error))
    env = BUILDERS[request.param]()
    return env, *play(env, num_steps=8, num_envs=4)


def test_transitions_have_the_shapes_and_types_of_the_spec(started):
    env, _, played = started
    action_dim = env.spec.action_dim
    seen = jax.tree.map(lambda part: ((8, 4, *part.shape), part.dtype), env.spec.obs)
    expected = {
        "obs": seen,
        "action": ((8, 4, action_dim), jnp.float32),
        "reward": ((8, 4), jnp.float32),
        "discount": ((8, 4), jnp.float32),
        "next_obs": seen,
        "last": ((8, 4), jnp.bool_),
        "task": ((8, 4), jnp.int32),
    }
    fields = played._asdict()
    assert fields.pop("extras") == {}
    found = jax.tree.map(lambda x: (x.shape, x.dtype), fields)
    assert found == expected
    if not isinstance(env.spec.obs, dict):
        assert env.spec.obs == vector(env.spec.obs_dim)


def test_a_reset_has_the_shapes_and_types_of_a_step(started):
    env, workers, _ = started
    worker = jax.tree.map(lambda x: x[0], workers)
    after, _ = jax.eval_shape(
        env.step, worker.env, jnp.zeros(env.spec.action_dim), jax.random.key(0)
    )
    before = jax.eval_shape(env.reset, jax.random.key(0), TASK)
    assert before == after
    assert not any(x.weak_type for x in jax.tree.leaves(after))


def test_everything_told_is_finite(started):
    _, workers, played = started
    for leaf in jax.tree.leaves((workers, played)):
        assert jnp.isfinite(leaf).all()


def test_what_is_seen_next_is_what_is_seen_then(started):
    _, workers, played = started
    goes_on = ~played.last[:-1]
    parts = played.obs, played.next_obs, workers.env.obs
    for obs, next_obs, first in zip(*map(jax.tree.leaves, parts), strict=True):
        np.testing.assert_array_equal(obs[0], first)
        np.testing.assert_array_equal(next_obs[:-1][goes_on], obs[1:][goes_on])


def test_the_discount_is_zero_only_where_an_episode_stops(started):
    _, _, played = started
    assert set(played.discount.ravel().tolist()) <= {0.0, 1.0}
    assert played.last[played.discount == 0.0].all()


def test_workers_act_each_for_itself(started):
    _, _, played = started
    assert len(np.unique(np.asarray(played.action)[0], axis=0)) == 4


def test_an_unknown_environment_is_refused_with_those_that_exist():
    with pytest.raises(UserError) as refusal:
        envs.make("halfcheeta")
    assert "'halfcheeta'" in str(refusal.value)
    for name in envs.ENVS:
        assert name in str(refusal.value)


def test_an_unknown_physics_is_refused_with_those_that_exist():
    with pytest.raises(UserError) as refusal:
        envs.make("hopper", "bullet")
    assert "'bullet'" in str(refusal.value)
    for name in ("auto", *envs.PHYSICS):
        assert name in str(refusal.value)
