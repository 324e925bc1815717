"""Where members stand: the population's axis, divided over all devices.

Members share nothing but the dataset, so each device runs the same program on its own
members, and no device waits for another: `shard_map`. Under plain `jit`, a callback to
the host would gather the population onto one device, and its sharding would be lost
without a word.

Where batches are large, several devices can have the same members: each computes the
gradients of its part of every batch, and all take the step of their mean. Whatever else
a member does, each of them does alike.
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

# Axes of a mesh. Along the second, devices have the same members and share each batch:
# along `batch`, all draw the same one, and each takes its part; along `rows`, each has
# a part of the dataset only, and draws its part of a batch from that.
MEMBERS, BATCH, ROWS = "members", "batch", "rows"
OF_MEMBERS, SHARED = PartitionSpec(MEMBERS), PartitionSpec()


class Layout(NamedTuple):
    """Which device has which members, in their order.

    mesh:        of the devices in use, over the axis `members`, and over `batch` or
        `rows` where devices share batches; None where it is one device.
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
    """Divides members over devices: of these, the fewest that are as fast as all.

    Args:
        devices: all that there are, unless text; as many of each process are used.
        per_batch: how many share each batch; all of one process.
        cut_dataset: whether each of those has a part of the dataset only.
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
    """Runs a function of all members on each device, with those that stand there.

    Args:
        in_axes: 0 for what each member has, None for what all share.
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
    """Where what all members share stands: the rows of a dataset, or a number."""
    return PartitionSpec(ROWS) if ROWS in mesh.axis_names and leaf.ndim else SHARED


def _sharing() -> str:
    """Inside a program: the axis along which devices share batches; "" for none."""
    axes = jax.sharding.get_abstract_mesh().axis_names
    return next((axis for axis in axes if axis in (BATCH, ROWS)), "")


def shard_batch_size(num_rows: int) -> int:
    """How many rows of a batch this device draws."""
    return num_rows // jax.lax.axis_size(ROWS) if _sharing() == ROWS else num_rows


def shard_rows(tree: Any) -> Any:
    """Of a batch that all have drawn, [B, ...], the rows that are this device's."""
    if _sharing() != BATCH:
        return tree

    def part(x):
        num = len(x) // jax.lax.axis_size(BATCH)
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(BATCH) * num, num)

    return jax.tree.map(part, tree)


def shard_key(key: Array, axes: tuple[str, ...] = (BATCH, ROWS)) -> Array:
    """A key that differs between the devices that share a batch along these axes."""
    axis = _sharing()
    if axis not in axes:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis))


def average(tree: Any) -> Any:
    """The mean over the devices that share a batch."""
    axis = _sharing()
    return jax.lax.pmean(tree, axis) if axis else tree


def shard(layout: Layout, tree: Any) -> Any:
    """Puts what each member has, leaves [M, ...] on this host, where the member is."""
    if layout.mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    last = np.minimum(np.arange(layout.num_places), layout.num_members - 1)
    return jax.tree.map(lambda x: _put(layout.mesh, OF_MEMBERS, x, last), tree)


def replicate(layout: Layout, tree: Any) -> Any:
    """Puts what all members share, leaves [N, ...], on every device, or its part.

    Of parts, up to so many rows less one are left out at the end, to be equal.
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
