import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from o2ojax.agents import bc
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = bc.BCConfig(lr=1e-3, widths=(16, 16))
BATCHES = reference.batches(3)
KEY = jax.random.key(0)
AGENT = bc.bc(SPEC, CONFIG)
update = jax.jit(AGENT.update)


@pytest.fixture(scope="module")
def start():
    return jax.jit(AGENT.init)(KEY)


def test_updates_are_those_of_the_reference(start):
    state, expected = start, reference.state_of(start)
    for batch in BATCHES:
        state, info = update(state, batch, KEY)
        expected, metrics = reference.bc(expected, reference.double(batch), CONFIG)
        reference.close(info.metrics, metrics, rtol=1e-5, atol=1e-6)
        reference.agree_in_all(state, expected)


def test_only_states_and_actions_are_imitated(start):
    """Rewards, ends and what comes next are nothing to it."""
    batch = BATCHES[0]
    other = batch.data._replace(
        reward=batch.data.reward + 9,
        discount=1 - batch.data.discount,
        next_obs=batch.data.next_obs + 9,
        last=~batch.data.last,
    )
    state, _ = update(start, batch, KEY)
    same, _ = update(start, batch._replace(data=other), KEY)
    reference.close(same, state, rtol=0)


def test_a_row_without_weight_is_not_imitated(start):
    batch = BATCHES[0]._replace(weight=jnp.arange(8.0) % 2)
    elsewhere = jnp.where((jnp.arange(8) % 2 == 0)[:, None], 0.0, batch.data.action)
    other = batch._replace(data=batch.data._replace(action=elsewhere))
    state, _ = update(start, batch, KEY)
    same, _ = update(start, other, KEY)
    reference.close(same, state, rtol=0)


def test_only_exploration_is_random(start):
    keys = jax.random.split(KEY, 9)
    obs = jnp.ones(3)

    def act(policy):
        return jax.vmap(lambda key: policy.act(start, (), obs, key)[0])(keys)

    mean = act(AGENT.exploit)
    np.testing.assert_array_equal(mean, jnp.broadcast_to(mean[:1], mean.shape))
    params = reference.double(start.actor.params)["params"]["MLP_0"]
    expected = np.tanh(reference.mlp(params, np.ones((1, 3))))
    np.testing.assert_allclose(mean[:1], expected, rtol=1e-5)
    assert len(np.unique(act(AGENT.explore)[:, 0])) > 3
