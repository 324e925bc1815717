"""BCQ once more: NumPy, float64, every gradient written out."""

import numpy as np
from by_hand import (
    critic,
    critic_step,
    mlp,
    mlp_back,
    polyak_update,
    slope_by_action,
    step,
)

from o2ojax.types import Batch


def decode(params, obs, latent):
    """Actions [B, A], and what it takes to go back."""
    layers = params["params"]["decoder"]
    out, inputs = mlp(layers, np.concatenate([obs, latent], 1))
    return np.tanh(out), inputs


def perturb(params, obs, action, bound):
    """Moved actions [B, A], d moved / d out of the network, and its inputs."""
    layers = params["params"]["MLP_0"]
    out, inputs = mlp(layers, np.concatenate([obs, action], 1))
    free = action + bound * np.tanh(out)
    slope = (np.abs(free) < 1) * bound * (1 - np.tanh(out) ** 2)
    return np.clip(free, -1, 1), slope, inputs


def vae_step(adam, data, noise, kl_weight, lr):
    """One step down mean (a' - a)^2 + w mean (mu^2 + sigma^2 - 1 - log sigma^2) / 2."""
    rows, num_latents = noise.shape
    num_actions = data.action.shape[1]
    encoder, decoder = (adam.params["params"][name] for name in ("encoder", "decoder"))
    out, inputs = mlp(encoder, np.concatenate([data.obs, data.action], 1))
    mean, raw = out[:, :num_latents], out[:, num_latents:]
    log_std = np.clip(raw, -4, 15)
    std = np.exp(log_std)
    again, decoder_inputs = decode(adam.params, data.obs, mean + std * noise)

    error = again - data.action
    kl = (mean**2 + std**2 - 1 - 2 * log_std) / 2
    loss = (error**2).mean() + kl_weight * kl.mean()

    by_out = 2 * error / (rows * num_actions) * (1 - again**2)
    decoder_grads, slope = mlp_back(decoder, decoder_inputs, by_out)
    by_latent = slope[:, -num_latents:]
    share = kl_weight / (rows * num_latents)
    by_mean = by_latent + share * mean
    by_log_std = by_latent * noise * std + share * (std**2 - 1)
    by_log_std = by_log_std * ((raw > -4) & (raw < 15))
    encoder_grads, _ = mlp_back(encoder, inputs, np.hstack([by_mean, by_log_std]))
    grads = {"params": {"encoder": encoder_grads, "decoder": decoder_grads}}
    return step(adam, grads, lr), {"vae_loss": loss}


def bcq(state, batch: Batch, config, noise, next_latent, latent):
    """Standard normal draws: noise [B, L], next_latent [K, B, L], latent [B, L]."""
    data, rows = batch.data, len(batch.weight)
    num_actions = data.action.shape[1]
    bound = config.latent_bound

    vae, metrics = vae_step(state["vae"], data, noise, config.kl_weight, config.lr)

    best = np.full(rows, -np.inf)
    for draw in np.clip(next_latent, -bound, bound):
        action, _ = decode(vae.params, data.next_obs, draw)
        action, _, _ = perturb(
            state["target_actor"], data.next_obs, action, config.perturbation
        )
        q, _ = critic(state["target_critic"], data.next_obs, action)
        low, high = q.min(0), q.max(0)
        best = np.maximum(best, high + config.pessimism * (low - high))
    target = data.reward + config.gamma * data.discount * best
    q, told = critic_step(state["critic"], data, batch.weight, target, config.lr)
    metrics |= told

    old = state["actor"]
    action, _ = decode(vae.params, data.obs, np.clip(latent, -bound, bound))
    moved, slope, inputs = perturb(old.params, data.obs, action, config.perturbation)
    values, q_inputs = critic(q.params, data.obs, moved)
    by_action = slope_by_action(q.params, q_inputs, num_actions)[0]
    layers = old.params["params"]["MLP_0"]
    grads, _ = mlp_back(layers, inputs, -by_action * slope / rows)
    actor = step(old, {"params": {"MLP_0": grads}}, config.lr)
    metrics |= {"actor_loss": -values[0].mean()}

    rate = config.target_rate
    state = dict(
        vae=vae,
        actor=actor,
        critic=q,
        target_actor=polyak_update(state["target_actor"], actor.params, rate),
        target_critic=polyak_update(state["target_critic"], q.params, rate),
    )
    return state, metrics
