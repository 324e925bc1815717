import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from o2ojax import loop
from o2ojax.agents import base, bc, iql
from o2ojax.replay import uniform
from o2ojax.types import EnvSpec, Run, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = iql.IQLConfig(
    lr=1e-3, gamma=0.9, expectile=0.8, beta=2.0, target_rate=0.1, widths=(16, 16)
)
BATCHES = reference.batches(3)
KEY = jax.random.key(0)


@jax.jit
def begin(config, key):
    return iql.iql(SPEC, config).init(key)


@jax.jit
def update(config, state, batch, key):
    return iql.iql(SPEC, config).update(state, batch, key)


@pytest.fixture(scope="module")
def start():
    """Twins of Q and its target that all disagree, so that min and target matter."""
    state = begin(CONFIG, KEY)
    other = begin(CONFIG, jax.random.key(1))
    return state._replace(target_critic=other.critic.params)


def test_the_target_starts_as_the_critic():
    state = begin(CONFIG, KEY)
    reference.close(state.target_critic, state.critic.params, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_weight": 1.2},  # binds for the better actions
        {"expectile": 0.3, "beta": 10.0, "gamma": 1.0},
    ],
)
def test_updates_are_those_of_the_reference(start, changes):
    """Three, so that the moments of Adam tell the size of every gradient."""
    config = dataclasses.replace(CONFIG, **changes)
    state, expected = start, reference.state_of(start)
    for batch in BATCHES:
        state, info = update(config, state, batch, KEY)
        expected, metrics = reference.iql(expected, reference.double(batch), config)
        reference.close(info.metrics, metrics, rtol=1e-5, atol=1e-6)
        reference.agree_in_all(state, expected)


def test_beta_zero_is_behaviour_cloning(start):
    config = dataclasses.replace(CONFIG, beta=0.0)
    batch = BATCHES[0]._replace(weight=jnp.ones(8))
    state, info = update(config, start, batch, KEY)
    clone = bc.bc(SPEC, bc.BCConfig(lr=1e-3, widths=(16, 16)))
    cloned, told = jax.jit(clone.update)(bc.BCState(start.actor), batch, KEY)
    np.testing.assert_allclose(
        info.metrics["actor_loss"], told.metrics["actor_loss"], rtol=1e-6
    )
    reference.close(
        state.actor.opt_state[0].mu, cloned.actor.opt_state[0].mu, rtol=1e-5, atol=1e-7
    )
    reference.close(state.actor.params, cloned.actor.params, rtol=1e-6, atol=1e-7)


def test_a_row_that_ended_does_not_look_ahead(start):
    """What comes after rows 0, 3 and 6 is never read."""
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    assert ended.sum() == 3
    elsewhere = np.where(ended[:, None], 99.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


def test_no_net_learns_from_where_an_episode_was_cut(start):
    batch = BATCHES[0]
    cut = batch._replace(data=batch.data._replace(last=~batch.data.last))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, cut, KEY)
    reference.close(same, state, rtol=0)


def test_dropout_is_for_the_policys_training_alone(start):
    config = dataclasses.replace(CONFIG, dropout=0.5)
    a, _ = update(config, start, BATCHES[0], jax.random.key(1))
    b, _ = update(config, start, BATCHES[0], jax.random.key(2))
    plain, _ = update(CONFIG, start, BATCHES[0], jax.random.key(1))
    kernel = ["params", "MLP_0", "Dense_1", "kernel"]

    def moved(one, other):
        one, other = one.actor.opt_state[0].mu, other.actor.opt_state[0].mu
        for name in kernel:
            one, other = one[name], other[name]
        return np.abs(one - other).max()

    assert moved(a, b) > 1e-3 and moved(a, plain) > 1e-3
    for part in ("critic", "value", "target_critic"):
        reference.close(getattr(a, part), getattr(plain, part), rtol=1e-4, atol=1e-7)
    # acting draws no units, whatever the key
    agent, without = iql.iql(SPEC, config), iql.iql(SPEC, CONFIG)
    obs = jnp.ones(3)
    for policy, same in (
        (agent.exploit, without.exploit),
        (agent.explore, without.explore),
    ):
        action, _ = policy.act(start, (), obs, jax.random.key(3))
        other, _ = same.act(start, (), obs, jax.random.key(3))
        np.testing.assert_array_equal(action, other)


