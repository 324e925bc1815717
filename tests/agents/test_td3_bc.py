import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_td3_bc

from o2ojax.agents import base, o2ac, td3_bc
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
SIZES = dict(lr=1e-3, gamma=0.9, target_rate=0.1, widths=(16, 16))
CONFIG = td3_bc.TD3BCConfig(**SIZES)
VARIANT = o2ac.O2ACConfig(**SIZES, damping=2.0, final_bc=0.25)
BATCHES = reference.batches(4)
KEY = jax.random.key(0)
MEAN, STD = np.array([1.0, -2.0, 0.5]), np.array([0.5, 2.0, 3.0])
PLAN = base.Plan(10, 4, jnp.float32(MEAN), jnp.float32(STD))


def recipe(config):
    made = o2ac.recipe if isinstance(config, o2ac.O2ACConfig) else td3_bc.recipe
    return made(SPEC, config, PLAN)


@jax.jit
def begin(config, key):
    return recipe(config).offline.init(key)


@jax.jit
def update(config, state, batch, key):
    return recipe(config).offline.update(state, batch, key)


@jax.jit
def update_online(config, state, batch, key):
    return recipe(config).online.update(state, batch, key)


@pytest.fixture(scope="module")
def start():
    """Networks far from linear, targets of their own: all terms matter."""
    state, other = begin(CONFIG, KEY), begin(CONFIG, jax.random.key(1))

    def steeper(params):
        return jax.tree.map(lambda leaf: 2 * leaf, params)

    return state._replace(
        actor=state.actor._replace(params=steeper(state.actor.params)),
        critic=state.critic._replace(params=steeper(state.critic.params)),
        target_actor=steeper(other.target_actor),
        target_critic=steeper(other.target_critic),
    )


def check_updates(config, state, update, **weights):
    """Four updates, beside the reference's; `weights` are functions of their number."""
    expected = reference.state_of(state)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = reference_td3_bc.td3_bc(
            expected,
            reference.double(batch),
            config,
            np.float64(jax.random.normal(key, (8, 2))),
            MEAN,
            STD,
            **{name: weight(at) for name, weight in weights.items()},
        )
        # values on their own scale, of either sign, leave a small difference of sizes
        reference.close(info.metrics, metrics, rtol=2e-5, atol=2e-5)
        reference.agree_in_all(state, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"delay": 1},
        {"delay": 3, "alpha": 0.4, "gamma": 1.0},
        {"smoothing": 1.0, "smoothing_bound": 0.7},  # both clips bind
    ],
)
def test_updates_are_those_of_the_reference(start, changes):
    """Four, so that the moments of Adam tell the size of every gradient."""
    check_updates(dataclasses.replace(CONFIG, **changes), start, update)


def test_the_targets_start_as_what_they_follow():
    state = begin(CONFIG, KEY)
    reference.close(state.target_actor, state.actor.params, rtol=0)
    reference.close(state.target_critic, state.critic.params, rtol=0)
    assert state.step == 0 and state.step.dtype == jnp.int32


def test_the_actor_and_the_targets_move_at_every_second_update(start):
    slow = ("actor", "target_actor", "target_critic")
    state = start
    for at in range(1, 5):
        old, (state, _) = state, update(CONFIG, state, BATCHES[0], KEY)
        for name in ("critic", *slow):
            pairs = zip(
                jax.tree.leaves(getattr(old, name)),
                jax.tree.leaves(getattr(state, name)),
                strict=True,
            )
            moved = any(not np.array_equal(a, b) for a, b in pairs)
            assert moved == (name == "critic" or at % 2 == 0), (name, at)
        assert state.step == at


def test_alpha_zero_is_behaviour_cloning(start):
    """Plain regression onto the data's actions, whatever the critics say."""
    config = dataclasses.replace(CONFIG, alpha=0.0, delay=1)
    batch = BATCHES[0]
    richer = batch._replace(data=batch.data._replace(reward=batch.data.reward + 9))
    state, info = update(config, start, batch, KEY)
    same, _ = update(config, start, richer, KEY)
    reference.close(same.actor, state.actor, rtol=0)
    loss = info.metrics["actor_loss"]
    np.testing.assert_allclose(loss, info.metrics["distance"], rtol=1e-6)

    obs = jnp.float32((batch.data.obs - MEAN) / (STD + 1e-3))

    def regression(params):
        layers = params["params"]["MLP_0"]
        x = obs
        for name in ("Dense_0", "Dense_1"):
            x = jax.nn.relu(x @ layers[name]["kernel"] + layers[name]["bias"][None])
        x = x @ layers["Dense_2"]["kernel"] + layers["Dense_2"]["bias"][None]
        return jnp.square(jnp.tanh(x) - batch.data.action).mean()

    grads = jax.grad(regression)(start.actor.params)
    first_moment = jax.tree.map(lambda g: 0.1 * g, grads)
    reference.close(state.actor.opt_state[0].mu, first_moment, rtol=1e-4, atol=1e-7)


