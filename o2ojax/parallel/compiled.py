"""One member's function, compiled for all members."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from o2ojax.parallel import devices, tuning


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

    As `over_members`, with the states donated; but where
    `tuning.members_in_sequence`, the members of a device learn one after another.
    """
    if not tuning.members_in_sequence():
        return over_members(one, in_axes, donate=True, sized=sized, mesh=mesh)
    axes = (0, None, *in_axes[1:])

    def turn(states, at, *args):
        args, size = _apart(args, sized)

        def of_member(states, at, *inputs):
            def update(state):
                own = [
                    jax.tree.map(lambda x: x[at], x) if axis == 0 else x
                    for x, axis in zip(inputs, in_axes[1:], strict=True)
                ]
                return one(state, *own, *size)

            states, outputs = tuning.update_at(states, at, update)
            return states, jax.tree.map(lambda x: x[None], outputs)

        return devices.over_places(mesh, of_member, axes)(states, at, *args)

    return tuning.MemberSequence(_jit(turn, axes, donate=True, sized=sized), mesh)


def _apart(args: tuple, sized: bool) -> tuple[tuple, tuple]:
    """Arguments, and the number that is compiled in, if there is one."""
    return (args[:-1], args[-1:]) if sized else (args, ())


def _jit(many: Callable, in_axes: tuple, donate: bool, sized: bool) -> Callable:
    return jax.jit(
        many,
        donate_argnums=(0,) if donate else (),
        compiler_options=tuning.compiler_options(),
        static_argnums=(len(in_axes),) if sized else (),
    )
