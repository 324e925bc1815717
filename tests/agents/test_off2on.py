"""The ensemble: N agents apart offline, one policy and N targets online."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import batches

from o2ojax import losses
from o2ojax.agents import base, cql, off2on, sac
from o2ojax.errors import UserError
from o2ojax.types import Batch, EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = off2on.Off2OnConfig(
    online_lr=1e-3,
    gamma=0.9,
    target_rate=0.1,
    init_temperature=0.4,
    num_actions=2,
    num_agents=3,
    widths=(16, 16),
)
KEY = jax.random.key(0)
BATCH = batches(1)[0]  # 8 rows


def steeper(params, factor):
    """Last layers far from zero, so that all terms matter."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf * (factor if "Dense_2" in str(path) and leaf.ndim > 2 else 1)
        ),
        params,
    )


@pytest.fixture(scope="module")
def trained():
    """Three CQL agents as an offline phase might leave them."""
    state = jax.jit(off2on.offline(SPEC, CONFIG).init)(KEY)
    return state._replace(
        actor=state.actor._replace(params=steeper(state.actor.params, 300.0)),
        critic=state.critic._replace(params=steeper(state.critic.params, 200.0)),
    )


@pytest.fixture(scope="module")
def start(trained):
    """The ensemble, with targets of its own."""
    state = off2on.combine(trained, CONFIG)
    other = jax.jit(off2on.offline(SPEC, CONFIG).init)(jax.random.key(1))
    return state._replace(target_critic=steeper(other.critic.params, 200.0))


# The mixture


def test_its_moments_are_those_of_a_million_samples():
    draw = np.random.default_rng(0)
    mean, std = draw.normal(size=(5, 2)), draw.uniform(0.2, 2.0, (5, 2))
    which = draw.integers(0, 5, 1_000_000)
    samples = mean[which] + std[which] * draw.normal(size=(1_000_000, 2))
    policy = off2on.matched(jnp.float32(mean), jnp.float32(std))
    np.testing.assert_allclose(policy.gaussian.mean(), samples.mean(axis=0), atol=0.01)
    found = np.square(policy.gaussian.stddev())
    np.testing.assert_allclose(found, samples.var(axis=0), rtol=0.01)


def test_a_mixture_of_one_is_that_one():
    mean, std = jnp.array([[0.3, -2.0]]), jnp.array([[0.1, 1.5]])
    policy = off2on.matched(mean, std)
    np.testing.assert_allclose(policy.gaussian.mean(), mean[0], rtol=1e-6)
    np.testing.assert_allclose(policy.gaussian.stddev(), std[0], rtol=1e-6)


def test_the_first_online_actions_are_those_of_the_offline_ensemble(trained):
    """Sample by sample, and their moments before the tanh are the mixture's."""
    offline, online = off2on.offline(SPEC, CONFIG), off2on.online(SPEC, CONFIG)
    state = off2on.combine(trained, CONFIG)
    obs, keys = jnp.array([0.3, -0.2, 0.5]), jax.random.split(KEY, 20_000)

    def play(agent, state):
        act = jax.jit(jax.vmap(agent.explore.act, (None, None, None, 0)))
        return act(state, (), obs, keys)[0]

    actions = play(online, state)
    np.testing.assert_array_equal(actions, play(offline, trained))
    before = np.arctanh(np.clip(np.float64(actions), -1 + 1e-7, 1 - 1e-7))
    actor = off2on.networks.SquashedActor(2, (16, 16))
    each = [
        actor.apply(jax.tree.map(lambda x, i=i: x[i], trained.actor.params), obs)
        for i in range(3)
    ]
    mean = np.stack([np.float64(one.gaussian.mean()) for one in each])
    std = np.stack([np.float64(one.gaussian.stddev()) for one in each])
    variance = (mean**2 + std**2).mean(axis=0) - mean.mean(axis=0) ** 2
    error = 5 * np.sqrt(variance / len(keys))
    assert (np.abs(before.mean(axis=0) - mean.mean(axis=0)) < error).all()
    np.testing.assert_allclose(before.var(axis=0), variance, rtol=0.1)


# Offline


