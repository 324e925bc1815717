"""Stores that sample uniformly from a dataset, from a ring, or from both.

The stores close over the traced dataset, so it is an argument of the compiled program
and all members share one copy; only the ring belongs to a member.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from o2ojax.replay import extras, ring
from o2ojax.replay.extras import RETURN_TO_GO
from o2ojax.replay.ring import Ring
from o2ojax.replay.store import Inputs, Store
from o2ojax.types import Array, Batch, Buffer, Key, Transition

EXTRAS = (RETURN_TO_GO,)  # that these stores compute of what is gathered


def take(rows: Transition, index: Array) -> Transition:
    """Gathers the rows at `index` [B] from leaves [N, ...]."""
    return jax.tree.map(lambda leaf: leaf[index], rows)


def take_both(dataset: Transition, gathered: Ring, index: Array) -> Transition:
    """Gathers the rows at `index` [B]; the ring's indices follow the dataset's."""
    num_rows = dataset.reward.shape[0]
    old = take(dataset, jnp.minimum(index, num_rows - 1))
    new = take(gathered.rows, jnp.maximum(index - num_rows, 0))
    is_old = index < num_rows

    def choose(old, new):
        mask = is_old.reshape(is_old.shape + (1,) * (old.ndim - 1))
        return jnp.where(mask, old, new)

    return jax.tree.map(choose, old, new)


def evenly(data: Transition, index: Array) -> Batch:
    """Makes a batch whose rows all have weight 1."""
    return Batch(data, jnp.ones(index.shape), index)


def offline(dataset: Transition, batch: int) -> Buffer:
    """Samples only the dataset; has no `add` for new transitions.

    Args:
        dataset: leaves [N, ...]; never copied.
        batch: rows to draw.
    """
    num_rows = dataset.reward.shape[0]

    def sample(replay, key: Key):
        index = jax.random.randint(key, (batch,), 0, num_rows)
        return replay, evenly(take(dataset, index), index)

    return Buffer(lambda: (), sample)


def online(like: Transition, capacity: int, batch: int) -> Buffer:
    """Samples only the ring of the member's online transitions.

    Args:
        like: a transition without leading axes, which gives shapes and dtypes.
        capacity: rows of the ring.
        batch: rows to draw.
    """

    def init() -> Ring:
        return ring.empty(like, capacity)

    def sample(replay: Ring, key: Key):
        index = jax.random.randint(key, (batch,), 0, ring.filled(replay))
        return replay, evenly(take(replay.rows, index), index)

    return Buffer(init, sample, ring.add)


def union(dataset: Transition, capacity: int, batch: int) -> Buffer:
    """Samples uniformly from the dataset and the ring together.

    In `Batch.index`, the rows of the ring are numbered after those of the dataset.

    Args:
        dataset: leaves [N, ...]; never copied.
        capacity: rows of the ring.
        batch: rows to draw.
    """
    num_rows = dataset.reward.shape[0]

    def init() -> Ring:
        return ring.empty(jax.tree.map(lambda x: x[0], dataset), capacity)

    def sample(replay: Ring, key: Key):
        index = jax.random.randint(key, (batch,), 0, num_rows + ring.filled(replay))
        return replay, evenly(take_both(dataset, replay, index), index)

    return Buffer(init, sample, ring.add)


def symmetric(dataset: Transition, capacity: int, batch: int) -> Buffer:
    """Symmetric sampling: half of every batch from the dataset, half from the ring.

    Ball et al., "Efficient Online Reinforcement Learning with Offline Data" (2023),
    arxiv.org/abs/2302.02948

    Args:
        dataset: leaves [N, ...]; never copied.
        capacity: rows of the ring.
        batch: rows to draw; the ring's half is rounded up.
    """
    num_rows = dataset.reward.shape[0]
    num_old = batch // 2

    def init() -> Ring:
        return ring.empty(jax.tree.map(lambda x: x[0], dataset), capacity)

    def sample(replay: Ring, key: Key):
        key_old, key_new = jax.random.split(key)
        old = jax.random.randint(key_old, (num_old,), 0, num_rows)
        new = jax.random.randint(key_new, (batch - num_old,), 0, ring.filled(replay))
        data = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new]),
            take(dataset, old),
            take(replay.rows, new),
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