def test_observations_are_in_the_units_of_the_dataset_not_of_the_batch(start):
    """A row is treated alike in any company."""
    data = BATCHES[0].data
    shifted = data._replace(
        obs=data.obs * STD.astype(np.float32) + 3.0, next_obs=data.next_obs - 5.0
    )
    unit = td3_bc.td3_bc(SPEC, CONFIG, jnp.float32(MEAN), jnp.float32(STD))
    plain = td3_bc.td3_bc(SPEC, CONFIG, jnp.zeros(3), jnp.full(3, 1 - 1e-3))

    def by(x):
        return np.float32((np.float64(x) - MEAN) / (STD + 1e-3))

    normal = shifted._replace(obs=by(shifted.obs), next_obs=by(shifted.next_obs))
    for rows in (slice(0, 8), slice(0, 2)):  # in company, and nearly alone
        some, same = (
            BATCHES[0]._replace(
                data=jax.tree.map(lambda x, rows=rows: x[rows], which),
                weight=BATCHES[0].weight[rows],
            )
            for which in (shifted, normal)
        )
        one, told = unit.update(start, some, KEY)
        other, told_too = plain.update(start, same, KEY)
        reference.close(told.metrics, told_too.metrics, rtol=1e-4, atol=1e-5)
        moments = (x.critic.opt_state[0].mu for x in (one, other))
        reference.close(*moments, rtol=1e-3, atol=1e-5)
    for policy, same in ((unit.exploit, plain.exploit), (unit.explore, plain.explore)):
        action, _ = policy.act(start, (), shifted.obs[0], KEY)
        expected, _ = same.act(start, (), normal.obs[0], KEY)
        np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", [CONFIG, VARIANT])
def test_the_dataset_that_the_plan_knows_counts_in_both_phases(start, config):
    agents = recipe(config)
    layers = reference.double(start.actor.params)["params"]["MLP_0"]
    obs = BATCHES[0].data.obs[:1]
    expected = np.tanh(reference.mlp(layers, (np.float64(obs) - MEAN) / (STD + 1e-3)))
    for agent in (agents.offline, agents.online):
        action, _ = agent.exploit.act(start, (), jnp.asarray(obs[0]), KEY)
        np.testing.assert_allclose(action, expected[0], rtol=1e-4)


def test_a_row_that_ended_does_not_look_ahead(start):
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 99.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


def test_exploring_adds_noise_of_its_size_and_exploiting_none(start):
    agent = td3_bc.td3_bc(SPEC, CONFIG)
    keys = jax.random.split(KEY, 2000)
    obs = jnp.array([0.1, -0.2, 0.1])

    def act(policy):
        return jax.vmap(lambda key: policy.act(start, (), obs, key)[0])(keys)

    mean = act(agent.exploit)
    np.testing.assert_array_equal(mean, jnp.broadcast_to(mean[:1], mean.shape))
    assert np.abs(mean).max() < 0.6  # the noise is not clipped
    explored = act(agent.explore)
    np.testing.assert_allclose(explored.mean(0), mean[0], atol=0.01)
    np.testing.assert_allclose(explored.std(0), [0.1, 0.1], atol=0.01)


def test_the_defaults_are_the_papers():
    config = td3_bc.TD3BCConfig()
    assert (config.lr, config.gamma, config.target_rate) == (3e-4, 0.99, 0.005)
    assert (config.alpha, config.exploration) == (2.5, 0.1)
    assert (config.smoothing, config.smoothing_bound) == (0.2, 0.5)
    assert (config.delay, config.widths, config.num_critics) == (2, (256, 256), 2)


# In the manner of O2AC


def test_updates_of_the_variant_are_those_of_the_reference(start):
    check_updates(VARIANT, start, update, damping=lambda at: 2.0)


def test_online_the_variant_lets_go_of_the_data(start):
    """From 1 to `final_bc`, over four updates; the count begins anew."""
    offline, _ = update(VARIANT, start, BATCHES[0], KEY)
    offline = offline._replace(actor=start.actor, critic=start.critic)
    handed, replay = recipe(VARIANT).hand_over(offline, "full", "empty", KEY)
    assert replay == "empty"
    assert offline.step == 1 and handed.step == 0
    check_updates(
        VARIANT,
        handed,
        update_online,
        damping=lambda at: 2.0,
        bc_weight=lambda at: [1.0, 0.8125, 0.625, 0.4375][at],
    )


def test_once_let_go_it_stays_so(start):
    """Beyond the last online step, the weight is `final_bc`."""
    for step in (4, 400):
        state = start._replace(step=jnp.int32(step))
        _, told = update_online(VARIANT, state, BATCHES[0], KEY)
        _, whole = update(VARIANT, state, BATCHES[0], KEY)
        missing = whole.metrics["actor_loss"] - told.metrics["actor_loss"]
        np.testing.assert_allclose(
            missing, 0.75 * told.metrics["distance"], rtol=1e-4, atol=1e-6
        )


def test_without_damping_the_variant_is_td3_bc_until_online(start):
    config = dataclasses.replace(VARIANT, damping=0.0)
    one = two = start
    for batch in BATCHES:
        one, _ = update(config, one, batch, KEY)
        two, _ = update(CONFIG, two, batch, KEY)
    reference.close(one, two, rtol=1e-6, atol=1e-7)
