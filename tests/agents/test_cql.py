import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_cql

from o2ojax import losses
from o2ojax.agents import AGENTS, base, cql, sac
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = cql.CQLConfig(
    lr=1e-3,
    actor_lr=5e-4,
    gamma=0.9,
    target_rate=0.1,
    init_temperature=0.4,
    conservatism=1.5,
    num_actions=3,
    widths=(16, 16),
)
BATCHES = reference.batches(3)
KEY = jax.random.key(0)


@jax.jit
def begin(config, key):
    return cql.cql(SPEC, config).init(key)


@jax.jit
def update(config, state, batch, key):
    return cql.cql(SPEC, config).update(state, batch, key)


def noise_of(config, key, shape=(8, 2)):
    """What an update's key stands for; all else is worked anew."""
    actor, next_one, gap = jax.random.split(key, 3)
    uniform, own, ahead = jax.random.split(gap, 3)
    num = config.num_actions
    uniform = jax.random.uniform(uniform, (shape[0], num, shape[1]))

    def normals(key, num):
        keys = jax.random.split(key, num)
        return np.stack([np.float64(jax.random.normal(k, shape)) for k in keys])

    return reference_cql.Noise(
        actor=np.float64(jax.random.normal(actor, shape)),
        next_one=normals(next_one, num if config.max_backup else 1),
        uniform=np.float64(uniform * 2 - 1).swapaxes(0, 1),
        own=normals(own, num),
        ahead=normals(ahead, num),
    )


def steeper(params, factor):
    last = ["params", "MLP_0", "Dense_2", "kernel"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (factor if [k.key for k in path] == last else 1),
        params,
    )


def start_of(config):
    """Last layers far from zero, and a target of its own, so that all terms matter."""
    state = begin(config, KEY)
    other = begin(config, jax.random.key(1)).critic.params
    return state._replace(
        actor=state.actor._replace(params=steeper(state.actor.params, 500.0)),
        critic=state.critic._replace(params=steeper(state.critic.params, 300.0)),
        target_critic=steeper(other, 300.0),
    )


@pytest.fixture(scope="module")
def start():
    return start_of(CONFIG)


