import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_rebrac

from experiments.configs import rebrac as config_file
from o2ojax import losses
from o2ojax.agents import base, rebrac
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = rebrac.ReBRACConfig(
    lr=1e-3,
    actor_lr=5e-4,
    gamma=0.9,
    target_rate=0.1,
    actor_penalty=0.4,
    critic_penalty=0.7,
    final_penalty=0.4,
    widths=(16, 16),
)
KEY = jax.random.key(0)
PLAN = base.Plan(10, 5, online_updates=4)


def with_next_actions(batch, seed):
    """Rows that end, rows that are cut and rows that go on, and what was done next."""
    draw = np.random.default_rng(seed)
    data = batch.data
    next_action = np.float32(draw.uniform(-1, 1, data.action.shape))
    last = data.last | (np.arange(len(data.last)) % 4 == 1)
    assert (last & (data.discount == 1)).any()
    data = data._replace(last=last, extras={"next_action": next_action})
    return batch._replace(data=data)


BATCHES = [with_next_actions(b, at) for at, b in enumerate(reference.batches(4))]


def recipe(config):
    return rebrac.recipe(SPEC, config, PLAN)


@jax.jit
def begin(config, key):
    return recipe(config).offline.init(key)


@jax.jit
def update(config, state, batch, key):
    return recipe(config).offline.update(state, batch, key)


@jax.jit
def update_online(config, state, batch, key):
    return recipe(config).online.update(state, batch, key)


def start_of(config):
    """Networks far from where they begin, targets of their own: all terms matter."""
    state = begin(config, KEY)
    rough = reference.rough
    return state._replace(
        actor=state.actor._replace(params=rough(state.actor.params, 0)),
        critic=state.critic._replace(params=rough(state.critic.params, 1)),
        target_actor=rough(state.target_actor, 2),
        target_critic=rough(state.target_critic, 3),
    )


@pytest.fixture(scope="module")
def start():
    return start_of(CONFIG)


def check_updates(config, state, update, **shares):
    """Four updates, beside the reference's; `shares` are functions of their number."""
    expected = reference.state_of(state)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = reference_rebrac.rebrac(
            expected,
            reference.double(batch),
            config,
            np.float64(jax.random.normal(key, (8, 2))),
            **{name: share(at) for name, share in shares.items()},
        )
        reference.close(info.metrics, metrics, rtol=5e-5, atol=2e-5)
        reference.agree_in_all(state, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"delay": 1},
        {"delay": 3, "gamma": 1.0, "critic_penalty": 0.0},
        {"smoothing": 1.0, "smoothing_bound": 0.7},  # both clips bind
        {"layer_norm": False, "num_critics": 3, "actor_penalty": 0.0},
    ],
)
def test_updates_are_those_of_the_reference(changes):
    """Four, so that the moments of Adam tell the size of every gradient."""
    config = dataclasses.replace(CONFIG, **changes)
    check_updates(config, start_of(config), update)


def test_online_the_penalties_go(start):
    """The actor's falls by a quarter an update, to 0.4; the critics' is gone."""
    offline, _ = update(CONFIG, start, BATCHES[0], KEY)
    handed, replay = recipe(CONFIG).hand_over(offline, "full", "empty", KEY)
    assert replay == "empty"
    assert offline.step == 1 and handed.step == 0
    reference.close(handed._replace(step=offline.step), offline, rtol=0)
    check_updates(
        CONFIG,
        handed._replace(actor=start.actor, critic=start.critic),
        update_online,
        actor_share=lambda at: [1.0, 0.75, 0.5, 0.4][at],
        critic_share=lambda at: 0.0,
    )


def test_online_some_of_the_critics_penalty_may_stay(start):
    config = dataclasses.replace(
        CONFIG, online_critic_penalty=0.3, final_penalty=0.0, delay=1
    )
    check_updates(
        config,
        start,
        update_online,
        actor_share=lambda at: 1.0 - at / 4,
        critic_share=lambda at: 0.3,
    )


def test_beyond_the_last_update_the_penalty_stays(start):
    for step in (4, 400):
        state = start._replace(step=jnp.int32(step))
        _, told = update_online(CONFIG, state, BATCHES[0], KEY)
        config = dataclasses.replace(CONFIG, critic_penalty=0.0)
        _, whole = update(config, state, BATCHES[0], KEY)
        missing = whole.metrics["actor_loss"] - told.metrics["actor_loss"]
        lost = (1 - 0.4) * 0.4 * told.metrics["distance"]
        np.testing.assert_allclose(missing, lost, rtol=1e-4, atol=1e-6)


def test_the_targets_start_as_what_they_follow():
    state = begin(CONFIG, KEY)
    reference.close(state.target_actor, state.actor.params, rtol=0)
    reference.close(state.target_critic, state.critic.params, rtol=0)
    assert state.step == 0 and state.step.dtype == jnp.int32


def test_networks_begin_as_the_authors_do():
    """Hidden layers within 1 / sqrt(fan in), last ones within 1e-3 and 3e-3."""
    state = begin(rebrac.ReBRACConfig(), KEY)
    for params, fan_in, last in (
        (state.actor.params, 3, 1e-3),
        (state.critic.params, 5, 3e-3),
    ):
        layers = params["params"]["MLP_0"]
        bounds = {"Dense_0": fan_in**-0.5, "Dense_1": 1 / 16, "Dense_2": 1 / 16}
        for name, bound in (bounds | {"Dense_3": last}).items():
            greatest = np.abs(layers[name]["kernel"]).max()
            assert 0.97 * bound < greatest <= bound, name


