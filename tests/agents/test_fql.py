import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_fql

from experiments.configs import fql as config_file
from experiments.configs import ifql as ifql_config_file
from o2ojax.agents import AGENTS, base, fql, ifql
from o2ojax.errors import UserError
from o2ojax.run.resolve import resolve
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
SIZES = dict(
    lr=1e-3,
    gamma=0.9,
    target_rate=0.1,
    flow_steps=4,
    widths=(16, 16),
    actor_widths=(16, 8, 16),
)
CONFIG = fql.FQLConfig(**SIZES, alpha=1.5)
IMPLICIT = ifql.IFQLConfig(**SIZES, num_candidates=7)
BATCHES = reference.batches(3)
KEY = jax.random.key(0)
AGENT = {fql.FQLConfig: fql.fql, ifql.IFQLConfig: ifql.ifql}


def agent_of(config):
    return AGENT[type(config)](SPEC, config)


@jax.jit
def begin(config, key):
    return agent_of(config).init(key)


@jax.jit
def update(config, state, batch, key):
    return agent_of(config).update(state, batch, key)


def start_of(config):
    """Networks far from where they begin, a target of its own: all terms matter."""
    state = begin(config, KEY)

    def rough(at, part):
        if hasattr(part, "opt_state"):
            return part._replace(params=reference.rough(part.params, at))
        return reference.rough(part, at)

    return type(state)(*(rough(at, part) for at, part in enumerate(state)))


@pytest.fixture(scope="module")
def start():
    return start_of(CONFIG)


@pytest.fixture(scope="module")
def implicit():
    return start_of(IMPLICIT)


def normal(key, shape=(8, 2)):
    return np.float64(jax.random.normal(key, shape))


def of_flow(key):
    """Noise and times that a flow's key stands for."""
    key_noise, key_time = jax.random.split(key)
    return normal(key_noise), np.float64(jax.random.uniform(key_time, (8, 1)))


def noises_of(key):
    key_next, key_flow, key_noise = jax.random.split(key, 3)
    return normal(key_next), *of_flow(key_flow), normal(key_noise)


# FQL's updates


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backup": "min", "num_critics": 3},
        {"normalise_q": True, "alpha": 0.3},
        {"flow_steps": 1, "layer_norm": False, "alpha": 0.0},
    ],
)
def test_updates_are_those_of_the_reference(changes):
    """Three, so that the moments of Adam tell the size of every gradient."""
    config = dataclasses.replace(CONFIG, **changes)
    state = start_of(config)
    expected = reference.state_of(state)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = reference_fql.fql(
            expected, reference.double(batch), config, noises_of(key)
        )
        reference.close(info.metrics, metrics, rtol=5e-5, atol=2e-5)
        reference.agree_in_all(state, expected)


def test_in_these_updates_all_clips_bind_and_none_everywhere(start):
    """So that what is beyond them is tried, and what is not."""
    batch, noise = reference.double(BATCHES[0].data), normal(KEY)
    actor, flow = (reference.double(p.params) for p in (start.actor, start.flow))
    for action in (
        reference_fql.policy_action(actor, batch.obs, noise),
        reference_fql.flow_action(flow, batch.obs, noise, 4),
    ):
        beyond = np.abs(action) == 1
        assert beyond.any() and not beyond.all()


def moments(part):
    return part.opt_state[0].mu


def test_the_flow_only_does_as_the_data(start):
    state, _ = update(CONFIG, start, BATCHES[0], KEY)
    data = BATCHES[0].data
    richer = BATCHES[0]._replace(data=data._replace(reward=data.reward + 9))
    other = dataclasses.replace(CONFIG, alpha=9.0)
    for config, batch in ((CONFIG, richer), (other, BATCHES[0])):
        same, _ = update(config, start, batch, KEY)
        reference.close(same.flow, state.flow, rtol=0)
    reference.close(same.critic, state.critic, rtol=0)  # whatever alpha is


def test_the_policy_learns_from_the_critics_before_their_step(start):
    """What a batch earned moves the critics first, and the policy only later."""
    state, _ = update(CONFIG, start, BATCHES[0], KEY)
    data = BATCHES[0].data
    richer = BATCHES[0]._replace(data=data._replace(reward=data.reward + 9))
    same, _ = update(CONFIG, start, richer, KEY)
    reference.close(same.actor, state.actor, rtol=0)
    reference.close(same.target_critic, state.target_critic, rtol=0)
    pairs = zip(*map(jax.tree.leaves, (same.critic, state.critic)), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)


