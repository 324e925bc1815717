import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_bcq

from o2ojax.agents import bcq
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = bcq.BCQConfig(
    gamma=0.9,
    target_rate=0.1,
    perturbation=0.3,
    num_candidates=3,
    num_candidates_act=5,
    widths=(16, 16),
    vae_widths=(16, 16),
)
BATCHES = reference.batches(3)
KEY = jax.random.key(0)
NUM_LATENTS = 4


@jax.jit
def begin(config, key):
    return bcq.bcq(SPEC, config).init(key)


@jax.jit
def update(config, state, batch, key):
    return bcq.bcq(SPEC, config).update(state, batch, key)


def steeper(params, factor):
    """The same weights, with the kernels of last layers larger by `factor`."""

    def scaled(path, leaf):
        is_last = [k.key for k in path[-2:]] == ["Dense_2", "kernel"]
        return leaf * factor if is_last else leaf

    return jax.tree_util.tree_map_with_path(scaled, params)


@pytest.fixture(scope="module")
def start():
    """Networks far from linear, targets of their own: all terms matter."""
    state, other = begin(CONFIG, KEY), begin(CONFIG, jax.random.key(1))
    return state._replace(
        vae=state.vae._replace(params=steeper(state.vae.params, 4.0)),
        actor=state.actor._replace(params=steeper(state.actor.params, 3.0)),
        critic=state.critic._replace(params=steeper(state.critic.params, 3.0)),
        target_actor=steeper(other.target_actor, 3.0),
        target_critic=steeper(other.target_critic, 3.0),
    )


def context_sampling(key, rows=8):
    """The noise that an update's key stands for."""
    key_vae, key_next, key_actor = jax.random.split(key, 3)
    shapes = ((rows,), (CONFIG.num_candidates, rows), (rows,))
    return [
        np.float64(jax.random.normal(key, (*shape, NUM_LATENTS)))
        for key, shape in zip((key_vae, key_next, key_actor), shapes, strict=True)
    ]


def test_the_targets_start_as_what_they_follow():
    state = begin(CONFIG, KEY)
    reference.close(state.target_actor, state.actor.params, rtol=0)
    reference.close(state.target_critic, state.critic.params, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pessimism": 0.2, "kl_weight": 3.0, "latent_bound": 1.0, "gamma": 1.0},
        {"perturbation": 9.0},  # actions leave their bounds, and are clipped
    ],
)
def test_updates_are_those_of_the_reference(start, changes):
    """Three, so that the moments of Adam tell the size of every gradient."""
    config = dataclasses.replace(CONFIG, **changes)
    state, expected = start, reference.state_of(start)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = reference_bcq.bcq(
            expected, reference.double(batch), config, *context_sampling(key)
        )
        reference.close(info.metrics, metrics, rtol=2e-5, atol=2e-6)
        reference.agree_in_all(state, expected)


def test_a_latent_spread_beyond_its_bounds_is_clipped(start):
    """Below -4 and above 15 no gradient reaches the spread: also by hand."""
    params = jax.tree.map(jnp.copy, start.vae.params)
    last = params["params"]["encoder"]["Dense_2"]
    bias = jnp.zeros(2 * NUM_LATENTS).at[NUM_LATENTS:].set(-9.0)
    params["params"]["encoder"]["Dense_2"] = last | {"bias": bias}
    state = start._replace(vae=start.vae._replace(params=params))
    expected, metrics = reference_bcq.vae_step(
        reference.fresh(params),
        reference.double(BATCHES[0].data),
        context_sampling(KEY)[0],
        CONFIG.kl_weight,
        CONFIG.lr,
    )
    state, info = update(CONFIG, state, BATCHES[0], KEY)
    told = info.metrics["vae_loss"]
    np.testing.assert_allclose(told, metrics["vae_loss"], rtol=1e-5)
    reference.agree(state.vae, expected)
    pull = state.vae.opt_state[0].mu["params"]["encoder"]["Dense_2"]["bias"]
    np.testing.assert_array_equal(pull[NUM_LATENTS:], 0.0)
    assert np.abs(pull[:NUM_LATENTS]).min() > 0.0


