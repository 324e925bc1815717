"""WSRL: Cal-QL offline, and online an update beside an independent computation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_cal_ql
import reference_rlpd

from o2ojax.agents import AGENTS, base, cal_ql, cql, sac, wsrl
from o2ojax.errors import UserError
from o2ojax.run import resolve
from o2ojax.run.config import defaults
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
NUM, ROWS = 3, 8  # critic steps of an update, and rows of each
CONFIG = wsrl.WSRLConfig(
    lr=1e-3,
    actor_lr=5e-4,
    gamma=0.9,
    target_rate=0.1,
    init_temperature=0.4,
    num_actions=3,
    num_critics=4,
    widths=(16, 16),
    actor_widths=(16, 16),
    critic_steps=NUM,
    online_max_backup=False,
)
BATCHES = reference.batches(3, rows=NUM * ROWS)
KEY = jax.random.key(0)


@jax.jit
def begin(config, key):
    return wsrl.offline(SPEC, config).init(key)


@jax.jit
def update(config, state, batch, key):
    return wsrl.online(SPEC, config).update(state, batch, key)


def steeper(params, factor):
    last = ["params", "MLP_0", "Dense_2", "kernel"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (factor if [k.key for k in path] == last else 1),
        params,
    )


@pytest.fixture(scope="module")
def trained():
    """As an offline phase might leave it: targets of their own, and steps taken."""
    state = begin(CONFIG, KEY)
    other = begin(CONFIG, jax.random.key(1)).critic.params
    return state._replace(
        actor=state.actor._replace(params=steeper(state.actor.params, 50.0)),
        critic=state.critic._replace(params=steeper(state.critic.params, 100.0)),
        target_critic=steeper(other, 100.0),
    )


def hand_over(state, config=CONFIG):
    recipe = AGENTS.find("wsrl").recipe(SPEC, config, base.Plan(9, 9))
    return recipe.hand_over(state, "the dataset", "an empty store", KEY)


@pytest.fixture(scope="module")
def start(trained):
    return hand_over(trained)[0]


def noise_of(config, key):
    """What an update's key stands for; all else is worked anew."""
    key_critic, key_actor = jax.random.split(key)
    next_one, some = [], []
    for one in jax.random.split(key_critic, NUM):
        key_next, key_some = jax.random.split(one)
        num = config.num_actions if config.online_max_backup else 1
        keys = jax.random.split(key_next, num)
        next_one.append([jax.random.normal(key, (ROWS, 2)) for key in keys])
        shape, everyone = (config.num_target_critics,), range(config.num_critics)
        chosen = np.array(everyone)
        if shape[0] < config.num_critics:
            chosen = jax.random.randint(key_some, shape, 0, config.num_critics)
        some.append(chosen)
    actor = jax.random.normal(key_actor, (NUM * ROWS, 2))
    return reference_rlpd.Noise(np.float64(next_one), np.array(some), np.float64(actor))