def test_normalised_values_move_the_policy_alike_on_any_scale(start):
    """Where the last layers of the critics are ten times as large."""
    config = dataclasses.replace(CONFIG, normalise_q=True)

    def larger(path, leaf):
        is_last = "Dense_2" in jax.tree_util.keystr(path)
        return 10 * leaf if is_last else leaf

    params = jax.tree_util.tree_map_with_path(larger, start.critic.params)
    scaled = start._replace(critic=start.critic._replace(params=params))
    state, _ = update(config, start, BATCHES[0], KEY)
    same, _ = update(config, scaled, BATCHES[0], KEY)
    reference.close(moments(same.actor), moments(state.actor), rtol=1e-3, atol=1e-6)
    plain, _ = update(CONFIG, start, BATCHES[0], KEY)
    differs, _ = update(CONFIG, scaled, BATCHES[0], KEY)
    pairs = zip(
        *(jax.tree.leaves(moments(s.actor)) for s in (plain, differs)), strict=True
    )
    assert any(np.abs(a - b).max() > 1e-3 for a, b in pairs)


def test_a_row_that_ended_does_not_look_ahead(start):
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 9.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


# Flows


def test_euler_steps_by_hand():
    """Of x' = x, four steps grow by 1.25 each; of x' = t, they add 0, 1, 2, 3 / 16."""
    noise, obs = jnp.array([[0.1], [-0.2], [0.9]]), jnp.zeros((3, 1))
    grown = fql.flow_action(lambda obs, x, time: x, obs, noise, 4)
    by_hand = [0.1 * 1.25**4, -0.2 * 1.25**4, 1.0]  # the last is cut
    np.testing.assert_allclose(grown[:, 0], by_hand, rtol=1e-6)
    moved = fql.flow_action(lambda obs, x, time: time, obs, noise - 0.5, 4)
    by_hand = np.array([-0.4, -0.7, 0.4]) + 6 / 16
    np.testing.assert_allclose(moved[:, 0], by_hand, rtol=1e-5, atol=1e-6)


def test_the_flow_of_one_action_loses_nothing_and_leads_to_it():
    """Its velocity is what is left of the way, by what is left of the time."""

    def velocity(obs, x, time):
        return (obs - x) / (1 - time)

    action = jnp.array([[0.3, -0.8], [0.9, 0.1]])
    loss, told = fql.flow_loss(velocity, action, action, jnp.ones(2), KEY)
    np.testing.assert_allclose(loss, 0.0, atol=1e-8)
    assert told == {"flow_loss": loss}
    noise = jax.random.normal(KEY, (2, 2))
    led = fql.flow_action(velocity, action, noise, 10)
    np.testing.assert_allclose(led, action, atol=1e-5)


def test_times_fill_the_way():
    """At rest, a flow loses (a - z)^2, whose mean is 1 + a^2; its inputs tell more."""
    seen = []

    def still(obs, x, time):
        seen.append((x, time))
        return jnp.zeros_like(x)

    num, action = 100_000, 0.5
    actions = jnp.full((num, 1), action)
    loss, _ = fql.flow_loss(still, actions, actions, jnp.ones(num), KEY)
    np.testing.assert_allclose(loss, 1 + action**2, rtol=0.02)
    ((x, time),) = seen
    np.testing.assert_allclose([time.min(), time.max()], [0, 1], atol=1e-3)
    np.testing.assert_allclose(time.mean(), 0.5, atol=0.01)
    early, late = x[time < 0.01], x[time > 0.99]
    np.testing.assert_allclose([early.mean(), early.std()], [0, 1], atol=0.1)
    np.testing.assert_allclose([late.mean(), late.std()], [0.5, 0], atol=0.02)


def test_several_actions_of_a_state_are_as_one_by_one(start):
    net = fql.FromNoise(2, (16, 8, 16))
    obs, x = jax.random.normal(KEY, (5, 3)), jax.random.normal(KEY, (5, 4, 2))
    time = jnp.full((5, 4, 1), 0.3)
    together = net.apply(start.flow.params, obs, x, time)
    alone = jnp.stack(
        [net.apply(start.flow.params, obs, x[:, k], time[:, k]) for k in range(4)], 1
    )
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


# Acting


def test_a_policys_action_is_drawn_also_when_it_is_judged(start):
    agent = agent_of(CONFIG)
    obs, keys = jnp.array([0.1, -0.2, 0.3]), jax.random.split(KEY, 32)
    params = reference.double(start.actor.params)
    noise = np.stack([normal(key, (2,)) for key in keys])
    expected = reference_fql.policy_action(params, np.tile(obs, (32, 1)), noise)
    assert len(np.unique(expected[:, 0])) > 8
    for policy in (agent.explore, agent.exploit):
        action = jax.vmap(lambda key: policy.act(start, (), obs, key)[0])(keys)  # noqa: B023
        np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, IMPLICIT])
def test_critics_are_told(config):
    state, data = start_of(config), reference.double(BATCHES[0].data)
    told = agent_of(config).q(state, BATCHES[0].data.obs, BATCHES[0].data.action)
    params = reference.double(state.critic.params)
    expected = reference_fql.critic(params, data.obs, data.action)
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name, config", [("fql", CONFIG), ("ifql", IMPLICIT)])
def test_it_goes_on_online_as_it_was_offline(name, config):
    recipe = AGENTS.find(name).recipe(SPEC, config, base.Plan(9, 9))
    assert recipe.offline is recipe.online
    assert recipe.hand_over("agent", "full", "empty", KEY) == ("agent", "empty")
    assert recipe.offline.explore is recipe.offline.exploit


