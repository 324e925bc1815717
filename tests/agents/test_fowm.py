"""FOWM beside its reference: every term, what it moves and what it leaves alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_fowm

from o2ojax.agents import fowm, fowm_networks
from o2ojax.types import Batch, EnvSpec, Transition, vector

SPEC = EnvSpec("made up", obs=vector(3), action_dim=2, horizon=50)
CONFIG = fowm.FOWMConfig(
    horizon=3,
    latent_dim=4,
    encoder_width=6,
    width=5,
    num_critics=3,
    num_samples=16,
    num_proposals=4,
    num_elites=6,
    expectile=0.8,
    beta=2.0,
    max_grad=1e6,
)
B, H = 4, CONFIG.horizon
KEY = jax.random.key(0)


def window(ends=()):
    """Windows [B, H] of noise; `ends` are the (row, step) at which episodes stop."""
    draw = np.random.default_rng(1)
    last = np.zeros((B, H), bool)
    for row, step in ends:
        last[row, step] = True
    return Transition(
        obs=np.float32(draw.normal(size=(B, H, 3))),
        action=np.float32(draw.uniform(-0.9, 0.9, (B, H, 2))),
        reward=np.float32(draw.normal(size=(B, H))),
        discount=np.where(last, 0.0, 1.0).astype(np.float32),
        next_obs=np.float32(draw.normal(size=(B, H, 3))),
        last=last,
        task=np.zeros((B, H), np.int32),
    )


WEIGHT = np.float32([1.0, 0.5, 0.25, 0.8])
ENDS = [(0, 0), (1, 1), (2, 2)]


def batch(ends=()):
    return Batch(jax.tree.map(jnp.asarray, window(ends)), jnp.asarray(WEIGHT), None)


@pytest.fixture(scope="module")
def start():
    """A state with noise on all weights, so that nothing is 0 by birth."""
    state = jax.jit(fowm.fowm(SPEC, CONFIG).init)(KEY)

    def noisy(tree, seed):
        leaves, tree = jax.tree.flatten(tree)
        draw = np.random.default_rng(seed)
        return jax.tree.unflatten(
            tree, [x + np.float32(0.3 * draw.normal(size=x.shape)) for x in leaves]
        )

    return state._replace(
        model=state.model._replace(params=noisy(state.model.params, 1)),
        actor=state.actor._replace(params=noisy(state.actor.params, 2)),
        target=noisy(state.target, 3),
    )


@jax.jit
def update(config, state, batch, key):
    return fowm.fowm(SPEC, config).update(state, batch, key)


def double(tree):
    return jax.tree.map(np.float64, tree)


def pairs(key):
    """The critics that the model's and the actor's targets are asked of."""
    return [
        np.asarray(fowm_networks.sample_pair(k, CONFIG.num_critics))
        for k in jax.random.split(key)
    ]


def gradient(learned):
    """What the last step took for the gradient, from Adam's first moment."""
    return jax.tree.map(lambda m: np.asarray(m) / 0.1, learned.opt_state[1][0].mu)


