"""How the same numbers come faster: every choice that depends on the device.

Algorithms and networks call these functions in the place of the plain ones, which each
docstring names, and get the same values. `on_cpu` is the only question asked. A CPU
works through the cache: it takes members, the agents of an ensemble, and the slices of
a batch one after another, so that the layers of one stay there. An accelerator takes
all of them at once, in batched products. `benchmarks.gains` measures what each gains.
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from o2ojax.parallel import devices
from o2ojax.types import Array, Params

SLICE_ROWS = 1024  # 1 MB for a layer of 256, which a CPU's cache holds with others
LARGE = 2**19  # numbers in an array, 2 MB: more leave the cache
MANY_ROWS = 768  # a product of so many keeps all of a CPU's threads busy by itself


def on_cpu() -> bool:
    """Whether programs run on a CPU."""
    return jax.default_backend() == "cpu"


# Linear layers. The gradients are written by hand, as products of rows.


def affine(x: Array, kernel: Array, bias: Array) -> Array:
    """`x @ kernel + bias`: x [..., I], kernel [I, O], bias [O] -> [..., O].

    XLA's CPU compiler is slow at the gradients that jax derives. That of the kernel is
    the transpose of a product, and is turned anew wherever an optimiser reads it, which
    took a tenth of the time of IQL, CQL and FOWM: here it is x^T dy. That of the bias
    is a sum over as many rows, which took an eighth of CQL's: here it is 1^T dy.
    """
    y = matmul(x, kernel)
    return y + repeat_row(bias, y.size // bias.size).reshape(y.shape)


def affine_shared(shared: Array, x: Array, kernel: Array, bias: Array) -> Array:
    """`affine` of rows that begin with the same inputs: the product of those is shared.

    Args:
        shared: [..., S]  what all K rows begin with.
        x: [..., K, I]  the rest of each row.
        kernel: [S + I, O].
        bias: [O].
    Returns:
        [..., K, O].
    """
    chex.assert_equal(shared.shape[:-1], x.shape[:-2])
    num_shared = shared.shape[-1]
    once = affine(shared, kernel[:num_shared], bias)
    return matmul(x, kernel[num_shared:]) + repeat_row(once, x.shape[-2])


@jax.custom_vjp
def matmul(x: Array, kernel: Array) -> Array:
    """`x @ kernel`: x [..., I], kernel [I, O] -> [..., O]. See `affine`."""
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _matmul_gradients(kept, slope):
    x, kernel = kept
    by_x = jax.lax.dot_general(slope, kernel, (((x.ndim - 1,), (1,)), ((), ())))
    x, slope = (rows.reshape(-1, rows.shape[-1]) for rows in (x, slope))
    return by_x, jax.lax.dot_general(x, slope, (((0,), (0,)), ((), ())))


matmul.defvjp(lambda x, kernel: (matmul(x, kernel), (x, kernel)), _matmul_gradients)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def repeat_row(row: Array, num: int) -> Array:
    """`jnp.broadcast_to`: a row [..., O], `num` times: [..., num, O]. See `affine`."""
    return jnp.broadcast_to(row[..., None, :], (*row.shape[:-1], num, row.shape[-1]))


def _repeat_row_gradient(num, kept, slope):
    # Of an ensemble, each has ones of its own: ones for all would turn all the slopes.
    ones = 1.0 + 0.0 * slope[..., :1]
    *each, rows, _ = range(slope.ndim)
    sums = jax.lax.dot_general(ones, slope, (((rows,), (rows,)), (each, each)))
    return (sums.squeeze(-2),)


repeat_row.defvjp(lambda row, num: (repeat_row(row, num), ()), _repeat_row_gradient)


def mish(x: Array) -> Array:
    """`jax.nn.mish`: x tanh(log(1 + e^x)), by one exponential.

    Misra, "Mish: A Self Regularized Non-Monotonic Activation Function" (2019),
    arxiv.org/abs/1908.08681.
    """
    e = jnp.exp(jnp.minimum(x, 20.0))  # beyond, Mish is x
    grown = e * (e + 2.0)
    return x * (grown / (grown + 2.0))


# Batches.


def num_slices(batch: int, rows_each: int) -> int:
    """Into how many slices `learning.gradient_step` cuts a batch; 1 leaves it whole.

    Layers of more than SLICE_ROWS rows leave a CPU's cache, and every ReLU then waits
    for memory. An accelerator likes large batches best.

    Args:
        batch: B, which the answer divides.
        rows_each: rows of a layer for each of B.
    """
    if not on_cpu():
        return 1
    fitting = (num for num in range(1, batch) if batch % num == 0)
    return next((n for n in fitting if batch // n * rows_each <= SLICE_ROWS), batch)


def sequential_if_large(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    """The same function, whose calls under `jax.vmap` are made in sequence if large.

    Args:
        size: numbers in its largest array. More than LARGE leave a CPU's cache, and
            are not batched there.
    """
    if not on_cpu() or size <= LARGE:
        return function
    return jax.custom_batching.sequential_vmap(function)


def scan_unrolled(step: Callable, carry: Any, inputs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` of a few steps, written out one after another.

    The steps' gradients of the same weights are then summed as they come.
    """
    return jax.lax.scan(step, carry, inputs, unroll=True)