OPTIONS = {
    "plain": {},
    "soft": {"gap_temperature": 3.0, "num_actions": 2},
    "max_backup": {"max_backup": True},
    "entropy_backup": {"entropy_backup": True},
    "both_backups": {"max_backup": True, "entropy_backup": True},
    "in_slices": {"num_actions": 100},  # 8 x 301 rows, by quarters
    "lagrange": {"lagrange": True, "target_gap": 2.0},
    "lagrange_above": {"lagrange": True, "target_gap": 99.0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_updates_are_those_of_the_reference(options):
    config = dataclasses.replace(CONFIG, **options)
    state = start_of(config)
    if config.lagrange:  # far from where it starts, so that its scale matters
        log_multiplier = state.log_multiplier._replace(params=jnp.float32(0.7))
        state = state._replace(log_multiplier=log_multiplier)
    expected = reference.state_of(state)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = reference_cql.cql(
            expected, reference.double(batch), config, noise_of(config, key)
        )
        reference.close(info.metrics, metrics, rtol=2e-5, atol=2e-6)
        reference.agree_in_all(state, expected)


def test_without_conservatism_it_is_sac(start):
    """SAC by another hand, which knows nothing of gaps."""
    config = dataclasses.replace(
        CONFIG, conservatism=0.0, entropy_backup=True, actor_lr=CONFIG.lr
    )
    state, expected = start, reference.state_of(start)
    del expected["log_multiplier"]
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        noise = noise_of(config, key)
        state, info = update(config, state, batch, key)
        expected, metrics = reference.sac(
            expected, reference.double(batch), config, noise.actor, noise.next_one[0]
        )
        assert info.metrics.keys() - metrics.keys() == {"gap"}
        told = {name: info.metrics[name] for name in metrics}
        reference.close(told, metrics, rtol=2e-5, atol=2e-6)
        reference.agree_in_all(sac.SACState(*state[:4]), expected)


def test_its_state_begins_with_sacs():
    """So that SAC can go on from it."""
    assert cql.CQLState._fields[:4] == sac.SACState._fields
    like = sac.sac(SPEC, sac.SACConfig(widths=(16, 16))).init(KEY)
    ours = sac.SACState(*begin(CONFIG, KEY)[:4])
    assert jax.tree.structure(ours) == jax.tree.structure(like)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(like), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype


def test_the_targets_and_both_multipliers_start_where_they_are_told():
    state = begin(dataclasses.replace(CONFIG, lagrange=True), KEY)
    reference.close(state.target_critic, state.critic.params, rtol=0)
    np.testing.assert_allclose(np.exp(state.log_temperature.params), 0.4, rtol=1e-6)
    assert state.log_multiplier.params == 0.0
    assert begin(CONFIG, KEY).log_multiplier == ()


def test_several_learn_side_by_side(start):
    """As an ensemble of whole agents does: each as if it were alone."""
    keys = jax.random.split(KEY, 2)
    states = jax.jit(jax.vmap(cql.cql(SPEC, CONFIG).init))(keys)
    together = jax.jit(jax.vmap(cql.cql(SPEC, CONFIG).update, (0, None, 0)))
    states_after, _ = together(states, BATCHES[0], keys)
    for at in range(2):
        one = jax.tree.map(lambda leaf, at=at: leaf[at], states)
        alone, _ = update(CONFIG, one, BATCHES[0], keys[at])
        after = jax.tree.map(lambda leaf, at=at: leaf[at], states_after)
        reference.close(after, alone, rtol=1e-4, atol=1e-6)


# The gap


def test_the_gap_by_hand():
    q = jnp.array([[np.log(2.0), np.log(6.0)], [0.0, 0.0]], jnp.float32)  # [B, K]
    log_density = jnp.log(jnp.array([[1.0, 2.0], [0.5, 0.25]]))
    gap = losses.conservative_gap(q, log_density, jnp.array([1.0, -1.0]), 1.0)
    # log(2 / 1 + 6 / 2) - 1, and log(1 / 0.5 + 1 / 0.25) + 1
    np.testing.assert_allclose(gap, [np.log(5) - 1, np.log(6) + 1], rtol=1e-6)
    # T = 2: 2 log(sqrt(2) + sqrt(3)) - 1, and 2 log(sqrt(2) + 2) + 1
    gap = losses.conservative_gap(q, log_density, jnp.array([1.0, -1.0]), 2.0)
    by_root = [2**0.5 + 3**0.5, 2**0.5 + 2]
    np.testing.assert_allclose(gap, 2 * np.log(by_root) + [-1, 1], rtol=1e-6)


@pytest.mark.parametrize("action_dim", [1, 3])
def test_the_gap_of_a_flat_critic_is_the_log_of_the_volume(action_dim):
    """Whatever its level: K uniform draws add log K to the log of 2^A."""
    log_density = jnp.full((4, 7), action_dim * np.log(0.5))
    for level in (-50.0, 0.0, 50.0):
        gap = losses.conservative_gap(
            jnp.full((2, 4, 7), level), log_density[None], jnp.full((2, 4), level), 1.0
        )
        expected = np.full((2, 4), np.log(7) + action_dim * np.log(2))
        np.testing.assert_allclose(gap, expected, rtol=1e-5)


def test_a_cold_gap_is_the_best_actions_lead():
    q = jnp.array([[1.0, 4.0], [9.0, 2.0]])
    gap = losses.conservative_gap(q, jnp.zeros((2, 2)), jnp.array([4.0, 4.0]), 1e-3)
    np.testing.assert_allclose(gap, [0.0, 5.0], atol=1e-3)


def test_an_estimate_of_the_gap_does_not_care_where_actions_are_drawn_from():
    """The integral of exp(Q) over [-1, 1], from three densities."""
    draw = np.random.default_rng(0)
    num = 200_000
    where = draw.uniform(size=(num, 1))
    samples = {
        "uniform": (2 * where - 1, np.full((num, 1), np.log(0.5))),
        "rising": (2 * np.sqrt(where) - 1, np.log(np.sqrt(where))),  # (1 + a) / 2
    }
    for action, log_density in samples.values():
        gap = losses.conservative_gap(
            jnp.float32(3 * action.T), jnp.float32(log_density.T), jnp.zeros(1), 1.0
        )
        integral = np.log((np.exp(3) - np.exp(-3)) / 3)
        np.testing.assert_allclose(gap - np.log(num), [integral], atol=0.02)


def test_conservatism_raises_the_data_and_lowers_the_rest(start):
    """One small step down the gap alone, at a flat critic."""
    config = dataclasses.replace(CONFIG, conservatism=1e4)
    flat = start._replace(
        critic=start.critic._replace(params=steeper(start.critic.params, 0.0))
    )
    batch = BATCHES[0]
    after, info = update(config, flat, batch, KEY)
    again = update(config, after, batch, KEY)[1]
    assert again.metrics["gap"] < info.metrics["gap"]
    assert again.metrics["q"] > info.metrics["q"]


# The multiplier


def test_the_penalty_by_hand():
    # 2 * (3 * 4 - 5), and 12 for a fixed price
    np.testing.assert_allclose(losses.conservative_penalty(4.0, 3.0, 2.0, 5.0), 14.0)
    np.testing.assert_allclose(losses.conservative_penalty(4.0, 3.0, 1.0, 0.0), 12.0)


@pytest.mark.parametrize("target, sign", [(-99.0, 1), (99.0, -1)])
def test_the_multiplier_rises_while_the_gap_is_above_its_target(start, target, sign):
    config = dataclasses.replace(CONFIG, lagrange=True, target_gap=target)
    begun = start_of(config)
    state, info = update(config, begun, BATCHES[0], KEY)
    assert np.abs(info.metrics["gap"]) * config.conservatism < 99.0
    np.testing.assert_allclose(state.log_multiplier.params, sign * 1e-3, rtol=1e-3)
    assert info.metrics["multiplier"] == 1.0  # of the weights before the update
    # a multiplier of 1 is as good as none, but for what the loss is told to be
    plain, told = update(CONFIG, start, BATCHES[0], KEY)
    reference.close(state[:4], plain[:4], rtol=1e-5, atol=1e-7)
    told_apart = info.metrics["critic_loss"] - told.metrics["critic_loss"]
    weight = BATCHES[0].weight.mean()
    np.testing.assert_allclose(told_apart, -2 * target * weight, rtol=1e-4)


def test_the_multiplier_stops_at_its_bound():
    config = dataclasses.replace(CONFIG, lagrange=True, target_gap=-99.0)
    state = start_of(config)
    state = state._replace(
        log_multiplier=state.log_multiplier._replace(params=jnp.float32(20.0))
    )
    after, info = update(config, state, BATCHES[0], KEY)
    assert info.metrics["multiplier"] == 1e6
    assert after.log_multiplier.params == 20.0


# What it reads


def test_a_row_that_ended_looks_ahead_for_the_gap_alone(start):
    """Where the state goes after the end is no value, but the policy may act there."""
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 3.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    config = dataclasses.replace(CONFIG, conservatism=0.0)
    state, _ = update(config, start, batch, KEY)
    same, _ = update(config, start, moved, KEY)
    reference.close(same, state, rtol=0)
    gap = update(CONFIG, start, batch, KEY)[1].metrics["gap"]
    assert np.abs(update(CONFIG, start, moved, KEY)[1].metrics["gap"] - gap) > 1e-3


def test_the_gap_trains_no_policy(start):
    """Its actions are the policy's, but it holds them for given."""
    state, _ = update(CONFIG, start, BATCHES[0], KEY)
    other = dataclasses.replace(CONFIG, conservatism=50.0)
    same, _ = update(other, start, BATCHES[0], KEY)
    reference.close(same.actor, state.actor, rtol=0)
    reference.close(same.log_temperature, state.log_temperature, rtol=0)


def test_a_row_without_weight_trains_no_critic(start):
    batch = BATCHES[0]._replace(weight=jnp.arange(8.0) % 2)
    elsewhere = jnp.where((jnp.arange(8) % 2 == 0)[:, None], 0.0, batch.data.action)
    other = batch._replace(data=batch.data._replace(action=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, other, KEY)
    reference.close(same.critic, state.critic, rtol=1e-5, atol=1e-7)


def test_only_exploration_is_random(start):
    agent = cql.cql(SPEC, CONFIG)
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


def test_it_goes_on_online_as_it_was_offline():
    recipe = AGENTS.find("cql").recipe(SPEC, CONFIG, base.Plan(9, 9))
    assert recipe.offline is recipe.online
    assert recipe.hand_over("agent", "full", "empty", KEY) == ("agent", "empty")


def test_the_defaults_are_the_authors():
    config = cql.CQLConfig()
    assert (config.lr, config.actor_lr) == (3e-4, 1e-4)
    assert (config.gamma, config.target_rate) == (0.99, 0.005)
    assert (config.init_temperature, config.entropy_per_dim) == (1.0, -1.0)
    assert (config.conservatism, config.gap_temperature) == (5.0, 1.0)
    assert (config.num_actions, config.num_critics) == (10, 2)
    assert not (config.lagrange or config.entropy_backup or config.max_backup)
    assert (config.widths, config.target_gap) == ((256, 256), 5.0)