@reference.in_float64
def check_gradient(found, loss, params):
    reference.close(found, jax.grad(loss)(params), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ends", [(), ENDS], ids=["no end", "ends"])
def test_every_term_and_the_models_gradient(start, ends):
    params, target, data = double((start.model.params, start.target, window(ends)))
    held = reference_fowm.fixed(params, target, data, CONFIG, pairs(KEY)[0])
    state, info = update(CONFIG, start, batch(ends), KEY)

    terms = reference_fowm.terms(params, data, CONFIG, held).mean(1)
    terms *= (
        CONFIG.consistency_weight,
        CONFIG.reward_weight,
        CONFIG.value_weight,
        CONFIG.value_weight,
    )
    names = ("consistency_loss", "reward_loss", "critic_loss", "value_loss")
    for name, term in zip(names, terms, strict=True):
        np.testing.assert_allclose(info.metrics[name], term, rtol=1e-4)
    error = reference_fowm.td_error(params, data, CONFIG, held)
    np.testing.assert_allclose(info.td_error, error, rtol=1e-4)

    def loss(params):
        return reference_fowm.model_loss(params, data, np.float64(WEIGHT), CONFIG, held)

    check_gradient(gradient(state.model), loss, params)


@pytest.mark.parametrize("ends", [(), ENDS], ids=["no end", "ends"])
def test_the_actors_loss_and_gradient(start, ends):
    """Latents from before the model's step, V from after it; ends do not count."""
    data = double(window(ends))
    states = reference_fowm.imagine(double(start.model.params), data)
    state, info = update(CONFIG, start, batch(ends), KEY)
    after, target = double((state.model.params, start.target))
    pair, imitation = pairs(KEY)[1], []
    for t in range(H):
        q = reference_fowm.critics(target["critic"], states[t], data.action[:, t])
        advantage = q[pair].min(0) - reference_fowm.value(after["value"], states[t])
        imitation.append(np.minimum(np.exp(CONFIG.beta * advantage), CONFIG.max_weight))

    def loss(params):
        return reference_fowm.actor_loss(params, states, imitation, data, CONFIG)

    actor = double(start.actor.params)
    np.testing.assert_allclose(info.metrics["actor_loss"], loss(actor), rtol=1e-4)
    check_gradient(gradient(state.actor), loss, actor)


# Which parameters each term reaches
REACHED = {
    "consistency": {"encoder", "dynamics"},
    "reward": {"encoder", "dynamics", "reward"},
    "value": {"encoder", "dynamics", "critic", "value"},
}


@pytest.mark.parametrize("term", REACHED)
def test_a_term_moves_its_own_parameters_and_no_others(start, term):
    alone = {f"{name}_weight": float(name == term) for name in REACHED}
    config = dataclasses.replace(CONFIG, **alone)
    state, _ = update(config, start, batch(), KEY)
    for name, slopes in gradient(state.model).items():
        size = max(np.abs(x).max() for x in jax.tree.leaves(slopes))
        assert (size > 1e-6) == (name in REACHED[term]), name


def test_targets_follow_at_every_second_update_encoder_and_critics_alone(start):
    assert start.target.keys() == {"encoder", "critic"}
    first, _ = update(CONFIG, start, batch(), KEY)
    reference.close(first.target, start.target, rtol=0)
    second, _ = update(CONFIG, first, batch(), KEY)
    newest = {name: second.model.params[name] for name in start.target}
    expected = jax.tree.map(
        lambda old, new: 0.99 * old + 0.01 * new, start.target, newest
    )
    reference.close(second.target, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_by_their_global_norm(start):
    wide, _ = update(CONFIG, start, batch(), KEY)
    narrow, _ = update(dataclasses.replace(CONFIG, max_grad=0.01), start, batch(), KEY)
    for name in ("model", "actor"):
        free, cut = (gradient(getattr(state, name)) for state in (wide, narrow))
        norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(free)))
        assert norm > 0.01
        expected = jax.tree.map(lambda x, norm=norm: x * 0.01 / norm, free)
        reference.close(cut, expected, rtol=1e-3, atol=1e-7)


def test_rewards_and_critics_begin_as_0_and_v_does_not():
    params = fowm.fowm(SPEC, CONFIG).init(KEY).model.params
    last = {"reward": "Dense_0", "critic": "Dense_2", "value": "Dense_2"}
    kernels = {n: params[n]["params"][layer]["kernel"] for n, layer in last.items()}
    assert not np.any(kernels["reward"]) and not np.any(kernels["critic"])
    assert np.any(kernels["value"])


# Acting


@pytest.fixture(scope="module")
def acting(start):
    agent = fowm.fowm(SPEC, CONFIG)
    obs = jnp.array([0.3, -1.0, 0.5])
    both = {
        "explore": jax.jit(agent.explore.act),
        "exploit": jax.jit(agent.exploit.act),
    }

    def act(how, memory, key, state=start):
        return both[how](state, memory, obs, key)

    return act


