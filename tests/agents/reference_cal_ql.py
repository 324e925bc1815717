"""Cal-QL once more, in the way of `reference`: its paper's and JaxCQL's equations."""

import jax.numpy as jnp
import numpy as np
import reference
from jax.scipy.special import logsumexp
from reference_cql import Noise

from o2ojax.types import Batch


def squashed(params, obs, noise):
    """Actions and log-densities; two weights stretch and shift log std."""
    own = params["params"]
    mean, raw = jnp.split(reference.mlp(own["MLP_0"], obs), 2, axis=-1)
    log_std = own["log_std_scale"] * raw + own["log_std_shift"]
    std = jnp.exp(jnp.clip(log_std, -20, 2))
    before = mean + std * noise
    log_prob = reference.log_normal(before, mean, std)
    return jnp.tanh(before), log_prob - jnp.log(1 - jnp.tanh(before) ** 2).sum(-1)


def next_value(state, data, config, noise: Noise, some):
    """The lowest of the chosen critics first, then the best action, [B]."""
    params, alpha = state["actor"].params, jnp.exp(state["log_temperature"].params)
    action, log_prob = squashed(params, data.next_obs, noise.next_one)  # [K, B]
    lowest = reference.critic(state["target_critic"], data.next_obs, action)[some]
    lowest = np.asarray(lowest.min(0))
    best, rows = lowest.argmax(0), np.arange(lowest.shape[1])
    value = lowest[best, rows]
    if config.entropy_backup:
        value = value - alpha * np.asarray(log_prob)[best, rows]
    return value


@reference.in_float64
def cal_ql(state, batch: Batch, config, noise: Noise, some):
    """`some`: the critics of this update's target."""
    data, weight = batch.data, batch.weight
    old, q_params = state["actor"].params, state["critic"].params
    alpha = jnp.exp(state["log_temperature"].params)

    def actor_loss(params):
        action, log_prob = squashed(params, data.obs, noise.actor)
        q = reference.critic(q_params, data.obs, action).min(0)
        return (alpha * log_prob - q).mean()

    actor, loss = reference.descend(state["actor"], config.actor_lr, actor_loss)
    entropy = -squashed(old, data.obs, noise.actor)[1].mean()
    metrics = {"actor_loss": loss, "entropy": entropy, "temperature": alpha}
    wanted = config.entropy_per_dim * data.action.shape[-1]
    log_alpha, _ = reference.descend(
        state["log_temperature"], config.actor_lr, lambda x: x * (entropy - wanted)
    )

    target = data.reward + config.gamma * data.discount * next_value(
        state, data, config, noise, some
    )
    own, log_own = squashed(old, data.obs, noise.own)
    ahead, log_ahead = squashed(old, data.next_obs, noise.ahead)
    log_uniform = jnp.full(log_own.shape, np.log(0.5) * data.action.shape[-1])
    floor = data.extras["return_to_go"] if config.calibrate else -np.inf

    def gap(params):
        """Log-sum-exp over all the actions, less Q of the data's, [E, B]."""
        q_data = reference.critic(params, data.obs, data.action)
        parts = [reference.critic(params, data.obs, noise.uniform)]
        for action in (own, ahead):
            parts.append(jnp.maximum(reference.critic(params, data.obs, action), floor))
        if config.importance:
            logs = (log_uniform, log_own, log_ahead)
            parts = [q - log for q, log in zip(parts, logs, strict=True)]
        else:
            parts.append(q_data[:, None])
        scaled = jnp.concatenate(parts, axis=1) / config.gap_temperature
        return config.gap_temperature * logsumexp(scaled, axis=1) - q_data

    price, threshold = 1.0, 0.0
    if config.lagrange:
        price = jnp.exp(state["log_multiplier"].params)
        threshold = config.target_gap

    def critic_loss(params):
        error = reference.critic(params, data.obs, data.action) - target
        penalty = price * config.conservatism * (gap(params) - threshold)
        return (weight * (error**2 + penalty)).sum(0).mean()

    critic, loss = reference.descend(state["critic"], config.lr, critic_loss)
    mean_gap = (weight * gap(q_params)).mean()
    q = reference.critic(q_params, data.obs, data.action).mean()
    below = [
        reference.critic(q_params, data.obs, action) < floor for action in (own, ahead)
    ]
    metrics |= {"critic_loss": loss, "q": q, "gap": mean_gap}
    metrics["bounded"] = jnp.stack(below).mean()

    log_multiplier = state["log_multiplier"]
    if config.lagrange:
        metrics["multiplier"] = price
        log_multiplier, _ = reference.descend(
            log_multiplier,
            config.lr,
            lambda x: -jnp.exp(x) * config.conservatism * (mean_gap - threshold),
        )
    target_critic = reference.polyak_update(
        state["target_critic"], critic.params, config.target_rate
    )
    return dict(
        actor=actor,
        critic=critic,
        log_temperature=log_alpha,
        target_critic=target_critic,
        log_multiplier=log_multiplier,
    ), metrics
