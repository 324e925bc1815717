"""The function approximators of FOWM: a world model, critics, V and a policy."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from o2ojax import losses
from o2ojax.agents import base
from o2ojax.networks import Dense, Ensemble, Init, orthogonal
from o2ojax.parallel import tuning
from o2ojax.types import Array, EnvSpec, Key, Obs, Params
from o2ojax.vision import LAYERS, Convolutions


class Latent(nn.Module):
    """The last layer of a latent state: [..., I] -> [..., Z], in (0, 1).

    Normalised and bounded, so that no imagined future runs away.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.sigmoid(
            nn.LayerNorm(1e-5)(Dense(self.dim, kernel_init=orthogonal(1.0))(x))
        )


class Encoder(nn.Module):
    """h: obs [..., O] -> latent state [..., Z].

    Of a dict of modalities, each has an encoder of its own, and the latents are
    averaged; that of images, uint8 [..., H, W, C], is convolutional.
    """

    latent_dim: int
    width: int

    @nn.compact
    def __call__(self, obs: Obs) -> Array:
        def encode(x):
            if x.dtype == jnp.uint8:
                return Latent(self.latent_dim)(Convolutions(LAYERS["fowm"])(x))
            x = nn.elu(Dense(self.width, kernel_init=orthogonal(1.0))(x))
            return Latent(self.latent_dim)(x)

        latents = [encode(x) for x in jax.tree.leaves(obs)]
        return sum(latents) / len(latents)


class NormedMLP(nn.Module):
    """A trunk: two normalised layers with Mish, [..., I] -> [..., width]."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(2):
            x = Dense(self.width, kernel_init=orthogonal(1.0))(x)
            x = nn.LayerNorm(1e-5)(x)
            x = tuning.mish(x)
        return x


class Dynamics(nn.Module):
    """d: latent [..., Z], action [..., A] -> the next latent [..., Z]."""

    width: int

    @nn.compact
    def __call__(self, z: Array, action: Array) -> Array:
        x = jnp.concatenate([z, action], axis=-1)
        return Latent(z.shape[-1])(NormedMLP(self.width)(x))


class LatentReward(nn.Module):
    """R: latent [..., Z], action [..., A] -> [...]. Its last layer begins as 0."""

    width: int

    @nn.compact
    def __call__(self, z: Array, action: Array) -> Array:
        x = NormedMLP(self.width)(jnp.concatenate([z, action], axis=-1))
        return Dense(1, kernel_init=nn.initializers.zeros)(x).squeeze(-1)


class LatentActor(nn.Module):
    """The policy: latent [..., Z] -> mean action [..., A]."""

    action_dim: int
    width: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        x = NormedMLP(self.width)(z)
        return jnp.tanh(Dense(self.action_dim, kernel_init=orthogonal(1.0))(x))


class LatentValue(nn.Module):
    """V(z), or Q(z, a) given an action, too: [..., Z] (, [..., A]) -> [...]."""

    width: int
    output_init: Init = orthogonal(1.0)

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        x = jnp.concatenate(inputs, axis=-1)
        x = Dense(self.width, kernel_init=orthogonal(1.0))(x)
        x = jnp.tanh(nn.LayerNorm(1e-5)(x))
        x = nn.elu(Dense(self.width, kernel_init=orthogonal(1.0))(x))
        return Dense(1, kernel_init=self.output_init)(x).squeeze(-1)


class Nets(NamedTuple):
    """The networks; their weights are kept under the same names."""

    encoder: Encoder
    dynamics: Dynamics
    reward: LatentReward
    critic: Ensemble  # of LatentValue, Q
    value: LatentValue  # V
    actor: LatentActor
    alive: LatentReward | None  # logit of the chance that the task goes on


def init_networks(nets: Nets, spec: EnvSpec, key: Key) -> dict[str, Params]:
    """The weights of those networks that there are, by name."""
    keys = dict(zip(Nets._fields, jax.random.split(key, len(nets)), strict=True))
    z, action = jnp.zeros(nets.encoder.latent_dim), base.blank_action(spec)
    inputs = dict(
        encoder=(base.blank_obs(spec),),
        dynamics=(z, action),
        reward=(z, action),
        critic=(z, action),
        value=(z,),
        actor=(z,),
        alive=(z, action),
    )
    return {
        name: net.init(keys[name], *inputs[name])
        for name, net in nets._asdict().items()
        if net is not None
    }


def imagine(
    nets: Nets, params: Params, obs: Obs, actions: Array
) -> tuple[Array, Array]:
    """From the first of obs [B, H, O] on: z_0 ... z_{H-1} and z_1 ... z_H, rows."""
    z = nets.encoder.apply(params["encoder"], jax.tree.map(lambda x: x[:, 0], obs))

    def step(z, action):
        after = nets.dynamics.apply(params["dynamics"], z, action)
        return after, (z, after)

    steps = actions.swapaxes(0, 1)
    _, (before, after) = tuning.scan_unrolled(step, z, steps)
    return before.reshape(-1, z.shape[-1]), after.reshape(-1, z.shape[-1])


def noisy_action(action: Array, noise: Array, std: Array) -> Array:
    """The policy's action [..., A], moved by standard normal draws, cut at 0.3.

    It stays within [-1, 1]; gradients go straight through that bound.
    """
    moved = action + jnp.clip(std * noise, -0.3, 0.3)
    return moved + jax.lax.stop_gradient(jnp.clip(moved, -1.0, 1.0) - moved)


def sample_pair(key: Key, num: int) -> Array:
    """Two different critics, [2]."""
    return jax.random.choice(key, num, (2,), replace=False)


def min_of_pair(values: Array, key: Key) -> Array:
    """The lower estimate of two critics, drawn among values [E, ...]: [...]."""
    return losses.lowest(values[sample_pair(key, len(values))])


def value_of_policy(
    nets: Nets, actor: Params, critic: Params, z: Array, std: Array, key: Key
) -> Array:
    """TD-MPC's: the lower Q of the policy's noisy action in latents [..., Z]: [...]."""
    key_noise, key_pair = jax.random.split(key)
    noise = jax.random.normal(key_noise, (*z.shape[:-1], nets.actor.action_dim))
    action = noisy_action(nets.actor.apply(actor, z), noise, std)
    return min_of_pair(nets.critic.apply(critic, z, action), key_pair)
