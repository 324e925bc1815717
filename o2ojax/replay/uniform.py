"""Stores that sample uniformly from a dataset, from a ring, or from both.

The stores close over the traced dataset, so it is an argument of the compiled program
and all members share one copy; only the ring belongs to a member.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from o2ojax.replay import extras, frames, ring
from o2ojax.replay.extras import RETURN_TO_GO
from o2ojax.replay.frames import Album, rows_of, take, with_images
from o2ojax.replay.ring import Ring
from o2ojax.replay.store import Inputs, Store
from o2ojax.types import Array, Batch, Buffer, Key, Transition

EXTRAS = (RETURN_TO_GO,)  # that these stores compute of what is gathered


Rows = Transition | Album  # of a dataset, leaves [N, ...]


def take_both(dataset: Rows, gathered: Ring, index: Array) -> Transition:
    """Gathers the rows at `index` [B]; the ring's indices follow the dataset's."""
    known = rows_of(dataset)
    num_rows = len(known.reward)
    old = jax.tree.map(lambda leaf: leaf[jnp.minimum(index, num_rows - 1)], known)
    at = jnp.maximum(index - num_rows, 0)
    new = jax.tree.map(lambda leaf: leaf[at], gathered.rows)
    is_old = index < num_rows

    def choose(old, new):
        mask = is_old.reshape(is_old.shape + (1,) * (old.ndim - 1))
        return jnp.where(mask, old, new)

    rows = jax.tree.map(choose, old, new)
    if not isinstance(dataset, Album):
        return rows
    return with_images(rows, dataset.frames, gathered.films)


def evenly(data: Transition, index: Array) -> Batch:
    """Makes a batch whose rows all have weight 1."""
    return Batch(data, jnp.ones(index.shape), index)


def offline(dataset: Rows, batch: int) -> Buffer:
    """Samples only the dataset; has no `add` for new transitions.

    Args:
        dataset: leaves [N, ...]; never copied.
        batch: rows to draw.
    """
    num_rows = frames.num_rows(dataset)

    def sample(replay, key: Key):
        index = jax.random.randint(key, (batch,), 0, num_rows)
        return replay, evenly(take(dataset, index), index)

    return Buffer(lambda: (), sample)


def online(like: Rows, capacity: int, batch: int) -> Buffer:
    """Samples only the ring of the member's online transitions.

    Args:
        like: a row without leading axes, which gives shapes and dtypes.
        capacity: rows of the ring.
        batch: rows to draw.
    """

    def init() -> Ring:
        return ring.empty(like, capacity)

    def sample(replay: Ring, key: Key):
        index = jax.random.randint(key, (batch,), 0, ring.filled(replay))
        return replay, evenly(ring.take(replay, index), index)

    return Buffer(init, sample, ring.add)


def union(dataset: Rows, capacity: int, batch: int) -> Buffer:
    """Samples uniformly from the dataset and the ring together.

    In `Batch.index`, the rows of the ring are numbered after those of the dataset.

    Args:
        dataset: leaves [N, ...]; never copied.
        capacity: rows of the ring.
        batch: rows to draw.
    """
    num_rows = frames.num_rows(dataset)

    def init() -> Ring:
        return ring.empty(frames.one_row(dataset), capacity)

    def sample(replay: Ring, key: Key):
        index = jax.random.randint(key, (batch,), 0, num_rows + ring.filled(replay))
        return replay, evenly(take_both(dataset, replay, index), index)

    return Buffer(init, sample, ring.add)


def symmetric(dataset: Rows, capacity: int, batch: int) -> Buffer:
    """Symmetric sampling: half of every batch from the dataset, half from the ring.

    Ball et al., "Efficient Online Reinforcement Learning with Offline Data" (2023),
    arxiv.org/abs/2302.02948

    Args:
        dataset: leaves [N, ...]; never copied.
        capacity: rows of the ring.
        batch: rows to draw; the ring's half is rounded up.
    """
    num_rows = frames.num_rows(dataset)
    num_old = batch // 2

    def init() -> Ring:
        return ring.empty(frames.one_row(dataset), capacity)

    def sample(replay: Ring, key: Key):
        key_old, key_new = jax.random.split(key)
        old = jax.random.randint(key_old, (num_old,), 0, num_rows)
        new = jax.random.randint(key_new, (batch - num_old,), 0, ring.filled(replay))
        data = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new]),
            take(dataset, old),
            ring.take(replay, new),
        )
        return replay, evenly(data, jnp.concatenate([old, num_rows + new]))

    return Buffer(init, sample, ring.add)


def of_dataset(inputs: Inputs, options) -> Buffer:
    """Builds the offline phase of every store of single transitions."""
    del options
    return offline(inputs.dataset, inputs.batch)


def _with_extras(make: Callable[[Inputs], Buffer]) -> Callable:
    """The builder of a store whose rows get what the agent's `Needs` ask for."""

    def build(inputs: Inputs, options) -> Buffer:
        del options
        return make(inputs)._replace(add=extras.adder(inputs))

    return build


UNION = Store(
    _with_extras(lambda given: union(given.dataset, given.ring_size, given.batch)),
    of_dataset,
    needs_dataset=True,
    extras=EXTRAS,
)
SYMMETRIC = Store(
    _with_extras(lambda given: symmetric(given.dataset, given.ring_size, given.batch)),
    of_dataset,
    needs_dataset=True,
    extras=EXTRAS,
)
ONLINE = Store(
    _with_extras(lambda given: online(given.like, given.ring_size, given.batch)),
    of_dataset,
    extras=EXTRAS,
)
