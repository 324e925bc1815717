"""One member's function, compiled for all members."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from o2ojax.parallel import devices


def over_members(
    one: Callable,
    in_axes: tuple,
    donate: bool = False,
    sized: bool = False,
    mesh: Mesh | None = None,
) -> Callable:
    """Jits one member's function for all members at once.

    Args:
        in_axes: 0 for what each member has, None for what all share.
        donate: whether the first argument may be written over.
        sized: whether the last argument, beyond `in_axes`, is a compiled-in number.
        mesh: the devices that the members are divided over; None for one.
    """

    def many(*args):
        args, size = _apart(args, sized)
        mapped = jax.vmap(lambda *args: one(*args, *size), in_axes)
        return devices.over_places(mesh, mapped, in_axes)(*args)

    return _jit(many, in_axes, donate, sized)


def over_learners(
    one: Callable, in_axes: tuple, sized: bool = False, mesh: Mesh | None = None
) -> Callable:
    """Jits one member's (state, *inputs) -> (state, outputs), to be called for all.

    As `over_members`, with the states donated; but where `takes_turns`, the members of
    a device learn one after another.
    """
    if not takes_turns():
        return over_members(one, in_axes, donate=True, sized=sized, mesh=mesh)
    axes = (0, None, *in_axes[1:])

    def turn(states, at, *args):
        args, size = _apart(args, sized)

        def of_member(states, at, *inputs):
            own = [
                jax.tree.map(lambda x: x[at], x) if axis == 0 else x
                for x, axis in zip((states, *inputs), in_axes, strict=True)
            ]
            state, outputs = one(*own, *size)
            chex.assert_trees_all_equal_shapes_and_dtypes(state, own[0])
            states = jax.tree.map(lambda x, new: x.at[at].set(new), states, state)
            return states, jax.tree.map(lambda x: x[None], outputs)

        return devices.over_places(mesh, of_member, axes)(states, at, *args)

    return Turns(_jit(turn, axes, donate=True, sized=sized), mesh)


def takes_turns() -> bool:
    """Whether members learn one after another: a CPU's cache holds one's layers."""
    return jax.default_backend() == "cpu"


class Turns:
    """A program of one member's turn, called for each: as one of all members is.

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

    def lower(self, states: Any, *args: Any) -> "Turns":
        """As of a jitted function."""
        return Turns(self.turn.lower(states, np.int32(0), *args), self.mesh)

    def compile(self) -> "Turns":
        """As of a lowered one."""
        return Turns(self.turn.compile(), self.mesh)

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


def _apart(args: tuple, sized: bool) -> tuple[tuple, tuple]:
    """Arguments, and the number that is compiled in, if there is one."""
    return (args[:-1], args[-1:]) if sized else (args, ())


def _jit(many: Callable, in_axes: tuple, donate: bool, sized: bool) -> Callable:
    return jax.jit(
        many,
        donate_argnums=(0,) if donate else (),
        compiler_options=compiler_options(),
        static_argnums=(len(in_axes),) if sized else (),
    )


@functools.cache
def compiler_options() -> dict[str, str]:
    """What makes XLA's code faster here; {} where it does not know these options.

    On a CPU, its library for products may have the products, and nothing else: sums
    over features, as in LayerNorm, are slow there.
    """
    options = {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    }
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
