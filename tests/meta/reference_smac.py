"""SMAC and PEARL once more, in the way of `reference`."""

import jax
import jax.numpy as jnp
import reference
from reference import critic, descend

from o2ojax.types import Batch, Transition


def flatten_time(data: Transition) -> Transition:
    """[G, B] as [G * B]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)


def posterior(params, context, sees_next):
    """Mean and standard deviation [G, Z] of the latent, given contexts [G, C]."""
    columns = [context.obs, context.action, context.reward[..., None]]
    seen = jnp.concatenate(columns + [context.next_obs] * sees_next, -1)
    mean, raw = jnp.split(reference.mlp(params["params"]["MLP_0"], seen), 2, axis=-1)
    precision = 1 / jnp.maximum(jnp.log1p(jnp.exp(raw)), 1e-7)
    total = precision.sum(1)
    return (mean * precision).sum(1) / total, total**-0.5


def kl(mean, std):
    """From N(0, 1), [G]."""
    return ((mean**2 + std**2 - 1 - 2 * jnp.log(std)) / 2).sum(1)


def with_latent(obs, z):
    """Rows [G * B, O], the latent [G, Z] of each row's task beside them."""
    return jnp.hstack([obs, jnp.repeat(z, len(obs) // len(z), axis=0)])


def pre_tanh_log_prob(params, obs, action):
    """Log-density [B] of actions that someone else took, by what the tanh was of."""
    mean, std = reference.spread(params, obs)
    before = jnp.arctanh(jnp.clip(action, -1 + 1e-5, 1 - 1e-5))
    log_prob = reference.log_normal(before, mean, std)
    return log_prob - jnp.log(1 - jnp.tanh(before) ** 2).sum(-1)


@reference.in_float64
def smac(state, batch: Batch, config, noises, online):
    """`noises`: of z and the next z [G, Z], the next action and the own [G * B, A]."""
    for_z, for_next_z, for_next, for_own = noises
    data = flatten_time(batch.data)
    policy, q_params = state["actor"].params, state["critic"].params

    def task_losses(params):
        """The decoder's squared error, and the KL of a task."""
        mean, std = posterior(params["encoder"], batch.context, config.sees_next)
        rows = with_latent(jnp.hstack([data.obs, data.action]), mean + std * for_z)
        predicted = reference.value(params["decoder"], rows)
        return ((predicted - data.reward) ** 2).mean(), kl(mean, std).mean()

    def task_loss(params):
        error, divergence = task_losses(params)
        return error + config.kl_weight * divergence

    old = state["tasks"].params
    tasks, loss = descend(state["tasks"], config.lr, task_loss)
    error, divergence = task_losses(old)
    metrics = {"task_loss": loss, "reward_error": error, "kl": divergence}
    if online and config.labels == "decoder":
        tasks = state["tasks"]

    mean, std = posterior(old["encoder"], batch.context, config.sees_next)
    z, next_z = mean + std * for_z, mean + std * for_next_z
    here, there = with_latent(data.obs, z), with_latent(data.next_obs, z)
    next_action, _ = reference.squashed(
        policy, with_latent(data.next_obs, next_z), for_next
    )
    next_q = critic(state["target_critic"], there, next_action).min(0)
    target = config.reward_scale * data.reward + config.gamma * data.discount * next_q
    new_q, of_critic = reference.critic_step(
        state["critic"], data._replace(obs=here), 1.0, target, config.lr
    )

    own_action, _ = reference.squashed(policy, here, for_own)
    q = critic(q_params, here, data.action).min(0)
    advantage = q - critic(q_params, here, own_action).min(0)
    weight = reference.advantage_weight(advantage, config.temperature)

    def actor_loss(params):
        imitation = -(weight * pre_tanh_log_prob(params, here, data.action)).mean()
        if not online:
            return imitation
        action, _ = reference.squashed(params, here, for_own)
        return (
            imitation - config.q_weight * critic(q_params, here, action).min(0).mean()
        )

    actor, loss = descend(state["actor"], config.lr, actor_loss)
    metrics |= {"actor_loss": loss, "advantage": advantage.mean()}

    target_critic = reference.polyak_update(
        state["target_critic"], new_q.params, config.target_rate
    )
    state = dict(tasks=tasks, actor=actor, critic=new_q, target_critic=target_critic)
    return state, metrics | of_critic


@reference.in_float64
def pearl(state, batch: Batch, config, noises):
    """`noises`: of z [G, Z], of the next action and of the own [G * B, A]."""
    for_z, for_next, for_own = noises
    data = flatten_time(batch.data)
    old, policy = state["critic"].params, state["actor"].params

    def infer(params):
        mean, std = posterior(params["encoder"], batch.context, config.sees_next)
        return mean + std * for_z, kl(mean, std).sum()

    z, divergence = infer(old)
    here, there = with_latent(data.obs, z), with_latent(data.next_obs, z)
    next_action, log_prob = reference.squashed(policy, there, for_next)
    next_q = critic(state["target_critic"], there, next_action).min(0)
    next_v = next_q - config.temperature * log_prob
    target = config.reward_scale * data.reward + config.gamma * data.discount * next_v

    def td_loss(params):
        obs = with_latent(data.obs, infer(params)[0])
        return reference.critic_loss(params["critic"], obs, data.action, 1.0, target)

    def critic_loss(params):
        return td_loss(params) + config.kl_weight * infer(params)[1]

    new_q, _ = descend(state["critic"], config.lr, critic_loss)
    q = critic(old["critic"], here, data.action)
    metrics = {"critic_loss": td_loss(old), "kl": divergence, "q": q.mean()}

    inputs = old["critic"], here, for_own, config.temperature
    actor, loss = descend(state["actor"], config.lr, reference.sac_actor_loss, *inputs)
    entropy = -reference.squashed(policy, here, for_own)[1].mean()
    metrics |= {"actor_loss": loss, "entropy": entropy}

    target_critic = reference.polyak_update(
        state["target_critic"], new_q.params["critic"], config.target_rate
    )
    return dict(critic=new_q, actor=actor, target_critic=target_critic), metrics
