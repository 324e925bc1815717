import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_awac

from o2ojax import losses
from o2ojax.agents import AGENTS, awac, base
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = awac.AWACConfig(
    lr=1e-3,
    gamma=0.9,
    target_rate=0.1,
    temperature=0.5,
    weight_decay=0.3,  # large, so that it shows beside the gradient
    widths=(16, 16),
    actor_widths=(16, 8, 16),
)
BATCHES = reference.batches(3)
KEY = jax.random.key(0)


@jax.jit
def begin(config, key):
    return awac.awac(SPEC, config).init(key)


@jax.jit
def update(config, state, batch, key):
    return awac.awac(SPEC, config).update(state, batch, key)


def steeper(params, layer, factor):
    last = ["params", "MLP_0", layer, "kernel"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (factor if [k.key for k in path] == last else 1),
        params,
    )


@pytest.fixture(scope="module")
def start():
    """Last layers far from zero, spreads that differ, a target of its own.

    The wider of the spreads takes some samples out of the bounds.
    """
    state = begin(CONFIG, KEY)
    other = begin(CONFIG, jax.random.key(1)).critic.params
    actor = steeper(state.actor.params, "Dense_3", 500.0)
    actor["params"]["log_std_logit"] = jnp.array([4.0, 0.5])
    return state._replace(
        actor=state.actor._replace(params=actor),
        critic=state.critic._replace(
            params=steeper(state.critic.params, "Dense_2", 300.0)
        ),
        target_critic=steeper(other, "Dense_2", 300.0),
    )


def with_plain_adam(state):
    """The policy's optimiser without the decay, which remembers nothing."""
    actor = state.actor._replace(opt_state=state.actor.opt_state[1])
    return state._replace(actor=actor)


def test_the_target_starts_as_the_critic():
    state = begin(CONFIG, KEY)
    reference.close(state.target_critic, state.critic.params, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"value_at_mean": True},
        {"temperature": 0.05, "gamma": 1.0, "weight_decay": 0.0},
    ],
)
def test_updates_are_those_of_the_reference(start, changes):
    """The noise is what the update's key stands for; all else is worked anew."""
    config = dataclasses.replace(CONFIG, **changes)
    state, expected = start, reference.state_of(start)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        noise, next_noise = (
            np.float64(jax.random.normal(key, (8, 2))) for key in jax.random.split(key)
        )
        state, info = update(config, state, batch, key)
        expected, metrics = reference_awac.awac(
            expected, reference.double(batch), config, noise, next_noise
        )
        reference.close(info.metrics, metrics, rtol=2e-5, atol=2e-6)
        reference.agree_in_all(with_plain_adam(state), expected)


# The weights


def test_a_weight_by_hand():
    # exp(0 / 2) = 1, exp(2 log 2 / 2) = 2, exp(2 log 5 / 2) = 5: shares of 8, times 3
    advantage = 2 * jnp.log(jnp.array([1.0, 2.0, 5.0]))
    weight = losses.batch_advantage_weight(advantage, 2.0)
    np.testing.assert_allclose(weight, [3 / 8, 6 / 8, 15 / 8], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 50.0])
def test_the_weights_of_a_batch_are_1_on_average(temperature):
    advantage = 3 * jax.random.normal(KEY, (64,))
    weight = losses.batch_advantage_weight(advantage, temperature)
    np.testing.assert_allclose(weight.sum(), 64.0, rtol=1e-5)
    order = np.argsort(advantage)
    assert (np.diff(weight[order]) >= 0).all() and (weight >= 0).all()


def test_only_differences_of_advantages_count():
    advantage = jax.random.normal(KEY, (16,))
    weight = losses.batch_advantage_weight(advantage, 0.7)
    for shift in (-9.0, 1000.0):
        shifted = losses.batch_advantage_weight(advantage + shift, 0.7)
        np.testing.assert_allclose(shifted, weight, rtol=1e-3)
    scaled = losses.batch_advantage_weight(3 * advantage, 3 * 0.7)
    np.testing.assert_allclose(scaled, weight, rtol=1e-5)


def test_a_cold_weight_is_all_on_the_best():
    weight = losses.batch_advantage_weight(jnp.array([0.0, 5.0, 4.0]), 1e-2)
    np.testing.assert_allclose(weight, [0.0, 3.0, 0.0], atol=1e-6)


def test_an_endless_temperature_is_behaviour_cloning(start):
    """By the gradient of the plain likelihood, which no critic and no reward enters."""
    config = dataclasses.replace(CONFIG, temperature=float("inf"), weight_decay=0.0)
    data = BATCHES[0].data
    actor_net = awac.SigmoidStdActor(2, CONFIG.actor_widths)

    def likelihood(params):
        return actor_net.apply(params, data.obs).log_prob(data.action).mean()

    loss, slope = jax.jit(jax.value_and_grad(likelihood))(start.actor.params)
    state, info = update(config, start, BATCHES[0], KEY)
    np.testing.assert_allclose(info.metrics["actor_loss"], -loss, rtol=1e-5)
    first_moment = jax.tree.map(lambda g: -0.1 * g, slope)
    reference.close(state.actor.opt_state[1][0].mu, first_moment, rtol=1e-4, atol=1e-6)