def test_an_action_is_within_bounds_and_the_plan_is_carried_on(acting):
    blank = jnp.zeros((H, 2))
    action, memory = acting("exploit", blank, KEY)
    assert action.shape == (2,) and np.abs(action).max() <= 1
    assert memory.shape == (H, 2)
    np.testing.assert_array_equal(memory[-1], 0.0)
    assert np.abs(memory[:-1]).max() > 0


def test_exploring_adds_noise_and_is_cut_at_the_bounds(acting):
    blank, moved = jnp.zeros((H, 2)), []
    for key in jax.random.split(KEY, 16):
        exploited, _ = acting("exploit", blank, key)
        explored, _ = acting("explore", blank, key)
        assert np.abs(explored).max() <= 1
        moved.append(np.abs(explored - exploited).max())
    assert np.mean(np.array(moved) > 1e-3) > 0.5  # choices at a bound may stay there


def test_a_plan_is_dropped_where_the_episode_stops(start):
    agent = fowm.fowm(SPEC, CONFIG)
    step = jax.tree.map(lambda x: x[0, 0], window())
    for last in (False, True):
        memory, kept = agent.explore.observe(
            start, jnp.ones((H, 2)), step._replace(last=jnp.array(last))
        )
        np.testing.assert_array_equal(memory, 0.0 if last else 1.0)
        assert kept.reward == step.reward


def test_a_high_price_leads_to_plans_that_the_critics_agree_on(start):
    """The choice with a price disagrees less, in the mean over many observations."""

    def choices(penalty):
        config = dataclasses.replace(
            CONFIG, penalty=penalty, temperature=50.0, num_samples=64
        )
        agent = fowm.fowm(SPEC, config)
        keys = jax.random.split(KEY, 64)
        obs = jax.random.normal(KEY, (64, 3))
        act = jax.vmap(agent.exploit.act, (None, None, 0, 0))
        action, _ = act(start, jnp.zeros((H, 2)), obs, keys)
        nets, params = fowm.make_networks(SPEC, config), start.model.params
        z = nets.encoder.apply(params["encoder"], obs)
        return nets.critic.apply(params["critic"], z, action).std(axis=0, ddof=1)

    free, priced = (np.asarray(jax.jit(choices)(x)).mean() for x in (0.0, 1000.0))
    assert priced < 0.9 * free


def test_acting_by_the_mean_is_not_acting_by_an_elite(start):
    """By the mean, actions lie closer together than by draws from the elites."""

    def spread(by_mean):
        config = dataclasses.replace(CONFIG, by_mean=by_mean, temperature=0.01)
        act = jax.vmap(fowm.fowm(SPEC, config).exploit.act, (None, None, None, 0))
        obs, keys = jnp.array([0.3, -1.0, 0.5]), jax.random.split(KEY, 64)
        action, _ = jax.jit(act)(start, jnp.zeros((H, 2)), obs, keys)
        return np.asarray(action).std(axis=0).mean()

    assert spread(True) < 0.7 * spread(False)


# TD-MPC's values and policy

TDMPC = dataclasses.replace(CONFIG, in_sample=False)


def context_sampling(key):
    """The noise [B, H, A] and the pair that a policy's value is asked with."""
    key_noise, key_pair = jax.random.split(key)
    noise = jax.random.normal(key_noise, (H * B, 2))  # by rows, time first
    noise = np.float64(noise).reshape(H, B, 2).swapaxes(0, 1)
    noise = np.clip(TDMPC.noise * noise, -0.3, 0.3)
    return noise, np.asarray(fowm_networks.sample_pair(key_pair, TDMPC.num_critics))


@reference.in_float64
def policy_q(critic, actor, z, noise, pair):
    action = jnp.clip(reference_fowm.actor(actor, z) + noise, -1, 1)
    return reference_fowm.critics(critic, z, action)[pair].min(0)