def test_each_agent_is_cql_on_a_batch_of_its_own():
    agent = off2on.offline(SPEC, CONFIG)
    alone = cql.cql(SPEC, off2on.cql_config(CONFIG))
    state = jax.jit(agent.init)(KEY)
    many = jax.tree.map(lambda *x: jnp.concatenate(x), *batches(3))
    together, _ = jax.jit(agent.update)(state, many, KEY)
    for at, batch in enumerate(batches(3)):
        mine = jax.tree.map(lambda x, at=at: x[at], state)
        key = jax.random.split(KEY, 3)[at]
        expected, _ = jax.jit(alone.update)(mine, batch, key)
        ours = jax.tree.map(lambda x, at=at: x[at], together)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            ours,
            expected,
        )
    assert off2on.ALGORITHM.batches(CONFIG) == 3


def test_cql_is_told_what_the_ensemble_was_told():
    config = off2on.Off2OnConfig(lr=0.1, actor_lr=0.2, conservatism=0.3, gamma=0.4)
    told = off2on.cql_config(config)
    assert (told.lr, told.actor_lr, told.conservatism, told.gamma) == (
        *(0.1, 0.2, 0.3, 0.4),
    )


# Online: the losses once more in NumPy, float64, and their slopes by differences


def mlp(params, x):
    layers = params["params"]["MLP_0"]
    for name in ("Dense_0", "Dense_1"):
        x = np.maximum(x @ layers[name]["kernel"] + layers[name]["bias"], 0.0)
    return x @ layers["Dense_2"]["kernel"] + layers["Dense_2"]["bias"]


def pick(params, *at):
    return jax.tree.map(lambda x: x[at], params)


def mixture_by_hand(actors, obs, noise):
    """Actions and log-densities of the matched Gaussian behind a tanh."""
    outs = [mlp(pick(actors, i), obs) for i in range(3)]
    means = np.stack([out[:, :2] for out in outs])
    stds = np.exp(np.clip(np.stack([out[:, 2:] for out in outs]), -20, 2))
    mean = means.mean(axis=0)
    var = (means**2 + stds**2).mean(axis=0) - mean**2
    std = np.clip(np.sqrt(var), np.exp(-20), np.exp(2))
    before = mean + std * noise
    log_prob = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    log_prob -= np.log(1 - np.tanh(before) ** 2)
    return np.tanh(before), log_prob.sum(axis=1)


def lower_by_hand(critics, obs, action):
    """The lower of each agent's two values, [N, B]."""
    x = np.concatenate([obs, action], axis=1)
    q = np.stack([[mlp(pick(critics, i, j), x) for j in range(2)] for i in range(3)])
    return q[..., 0].min(axis=1), q[..., 0]


def losses_by_hand(state, data, noise, next_noise):
    """The losses of the weights that each is for: functions of actors, critics."""
    temperature = np.exp(np.float64(state.log_temperature.params))
    action, log_prob = mixture_by_hand(state.actor.params, data.next_obs, next_noise)
    next_q, _ = lower_by_hand(state.target_critic, data.next_obs, action)
    value = next_q - temperature * log_prob
    target = data.reward + CONFIG.gamma * data.discount * value  # [N, B]

    def actor(params):
        action, log_prob = mixture_by_hand(params, data.obs, noise)
        q, _ = lower_by_hand(state.critic.params, data.obs, action)
        return (temperature * log_prob - q.mean(axis=0)).mean()

    def critic(params):
        _, q = lower_by_hand(params, data.obs, data.action)
        return ((q - target[:, None]) ** 2).sum(axis=(0, 1)).mean()

    _, log_prob = mixture_by_hand(state.actor.params, data.obs, noise)
    return actor, critic, -log_prob.mean()


def double(tree):
    return jax.tree.map(np.float64, tree)


