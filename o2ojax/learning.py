"""One gradient step, and one step of a target network."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax.parallel import devices
from o2ojax.types import Array, Metrics, Params

Optimiser = optax.GradientTransformation


class TrainState(NamedTuple):
    """Weights, and what their optimiser remembers."""

    params: Params
    opt_state: Any


def init(optimiser: Optimiser, params: Params) -> TrainState:
    """Weights before their first step."""
    return TrainState(params, optimiser.init(params))


def gradient_step(
    optimiser: Optimiser,
    learned: TrainState,
    loss_fn: Callable[..., tuple[Array, Metrics]],
    rows: Any = (),
    num_slices: int = 1,
) -> tuple[TrainState, Metrics]:
    """Takes one step down `loss_fn(params, *rows)`: a loss [] and metrics.

    Args:
        rows: arrays [B, ...]. The loss and its metrics must be means over B, and take
            all that has rows from here.
        num_slices: into which the rows are cut, to be gone through one by one: the same
            step, of less memory at a time. Divides B; see `tuning.num_slices`.
    """
    gradient = functools.partial(jax.grad(loss_fn, has_aux=True), learned.params)
    if num_slices == 1:
        grads, metrics = gradient(*rows)
    else:
        cut = jax.tree.map(lambda x: x.reshape(num_slices, -1, *x.shape[1:]), rows)
        grads, metrics = mean_over(lambda rows: gradient(*rows), cut)
    grads, metrics = devices.average((grads, metrics))
    updates, opt_state = optimiser.update(grads, learned.opt_state, learned.params)
    return TrainState(optax.apply_updates(learned.params, updates), opt_state), metrics


def mean_over(function: Callable[[Any], Any], inputs: Any) -> Any:
    """The mean of a function's outputs over the first axis of its inputs, in turn."""

    def add(total, one):
        return jax.tree.map(jnp.add, total, function(one)), None

    num = len(jax.tree.leaves(inputs)[0])
    first, rest = (
        jax.tree.map(lambda x, at=at: x[at], inputs) for at in (0, slice(1, None))
    )
    total, _ = jax.lax.scan(add, function(first), rest)
    return jax.tree.map(lambda x: x / num, total)


def polyak_update(target: Params, params: Params, rate: Array) -> Params:
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