@pytest.mark.parametrize("config", [CONFIG, IMPLICIT])
def test_networks_begin_as_the_authors_do(config):
    """Within sqrt(6 / (fan in + fan out)), the target as the critics."""
    state = begin(dataclasses.replace(config, widths=(256, 256)), KEY)
    reference.close(state.target_critic, state.critic.params, rtol=0)
    layers = state.critic.params["params"]["MLP_0"]
    for name, fans in (("Dense_0", 5 + 256), ("Dense_1", 512), ("Dense_2", 257)):
        bound = (6 / fans) ** 0.5
        assert 0.97 * bound < np.abs(layers[name]["kernel"]).max() <= bound


# IFQL


@pytest.mark.parametrize("changes", [{}, {"expectile": 0.3, "layer_norm": False}])
def test_updates_of_ifql_are_those_of_the_reference(changes):
    config = dataclasses.replace(IMPLICIT, **changes)
    state = start_of(config)
    expected = reference.state_of(state)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = reference_fql.ifql(
            expected, reference.double(batch), config, *of_flow(key)
        )
        reference.close(info.metrics, metrics, rtol=5e-5, atol=2e-5)
        reference.agree_in_all(state, expected)


def test_the_best_of_several_is_taken_by_the_lower_critic(implicit):
    agent, num = agent_of(IMPLICIT), IMPLICIT.num_candidates
    params, critic = (
        reference.double(part.params) for part in (implicit.actor, implicit.critic)
    )
    chosen, others = [], []
    for at in range(20):
        key = jax.random.key(at)
        obs = np.float32(np.random.default_rng(at).normal(size=3))
        rows = np.float64(np.tile(obs, (num, 1)))
        candidates = reference_fql.flow_action(params, rows, normal(key, (num, 2)), 4)
        q = reference_fql.critic(critic, rows, candidates)
        expected = candidates[np.argmax(q.min(0))]
        chosen.append(np.argmax(q.min(0)))
        others.append((np.argmax(q.mean(0)), np.argmax(q.max(0)), np.argmax(q[0])))
        for policy in (agent.explore, agent.exploit):
            action, _ = policy.act(implicit, (), jnp.asarray(obs), key)
            np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-5)
    assert (np.array(chosen)[:, None] != np.array(others)).any(axis=0).all()


# Configs


def test_the_defaults_are_the_authors():
    for config in (fql.FQLConfig(), ifql.IFQLConfig()):
        assert (config.lr, config.gamma, config.target_rate) == (3e-4, 0.99, 0.005)
        assert config.widths == config.actor_widths == (512,) * 4
        assert (config.num_critics, config.flow_steps) == (2, 10)
        assert (config.layer_norm, config.activation) == (True, "gelu")
    config = fql.FQLConfig()
    assert (config.alpha, config.backup, config.normalise_q) == (10.0, "mean", False)
    config = ifql.IFQLConfig()
    assert (config.expectile, config.num_candidates) == (0.9, 32)


def test_each_task_has_its_own():
    unknown = config_file.get_config("hopper-medium-replay")
    assert unknown.agent.normalise_q and unknown.agent.alpha == 1.0
    assert (unknown.replay.name, unknown.batch) == ("uniform", 256)
    assert config_file.TASKS["pen-cloned"] == {"alpha": 1000.0, "backup": "min"}
    assert config_file.TASKS["antmaze-large-play"] == {"alpha": 3.0}
    assert config_file.TASKS["humanoidmaze-medium"]["gamma"] == 0.995
    assert ifql_config_file.get_config("hopper-random").agent.expectile == 0.9
    published_as = config_file.published_as
    assert published_as("gymnasium:cube-double-singletask-task2-v0") == "cube-double"
    assert published_as("antmaze-large-diverse") == "antmaze-large-diverse"
    maze = config_file.get_config("antmaze-large-fixed")
    assert (maze.agent.alpha, maze.agent.normalise_q) == (3.0, False)
    assert maze.reward.shift == -1.0
    is_antmaze_of_d4rl = config_file.is_antmaze_of_d4rl
    assert is_antmaze_of_d4rl("antmaze-umaze")
    assert is_antmaze_of_d4rl("antmaze-large-play")
    assert not is_antmaze_of_d4rl("antmaze-large-navigate")
    assert not is_antmaze_of_d4rl("hopper-diverse")


def test_a_batch_whose_values_are_normalised_is_not_divided():
    config = config_file.get_config("hopper-medium-replay")
    resolve(config)  # all else is right
    config.devices.per_batch = 2
    with pytest.raises(UserError, match="all rows' values: set per_batch=1"):
        resolve(config)
    config.agent.normalise_q = False
    resolve(config)
