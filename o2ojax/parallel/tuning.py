"""Device-dependent performance tuning, which does not change results.

Algorithms and networks call these functions in place of the plain ones, which each
docstring names, and get the same values. All choices depend only on `on_cpu`. A CPU
processes members, the agents of an ensemble and the slices of a batch one after
another, so that layers stay in its cache. An accelerator processes all of them at once,
in batched products. `benchmarks.gains` measures the gain of each choice.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from o2ojax.parallel import convolution, devices
from o2ojax.types import Array, Params

SLICE_ROWS = 1024  # 1 MB for a layer of width 256; several fit into a CPU's cache
LARGE = 2**19  # elements of an array, 2 MB; larger ones leave a CPU's cache
MANY_ROWS = 768  # a product of so many rows keeps all threads of a CPU busy


def on_cpu() -> bool:
    """Whether programs run on a CPU."""
    return jax.default_backend() == "cpu"


# Linear layers. The gradients are custom, and are matrix products.


def affine(x: Array, kernel: Array, bias: Array) -> Array:
    """`x @ kernel + bias`: x [..., I], kernel [I, O], bias [O] -> [..., O].

    XLA's CPU compiler is slow at the gradients that JAX derives. Its kernel gradient is
    the transpose of a product, transposed again wherever an optimiser reads it, which
    took a tenth of the time of IQL, CQL and FOWM; here it is x^T dy. Its bias gradient
    is a sum over rows, which took an eighth of CQL's time; here it is 1^T dy.
    """
    y = matmul(x, kernel)
    return y + repeat_row(bias, y.size // bias.size).reshape(y.shape)


def affine_shared(shared: Array, x: Array, kernel: Array, bias: Array) -> Array:
    """`affine` of K rows with a common prefix, whose product is computed once.

    Args:
        shared: [..., S], the common prefix of the K rows.
        x: [..., K, I], the rest of each row.
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
    """`jnp.broadcast_to`: repeats a row [..., O] to [..., num, O]. See `affine`."""
    return jnp.broadcast_to(row[..., None, :], (*row.shape[:-1], num, row.shape[-1]))


def _repeat_row_gradient(num, kept, slope):
    # Each network of an ensemble gets its own ones; shared ones would make XLA
    # transpose all slopes.
    ones = 1.0 + 0.0 * slope[..., :1]
    *each, rows, _ = range(slope.ndim)
    sums = jax.lax.dot_general(ones, slope, (((rows,), (rows,)), (each, each)))
    return (sums.squeeze(-2),)


repeat_row.defvjp(lambda row, num: (repeat_row(row, num), ()), _repeat_row_gradient)


def layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """`flax.linen.LayerNorm`: x [..., O], scale [O], bias [O] -> [..., O].

    XLA's CPU compiler is slow at sums over features and over rows, of which the
    gradients that JAX derives have many. Here all are products with ones.
    """
    normal = normalise(x, epsilon)
    num = x.size // scale.size
    scale, bias = (repeat_row(row, num).reshape(x.shape) for row in (scale, bias))
    return normal * scale + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalise(x: Array, epsilon: float) -> Array:
    """Rows [..., O] of mean 0 and of variance 1, less a trace of `epsilon`."""
    return _normalise(x, epsilon)[0]


def _normalise(x, epsilon):
    centred = x - _row_means(x)
    inverse = jax.lax.rsqrt(_row_means(centred**2) + epsilon)
    normal = centred * inverse
    return normal, (normal, inverse)


def _normalise_gradient(epsilon, kept, slope):
    normal, inverse = kept
    along = _row_means(slope * normal) * normal
    return (inverse * (slope - _row_means(slope) - along),)


normalise.defvjp(_normalise, _normalise_gradient)


def _row_means(x: Array) -> Array:
    """[..., O] -> [..., 1]; on a CPU a product, as XLA is slow at such sums there."""
    if not on_cpu():
        return jnp.mean(x, axis=-1, keepdims=True)
    size = x.shape[-1]
    return matmul(x, jnp.full((size, 1), 1 / size, x.dtype))


def convolve(x: Array, kernel: Array, stride: int) -> Array:
    """A convolution without padding: x [B, H, W, I], kernel [K, K, I, O].

    Returns:
        [B, H', W', O], H' = (H - K) // stride + 1.
    """
    form = convolution.convolve if on_cpu() else convolution.plain
    return form(x, kernel, stride)


def mish(x: Array) -> Array:
    """`jax.nn.mish`: x tanh(log(1 + e^x)), with a single exponential.

    Misra, "Mish: A Self Regularized Non-Monotonic Activation Function" (2019),
    arxiv.org/abs/1908.08681.
    """
    e = jnp.exp(jnp.minimum(x, 20.0))  # above 20, mish(x) = x
    grown = e * (e + 2.0)
    return x * (grown / (grown + 2.0))


# Batches.


