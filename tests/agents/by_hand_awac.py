"""AWAC once more, in the way of `by_hand`: every gradient written out."""

import by_hand
import jax
import numpy as np

from o2ojax.types import Batch


def policy(params, obs):
    """Mean [B, A], std [A], and what it takes to go back."""
    out, inputs = by_hand.mlp(params["params"]["MLP_0"], obs)
    share = 1 / (1 + np.exp(-params["params"]["log_std_logit"]))
    return np.tanh(out), np.exp(-6 + 6 * share), share, inputs


def awac(state, batch: Batch, config, noise, next_noise):
    """`noise` [B, A]: standard normal, of the actions at obs and at next_obs."""
    data = batch.data
    rows = len(batch.weight)
    old, q_params = state["actor"].params, state["critic"].params

    mean, std, share, inputs = policy(old, data.obs)
    own = mean if config.value_at_mean else mean + std * noise
    q, _ = by_hand.critic(q_params, data.obs, data.action)
    v, _ = by_hand.critic(q_params, data.obs, own)
    advantage = q.min(0) - v.min(0)
    powers = np.exp((advantage - advantage.max()) / config.temperature)
    imitation = rows * powers / powers.sum()

    z = (data.action - mean) / std
    log_prob = (-(z**2) / 2 - np.log(std) - by_hand.LOG_2PI / 2).sum(1)
    pull = -imitation[:, None] / rows
    layers, _ = by_hand.mlp_back(
        old["params"]["MLP_0"], inputs, pull * z / std * (1 - mean**2)
    )
    by_log_std = (pull * (z**2 - 1)).sum(0)
    grads = {"MLP_0": layers, "log_std_logit": by_log_std * 6 * share * (1 - share)}
    decay = jax.tree.map(lambda x: config.weight_decay * x, old["params"])
    grads = jax.tree.map(np.add, grads, decay)
    actor = by_hand.step(state["actor"], {"params": grads}, config.lr)
    metrics = {
        "actor_loss": -(imitation * log_prob).mean(),
        "advantage": advantage.mean(),
    }

    next_mean, next_std, _, _ = policy(old, data.next_obs)
    next_action = next_mean + next_std * next_noise
    next_q, _ = by_hand.critic(state["target_critic"], data.next_obs, next_action)
    target = data.reward + config.gamma * data.discount * next_q.min(0)
    critic, told = by_hand.critic_step(
        state["critic"], data, batch.weight, target, config.lr
    )

    target_critic = by_hand.polyak_update(
        state["target_critic"], critic.params, config.target_rate
    )
    return dict(actor=actor, critic=critic, target_critic=target_critic), metrics | told
