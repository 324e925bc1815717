"""Where members stand: the population's axis, divided over all devices.

Members share nothing but the dataset, so each device runs the same program on its own
members, and no device waits for another: `shard_map`, without collectives. Under plain
`jit`, a callback to the host would gather the population onto one device, and its
sharding would be lost without a word.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from o2ojax.errors import UserError
from o2ojax.types import Array

MEMBERS = "members"
OF_MEMBERS, SHARED = PartitionSpec(MEMBERS), PartitionSpec()


class Layout(NamedTuple):
    """Which device has which members, in their order.

    mesh:        of the devices in use, over the axis `members`; None where it is one.
    num_members: of the population.
    num_places:  members and, so that every device has as many, copies of the last one.
        What a copy learns is dropped wherever members are seen, saved or counted.
    """

    mesh: Mesh | None
    num_members: int
    num_places: int

    def describe(self) -> str:
        """What to tell of it in a headline; "" for a single device."""
        if self.mesh is None:
            return ""
        devices = self.mesh.devices.flat
        num_processes = len({device.process_index for device in devices})
        told = f", on {self.mesh.size} of {jax.device_count()} devices"
        if num_processes > 1:
            told += f" in {num_processes} processes"
        copies = self.num_places - self.num_members
        if copies:
            told += f" ({self.num_places // self.mesh.size} on each, {copies} of the"
            told += f" {self.num_places} only to fill up)"
        return told


def lay_out(num_members: int, devices: Sequence[jax.Device] | None = None) -> Layout:
    """Divides members over devices: of these, the fewest that are as fast as all.

    Args:
        devices: all that there are, unless told; as many of each process are used.
    Raises:
        UserError: there are more processes than members.
    """
    by_process: dict[int, list] = {}
    for device in jax.devices() if devices is None else devices:
        by_process.setdefault(device.process_index, []).append(device)
    num_processes, each = len(by_process), min(map(len, by_process.values()))
    if num_members < num_processes:
        raise UserError(
            f"{num_members} member(s) cannot be divided over {num_processes} processes:"
            f" start at most {num_members}, or give more config.seeds"
        )
    on_each = math.ceil(num_members / (num_processes * each))
    each = math.ceil(num_members / (num_processes * on_each))
    chosen = [device for one in by_process.values() for device in one[:each]]
    if len(chosen) == 1:
        return Layout(None, num_members, num_members)
    mesh = Mesh(np.array(chosen), (MEMBERS,))
    return Layout(mesh, num_members, on_each * len(chosen))


def over_places(mesh: Mesh | None, function: Callable, in_axes: tuple) -> Callable:
    """Runs a function of all members on each device, with those that stand there.

    Args:
        in_axes: 0 for what each member has, None for what all share.
    """
    if mesh is None:
        return function
    specs = tuple(SHARED if axis is None else OF_MEMBERS for axis in in_axes)
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=OF_MEMBERS, check_vma=False
    )


def place(layout: Layout, tree: Any) -> Any:
    """Puts what each member has, leaves [M, ...] on this host, where the member is."""
    if layout.mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    last = np.minimum(np.arange(layout.num_places), layout.num_members - 1)
    return jax.tree.map(lambda x: _put(layout.mesh, OF_MEMBERS, x, last), tree)


def share(layout: Layout, tree: Any) -> Any:
    """Puts what all members share on every device."""
    if layout.mesh is None:
        return jax.device_put(tree)
    return jax.tree.map(lambda x: _put(layout.mesh, SHARED, x), tree)


def _put(mesh: Mesh, spec: PartitionSpec, leaf: Any, rows: Any = ...) -> Array:
    """The rows of an array that this host has whole; each device gets its own part."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(mesh, spec, jax.random.key_data(leaf), rows)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)[rows]
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)


def gather(layout: Layout, tree: Any, keep: bool = True) -> Any:
    """Leaves [M, ...] of all members, on this host; all processes must ask at once.

    Between processes they travel leaf by leaf, and each is for a moment on every device
    as a whole: memory for the largest leaf of all members.

    Args:
        keep: whether this process wants them; else None comes back.
    """
    if layout.mesh is None:
        return tree

    def whole(leaf):
        if not leaf.is_fully_addressable:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)[: layout.num_members] if keep else None

    gathered = jax.tree.map(whole, tree)
    return gathered if keep else None
