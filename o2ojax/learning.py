"""One gradient step, and one step of a target network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax.types import Array, Metrics, Params


class Learned(NamedTuple):
    """Weights, and what their optimiser remembers."""

    params: Params
    opt_state: Any


def begin(optimiser: optax.GradientTransformation, params: Params) -> Learned:
    """Weights before their first step."""
    return Learned(params, optimiser.init(params))


def descend(
    optimiser: optax.GradientTransformation,
    learned: Learned,
    loss_fn: Callable[[Params], tuple[Array, Metrics]],
) -> tuple[Learned, Metrics]:
    """Takes one step down `loss_fn`, which returns its loss [] and its metrics."""
    grads, metrics = jax.grad(loss_fn, has_aux=True)(learned.params)
    updates, opt_state = optimiser.update(grads, learned.opt_state, learned.params)
    return Learned(optax.apply_updates(learned.params, updates), opt_state), metrics


def follow(target: Params, params: Params, rate: Array) -> Params:
    """Moves target weights by `rate` of the way towards the weights."""
    return optax.incremental_update(params, target, rate)


def finite(tree: Any) -> Array:
    """Whether every number of a pytree is finite, []."""
    floats = [
        leaf
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in floats]).all()