OPTIONS = {
    "locomotion": {},
    "antmaze": {"online_max_backup": True},
    "entropy": {"entropy_backup": True, "online_max_backup": True},
    "one_target": {"num_target_critics": 1},
    "all_of_them": {"num_target_critics": 4},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_online_updates_are_those_of_the_reference(start, options):
    config = dataclasses.replace(CONFIG, **options)
    state, expected = start, reference.state_of(start)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        batch = reference.double(batch)
        expected, metrics = reference_rlpd.update(
            expected,
            batch,
            config,
            noise_of(config, key),
            lambda q: q.min(0),
            batch,  # all of it
            dict(critic=config.lr, actor=config.actor_lr)
            | dict(log_temperature=config.actor_lr),
            reference_cal_ql.squashed,
        )
        reference.close(info.metrics, metrics, rtol=5e-5, atol=5e-6)
        reference.agree_in_all(state, expected)


def test_a_step_of_the_critics_trains_no_policy(start):
    """One policy step and one of the temperature, in an update of three."""
    state, _ = update(CONFIG, start, BATCHES[0], KEY)
    counts = [
        part.opt_state[0].count - then.opt_state[0].count
        for part, then in zip(state[:3], start[:3], strict=True)
    ]
    assert counts == [1, NUM, 1]  # of actor, critics, temperature
    algorithm = AGENTS.find("wsrl")
    assert algorithm.online_batches(wsrl.WSRLConfig()) == 4
    assert algorithm.batches(wsrl.WSRLConfig()) == 1


def test_a_row_that_ended_does_not_look_ahead(start):
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 9.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


def test_rewards_move_no_temperature_and_the_temperature_no_critic(start):
    batch = BATCHES[0]
    richer = batch._replace(data=batch.data._replace(reward=batch.data.reward + 5.0))
    state, _ = update(CONFIG, start, batch, KEY)
    other, _ = update(CONFIG, start, richer, KEY)
    reference.close(other.log_temperature, state.log_temperature, rtol=0)
    hotter = start._replace(
        log_temperature=start.log_temperature._replace(params=jnp.float32(1.0))
    )
    other, _ = update(CONFIG, hotter, batch, KEY)
    reference.close(other.critic, state.critic, rtol=0)
    reference.close(other.target_critic, state.target_critic, rtol=0)
    gaps = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), other.actor.params, state.actor.params
    )
    assert max(jax.tree.leaves(gaps)) > 1e-5  # but the actor


# Offline, and the hand-over


def test_offline_it_is_cal_ql():
    theirs = cal_ql.CalQLConfig(**base.fields_for(cal_ql.CalQLConfig, CONFIG))
    assert {f.name for f in dataclasses.fields(theirs)} <= {
        f.name for f in dataclasses.fields(CONFIG)
    }
    extras = {"return_to_go": jnp.linspace(-2.0, 2.0, NUM * ROWS)}
    batch = BATCHES[0]._replace(data=BATCHES[0].data._replace(extras=extras))
    begun = begin(CONFIG, KEY)
    ours = jax.jit(wsrl.offline(SPEC, CONFIG).update)(begun, batch, KEY)
    same = jax.jit(cal_ql.cal_ql(SPEC, theirs).update)(begun, batch, KEY)
    reference.close(ours, same, rtol=1e-6, atol=1e-7)
    needs = AGENTS.find("wsrl").needs(CONFIG)
    assert (needs.extras, needs.gamma) == (("return_to_go",), 0.9)


def test_both_networks_are_normalised():
    state = begin(CONFIG, KEY)
    for part in (state.actor.params, state.critic.params):
        layers = set(part["params"]["MLP_0"])
        assert layers >= {"LayerNorm_0", "LayerNorm_1"} and "LayerNorm_2" not in layers


def test_all_that_was_learned_goes_on_and_the_dataset_does_not(trained):
    """Weights, targets, temperature, and what their optimisers remember."""
    extras = {"return_to_go": jnp.zeros(NUM * ROWS)}
    batch = BATCHES[0]._replace(data=BATCHES[0].data._replace(extras=extras))
    state, _ = jax.jit(wsrl.offline(SPEC, CONFIG).update)(trained, batch, KEY)
    handed, store = hand_over(state)
    assert store == "an empty store"
    assert isinstance(handed, sac.SACState)
    for name in sac.SACState._fields:
        reference.close(getattr(handed, name), getattr(state, name), rtol=0)
    assert handed.critic.opt_state[0].count == 1


def test_critics_feel_their_errors_online_as_they_did_offline(trained):
    """Adam remembers the scale of their gradients: it must be of the same loss."""
    config = dataclasses.replace(
        CONFIG, conservatism=0.0, lagrange=False, max_backup=False, critic_steps=1
    )
    ended = BATCHES[0].data._replace(  # so that no draw counts
        discount=jnp.zeros(NUM * ROWS), extras={"return_to_go": jnp.zeros(NUM * ROWS)}
    )
    batch = BATCHES[0]._replace(data=ended)
    taken = trained._replace(log_multiplier=())
    offline, _ = jax.jit(wsrl.offline(SPEC, config).update)(taken, batch, KEY)
    online, _ = update(config, hand_over(taken)[0], batch, KEY)
    reference.close(online.critic, offline.critic, rtol=1e-3, atol=1e-6)


