"""What agents that infer their task have besides: an encoder, and a reward decoder."""

import flax.linen as nn
import jax.numpy as jnp

from o2ojax.networks import MLP, fan_in_uniform, small_uniform
from o2ojax.types import Array, Transition


def encoder_input(context: Transition, sees_next: bool) -> Array:
    """What the encoder sees of transitions, [..., I]."""
    seen = [context.obs, context.action, context.reward[..., None]]
    return jnp.concatenate(seen + [context.next_obs] * sees_next, axis=-1)


def append_latent(obs: Array, latent: Array) -> Array:
    """Observations [G, B, O] and a latent for each task [G, Z]: [G, B, O + Z]."""
    latent = jnp.broadcast_to(latent[:, None], (*obs.shape[:-1], latent.shape[-1]))
    return jnp.concatenate([obs, latent], axis=-1)


class ContextEncoder(nn.Module):
    """What a row of context says of its task: [..., I] -> mean, variance [..., Z]."""

    latent_dim: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, row: Array) -> tuple[Array, Array]:
        x = MLP(
            self.widths, 2 * self.latent_dim, fan_in_uniform(), small_uniform(3e-3)
        )(row)
        mean, spread = jnp.split(x, 2, axis=-1)
        return mean, jnp.maximum(nn.softplus(spread), 1e-7)


class RewardDecoder(nn.Module):
    """The reward in a task: obs, action and latent beside each other -> [...]."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, obs: Array, action: Array, latent: Array) -> Array:
        x = jnp.concatenate([obs, action, latent], axis=-1)
        mlp = MLP(self.widths, 1, fan_in_uniform(), small_uniform(3e-3))
        return mlp(x).squeeze(-1)
