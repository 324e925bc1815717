"""Seeing: which observations are images, their encoders, and their random shift.

An observation with images is a dict of named parts, among them frames, uint8
[..., H, W, C]; the frames of a stack stand along C, oldest first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from o2ojax.errors import UserError
from o2ojax.networks import Features, Init, orthogonal
from o2ojax.parallel import tuning
from o2ojax.types import (
    Agent,
    Array,
    Batch,
    EnvSpec,
    Info,
    Key,
    Obs,
    Params,
    Transition,
)

Layers = tuple[tuple[int, int, int], ...]  # of convolutions: features, kernel, stride

# DrQ: Kostrikov, Yarats and Fergus, "Image Augmentation Is All You Need" (2020),
# arxiv.org/abs/2004.13649. RLPD: Ball et al., "Efficient Online Reinforcement Learning
# with Offline Data" (2023), arxiv.org/abs/2302.02948. FOWM: see `agents/fowm.py`.
LAYERS: dict[str, Layers] = {
    "drq": ((32, 3, 2), (32, 3, 1), (32, 3, 1), (32, 3, 1)),
    "rlpd": ((32, 3, 2), (64, 3, 2), (128, 3, 2), (256, 3, 2)),
    "fowm": ((32, 7, 2), (32, 5, 2), (32, 3, 2), (32, 3, 2)),
}
ENCODERS = ("rlpd", "drq")  # that an agent's config may choose


def is_image(part: Any) -> bool:
    """Whether a part of `EnvSpec.obs` is an image: uint8 [H, W, C]."""
    return part.dtype == jnp.uint8 and len(part.shape) == 3


def image_parts(obs: Any) -> dict[str, Any]:
    """The parts of an `EnvSpec.obs` that are images, by name; {} where none is."""
    if not isinstance(obs, dict):
        return {}
    return {name: part for name, part in obs.items() if is_image(part)}


def newest(rows: Transition, spec: EnvSpec) -> Transition:
    """Rows [...] with the newest frame of each stack, as a dataset keeps them."""
    images = image_parts(spec.obs)
    if not images or spec.stack == 1:
        return rows

    def kept(obs: Obs) -> Obs:
        channels = {name: x.shape[-1] // spec.stack for name, x in images.items()}
        return obs | {name: obs[name][..., -num:] for name, num in channels.items()}

    return rows._replace(obs=kept(rows.obs), next_obs=kept(rows.next_obs))


def smallest(layers: Layers) -> int:
    """The smallest height and width of frames that some convolutions can look at."""
    size = 1
    for _, kernel, stride in reversed(layers):
        size = (size - 1) * stride + kernel
    return size


class Conv(nn.Module):
    """A convolution without padding: [B, H, W, I] -> [B, H', W', features].

    It begins orthogonal, as in DrQ and FOWM; RLPD's begin by Xavier's rule.
    """

    features: int
    kernel: int
    stride: int
    kernel_init: Init = orthogonal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)

        def init(key):  # orthogonal where the kernel is a matrix, [K K I, O]
            flat = self.kernel_init(key, (self.kernel**2 * x.shape[-1], self.features))
            return flat.reshape(shape)

        kernel = self.param("kernel", init)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = tuning.convolve(x, kernel, self.stride)
        return y + tuning.repeat_row(bias, y.size // self.features).reshape(y.shape)


class Convolutions(nn.Module):
    """Frames, uint8 [..., H, W, C], to features [..., F]: ReLU convolutions.

    Raises:
        UserError: the frames are too small for them.
    """

    layers: Layers

    @nn.compact
    def __call__(self, frames: Array) -> Array:
        height, width, needed = *frames.shape[-3:-1], smallest(self.layers)
        if min(height, width) < needed:
            raise UserError(
                f"images are of {height} x {width}, and the convolutions that look at"
                f" them need {needed} x {needed} or more: show larger ones, or choose"
                " others"
            )
        x = frames.reshape(-1, *frames.shape[-3:]).astype(jnp.float32) / 255
        for layer in self.layers:
            x = nn.relu(Conv(*layer)(x))
        return x.reshape(*frames.shape[:-3], -1)


class Encoder(nn.Module):
    """The images among the parts of an observation, seen; the other parts, joined."""

    layers: Layers

    @nn.compact
    def __call__(self, obs: Obs) -> Features:
        parts = [part for _, part in sorted(obs.items())]
        frames = [part for part in parts if part.dtype == jnp.uint8]
        numbers = [part for part in parts if part.dtype != jnp.uint8]
        seen = [Convolutions(self.layers)(part) for part in frames]
        images = jnp.concatenate(seen, axis=-1)
        if not numbers:
            return Features(images, jnp.zeros((*images.shape[:-1], 0)))
        return Features(images, jnp.concatenate(numbers, axis=-1))


class Sighted(NamedTuple):
    """A network, or an `Ensemble`, before which stand convolutions of its own.

    It has the interface of the network, on raw observations. Its weights are those of
    both, by name, so that the network's loss trains both.
    """

    encoder: Encoder
    network: Any

    def init(self, key: Key, obs: Obs, *inputs: Array) -> Params:
        """The weights of the convolutions and of the network."""
        key_encoder, key_network = jax.random.split(key)
        encoder = self.encoder.init(key_encoder, obs)
        features = self.encoder.apply(encoder, obs)
        network = self.network.init(key_network, features, *inputs)
        return {"encoder": encoder, "network": network}

    def apply(self, params: Params, obs: Obs, *inputs: Array) -> Any:
        """What the network makes of raw observations, each part [..., *its shape]."""
        features = self.encoder.apply(params["encoder"], obs)
        return self.network.apply(params["network"], features, *inputs)

    def pick(self, params: Params, which: Array) -> Params:
        """The weights of some members of an ensemble, and of the convolutions."""
        return params | {"network": self.network.pick(params["network"], which)}


def sighted(spec: EnvSpec, config: Any, network: Any) -> Any:
    """The network, with convolutions before it where the observation has images.

    Args:
        config: an agent's, whose field `encoder` names them among ENCODERS.
    """
    if not image_parts(spec.obs):
        return network
    return Sighted(Encoder(LAYERS[config.encoder]), network)


def eyes(spec: EnvSpec, config: Any) -> Callable[[Params, Obs], Obs]:
    """What a policy gets to see: (weights of the `sighted` critics, obs) -> obs.

    Of images, it is the features of the critics' convolutions, without a gradient: the
    critics' loss alone trains these, as in DrQ. All else passes unchanged. A policy
    acts through the newest convolutions, as in DrQ; in RLPD's own code it acts through
    those with which its last update began.
    """
    if not image_parts(spec.obs):
        return lambda critic, obs: obs
    encoder = Encoder(LAYERS[config.encoder])

    def see(critic: Params, obs: Obs) -> Features:
        return jax.lax.stop_gradient(encoder.apply(critic["encoder"], obs))

    return see


def shifting(spec: EnvSpec, config: Any, agent: Agent) -> Agent:
    """An agent that learns from images moved by up to `config.shift` pixels.

    The images of a row move alike in a stack, and each by itself otherwise: an
    observation, the next one, and those of other rows. They are moved once for an
    update, as in RLPD; DrQ averages targets and losses over two shifts.
    """
    names = image_parts(spec.obs)
    if not names or not config.shift:
        return agent

    def moved(key: Key, obs: Obs) -> Obs:
        keys = jax.random.split(key, len(names))
        shift = {
            name: random_shift(key, obs[name], config.shift)
            for name, key in zip(names, keys, strict=True)
        }
        return obs | shift

    def update(state: Any, batch: Batch, key: Key) -> tuple[Any, Info]:
        key, key_obs, key_next = jax.random.split(key, 3)
        data = batch.data._replace(
            obs=moved(key_obs, batch.data.obs),
            next_obs=moved(key_next, batch.data.next_obs),
        )
        return agent.update(state, batch._replace(data=data), key)

    return agent._replace(update=update)


def random_shift(key: Key, frames: Array, pad: int) -> Array:
    """Moves each image by up to `pad` pixels up, down, left and right, at random.

    What comes in at an edge is the edge, repeated. Kostrikov, Yarats and Fergus (2020),
    as DrQ's code does it: pad, then crop.

    Args:
        frames: [..., H, W, C]; each image on leading axes moves by itself, all its
            channels alike.
    """
    height, width, channels = frames.shape[-3:]
    images = frames.reshape(-1, height, width, channels)
    edge = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = jnp.pad(images, edge, mode="edge")
    corner = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)

    def crop(image, corner):
        size = (height, width, channels)
        return jax.lax.dynamic_slice(image, (*corner, 0), size)

    return jax.vmap(crop)(padded, corner).reshape(frames.shape)