def test_a_last_row_has_no_next_action(start):
    """What stands there counts for nothing; elsewhere it counts."""
    batch, config = BATCHES[0], dataclasses.replace(CONFIG, delay=1)
    last = batch.data.last
    state, _ = update(config, start, batch, KEY)

    def other_where(rows):
        moved = np.where(rows[:, None], 0.9, batch.data.extras["next_action"])
        data = batch.data._replace(extras={"next_action": np.float32(moved)})
        return update(config, start, batch._replace(data=data), KEY)[0]

    reference.close(other_where(last), state, rtol=0)
    moments = [s.critic.opt_state[0].mu for s in (other_where(~last), state)]
    pairs = zip(*map(jax.tree.leaves, moments), strict=True)
    assert all(not np.array_equal(a, b) for a, b in pairs)


def test_a_row_that_ended_does_not_look_ahead(start):
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 9.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


def test_the_actors_penalty_moves_no_critic(start):
    config = dataclasses.replace(CONFIG, delay=1)
    state, _ = update(config, start, BATCHES[0], KEY)
    other = dataclasses.replace(config, actor_penalty=9.0)
    same, _ = update(other, start, BATCHES[0], KEY)
    reference.close(same.critic, state.critic, rtol=0)
    reference.close(same.target_critic, state.target_critic, rtol=0)


def test_the_distance_is_a_sum():
    distance = losses.squared_distance(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 1.0]]))
    np.testing.assert_allclose(distance, [5.0])  # 1 + 4


# Acting


def test_what_is_gathered_has_what_the_policy_would_do_next(start):
    agent = recipe(CONFIG).online
    row = jax.tree.map(lambda x: jnp.asarray(x)[3], BATCHES[0].data)
    bare = row._replace(extras={"other": jnp.float32(7)})
    memory, stored = agent.explore.observe(start, (), bare)
    layers = reference.double(start.actor.params)["params"]["MLP_0"]
    expected = np.tanh(reference.mlp(layers, np.float64(row.next_obs)))
    np.testing.assert_allclose(stored.extras["next_action"], expected, rtol=1e-5)
    assert memory == () and stored.extras["other"] == 7
    reference.close(stored._replace(extras={}), bare._replace(extras={}), rtol=0)
    needs = rebrac.ALGORITHM.needs(CONFIG)
    assert needs.extras == needs.given == ("next_action",)
    _, judged = agent.exploit.observe(start, (), bare)
    assert judged.extras.keys() == {"other"}


def test_it_explores_as_it_is_told(start):
    """By default, without noise."""
    keys = jax.random.split(KEY, 2000)
    obs = jnp.array([0.1, -0.2, 0.1])
    calm = start._replace(actor=begin(CONFIG, KEY).actor)  # actions near 0

    def act(policy):
        return jax.vmap(lambda key: policy.act(calm, (), obs, key)[0])(keys)

    agent = recipe(CONFIG).online
    mean = act(agent.exploit)
    np.testing.assert_array_equal(mean, jnp.broadcast_to(mean[:1], mean.shape))
    np.testing.assert_array_equal(act(agent.explore), mean)
    agent = recipe(dataclasses.replace(CONFIG, exploration=0.2)).online
    explored = act(agent.explore)
    np.testing.assert_allclose(explored.std(0), [0.2, 0.2], atol=0.02)
    np.testing.assert_array_equal(act(agent.exploit), mean)


def test_its_critics_are_told(start):
    data = reference.double(BATCHES[0].data)
    told = recipe(CONFIG).offline.q(start, BATCHES[0].data.obs, BATCHES[0].data.action)
    params = reference.double(start.critic.params)
    expected = reference_rebrac.critic(params, data.obs, data.action)
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=1e-5)


# Configs


def test_the_defaults_are_the_authors_for_locomotion():
    config = rebrac.ReBRACConfig()
    assert (config.lr, config.actor_lr, config.gamma) == (1e-3, 1e-3, 0.99)
    assert (config.target_rate, config.delay) == (0.005, 2)
    assert (config.smoothing, config.smoothing_bound) == (0.2, 0.5)
    assert (config.exploration, config.online_critic_penalty) == (0.0, 0.0)
    assert (config.final_penalty, config.num_critics) == (0.5, 2)
    assert config.widths == (256, 256, 256) and config.layer_norm


def test_each_dataset_has_its_own():
    config = config_file.get_config("hopper-medium-replay")
    assert (config.agent.actor_penalty, config.agent.critic_penalty) == (0.05, 0.5)
    assert (config.batch, config.agent.lr, config.agent.gamma) == (1024, 1e-3, 0.99)
    assert (config.replay.name, config.reward.scale) == ("symmetric", 1.0)
    config_file.set_task(config, "antmaze-large-diverse")
    assert (config.agent.actor_penalty, config.agent.critic_penalty) == (0.002, 0.002)
    assert (config.agent.lr, config.agent.actor_lr) == (5e-5, 3e-4)
    assert (config.batch, config.agent.gamma) == (256, 0.999)
    assert config.reward.scale == 100.0
    config_file.set_task(config, "antmaze-medium-fixed")  # as the play data
    assert (config.agent.actor_penalty, config.agent.critic_penalty) == (0.001, 0.0005)
    config = config_file.get_config("hopper-mine")
    config_file.set_task(config, "door-cloned")
    assert (config.agent.actor_penalty, config.agent.critic_penalty) == (0.01, 0.1)
    assert (config.agent.lr, config.agent.actor_lr) == (3e-4, 3e-4)
    assert (config.batch, config.reward.scale) == (256, 1.0)
