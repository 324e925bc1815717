"""Placement of members: shards the population axis over devices.

Members share only the dataset, so `shard_map` runs the same program on each device for
its own members, and no device waits for another. Under plain `jit`, a host callback
would silently gather the population onto one device and lose its sharding.

For large batches, several devices can hold the same members (data parallelism): each
computes gradients of its part of a batch, and all apply the mean gradient. All other
work of a member is replicated on these devices.
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

# Axes of a mesh. A second axis holds devices with the same members that share each
# batch. On `batch`, every device draws the same batch and keeps its part; on `rows`,
# every device holds a part of the dataset and draws its part of a batch from it.
MEMBERS, BATCH, ROWS = "members", "batch", "rows"
OF_MEMBERS, SHARED = PartitionSpec(MEMBERS), PartitionSpec()


class Layout(NamedTuple):
    """Assignment of members to devices, in order.

    mesh:        mesh of the devices in use, with axis `members` and, if devices share
        batches, `batch` or `rows`; None for a single device.
    num_members: members of the population.
    num_places:  `num_members` plus padding: copies of the last member, so that every
        device has equally many. Results of copies are never shown, saved or counted.
    """

    mesh: Mesh | None
    num_members: int
    num_places: int

    def describe(self) -> str:
        """Describes the layout for the headline of a run; "" for a single device."""
        if self.mesh is None:
            return ""
        devices = self.mesh.devices.flat
        num_processes = len({device.process_index for device in devices})
        text = f", on {self.mesh.size} of {jax.device_count()} devices"
        if num_processes > 1:
            text += f" in {num_processes} processes"
        groups = self.mesh.shape[MEMBERS]
        if groups < self.mesh.size:
            text += f", {self.mesh.size // groups} to a batch"
        copies = self.num_places - self.num_members
        if copies:
            text += f" ({self.num_places // groups} on each, {copies} of the"
            text += f" {self.num_places} only to fill up)"
        return text


def assign_devices(
    num_members: int,
    devices: Sequence[jax.Device] | None = None,
    per_batch: int = 1,
    cut_dataset: bool = False,
) -> Layout:
    """Divides members over the fewest devices that are as fast as all of them.

    Args:
        devices: those to choose from; by default all. Processes use equally many.
        per_batch: devices that share each batch; they belong to one process.
        cut_dataset: whether each of these devices holds only a part of the dataset.
    Raises:
        UserError: there are more processes than members, or too few devices.
    """
    by_process: dict[int, list] = {}
    for device in jax.devices() if devices is None else devices:
        by_process.setdefault(device.process_index, []).append(device)
    num_processes, fewest = len(by_process), min(map(len, by_process.values()))
    each = fewest // per_batch
    if not each:
        raise UserError(
            f"config.devices.per_batch={per_batch}, and each process has {fewest}"
            " device(s), all that can share a batch. A CPU is seen as several by"
            " --cpu-devices=N"
            + "; JAX_LOCAL_DEVICE_IDS=0,1 gives a process two GPUs"
            * (num_processes > 1)
        )
    if num_members < num_processes:
        raise UserError(
            f"{num_members} member(s) cannot be divided over {num_processes} processes:"
            f" start at most {num_members}, or give more config.seeds"
        )
    on_each = math.ceil(num_members / (num_processes * each))
    each = math.ceil(num_members / (num_processes * on_each))
    chosen = [d for one in by_process.values() for d in one[: each * per_batch]]
    if len(chosen) == 1:
        return Layout(None, num_members, num_members)
    if per_batch == 1:
        mesh = Mesh(np.array(chosen), (MEMBERS,))
    else:
        axes = MEMBERS, ROWS if cut_dataset else BATCH
        mesh = Mesh(np.array(chosen).reshape(-1, per_batch), axes)
    return Layout(mesh, num_members, on_each * mesh.shape[MEMBERS])


def over_places(mesh: Mesh | None, function: Callable, in_axes: tuple) -> Callable:
    """Wraps a function of all members so that each device runs it on its own members.

    Args:
        in_axes: per argument, 0 if each member has its own, None if all share it.
    """
    if mesh is None:
        return function

    def on_all(*args):
        specs = tuple(
            OF_MEMBERS if axis == 0 else jax.tree.map(lambda x: _shared(mesh, x), arg)
            for arg, axis in zip(args, in_axes, strict=True)
        )
        return jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=OF_MEMBERS, check_vma=False
        )(*args)

    return on_all


def _shared(mesh: Mesh, leaf: Any) -> PartitionSpec:
    """Partition spec of a leaf that all members share: dataset rows, or a scalar."""
    return PartitionSpec(ROWS) if ROWS in mesh.axis_names and leaf.ndim else SHARED


def _sharing() -> str:
    """Mesh axis of devices that share batches, in a traced program; "" for none."""
    axes = jax.sharding.get_abstract_mesh().axis_names
    return next((axis for axis in axes if axis in (BATCH, ROWS)), "")


def shard_batch_size(num_rows: int) -> int:
    """Number of rows of a batch of `num_rows` that this device draws."""
    return num_rows // jax.lax.axis_size(ROWS) if _sharing() == ROWS else num_rows


def shard_rows(tree: Any) -> Any:
    """Returns this device's rows of a batch [B, ...] that all devices have drawn."""
    if _sharing() != BATCH:
        return tree

    def part(x):
        num = len(x) // jax.lax.axis_size(BATCH)
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(BATCH) * num, num)

    return jax.tree.map(part, tree)


def shard_key(key: Array, axes: tuple[str, ...] = (BATCH, ROWS)) -> Array:
    """Makes a key differ between the devices that share a batch on one of `axes`."""
    axis = _sharing()
    if axis not in axes:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis))


def average(tree: Any) -> Any:
    """Averages over the devices that share a batch."""
    axis = _sharing()
    return jax.lax.pmean(tree, axis) if axis else tree


def shard(layout: Layout, tree: Any) -> Any:
    """Moves leaves [M, ...] from this host to the devices of the members."""
    if layout.mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    last = np.minimum(np.arange(layout.num_places), layout.num_members - 1)
    return jax.tree.map(lambda x: _put(layout.mesh, OF_MEMBERS, x, last), tree)


def replicate(layout: Layout, tree: Any) -> Any:
    """Copies leaves [N, ...], which all members share, or their parts to each device.

    Parts have equal sizes: N is rounded down to a multiple of their number.
    """
    if layout.mesh is None:
        return jax.device_put(tree)
    parts = layout.mesh.shape.get(ROWS, 1)
    return jax.tree.map(
        lambda x: _put(
            layout.mesh, _shared(layout.mesh, x), x, slice(len(x) // parts * parts)
        ),
        tree,
    )


def _put(mesh: Mesh, spec: PartitionSpec, leaf: Any, rows: Any = ...) -> Array:
    """Places `rows` of an array of this host; each device gets its part."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(mesh, spec, jax.random.key_data(leaf), rows)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)[rows]
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)


def gather(layout: Layout, tree: Any, keep: bool = True) -> Any:
    """Gathers leaves [M, ...] of all members on this host. It is a collective call.

    Processes exchange one leaf at a time, and every device temporarily holds it in
    full, so it needs memory for the largest leaf of all members.

    Args:
        keep: whether to return the leaves on this process; if not, returns None.
    """
    if layout.mesh is None:
        return tree

    def whole(leaf):
        if not leaf.is_fully_addressable:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)[: layout.num_members] if keep else None

    gathered = jax.tree.map(whole, tree)
    return gathered if keep else None
