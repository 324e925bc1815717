"""Beliefs over tasks: Gaussian posteriors of a latent task variable.

The encoder maps each transition to a Gaussian factor. The posterior is the normalised
product of the factors, whose precision is the sum of their precisions. So a belief
consists of sums: it is permutation-invariant and can be updated transition by
transition.

Rakelly et al., "Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
Context Variables" (2019), arxiv.org/abs/1903.08254. As in its code, the prior is not
a factor of the product; it is the belief without any transition.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.types import Array, Key


class Belief(NamedTuple):
    """The product of the Gaussian factors of some transitions (rows).

    precision: [..., Z]  sum of 1 / sigma^2.
    weighted:  [..., Z]  sum of mu / sigma^2.
    count:     [...]     number of rows.
    """

    precision: Array
    weighted: Array
    count: Array


def prior(latent_dim: int) -> Belief:
    """The belief without any rows; leaves [Z], [Z] and []."""
    zeros = jnp.zeros(latent_dim)
    return Belief(zeros, zeros, jnp.zeros(()))


def of_rows(mean: Array, variance: Array) -> Belief:
    """Multiplies the factors of C rows: [..., C, Z] to a belief of leaves [..., Z]."""
    precision = 1 / variance
    count = jnp.full(mean.shape[:-2], mean.shape[-2], jnp.float32)
    return Belief(precision.sum(-2), (mean * precision).sum(-2), count)


def more(belief: Belief, other: Belief) -> Belief:
    """Multiplies two beliefs."""
    return jax.tree.map(jnp.add, belief, other)


def as_if(belief: Belief, count: float) -> Belief:
    """Rescales a belief as if it had `count` rows; an empty belief stays empty."""
    times = jnp.where(belief.count > 0, count / jnp.maximum(belief.count, 1), 0.0)
    return Belief(
        belief.precision * times[..., None],
        belief.weighted * times[..., None],
        belief.count * times,
    )


def normal(belief: Belief) -> tuple[Array, Array]:
    """Mean and standard deviation, [..., Z]; 0 and 1 without rows.

    sigma^2 = 1 / sum_i 1 / sigma_i^2,   mu = sigma^2 sum_i mu_i / sigma_i^2
    """
    seen = (belief.count > 0)[..., None]
    precision = jnp.where(seen, belief.precision, 1.0)
    return belief.weighted / precision, jax.lax.rsqrt(precision)


def draw(belief: Belief, key: Key) -> Array:
    """Samples a latent task, [..., Z], by the reparameterisation trick."""
    mean, std = normal(belief)
    return mean + std * jax.random.normal(key, mean.shape)


def distance(belief: Belief, other: Belief) -> Array:
    """KL(belief || other), summed over the latent dimensions, [...].

    KL = sum (log(s' / s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2)
    """
    (mean, std), (there, width) = normal(belief), normal(other)
    squares = jnp.square(std) + jnp.square(mean - there)
    kl = jnp.log(width / std) + squares / (2 * jnp.square(width)) - 0.5
    return kl.sum(-1)
