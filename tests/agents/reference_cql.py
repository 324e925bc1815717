"""CQL once more, in the way of `reference`: what it does beyond SAC."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import reference
from jax.scipy.special import logsumexp

from o2ojax.types import Batch


class Noise(NamedTuple):
    """What an update's key stands for: standard normal, but for `uniform`.

    actor:      [B, A]  of the action that the actor is judged by.
    next_one:   [K, B, A]  of the next actions looked ahead to; K is 1 for most.
    uniform:    [K, B, A]  of the actions that the gap compares with: in [-1, 1],
    own, ahead: [K, B, A]  ... the policy's here, and in the next state.
    """

    actor: np.ndarray
    next_one: np.ndarray
    uniform: np.ndarray
    own: np.ndarray
    ahead: np.ndarray


def td_target(state, data, config, noise):
    """y [B]: the best of the next actions, by the most pessimistic critic."""
    params, alpha = state["actor"].params, jnp.exp(state["log_temperature"].params)
    action, log_prob = reference.squashed(params, data.next_obs, noise.next_one)
    next_q = reference.critic(state["target_critic"], data.next_obs, action)
    if config.entropy_backup:
        next_q = next_q - alpha * log_prob
    return data.reward + config.gamma * data.discount * next_q.max(1).min(0)


def gaps(params, data, candidates, log_density, temperature):
    """T log sum_k exp((Q_e(s, a_k) - log p(a_k)) / T) - Q_e(s, a), [E, B]."""
    q = reference.critic(params, data.obs, candidates)
    ceiling = logsumexp((q - log_density) / temperature, axis=1)
    return temperature * ceiling - reference.critic(params, data.obs, data.action)


@reference.in_float64
def cql(state, batch: Batch, config, noise: Noise):
    data, weight = batch.data, batch.weight
    policy = state["actor"].params

    # what it shares with SAC, at the actor's learning rate
    slow = dataclasses.replace(config, lr=config.actor_lr)
    shared, metrics = reference.sac(state, batch, slow, noise.actor, noise.next_one[0])

    own, log_own = reference.squashed(policy, data.obs, noise.own)
    ahead, log_ahead = reference.squashed(policy, data.next_obs, noise.ahead)
    log_uniform = jnp.full(log_own.shape, np.log(0.5) * data.action.shape[-1])
    candidates = jnp.concatenate([noise.uniform, own, ahead])
    log_density = jnp.concatenate([log_uniform, log_own, log_ahead])
    price, threshold = 1.0, 0.0
    if config.lagrange:
        price, threshold = jnp.exp(state["log_multiplier"].params), config.target_gap
    target = td_target(state, data, config, noise)

    def gap(params):
        return gaps(params, data, candidates, log_density, config.gap_temperature)

    def critic_loss(params):
        error = reference.critic(params, data.obs, data.action) - target
        penalty = price * (config.conservatism * gap(params) - threshold)
        return (weight * (error**2 + penalty)).sum(0).mean()

    old = state["critic"].params
    critic, loss = reference.descend(state["critic"], config.lr, critic_loss)
    q = reference.critic(old, data.obs, data.action)
    mean_gap = (weight * gap(old)).mean()
    metrics |= {"critic_loss": loss, "q": q.mean(), "gap": mean_gap}

    def multiplier_loss(log_multiplier):
        excess = config.conservatism * mean_gap - threshold
        return -jnp.exp(log_multiplier) * excess

    log_multiplier = state["log_multiplier"]
    if config.lagrange:
        metrics["multiplier"] = price
        log_multiplier, _ = reference.descend(
            log_multiplier, config.lr, multiplier_loss
        )
    return shared | dict(
        critic=critic,
        target_critic=reference.polyak_update(
            state["target_critic"], critic.params, config.target_rate
        ),
        log_multiplier=log_multiplier,
    ), metrics