def test_tdmpc_bootstraps_from_what_its_policy_would_do(start):
    params, target, data = double((start.model.params, start.target, window(ENDS)))
    noise, pair = context_sampling(jax.random.split(KEY)[0])
    seen, _, slow = reference_fowm.fixed(params, target, data, CONFIG, pair)
    targets = []
    for t in range(H):
        z = reference_fowm.encoder(params["encoder"], data.next_obs[:, t])
        actor = double(start.actor.params)
        q = policy_q(target["critic"], actor, z, noise[:, t], pair)
        targets.append(data.reward[:, t] + TDMPC.gamma * data.discount[:, t] * q)
    held = seen, targets, slow
    _, info = update(TDMPC, start, batch(ENDS), KEY)
    expected = (
        CONFIG.value_weight
        * reference_fowm.terms(params, data, CONFIG, held).mean(1)[2]
    )
    np.testing.assert_allclose(info.metrics["critic_loss"], expected, rtol=1e-4)
    assert "value_loss" not in info.metrics


def test_tdmpcs_policy_climbs_the_critics(start):
    data = double(window())
    states = reference_fowm.imagine(double(start.model.params), data)
    state, info = update(TDMPC, start, batch(), KEY)
    critic = double(state.model.params["critic"])  # after the model's step
    noise, pair = context_sampling(jax.random.split(KEY)[1])

    def loss(actor):
        each = [
            -(CONFIG.rho**t)
            * policy_q(critic, actor, states[t], noise[:, t], pair).mean()
            for t in range(H)
        ]
        return sum(each) / H

    actor = double(start.actor.params)
    np.testing.assert_allclose(info.metrics["actor_loss"], loss(actor), rtol=1e-4)
    check_gradient(gradient(state.actor), loss, actor)


def test_tdmpc_leaves_v_alone(start):
    state, _ = update(TDMPC, start, batch(), KEY)
    slopes = gradient(state.model)
    assert not any(np.any(x) for x in jax.tree.leaves(slopes["value"]))
    assert any(np.any(x) for x in jax.tree.leaves(slopes["critic"]))


# A model of the task's end

ENDING = dataclasses.replace(CONFIG, termination_weight=2.0, lr=3e-3)


@pytest.fixture(scope="module")
def ending():
    return jax.jit(fowm.fowm(SPEC, ENDING).init)(KEY)


def test_the_end_is_learned_by_cross_entropy(ending):
    _, info = update(ENDING, ending, batch(ENDS), KEY)
    counts = reference_fowm.counts(double(window(ENDS)), CONFIG.rho)
    # every chance is 1/2 at birth
    expected = ENDING.termination_weight * np.log(2.0) * counts.sum(0).mean()
    np.testing.assert_allclose(info.metrics["termination_loss"], expected, rtol=1e-5)


def test_the_end_is_foreseen_after_learning_and_bounds_what_is_planned_for(ending):
    """Windows that always end teach it, and then the plan's later steps are worth 0."""
    ends = batch([(row, 0) for row in range(B)])
    many = jax.jit(
        lambda state: jax.lax.scan(
            lambda s, k: (fowm.fowm(SPEC, ENDING).update(s, ends, k)[0], ()),
            state,
            jax.random.split(KEY, 300),
        )[0]
    )
    state = many(ending)
    nets, params = fowm.make_networks(SPEC, ENDING), state.model.params
    data = ends.data
    z = nets.encoder.apply(params["encoder"], data.obs[:, 0])
    logit = nets.alive.apply(params["alive"], z, data.action[:, 0])
    assert jax.nn.sigmoid(logit).max() < 0.3

    def plan(state):
        act = fowm.fowm(SPEC, ENDING).exploit.act
        return act(state, jnp.zeros((H, 2)), data.obs[0, 0], KEY)[1]

    born = state.model._replace(params=params | {"alive": ending.model.params["alive"]})
    found = [np.asarray(jax.jit(plan)(s)) for s in (state, state._replace(model=born))]
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_without_it_there_is_no_such_network(start):
    assert "alive" not in start.model.params
