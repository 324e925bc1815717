"""Compiles the function of one member for all members."""

from collections.abc import Callable, Hashable
from concurrent import futures

import jax
from jax.sharding import Mesh

from o2ojax.machine import cache_folder
from o2ojax.parallel import background, devices, tuning


def over_members(
    one: Callable,
    in_axes: tuple,
    donate: bool = False,
    sized: bool = False,
    mesh: Mesh | None = None,
    once: bool = False,
) -> Callable:
    """Jits and vmaps the function of one member over all members.

    Args:
        in_axes: per argument, 0 if each member has its own, None if all share it.
        donate: whether to donate the first argument.
        sized: whether there is a last argument, beyond `in_axes`, that is static.
        mesh: the devices over which members are divided; None for one device.
        once: whether it is called once: that it compiles fast counts for more.
    """

    def many(*args):
        args, size = _apart(args, sized)
        mapped = jax.vmap(lambda *args: one(*args, *size), in_axes)
        return devices.over_places(mesh, mapped, in_axes)(*args)

    return _jit(many, in_axes, donate, sized, once)


def over_learners(
    one: Callable, in_axes: tuple, sized: bool = False, mesh: Mesh | None = None
) -> Callable:
    """Jits the function (state, *inputs) -> (state, outputs) of one member for all.

    It works as `over_members` with donated states, but if
    `tuning.members_in_sequence()`, the members of a device are updated one by one.
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


def use_cache() -> None:
    """Keeps all compiled programs of this process, also small ones, on the disk.

    A cache that JAX has already, as by $JAX_COMPILATION_CACHE_DIR, stays as it is.
    """
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


class Ahead:
    """Compiles programs in threads of its own, before they are needed.

    XLA compiles without Python's lock, beside the programs that run meanwhile. Settings
    of JAX that hold in one thread, as by `jax.default_device(...)`, do not reach them.
    """

    def __init__(self, num_threads: int):
        self._threads = futures.ThreadPoolExecutor(num_threads, "compiles")
        self._begun: dict[Hashable, futures.Future] = {}

    def begin(self, key: Hashable, compiled: Callable[[], Callable]) -> None:
        """Begins to call what returns a compiled program."""
        self._begun[key] = background.note(self._threads.submit(compiled))

    def take(self, key: Hashable) -> Callable | None:
        """The program of a key, once it is ready; None if none was begun."""
        begun = self._begun.pop(key, None)
        return begun and begun.result()

    def close(self) -> None:
        """Gives up what has not begun. What has is compiled to its end, in vain."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _apart(args: tuple, sized: bool) -> tuple[tuple, tuple]:
    """Splits arguments into traced ones and the static last one, if there is one."""
    return (args[:-1], args[-1:]) if sized else (args, ())


def _jit(
    many: Callable, in_axes: tuple, donate: bool, sized: bool, once: bool = False
) -> Callable:
    return jax.jit(
        many,
        donate_argnums=(0,) if donate else (),
        compiler_options=tuning.compiler_options(once),
        static_argnums=(len(in_axes),) if sized else (),
    )