def test_it_acts_as_it_did_offline(trained, start):
    recipe = AGENTS.find("wsrl").recipe(SPEC, CONFIG, base.Plan(9, 9))
    obs = jnp.array([0.3, -0.2, 0.5])
    for kind in ("explore", "exploit"):
        before = getattr(recipe.offline, kind).act(trained, (), obs, KEY)[0]
        after = getattr(recipe.online, kind).act(start, (), obs, KEY)[0]
        np.testing.assert_array_equal(after, before)
    action = jnp.array([0.1, -0.3])
    before, after = (
        recipe.offline.q(trained, obs, action),
        recipe.online.q(start, obs, action),
    )
    np.testing.assert_array_equal(after, before)


# Agents of other runs


def test_it_goes_on_from_a_cal_ql_agent_with_or_without_a_multiplier(trained):
    like = begin(dataclasses.replace(CONFIG, lagrange=False), KEY)
    taken = trained._replace(log_multiplier=())
    for config, source in ((CONFIG, taken), (CONFIG, trained)):
        found = wsrl.from_cal_ql(source, config)
        reference.close(found, trained, rtol=0)
    found = wsrl.from_cal_ql(trained, dataclasses.replace(CONFIG, lagrange=False))
    assert jax.tree.structure(found) == jax.tree.structure(like)


def test_it_goes_on_from_a_cql_agent_with_the_same_policy():
    """Neutral weights of log std make Cal-QL's policy of CQL's."""
    theirs = cql.CQLConfig(widths=(16, 16), num_critics=4)
    taken = cql.cql(SPEC, theirs).init(KEY)
    plain = dict(layer_norm=False, actor_layer_norm=False)
    config = dataclasses.replace(CONFIG, **plain)
    found = wsrl.from_cql(taken, config)
    assert jax.tree.structure(found) == jax.tree.structure(begin(config, KEY))
    obs = jax.random.normal(KEY, (3,))
    for kind in ("explore", "exploit"):
        ours, same = (
            getattr(agent, kind).act(state, (), obs, KEY)[0]
            for agent, state in (
                (wsrl.offline(SPEC, config), found),
                (cql.cql(SPEC, theirs), taken),
            )
        )
        np.testing.assert_allclose(ours, same, rtol=1e-6)
    for name in ("critic", "log_temperature", "target_critic"):
        reference.close(getattr(found, name), getattr(taken, name), rtol=0)


# Config


def test_more_target_critics_than_critics_are_refused():
    config = defaults("wsrl", "hopper-medium-replay")
    config.replay.name = "online"
    config.agent.num_critics = config.agent.num_target_critics = 5
    resolve.resolve(config)
    config.agent.num_target_critics = 6
    with pytest.raises(UserError, match="num_target_critics is 6; a target takes"):
        resolve.resolve(config)


def test_the_defaults_are_the_papers_for_mazes():
    config = wsrl.WSRLConfig()
    assert (config.lr, config.actor_lr, config.entropy_per_dim) == (3e-4, 1e-4, -1.0)
    assert (config.num_critics, config.num_target_critics) == (10, 2)
    assert (config.critic_steps, config.online_max_backup) == (4, True)
    assert config.layer_norm and config.actor_layer_norm and config.calibrate
    assert not config.entropy_backup
    theirs = cal_ql.CalQLConfig()  # all else as there
    for field in dataclasses.fields(theirs):
        if field.name not in ("num_critics", "layer_norm", "actor_layer_norm"):
            assert getattr(config, field.name) == getattr(theirs, field.name), field
