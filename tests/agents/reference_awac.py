"""AWAC once more, in the way of `reference`."""

import jax
import jax.numpy as jnp
from reference import (
    advantage_weight,
    critic,
    critic_step,
    descend,
    in_float64,
    log_normal,
    mlp,
    polyak_update,
)

from o2ojax.types import Batch


@in_float64
def policy(params, obs):
    """Mean [..., A] and standard deviation [A]."""
    share = 1 / (1 + jnp.exp(-params["params"]["log_std_logit"]))
    return jnp.tanh(mlp(params["params"]["MLP_0"], obs)), jnp.exp(-6 + 6 * share)


def imitation(params, data, weight):
    mean, std = policy(params, data.obs)
    return -(weight * log_normal(data.action, mean, std)).mean()


def decayed(params, data, weight, decay):
    """The loss whose gradient has `decay` times the weights in it."""
    squares = sum((x**2).sum() for x in jax.tree.leaves(params))
    return imitation(params, data, weight) + decay * squares / 2


@in_float64
def awac(state, batch: Batch, config, noise, next_noise):
    """`noise` [B, A]: standard normal, of the actions at obs and at next_obs."""
    data = batch.data
    old, q_params = state["actor"].params, state["critic"].params

    mean, std = policy(old, data.obs)
    own = mean if config.value_at_mean else mean + std * noise
    q = critic(q_params, data.obs, data.action).min(0)
    advantage = q - critic(q_params, data.obs, own).min(0)
    weight = advantage_weight(advantage, config.temperature)
    inputs = data, weight, config.weight_decay
    actor, _ = descend(state["actor"], config.lr, decayed, *inputs)
    metrics = {
        "actor_loss": imitation(old, data, weight),
        "advantage": advantage.mean(),
    }

    next_mean, next_std = policy(old, data.next_obs)
    next_action = next_mean + next_std * next_noise
    next_q = critic(state["target_critic"], data.next_obs, next_action).min(0)
    target = data.reward + config.gamma * data.discount * next_q
    new_q, of_critic = critic_step(
        state["critic"], data, batch.weight, target, config.lr
    )
    target_critic = polyak_update(
        state["target_critic"], new_q.params, config.target_rate
    )
    state = dict(actor=actor, critic=new_q, target_critic=target_critic)
    return state, metrics | of_critic
