"""FQL and IFQL once more, in the way of `reference`."""

import jax.numpy as jnp
from reference import critic_after, descend, gelu, in_float64, mlp_after, polyak_update

from o2ojax.types import Batch


def net(params, *inputs):
    """Outputs [..., A] of a flow or a policy for inputs side by side."""
    return mlp_after(params["params"]["MLP_0"], jnp.concatenate(inputs, -1), gelu)


def critic(params, obs, action):
    return critic_after(params, obs, action, gelu)


def value(params, obs):
    return mlp_after(params["params"]["MLP_0"], obs, gelu)[..., 0]


@in_float64
def flow_action(params, obs, noise, num_steps):
    action = noise
    for at in range(num_steps):
        time = jnp.full((*noise.shape[:-1], 1), at / num_steps)
        action = action + net(params, obs, action, time) / num_steps
    return jnp.clip(action, -1, 1)


@in_float64
def policy_action(params, obs, noise):
    return jnp.clip(net(params, obs, noise), -1, 1)


def flow_loss(params, data, weight, noise, time):
    """mean_b w_b mean_A (v - (a - z))^2, v at (1 - t) z + t a."""
    at = noise + time * (data.action - noise)
    error = net(params, data.obs, at, time) - data.action + noise
    return (weight * (error**2).mean(-1)).mean()


@in_float64
def fql(state, batch: Batch, config, noises):
    """`noises`: of next actions, of the flow, its times [B, 1], of the policy."""
    data, weight = batch.data, batch.weight
    next_noise, flow_noise, time, noise = noises
    old_actor, old_q = state["actor"].params, state["critic"].params

    next_action = policy_action(old_actor, data.next_obs, next_noise)
    next_q = critic(state["target_critic"], data.next_obs, next_action)
    next_v = next_q.min(0) if config.backup == "min" else next_q.sum(0) / len(next_q)
    target = data.reward + config.gamma * data.discount * next_v

    def critic_loss(params):
        error = critic(params, data.obs, data.action) - target
        return (weight * error**2).mean()

    q, loss = descend(state["critic"], config.lr, critic_loss)
    told = critic(old_q, data.obs, data.action).mean()
    metrics = {"critic_loss": loss, "q": told}

    inputs = data, weight, flow_noise, time
    flow, loss = descend(state["flow"], config.lr, flow_loss, *inputs)
    metrics |= {"flow_loss": loss}

    imitated = flow_action(state["flow"].params, data.obs, noise, config.flow_steps)

    def mean_q(params):
        action = jnp.clip(net(params, data.obs, noise), -1, 1)
        return critic(old_q, data.obs, action).mean(0)

    def distance(params):
        return ((net(params, data.obs, noise) - imitated) ** 2).mean()

    size = jnp.abs(mean_q(old_actor)).mean() if config.normalise_q else 1.0

    def actor_loss(params):
        return config.alpha * distance(params) - mean_q(params).mean() / size

    actor, loss = descend(state["actor"], config.lr, actor_loss)
    metrics |= {"actor_loss": loss, "distance": distance(old_actor)}

    target_critic = polyak_update(state["target_critic"], old_q, config.target_rate)
    state = dict(flow=flow, actor=actor, critic=q, target_critic=target_critic)
    return state, metrics


@in_float64
def ifql(state, batch: Batch, config, flow_noise, time):
    data, weight = batch.data, batch.weight
    old_q, old_v = state["critic"].params, state["value"].params
    target_q = critic(state["target_critic"], data.obs, data.action).min(0)

    def value_loss(params):
        error = target_q - value(params, data.obs)
        asymmetry = jnp.where(error < 0, 1 - config.expectile, config.expectile)
        return (weight * asymmetry * error**2).mean()

    v, loss = descend(state["value"], config.lr, value_loss)
    metrics = {"value_loss": loss, "value": value(old_v, data.obs).mean()}

    next_v = value(old_v, data.next_obs)
    target = data.reward + config.gamma * data.discount * next_v

    def critic_loss(params):
        error = critic(params, data.obs, data.action) - target
        return (weight * error**2).sum(0).mean()

    q, loss = descend(state["critic"], config.lr, critic_loss)
    told = critic(old_q, data.obs, data.action).mean()
    metrics |= {"critic_loss": loss, "q": told}

    inputs = data, weight, flow_noise, time
    actor, loss = descend(state["actor"], config.lr, flow_loss, *inputs)
    metrics |= {"flow_loss": loss}

    target_critic = polyak_update(state["target_critic"], old_q, config.target_rate)
    return dict(actor=actor, critic=q, value=v, target_critic=target_critic), metrics
