"""BCQ once more, in the way of `reference`."""

import jax.numpy as jnp
from reference import critic, critic_step, descend, in_float64, mlp, polyak_update

from o2ojax.types import Batch


@in_float64
def decode(params, obs, latent):
    """Actions [..., A] of latents [..., L]."""
    obs = jnp.broadcast_to(obs, (*latent.shape[:-1], obs.shape[-1]))
    return jnp.tanh(
        mlp(params["params"]["decoder"], jnp.concatenate([obs, latent], -1))
    )


@in_float64
def perturb(params, obs, action, bound):
    """Actions [..., A] that the actor has moved by `bound` at most."""
    obs = jnp.broadcast_to(obs, (*action.shape[:-1], obs.shape[-1]))
    out = mlp(params["params"]["MLP_0"], jnp.concatenate([obs, action], -1))
    return jnp.clip(action + bound * jnp.tanh(out), -1, 1)


def vae_loss(params, data, noise, kl_weight):
    """mean (a' - a)^2 + w mean (mu^2 + sigma^2 - 1 - log sigma^2) / 2."""
    rows = jnp.concatenate([data.obs, data.action], -1)
    mean, raw = jnp.split(mlp(params["params"]["encoder"], rows), 2, axis=-1)
    log_std = jnp.clip(raw, -4, 15)
    std = jnp.exp(log_std)
    error = decode(params, data.obs, mean + std * noise) - data.action
    kl = (mean**2 + std**2 - 1 - 2 * log_std) / 2
    return (error**2).mean() + kl_weight * kl.mean()


@in_float64
def vae_step(adam, data, noise, kl_weight, lr):
    adam, loss = descend(adam, lr, vae_loss, data, noise, kl_weight)
    return adam, {"vae_loss": loss}


@in_float64
def bcq(state, batch: Batch, config, noise, next_latent, latent):
    """Standard normal draws: noise [B, L], next_latent [K, B, L], latent [B, L]."""
    data, bound = batch.data, config.latent_bound
    vae, metrics = vae_step(state["vae"], data, noise, config.kl_weight, config.lr)

    proposed = decode(vae.params, data.next_obs, jnp.clip(next_latent, -bound, bound))
    moved = perturb(state["target_actor"], data.next_obs, proposed, config.perturbation)
    next_q = critic(state["target_critic"], data.next_obs, moved)  # [E, K, B]
    low, high = next_q.min(0), next_q.max(0)
    next_v = (config.pessimism * low + (1 - config.pessimism) * high).max(0)
    target = data.reward + config.gamma * data.discount * next_v
    q, of_critic = critic_step(state["critic"], data, batch.weight, target, config.lr)

    action = decode(vae.params, data.obs, jnp.clip(latent, -bound, bound))

    def actor_loss(params):
        moved = perturb(params, data.obs, action, config.perturbation)
        return -critic(q.params, data.obs, moved)[0].mean()

    actor, loss = descend(state["actor"], config.lr, actor_loss)

    rate = config.target_rate
    state = dict(
        vae=vae,
        actor=actor,
        critic=q,
        target_actor=polyak_update(state["target_actor"], actor.params, rate),
        target_critic=polyak_update(state["target_critic"], q.params, rate),
    )
    return state, metrics | of_critic | {"actor_loss": loss}
