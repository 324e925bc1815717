"""RLPD and WSRL's online phase once more, in the way of `reference`: many critic steps.

What differs between the two is an argument of `update`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import reference

from o2ojax.types import Batch


class Noise(NamedTuple):
    """What an update's key stands for: standard normal, but for `few`.

    next_one: [num, K, B, A]  of the next actions that each critic step looks ahead to.
    few:      [num, num_target_critics]  the target critics of each step.
    actor:    [B', A]  of the actions that the actor is judged by.
    """

    next_one: np.ndarray
    few: np.ndarray
    actor: np.ndarray


def minibatch(batch: Batch, at: int, num: int) -> Batch:
    """Rows at, at + num, at + 2 num, ..."""
    return jax.tree.map(lambda rows: rows[at::num], batch)


def actor_loss(params, q_params, obs, noise, alpha, of_critics, squashed):
    """mean_b alpha log pi(a_b | s_b) - Q(s_b, a_b), of the policy's own a_b."""
    action, log_prob = squashed(params, obs, noise)
    q = of_critics(reference.critic(q_params, obs, action))
    return (alpha * log_prob - q).mean()


@reference.in_float64
def update(
    state,
    batch: Batch,
    config,
    noise: Noise,
    of_critics: Callable,
    actor_batch: Batch,
    lrs: dict,
    squashed: Callable = reference.squashed,
):
    """One update, of either.

    Args:
        of_critics: [E, B] -> [B], what the actor climbs, on `actor_batch`.
        lrs: by the name of what learns.
        squashed: the policy, (params, obs, noise) -> actions and log-densities.
    """
    num = config.critic_steps
    policy = state["actor"].params
    alpha = jnp.exp(state["log_temperature"].params)
    critic, target_critic = state["critic"], state["target_critic"]
    losses, values = [], []
    for at in range(num):
        data, weight, *_ = minibatch(batch, at, num)
        action, log_prob = squashed(policy, data.next_obs, noise.next_one[at])
        q = reference.critic(target_critic, data.next_obs, action)
        v = q[noise.few[at]].min(0)  # [K, B]
        if config.entropy_backup:
            v = v - alpha * log_prob
        target = data.reward + config.gamma * data.discount * v.max(0)
        inputs = data.obs, data.action, weight, target
        values.append(reference.critic(critic.params, data.obs, data.action).mean())
        critic, loss = reference.descend(
            critic, lrs["critic"], reference.critic_loss, *inputs
        )
        losses.append(loss)
        target_critic = reference.polyak_update(
            target_critic, critic.params, config.target_rate
        )

    obs = actor_batch.data.obs
    inputs = critic.params, obs, noise.actor, alpha
    actor, loss = reference.descend(
        state["actor"],
        lrs["actor"],
        lambda *x: actor_loss(*x, of_critics, squashed),
        *inputs,
    )
    entropy = -squashed(policy, obs, noise.actor)[1].mean()

    def temperature_loss(log_alpha):
        target_entropy = config.entropy_per_dim * noise.actor.shape[-1]
        return log_alpha * (entropy - target_entropy)

    log_temperature, _ = reference.descend(
        state["log_temperature"], lrs["log_temperature"], temperature_loss
    )
    metrics = {
        "critic_loss": np.mean(losses),
        "q": np.mean(values),
        "actor_loss": loss,
        "entropy": entropy,
        "temperature": alpha,
    }
    return state | dict(
        actor=actor,
        critic=critic,
        target_critic=target_critic,
        log_temperature=log_temperature,
    ), metrics
