import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from o2ojax.agents import sac
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = sac.SACConfig(
    lr=1e-3, gamma=0.9, target_rate=0.1, init_temperature=0.4, widths=(16, 16)
)
BATCHES = reference.batches(3)
KEY = jax.random.key(0)


@jax.jit
def begin(config, key):
    return sac.sac(SPEC, config).init(key)


@jax.jit
def update(config, state, batch, key):
    return sac.sac(SPEC, config).update(state, batch, key)


@pytest.fixture(scope="module")
def start():
    """Last layers far from zero, and a target of its own, so that all terms matter."""
    state = begin(CONFIG, KEY)
    other = begin(CONFIG, jax.random.key(1)).critic.params
    last = ["params", "MLP_0", "Dense_2", "kernel"]

    def steeper(params, factor):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * (factor if [k.key for k in path] == last else 1),
            params,
        )

    return state._replace(
        actor=state.actor._replace(params=steeper(state.actor.params, 500.0)),
        critic=state.critic._replace(params=steeper(state.critic.params, 300.0)),
        target_critic=steeper(other, 300.0),
    )


def test_the_target_starts_as_the_critic():
    state = begin(CONFIG, KEY)
    reference.close(state.target_critic, state.critic.params, rtol=0)


def test_the_temperature_starts_where_it_is_told():
    state = begin(CONFIG, KEY)
    np.testing.assert_allclose(np.exp(state.log_temperature.params), 0.4, rtol=1e-6)


def test_updates_are_those_of_the_reference(start):
    """The noise is what the update's key stands for; all else is worked anew."""
    state, expected = start, reference.state_of(start)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        noise, next_noise = (
            np.float64(jax.random.normal(key, (8, 2))) for key in jax.random.split(key)
        )
        state, info = update(CONFIG, state, batch, key)
        expected, metrics = reference.sac(
            expected, reference.double(batch), CONFIG, noise, next_noise
        )
        reference.close(info.metrics, metrics, rtol=2e-5, atol=2e-6)
        reference.agree_in_all(state, expected)


@pytest.mark.parametrize("target, sign", [(-20.0, -1), (20.0, 1)])
def test_the_temperature_seeks_the_target_entropy(start, target, sign):
    """It falls while the policy is more random than asked, and rises while less."""
    config = dataclasses.replace(CONFIG, entropy_per_dim=target)
    state, info = update(config, start, BATCHES[0], KEY)
    assert np.abs(info.metrics["entropy"]) < 20.0
    moved = state.log_temperature.params - start.log_temperature.params
    np.testing.assert_allclose(moved, sign * 1e-3, rtol=1e-3)


def test_a_row_that_ended_does_not_look_ahead(start):
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 99.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


def test_the_policy_does_not_learn_from_the_datas_actions(start):
    batch = BATCHES[0]
    other = batch._replace(data=batch.data._replace(action=-batch.data.action))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, other, KEY)
    reference.close(same.actor, state.actor, rtol=0)
    bias = ("params", "MLP_0", "Dense_2", "bias")
    moved, other = same.critic.opt_state[0].mu, state.critic.opt_state[0].mu
    for name in bias:
        moved, other = moved[name], other[name]
    assert np.abs(moved - other).max() > 1e-3  # but the critic does


def test_only_exploration_is_random(start):
    agent = sac.sac(SPEC, CONFIG)
    keys = jax.random.split(KEY, 9)
    obs = jnp.ones(3)

    def act(policy):
        return jax.vmap(lambda key: policy.act(start, (), obs, key)[0])(keys)

    mean = act(agent.exploit)
    np.testing.assert_array_equal(mean, jnp.broadcast_to(mean[:1], mean.shape))
    params = reference.double(start.actor.params)["params"]["MLP_0"]
    expected = np.tanh(reference.mlp(params, np.ones((1, 3)))[:, :2])
    np.testing.assert_allclose(mean[:1], expected, rtol=1e-5)
    assert len(np.unique(act(agent.explore)[:, 0])) == 9


def test_the_defaults_are_the_papers():
    config = sac.SACConfig()
    assert (config.lr, config.gamma, config.target_rate) == (3e-4, 0.99, 0.005)
    assert (config.init_temperature, config.entropy_per_dim) == (1.0, -1.0)
    assert (config.widths, config.num_critics) == ((256, 256), 2)