# What it reads


def test_a_row_that_ended_does_not_look_ahead(start):
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 99.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


def test_the_policy_learns_from_the_critics_before_their_step(start):
    """Other rewards move the critics, and only later the policy."""
    batch = BATCHES[0]
    richer = batch._replace(data=batch.data._replace(reward=batch.data.reward + 9))
    state, _ = update(CONFIG, start, batch, KEY)
    other, _ = update(CONFIG, start, richer, KEY)
    reference.close(other.actor, state.actor, rtol=0)
    one, two = (jax.tree.leaves(x.critic.opt_state[0].mu)[0] for x in (state, other))
    assert np.abs(one - two).max() > 1e-3


def test_without_a_sample_the_policys_step_is_not_random(start):
    config = dataclasses.replace(CONFIG, value_at_mean=True)
    a, _ = update(config, start, BATCHES[0], KEY)
    b, _ = update(config, start, BATCHES[0], jax.random.key(1))
    reference.close(a.actor, b.actor, rtol=0)
    c, _ = update(CONFIG, start, BATCHES[0], KEY)
    d, _ = update(CONFIG, start, BATCHES[0], jax.random.key(1))
    kernels = [x.actor.opt_state[1][0].mu["params"]["log_std_logit"] for x in (c, d)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-4


def test_the_decay_is_of_the_policy_alone(start):
    """Its whole gradient grows by the weights; the critics' does not change."""
    without = dataclasses.replace(CONFIG, weight_decay=0.0)
    state, _ = update(CONFIG, start, BATCHES[0], KEY)
    plain, _ = update(without, start, BATCHES[0], KEY)
    reference.close(state.critic, plain.critic, rtol=0)
    grown = jax.tree.map(
        lambda a, b: (a - b) / 0.1,
        state.actor.opt_state[1][0].mu,
        plain.actor.opt_state[1][0].mu,
    )
    expected = jax.tree.map(lambda x: 0.3 * x, start.actor.params)
    reference.close(grown, expected, rtol=1e-3, atol=1e-5)


# The policy


def test_the_policys_spread_by_hand():
    net = awac.SigmoidStdActor(3, (8,))
    params = net.init(KEY, jnp.zeros(4))
    obs = 100 * jax.random.normal(KEY, (16, 4))
    fresh = net.apply(params, obs)
    # halfway between exp(-6) and exp(0), in all states
    np.testing.assert_allclose(fresh.stddev(), np.full((16, 3), np.exp(-3)), rtol=1e-6)
    params["params"]["log_std_logit"] = jnp.array([-99.0, np.log(2.0), 99.0])
    spread = net.apply(params, obs).stddev()
    # a sigmoid of 0, 2/3 and 1
    expected = np.tile(np.exp([-6.0, -2.0, 0.0]), (16, 1))
    np.testing.assert_allclose(spread, expected, rtol=1e-5)


def test_the_policys_mean_stays_within_bounds_and_starts_near_0():
    net = awac.SigmoidStdActor(2, (16, 16))
    obs = jax.random.normal(KEY, (16, 3))
    params = net.init(KEY, obs[0])
    np.testing.assert_allclose(net.apply(params, obs).mean(), 0.0, atol=0.02)
    mean = net.apply(steeper(params, "Dense_2", 1e5), obs).mean()
    assert 0.99 < np.abs(mean).max() <= 1.0


def test_only_exploration_is_random_and_clipped(start):
    agent = awac.awac(SPEC, CONFIG)
    wide = jax.tree.map(lambda x: x, start)
    wide.actor.params["params"]["log_std_logit"] = jnp.full(2, 99.0)  # std 1
    keys = jax.random.split(KEY, 100)
    obs = jnp.ones(3)

    def act(policy):
        return jax.vmap(lambda key: policy.act(wide, (), obs, key)[0])(keys)

    mean = act(agent.exploit)
    np.testing.assert_array_equal(mean, jnp.broadcast_to(mean[:1], mean.shape))
    expected, _ = reference_awac.policy(
        reference.double(start.actor.params), np.ones((1, 3))
    )
    np.testing.assert_allclose(mean[:1], expected, rtol=1e-5)
    explored = act(agent.explore)
    assert np.abs(explored).max() == 1.0
    assert len(np.unique(explored)) > 50


def test_it_goes_on_online_as_it_was_offline():
    recipe = AGENTS.find("awac").recipe(SPEC, CONFIG, base.Plan(9, 9))
    assert recipe.offline is recipe.online
    assert recipe.hand_over("agent", "full", "empty", KEY) == ("agent", "empty")


def test_the_defaults_are_the_authors():
    config = awac.AWACConfig()
    assert (config.lr, config.gamma, config.target_rate) == (3e-4, 0.99, 0.005)
    assert (config.temperature, config.weight_decay) == (2.0, 1e-4)
    assert (config.widths, config.actor_widths) == ((256,) * 2, (256,) * 4)
    assert (config.num_critics, config.value_at_mean) == (2, False)
