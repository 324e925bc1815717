"""Convolutions in the forms that XLA's CPU compiler makes fast.

As written, it computes them slowly in three cases, which `convolve` avoids:

- frames of three channels are too narrow for its products. A convolution that strides
  by s reads blocks of s x s pixels; blocks made pixels, of s s C channels, are wide;
- members with kernels of their own become one convolution of groups. They are computed
  one after another; what shares a kernel is one larger batch;
- the gradients that JAX derives are plain loops where they stand in a loop themselves,
  as updates do. They are made of products.

`benchmarks.gains` measures it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from o2ojax.types import Array

NARROW = 16  # channels; what has fewer is folded first


def plain(x: Array, kernel: Array, stride: int) -> Array:
    """The convolution as XLA has it; see `convolve`."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=numbers
    )


def convolve(x: Array, kernel: Array, stride: int) -> Array:
    """`plain`: x [B, H, W, I], kernel [K, K, I, O] -> [B, H', W', O], no padding."""
    if stride > 1 and x.shape[-1] < NARROW:
        blocks = _fold(x, len(kernel), stride)
        return _convolve(blocks, _fold_kernel(kernel, stride), 1)
    return _convolve(x, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, stride: int) -> Array:
    return _forward(stride)(x, kernel)


def _gradients(stride, kept, slope):
    x, kernel = kept
    by_frame = _sized(_frames_slope(stride)(slope, kernel), *x.shape[1:3])
    return by_frame, _kernel_slope(len(kernel), stride)(x, slope)


_convolve.defvjp(
    lambda x, kernel, stride: (_convolve(x, kernel, stride), (x, kernel)), _gradients
)


@functools.cache
def _forward(stride: int) -> Callable[[Array, Array], Array]:
    """`plain` of one stride."""

    @custom_vmap
    def forward(x, kernel):
        return plain(x, kernel, stride)

    @forward.def_vmap
    def of_many(num, mapped, x, kernel):
        return _rows_or_in_turn(forward, num, mapped, x, kernel), True

    return forward


@functools.cache
def _kernel_slope(size: int, stride: int) -> Callable[[Array, Array], Array]:
    """(x [B, H, W, I], slope [B, H', W', O]) -> [K, K, I, O], a product a row of it."""

    @custom_vmap
    def kernel_slope(x, slope):
        _, rows, columns, out = slope.shape
        down, right = (stride * (num - 1) + 1 for num in (rows, columns))
        # All that a row of the kernel sees of a row of the frame: [B, H, W', K I].
        starts = range(size)
        wide = jnp.concatenate([x[:, :, j : j + right : stride] for j in starts], -1)
        flat = slope.reshape(-1, out)

        def of_row(i):
            seen = wide[:, i : i + down : stride].reshape(len(flat), -1)
            return jax.lax.dot_general(seen, flat, (((0,), (0,)), ((), ())))

        return jnp.stack([of_row(i) for i in starts]).reshape(size, size, -1, out)

    @kernel_slope.def_vmap
    def of_many(num, mapped, x, slope):
        return _in_turn(kernel_slope, num, mapped, x, slope), True

    return kernel_slope


@functools.cache
def _frames_slope(stride: int) -> Callable[[Array, Array], Array]:
    """(slope [B, H', W', O], kernel [K, K, I, O]) -> [B, h, w, I], whole blocks.

    One product; then each pixel of a block sums up its places in the kernel.
    """

    @custom_vmap
    def frames_slope(slope, kernel):
        batch, rows, columns, out = slope.shape
        size, blocks = len(kernel), -(-len(kernel) // stride)
        by_place = slope.reshape(-1, out) @ kernel.reshape(-1, out).T
        by_place = by_place.reshape(batch, rows, columns, size, size, -1)

        def pixel(down, right):
            shape = batch, rows + blocks - 1, columns + blocks - 1, kernel.shape[2]
            total = jnp.zeros(shape, slope.dtype)
            for i in range(down, size, stride):
                for j in range(right, size, stride):
                    above, left = i // stride, j // stride
                    around = (above, blocks - 1 - above), (left, blocks - 1 - left)
                    place = by_place[:, :, :, i, j]
                    total += jnp.pad(place, ((0, 0), *around, (0, 0)))
            return total

        sides = range(stride)
        pixels = [jnp.stack([pixel(i, j) for j in sides], 3) for i in sides]
        height, width = (stride * (num + blocks - 1) for num in (rows, columns))
        return jnp.stack(pixels, 2).reshape(batch, height, width, -1)

    @frames_slope.def_vmap
    def of_many(num, mapped, slope, kernel):
        return _rows_or_in_turn(frames_slope, num, mapped, slope, kernel), True

    return frames_slope


def _fold(x: Array, size: int, stride: int) -> Array:
    """Blocks of `stride` x `stride` pixels as pixels: [B, H, W, C] -> [B, h, w, s s C].

    Only what a kernel of `size` comes to see is kept, up to whole blocks.
    """
    num, height, width, channels = x.shape
    blocks = [(side - size) // stride + -(-size // stride) for side in (height, width)]
    x = _sized(x, *(stride * side for side in blocks))
    x = x.reshape(num, blocks[0], stride, blocks[1], stride, channels).swapaxes(2, 3)
    return x.reshape(num, *blocks, stride * stride * channels)


def _fold_kernel(kernel: Array, stride: int) -> Array:
    """The kernel that sees in blocks what another one sees in pixels, by `stride`."""
    blocks = -(-len(kernel) // stride)
    more = (0, blocks * stride - len(kernel))
    kernel = jnp.pad(kernel, (more, more, (0, 0), (0, 0)))
    out = kernel.shape[-1]
    kernel = kernel.reshape(blocks, stride, blocks, stride, -1, out).swapaxes(1, 2)
    return kernel.reshape(blocks, blocks, -1, out)


def _sized(x: Array, height: int, width: int) -> Array:
    """Frames cut, or filled with zeros, at the bottom and at the right."""
    down, right = height - x.shape[1], width - x.shape[2]
    edges = (0, 0, 0)
    return jax.lax.pad(
        x, jnp.zeros((), x.dtype), (edges, (0, down, 0), (0, right, 0), edges)
    )


def _rows_or_in_turn(function: Callable, num: int, mapped, x: Array, kernel: Array):
    """What shares a kernel is one batch; else as `_in_turn`."""
    if mapped[1]:
        return _in_turn(function, num, mapped, x, kernel)
    y = function(x.reshape(-1, *x.shape[2:]), kernel)
    return y.reshape(num, -1, *y.shape[1:])


def _in_turn(function: Callable, num: int, mapped, *arrays: Array) -> Array:
    """A function of members' arrays, one member after another."""
    each = [
        array if is_mapped else jnp.broadcast_to(array, (num, *array.shape))
        for array, is_mapped in zip(arrays, mapped, strict=True)
    ]
    return jax.lax.map(lambda pair: function(*pair), tuple(each))