def test_only_exploration_is_random(start):
    agent = iql.iql(SPEC, CONFIG)
    keys = jax.random.split(KEY, 500)
    obs = jnp.ones(3)

    def act(policy):
        return jax.vmap(lambda key: policy.act(start, (), obs, key)[0])(keys)

    mean = act(agent.exploit)
    np.testing.assert_array_equal(mean, jnp.broadcast_to(mean[:1], mean.shape))
    params = reference.double(start.actor.params)["params"]["MLP_0"]
    expected = np.tanh(reference.mlp(params, np.ones((1, 3))))
    np.testing.assert_allclose(mean[:1], expected, rtol=1e-5)
    explored = act(agent.explore)
    # N(mean, 1), clipped: the chance to be cut at either end
    cdf = jax.scipy.stats.norm.cdf
    for dim in range(2):
        cut = (np.abs(explored[:, dim]) == 1).mean()
        chance = 1 - (cdf(1 - mean[0, dim]) - cdf(-1 - mean[0, dim]))
        np.testing.assert_allclose(cut, chance, atol=0.1)


NUM_UPDATES = 8


@pytest.fixture(scope="module")
def steps():
    """How far a recipe's policy and critic move at every update of the same batch.

    The gradient hardly changes over so few steps at so low a rate, so Adam moves each
    weight by about the rate.
    """
    rows = jax.tree.map(jnp.asarray, BATCHES[0].data)

    def moves(online_steps):
        config = dataclasses.replace(CONFIG, lr=1e-5)
        plan = base.Plan(NUM_UPDATES, online_steps)
        buffer = uniform.online(base.blank_transition(SPEC), 8, 8)
        recipe = iql.recipe(SPEC, config, plan)
        fixed = buffer._replace(
            sample=lambda replay, key: (replay, uniform.evenly(rows, jnp.arange(8)))
        )
        one = jax.jit(
            lambda run, at: loop.offline(recipe.offline, fixed, run, KEY, at, 1)[0]
        )
        run = Run(recipe.offline.init(KEY), (), ())
        moved = []
        for at in range(NUM_UPDATES + 1):
            new = one(run, at)
            moved.append([distance(run, new, part) for part in ("actor", "critic")])
            run = new
        return np.array(moved).T / 1e-5

    def distance(run, new, part):
        old, new = (
            getattr(x.agent, part).params["params"]["MLP_0"] for x in (run, new)
        )
        return np.median(np.abs(new["Dense_2"]["bias"] - old["Dense_2"]["bias"]))

    return moves


def test_offline_the_policys_rate_falls_by_a_cosine(steps):
    actor, critic = steps(online_steps=0)
    cosine = [(1 + np.cos(np.pi * at / NUM_UPDATES)) / 2 for at in range(NUM_UPDATES)]
    np.testing.assert_allclose(actor[:-1], cosine, atol=0.03)
    assert actor[-1] == 0.0  # by then, the offline phase is over
    np.testing.assert_allclose(critic, 1.0, atol=0.03)


def test_a_run_that_goes_online_keeps_the_policys_rate(steps):
    actor, critic = steps(online_steps=1)
    np.testing.assert_allclose(actor, 1.0, atol=0.03)
    np.testing.assert_allclose(critic, 1.0, atol=0.03)


def test_the_defaults_are_the_papers():
    config = iql.IQLConfig()
    assert (config.lr, config.gamma, config.target_rate) == (3e-4, 0.99, 0.005)
    assert (config.expectile, config.beta, config.max_weight) == (0.7, 3.0, 100.0)
    assert (config.widths, config.num_critics, config.dropout) == ((256, 256), 2, 0.0)


def test_a_schedule_is_for_the_policy_alone(start):
    """With the policy's rate at 0, the critics learn and the policy does not."""

    @jax.jit
    def frozen(state, batch, key):
        agent = iql.iql(SPEC, CONFIG, optax.constant_schedule(0.0))
        return agent.update(state, batch, key)

    state, _ = frozen(start, BATCHES[0], KEY)
    reference.close(state.actor.params, start.actor.params, rtol=0)
    plain, _ = update(CONFIG, start, BATCHES[0], KEY)
    reference.close(state.critic, plain.critic, rtol=1e-5, atol=1e-7)
    reference.close(state.value, plain.value, rtol=1e-5, atol=1e-7)