# Ensembles.


def map_networks(apply: Callable[..., Array], params: Params, *inputs: Array) -> Array:
    """`jax.vmap(apply)` over weights [E, ...], with the same inputs for all: [E, ...].

    Where `networks_in_sequence`, one network meets its inputs after another.
    """
    # in a compiled program, `matmul` takes no NumPy weights that are closed over
    params = jax.tree.map(jnp.asarray, params)
    if not networks_in_sequence(*inputs):
        return jax.vmap(lambda params: apply(params, *inputs))(params)
    num = len(jax.tree.leaves(params)[0])
    own = [jax.tree.map(lambda x, at=at: x[at], params) for at in range(num)]
    return jnp.stack([apply(params, *inputs) for params in own])


def networks_in_sequence(*inputs: Array) -> bool:
    """Whether inputs [..., I] have MANY_ROWS, on a CPU.

    Where one network waits for memory, in a ReLU, the next one multiplies.
    """
    rows = max(x.size // x.shape[-1] for x in inputs)
    return on_cpu() and rows >= MANY_ROWS


def map_ensemble(function: Callable[..., tuple[Any, Any]]) -> Callable:
    """`jax.vmap` of (state, *inputs) -> (state, outputs) over agents, leaves [N, ...].

    On a CPU in sequence: each agent's new state is written over its old one.
    """
    if not on_cpu():
        return jax.vmap(function)

    def in_sequence(states, *inputs):
        def one(states, turn):
            at, inputs = turn
            return update_at(states, at, lambda state: function(state, *inputs))

        turns = jnp.arange(len(jax.tree.leaves(states)[0]))
        return jax.lax.scan(one, states, (turns, inputs))

    return in_sequence


def update_at(
    states: Any, at: Array, update: Callable[[Any], tuple[Any, Any]]
) -> tuple[Any, Any]:
    """Updates one of the states [N, ...] by (state) -> (state, outputs)."""
    old = jax.tree.map(lambda x: x[at], states)
    new, outputs = update(old)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, old)
    return jax.tree.map(lambda x, new: x.at[at].set(new), states, new), outputs


# Members.


def members_in_sequence() -> bool:
    """Whether members learn one after another: a CPU's cache holds one's layers."""
    return on_cpu()


class MemberSequence:
    """A program of one member's turn, called for each, as one of all members is.

    A loop over them inside a program would be slower: XLA runs the loops in a loop
    with less side by side. What joins their outputs compiles when it is first
    called, in a moment.
    """

    def __init__(self, turn: Any, mesh: Mesh | None):
        self.turn, self.mesh = turn, mesh

    def __call__(self, states: Any, *args: Any) -> tuple[Any, Any]:
        """Has each member take its turn. Leaves [M, ...]."""
        outputs = []
        for at in range(self._on_each_device(states)):
            states, one = self.turn(states, np.int32(at), *args)
            outputs.append(one)
        return states, _join(self.mesh, len(outputs))(*outputs)

    def lower(self, states: Any, *args: Any) -> "MemberSequence":
        """As of a jitted function."""
        return MemberSequence(self.turn.lower(states, np.int32(0), *args), self.mesh)

    def compile(self) -> "MemberSequence":
        """As of a lowered one."""
        return MemberSequence(self.turn.compile(), self.mesh)

    def as_text(self) -> str:
        """Of the program of a turn."""
        return self.turn.as_text()

    def memory_analysis(self) -> Any:
        """Of the program of a turn; its arguments are all members'."""
        return self.turn.memory_analysis()

    def _cache_size(self) -> int:
        return self.turn._cache_size()

    def _on_each_device(self, states: Any) -> int:
        num = len(jax.tree.leaves(states)[0])
        return num // self.mesh.shape[devices.MEMBERS] if self.mesh else num


@functools.cache
def _join(mesh: Mesh | None, num: int) -> Callable:
    """The outputs of all turns, in the order of the members."""

    def join(*outputs):
        return jax.tree.map(lambda *x: jnp.concatenate(x), *outputs)

    return jax.jit(devices.over_places(mesh, join, (0,) * num))


# The compiler.


def compiler_options() -> dict[str, str]:
    """What makes XLA's code faster here; {} where it does not know these options.

    On a CPU, its library for products may have the products, and nothing else: sums
    over features, as in LayerNorm, are slow there.
    """
    return _cpu_options() if on_cpu() else {}


@functools.cache
def _cpu_options() -> dict[str, str]:
    options = {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    }
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
