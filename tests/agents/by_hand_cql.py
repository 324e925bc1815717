"""CQL once more, in the way of `by_hand`: what it does beyond SAC is written out."""

import dataclasses
from typing import NamedTuple

import by_hand
import numpy as np

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


def squashed(params, obs, noise):
    """Actions [K, B, A] and log-densities [K, B] of tanh(mean + std * noise)."""
    out, _ = by_hand.mlp(params["params"]["MLP_0"], obs)
    mean, raw = np.split(out, 2, axis=1)
    std = np.exp(np.clip(raw, -20, 2))
    actions, log_probs = [], []
    for draw in noise:
        action = np.tanh(mean + std * draw)
        gaussian = -(draw**2) / 2 - np.log(std) - by_hand.LOG_2PI / 2
        actions.append(action)
        log_probs.append((gaussian - np.log(1 - action**2)).sum(1))
    return np.stack(actions), np.stack(log_probs)


def values(params, obs, actions):
    """Q [E, K, B] of every critic, action and row, and the way back."""
    k, rows, _ = actions.shape
    flat = np.concatenate(list(actions))
    q, inputs = by_hand.critic(params, np.concatenate([obs] * k), flat)

    def back(slopes):
        return by_hand.critic_back(params, inputs, slopes.reshape(len(slopes), -1))

    return q.reshape(len(q), k, rows), back


def cql(state, batch: Batch, config, noise: Noise):
    data, weight = batch.data, batch.weight
    rows, num_actions = data.action.shape
    alpha = np.exp(state["log_temperature"].params)
    old = state["actor"].params

    # what it shares with SAC, at the actor's learning rate
    slow = dataclasses.replace(config, lr=config.actor_lr)
    shared, metrics = by_hand.sac(state, batch, slow, noise.actor, noise.next_one[0])
    actor, log_temperature = shared["actor"], shared["log_temperature"]

    next_action, next_log_prob = squashed(old, data.next_obs, noise.next_one)
    bonus = -alpha * next_log_prob if config.entropy_backup else 0 * next_log_prob
    next_q, _ = values(state["target_critic"], data.next_obs, next_action)
    best = [[max(q + bonus[:, b]) for b, q in enumerate(each.T)] for each in next_q]
    next_v = np.min(best, axis=0)
    target = data.reward + config.gamma * data.discount * next_v

    own, log_own = squashed(old, data.obs, noise.own)
    ahead, log_ahead = squashed(old, data.next_obs, noise.ahead)
    log_uniform = np.full(noise.uniform.shape[:2], np.log(0.5**num_actions))
    actions = np.concatenate([noise.uniform, own, ahead, data.action[None]])
    log_density = np.concatenate([log_uniform, log_own, log_ahead])
    q, back = values(state["critic"].params, data.obs, actions)
    q_sampled, q_data = q[:, :-1], q[:, -1]
    # T log sum exp(c / T), and its slope, the softmax
    scaled = (q_sampled - log_density) / config.gap_temperature
    top = scaled.max(1, keepdims=True)
    powers = np.exp(scaled - top)
    total = powers.sum(1, keepdims=True)
    gap = config.gap_temperature * (np.log(total) + top)[:, 0] - q_data  # [E, B]
    price, threshold = 1.0, 0.0
    if config.lagrange:
        price = np.exp(state["log_multiplier"].params)
        threshold = config.target_gap
    penalty = price * (config.conservatism * gap - threshold)
    error = q_data - target
    pull = price * config.conservatism * weight / rows
    slopes = np.concatenate(
        [
            pull * powers / total,
            (2 * weight * error / rows - pull)[:, None],
        ],
        axis=1,
    )
    critic = by_hand.step(state["critic"], back(slopes), config.lr)
    mean_gap = np.mean(weight * gap)
    metrics |= {
        "critic_loss": np.mean(weight * (error**2 + penalty).sum(0)),
        "q": q_data.mean(),
        "gap": mean_gap,
    }

    log_multiplier = state["log_multiplier"]
    if config.lagrange:
        metrics["multiplier"] = price
        slope = -price * (config.conservatism * mean_gap - threshold)
        log_multiplier = by_hand.step(log_multiplier, slope, config.lr)

    return dict(
        actor=actor,
        critic=critic,
        log_temperature=log_temperature,
        target_critic=by_hand.polyak_update(
            state["target_critic"], critic.params, config.target_rate
        ),
        log_multiplier=log_multiplier,
    ), metrics