def test_a_row_that_ended_does_not_look_ahead(start):
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 99.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


def test_the_critics_do_not_teach_the_model_of_the_data(start):
    batch = BATCHES[0]
    richer = batch._replace(data=batch.data._replace(reward=batch.data.reward + 9))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, richer, KEY)
    reference.close(same.vae, state.vae, rtol=0)


# Acting

OBS = np.array([0.3, -1.0, 0.5], np.float32)


def act(config, state, policy, key):
    chosen = getattr(bcq.bcq(SPEC, config), policy)
    return chosen.act(state, (), jnp.asarray(OBS), key)[0]


def candidates(config, state, key):
    """What the policy chooses from [K, A], and its values by both critics [E, K]."""
    num = config.num_candidates_act
    latent = np.clip(jax.random.normal(key, (num, NUM_LATENTS)), -0.5, 0.5)
    obs = np.tile(OBS, (num, 1))
    vae, actor, critic = (
        reference.double(part.params) for part in (state.vae, state.actor, state.critic)
    )
    action = reference_bcq.decode(vae, obs, np.float64(latent))
    action = reference_bcq.perturb(actor, obs, action, config.perturbation)
    return action, reference.critic(critic, obs, action)


def test_exploring_takes_the_candidate_that_the_first_critic_likes_best(start):
    differently = 0
    for seed in range(9):
        key = jax.random.key(seed)
        action, q = candidates(CONFIG, start, key)
        assert len(np.unique(action[:, 0])) > 1
        np.testing.assert_allclose(
            act(CONFIG, start, "explore", key), action[q[0].argmax()], rtol=1e-4
        )
        differently += q[0].argmax() != q[1].argmax()
    assert differently > 0


def test_without_perturbation_and_choice_acting_is_the_models(start):
    """The decoder alone: neither the actor nor the critic has a say."""
    config = dataclasses.replace(CONFIG, perturbation=0.0, num_candidates_act=1)
    latent = np.clip(jax.random.normal(KEY, (1, NUM_LATENTS)), -0.5, 0.5)
    expected = reference_bcq.decode(
        reference.double(start.vae.params), OBS[None], np.float64(latent)
    )
    action = act(config, start, "explore", KEY)
    np.testing.assert_allclose(action, expected[0], rtol=1e-4)
    other = begin(CONFIG, jax.random.key(2))
    unlike = start._replace(actor=other.actor, critic=other.critic)
    same = act(config, unlike, "explore", KEY)
    np.testing.assert_array_equal(same, action)


def test_an_action_is_near_one_that_the_data_might_hold(start):
    config = dataclasses.replace(CONFIG, num_candidates_act=1)
    still = dataclasses.replace(config, perturbation=0.0)
    for seed in range(9):
        key = jax.random.key(seed)
        moved = act(config, start, "explore", key) - act(still, start, "explore", key)
        assert 1e-3 < np.abs(moved).max() <= 0.3 + 1e-6


def test_only_exploration_is_random(start):
    keys = jax.random.split(KEY, 9)
    exploited = np.array([act(CONFIG, start, "exploit", key) for key in keys])
    explored = np.array([act(CONFIG, start, "explore", key) for key in keys])
    np.testing.assert_array_equal(exploited, np.tile(exploited[:1], (9, 1)))
    assert len(np.unique(explored[:, 0])) == 9


def test_what_is_judged_is_one_of_the_ways_to_explore(start):
    action, q = candidates(CONFIG, start, jax.random.key(0))
    exploited = act(CONFIG, start, "exploit", jax.random.key(5))
    np.testing.assert_allclose(exploited, action[q[0].argmax()], rtol=1e-4)


def test_the_defaults_are_the_authors():
    config = bcq.BCQConfig()
    assert (config.lr, config.gamma, config.target_rate) == (1e-3, 0.99, 0.005)
    assert (config.perturbation, config.pessimism) == (0.05, 0.75)
    assert (config.latent_bound, config.kl_weight) == (0.5, 0.5)
    assert (config.num_candidates, config.num_candidates_act) == (10, 100)
    assert (config.widths, config.vae_widths) == ((400, 300), (750, 750))
    assert config.num_critics == 2
