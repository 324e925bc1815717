"""Gradient steps and target network updates."""

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
    """Network weights and the state of their optimiser."""

    params: Params
    opt_state: Any


def init(optimiser: Optimiser, params: Params) -> TrainState:
    """Pairs initial weights with an initial optimiser state."""
    return TrainState(params, optimiser.init(params))


def gradient_step(
    optimiser: Optimiser,
    learned: TrainState,
    loss_fn: Callable[..., tuple[Array, Metrics]],
    rows: Any = (),
    num_slices: int = 1,
) -> tuple[TrainState, Metrics]:
    """Takes one gradient step on `loss_fn(params, *rows) -> (loss [], metrics)`.

    Gradients and metrics are averaged over devices.

    Args:
        rows: arrays [B, ...]. The loss and its metrics must be means over B, and must
            get all their batched arrays through this argument.
        num_slices: number of equal slices of the batch whose gradients are computed one
            after another and averaged, which takes less memory for the same step. It
            must divide B; see `tuning.num_slices`.
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


def minibatches(rows: Any, num: int) -> Any:
    """Cuts rows [num * B, ...] into minibatches [num, B, ...] for updates in a scan.

    Minibatch i has the rows i, i + num, i + 2 num, ..., so that each of them has its
    part of the dataset's rows and of the gathered ones, which stand one after another.
    """
    return jax.tree.map(lambda x: x.reshape(-1, num, *x.shape[1:]).swapaxes(0, 1), rows)


def mean_over(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Averages `function` over the first axis of its inputs, by a sequential scan."""

    def add(total, one):
        return jax.tree.map(jnp.add, total, function(one)), None

    num = len(jax.tree.leaves(inputs)[0])
    first, rest = (
        jax.tree.map(lambda x, at=at: x[at], inputs) for at in (0, slice(1, None))
    )
    total, _ = jax.lax.scan(add, function(first), rest)
    return jax.tree.map(lambda x: x / num, total)


def polyak_update(target: Params, params: Params, rate: Array) -> Params:
    """Returns (1 - rate) * target + rate * params."""
    return optax.incremental_update(params, target, rate)


def finite(tree: Any) -> Array:
    """Returns whether all floating-point leaves of a pytree are finite, bool []."""
    floats = [
        leaf
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in floats]).all()
