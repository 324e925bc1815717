"""ReBRAC once more, in the way of `reference`."""

import jax.numpy as jnp
import numpy as np
from reference import critic_after, descend, in_float64, mlp, polyak_update

from o2ojax.types import Batch


def relu(x):
    return jnp.where(x > 0, x, 0.0)


def act(params, obs):
    return jnp.tanh(mlp(params["params"]["MLP_0"], obs))


def critic(params, obs, action):
    return critic_after(params, obs, action, relu)


@in_float64
def rebrac(state, batch: Batch, config, noise, actor_share=1.0, critic_share=1.0):
    """`noise` [B, A]: standard normal, of the next actions."""
    data, weight = batch.data, batch.weight

    bound = config.smoothing_bound
    shake = jnp.clip(config.smoothing * noise, -bound, bound)
    next_action = jnp.clip(act(state["target_actor"], data.next_obs) + shake, -1, 1)
    next_q = critic(state["target_critic"], data.next_obs, next_action)
    beta = critic_share * config.critic_penalty
    target = np.zeros(len(data.reward))
    for row in range(len(target)):
        away = next_action[row] - data.extras["next_action"][row]
        penalty = 0.0 if data.last[row] else beta * (away**2).sum()
        value = min(q[row] for q in next_q) - penalty
        target[row] = data.reward[row] + config.gamma * data.discount[row] * value

    def critic_loss(params):
        error = critic(params, data.obs, data.action) - target
        return (weight * error**2).sum(0).mean()

    told = critic(state["critic"].params, data.obs, data.action)
    q, loss = descend(state["critic"], config.lr, critic_loss)
    metrics = {"critic_loss": loss, "q": told.mean()}

    def distance(params):
        return ((act(params, data.obs) - data.action) ** 2).sum(-1).mean()

    def lower_q(params):
        return critic(q.params, data.obs, act(params, data.obs)).min(0)

    old = state["actor"].params
    size = jnp.abs(lower_q(old)).mean()  # given, and has no gradient

    def actor_loss(params):
        closeness = actor_share * config.actor_penalty * distance(params)
        return closeness - lower_q(params).mean() / size

    actor, loss = descend(state["actor"], config.actor_lr, actor_loss)
    metrics |= {"actor_loss": loss, "distance": distance(old)}

    rate = config.target_rate
    new = dict(
        actor=actor,
        target_actor=polyak_update(state["target_actor"], old, rate),
        target_critic=polyak_update(state["target_critic"], q.params, rate),
    )
    count = state["step"] + 1
    if count % config.delay:
        new = {name: state[name] for name in new}
    return new | dict(critic=q, step=count), metrics