def test_an_online_update_by_hand(start):
    """Losses as told, and gradients, which Adam's first moment holds a tenth of."""
    data = BATCH.data
    batch = Batch(data, jnp.ones(8), BATCH.index)
    after, info = jax.jit(off2on.online(SPEC, CONFIG).update)(start, batch, KEY)
    noise, next_noise = (
        np.float64(jax.random.normal(key, (8, 2))) for key in jax.random.split(KEY)
    )
    state = double(start)
    actor, critic, entropy = losses_by_hand(state, double(data), noise, next_noise)
    told = info.metrics
    np.testing.assert_allclose(told["actor_loss"], actor(state.actor.params), 1e-4)
    np.testing.assert_allclose(told["critic_loss"], critic(state.critic.params), 1e-4)
    np.testing.assert_allclose(told["entropy"], entropy, 1e-4)
    for name, loss in (("actor", actor), ("critic", critic)):
        params = getattr(state, name).params
        slope = jax.tree.map(
            lambda m: np.float64(m) / 0.1, getattr(after, name).opt_state[0].mu
        )
        draw = np.random.default_rng(3)
        for _ in range(5):
            way = jax.tree.map(lambda x, d=draw: d.normal(size=x.shape), params)
            step = 1e-6
            ahead, behind = (
                loss(jax.tree.map(lambda x, w, s=s: x + s * w, params, way))
                for s in (step, -step)
            )
            dots = jax.tree.map(lambda a, b: (a * b).sum(), slope, way)
            expected = (ahead - behind) / (2 * step)
            np.testing.assert_allclose(
                sum(jax.tree.leaves(dots)), expected, rtol=2e-3, atol=1e-4
            )
    log_temperature = start.log_temperature.params
    slope = jax.grad(losses.temperature_loss)(log_temperature, entropy, -2.0)
    found = after.log_temperature.opt_state[0].mu / 0.1
    np.testing.assert_allclose(found, slope, rtol=1e-3)
    np.testing.assert_allclose(slope, entropy + 2.0, rtol=1e-3)
    jax.tree.map(
        lambda new, old, now: np.testing.assert_allclose(
            new, 0.9 * old + 0.1 * now, rtol=1e-4, atol=1e-5
        ),
        after.target_critic,
        start.target_critic,
        after.critic.params,
    )


def test_each_agents_critics_learn_from_its_own_targets_alone(start):
    """Another target for one agent moves that agent's critics and no others."""
    batch = Batch(BATCH.data, jnp.ones(8), BATCH.index)
    update = jax.jit(off2on.online(SPEC, CONFIG).update)
    moved = jax.tree.map(lambda x: x.at[1].add(0.1), start.target_critic)
    one, _ = update(start, batch, KEY)
    other, _ = update(start._replace(target_critic=moved), batch, KEY)
    gap = jax.tree.map(
        lambda a, b: np.abs(a - b).reshape(3, -1).max(axis=1),
        one.critic.opt_state[0].mu,
        other.critic.opt_state[0].mu,
    )
    gap = np.max(jax.tree.leaves(gap), axis=0)
    assert gap[0] == gap[2] == 0 and gap[1] > 1e-3


# Hand-over


def test_online_begins_with_cqls_weights_and_all_else_anew(trained):
    recipe = off2on.recipe(SPEC, CONFIG, base.Plan(1, 1))
    state, replay = recipe.hand_over(trained, "full", "empty", KEY)
    assert replay == "empty"
    same = [
        (state.actor.params, trained.actor.params),
        (state.critic.params, trained.critic.params),
        (state.target_critic, trained.critic.params),  # not CQL's targets
    ]
    for ours, theirs in same:
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    np.testing.assert_allclose(np.exp(state.log_temperature.params), 0.4, rtol=1e-6)
    for learned in (state.actor, state.critic, state.log_temperature):
        assert learned.opt_state[0].count == 0
        assert not any(x.any() for x in jax.tree.leaves(learned.opt_state[0].mu))


def test_fewer_agents_are_the_first_ones_and_more_are_refused(trained):
    fewer = off2on.first_agents(trained, CONFIG.replace(num_agents=2))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:2]), fewer, trained)
    with pytest.raises(UserError, match="num_agents is 4, but .* has 3 CQL agent"):
        off2on.first_agents(trained, CONFIG.replace(num_agents=4))
    one = pick(trained, 0)
    alone = off2on.only_agent(one, CONFIG.replace(num_agents=1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), alone, one)
    with pytest.raises(UserError, match="has 1 CQL agent"):
        off2on.only_agent(one, CONFIG)


def test_sac_goes_on_from_the_first_agent(trained):
    config = sac.SACConfig(widths=(16, 16), init_temperature=0.7)
    state = sac.from_first(trained, config)
    first = pick(trained, 0)
    jax.tree.map(np.testing.assert_array_equal, state.actor.params, first.actor.params)
    jax.tree.map(
        np.testing.assert_array_equal, state.target_critic, first.critic.params
    )
    np.testing.assert_allclose(np.exp(state.log_temperature.params), 0.7, rtol=1e-6)
    like = jax.eval_shape(sac.sac(SPEC, config).init, KEY)
    assert jax.tree.structure(like) == jax.tree.structure(state)
