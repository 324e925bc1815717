"""One gradient step, and one step of a target network."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from o2ojax.parallel import devices
from o2ojax.types import Array, Metrics, Params


class TrainState(NamedTuple):
    """Weights, and what their optimiser remembers."""

    params: Params
    opt_state: Any


def init(optimiser: optax.GradientTransformation, params: Params) -> TrainState:
    """Weights before their first step."""
    return TrainState(params, optimiser.init(params))


def gradient_step(
    optimiser: optax.GradientTransformation,
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
            step, of less memory at a time. Divides B; see `slices_for`.
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


SLICE = 1024  # rows: 1 MB for a layer of 256, which a CPU's cache holds with others
LARGE = 2**19  # numbers in an array, 2 MB: more leave the cache


def slices_for(batch: int, rows_each: int) -> int:
    """How to cut a batch of `batch` times `rows_each` rows for `gradient_step`.

    Layers of more than SLICE rows are too large for a CPU's cache, and every ReLU then
    waits for memory. Other devices like large batches best.
    """
    if jax.default_backend() != "cpu":
        return 1
    fitting = (n for n in range(1, batch) if batch % n == 0)
    return next((n for n in fitting if batch // n * rows_each <= SLICE), batch)


def each(function: Callable[..., Any]) -> Callable:
    """Maps (state, *inputs) -> (state, outputs) over an ensemble, leaves [N, ...].

    As `jax.vmap`, all at once; but on a CPU one after another, as its cache holds the
    layers of one and not those of all. Each new state is written over the old one.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(function)

    def one_after_another(states, *inputs):
        def one(states, turn):
            at, own = turn
            old = jax.tree.map(lambda x: x[at], states)
            state, outputs = function(old, *own)
            chex.assert_trees_all_equal_shapes_and_dtypes(state, old)
            return jax.tree.map(
                lambda x, new: x.at[at].set(new), states, state
            ), outputs

        turns = jnp.arange(len(jax.tree.leaves(states)[0]))
        return jax.lax.scan(one, states, (turns, inputs))

    return one_after_another


def in_turn(function: Callable[..., Any], numbers: int) -> Callable[..., Any]:
    """The same function; on a CPU, if large, a batch of its calls is made one by one.

    Args:
        numbers: of its largest array. Batched, many of those would leave the cache.
    """
    if jax.default_backend() != "cpu" or numbers <= LARGE:
        return function
    return jax.custom_batching.sequential_vmap(function)


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