def num_slices(batch: int, rows_each: int) -> int:
    """Number of slices for `learning.gradient_step`; 1 leaves the batch whole.

    Layers of more than SLICE_ROWS rows do not fit into a CPU's cache, and every ReLU
    then waits for memory. An accelerator is fastest with whole batches.

    Args:
        batch: B; the result divides it.
        rows_each: rows of a layer per row of the batch.
    """
    if not on_cpu():
        return 1
    fitting = (num for num in range(1, batch) if batch % num == 0)
    return next((n for n in fitting if batch // n * rows_each <= SLICE_ROWS), batch)


def sequential_if_large(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    """Makes `jax.vmap` of a function sequential on a CPU if its arrays are large.

    Args:
        size: elements of its largest array. Arrays of more than LARGE do not fit into a
            CPU's cache.
    """
    if not on_cpu() or size <= LARGE:
        return function
    return jax.custom_batching.sequential_vmap(function)


def scan_unrolled(step: Callable, carry: Any, inputs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` of a few steps, fully unrolled.

    The gradients of shared weights are then accumulated step by step.
    """
    return jax.lax.scan(step, carry, inputs, unroll=True)


# Ensembles.


def map_networks(apply: Callable[..., Any], params: Params, *inputs: Any) -> Any:
    """`jax.vmap(apply)` over weights [E, ...], with the same inputs for all: [E, ...].

    If `networks_in_sequence`, the networks are evaluated one after another.
    """
    # under jit, `matmul` does not accept NumPy weights from a closure
    params = jax.tree.map(jnp.asarray, params)
    if not networks_in_sequence(*inputs):
        return jax.vmap(lambda params: apply(params, *inputs))(params)
    num = len(jax.tree.leaves(params)[0])
    own = [jax.tree.map(lambda x, at=at: x[at], params) for at in range(num)]
    outputs = [apply(params, *inputs) for params in own]
    return jax.tree.map(lambda *x: jnp.stack(x), *outputs)


def networks_in_sequence(*inputs: Any) -> bool:
    """Whether to evaluate networks one by one: on a CPU, for MANY_ROWS rows or more.

    While one network waits for memory in a ReLU, the next one computes products.
    """
    rows = max(x.size // max(x.shape[-1], 1) for x in jax.tree.leaves(inputs))
    return on_cpu() and rows >= MANY_ROWS


def map_ensemble(function: Callable[..., tuple[Any, Any]]) -> Callable:
    """`jax.vmap` of (state, *inputs) -> (state, outputs) over agents, leaves [N, ...].

    On a CPU, agents are updated in sequence, each state overwriting its old one.
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
    """Applies `update`, (state) -> (state, outputs), to row `at` of leaves [N, ...]."""
    old = jax.tree.map(lambda x: x[at], states)
    new, outputs = update(old)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, old)
    return jax.tree.map(lambda x, new: x.at[at].set(new), states, new), outputs


# Members.


def members_in_sequence() -> bool:
    """Whether members are updated one by one, so that layers stay in a CPU's cache."""
    return on_cpu()


class MemberSequence:
    """Calls a program of one member for each member; has the API of a jitted function.

    A loop over members inside one program would be slower, as XLA parallelises nested
    loops less. The small program that concatenates the outputs is compiled at its
    first call.
    """

    def __init__(self, turn: Any, mesh: Mesh | None):
        self.turn, self.mesh = turn, mesh

    def __call__(self, states: Any, *args: Any) -> tuple[Any, Any]:
        """Updates each member in turn. Leaves of states and outputs are [M, ...]."""
        outputs = []
        for at in range(self._on_each_device(states)):
            states, one = self.turn(states, np.int32(at), *args)
            outputs.append(one)
        return states, _join(self.mesh, len(outputs))(*outputs)

    def lower(self, states: Any, *args: Any) -> "MemberSequence":
        """As `lower` of a jitted function."""
        return MemberSequence(self.turn.lower(states, np.int32(0), *args), self.mesh)

    def compile(self) -> "MemberSequence":
        """As `compile` of a lowered function."""
        return MemberSequence(self.turn.compile(), self.mesh)

    def as_text(self) -> str:
        """As `as_text` of the program of one member."""
        return self.turn.as_text()

    def memory_analysis(self) -> Any:
        """As `memory_analysis` of that program, whose arguments include all members."""
        return self.turn.memory_analysis()

    def _cache_size(self) -> int:
        return self.turn._cache_size()

    def _on_each_device(self, states: Any) -> int:
        num = len(jax.tree.leaves(states)[0])
        return num // self.mesh.shape[devices.MEMBERS] if self.mesh else num


@functools.cache
def _join(mesh: Mesh | None, num: int) -> Callable:
    """Jits the concatenation of `num` outputs, in the order of the members."""

    def join(*outputs):
        return jax.tree.map(lambda *x: jnp.concatenate(x), *outputs)

    return jax.jit(devices.over_places(mesh, join, (0,) * num))


# The compiler.


def compiler_options(once: bool = False) -> dict[str, Any]:
    """XLA compiler options that make code faster here; {} if XLA does not know them.

    On a CPU, XLA's matrix library gets only products: it is slow at sums over features,
    as in FOWM's LayerNorm. LLVM optimises less what runs once, to the same bits: to
    draw IQL's weights takes 0.6 s either way, and to compile that 1.6 s instead of 9.3.
    """
    if not on_cpu():
        return {}
    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    fast = {"xla_backend_optimization_level": 1} if once and not chosen else {}
    return _cpu_options() | fast


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
