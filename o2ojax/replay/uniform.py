"""Stores that draw with equal chances: from a dataset, from a ring, or from both.

The dataset is closed over inside the trace, so it is an argument of the program and
stands once for all members; only the ring is a member's own.
"""

import jax
import jax.numpy as jnp

from o2ojax.replay import ring
from o2ojax.replay.ring import Ring
from o2ojax.replay.store import Inputs, Store
from o2ojax.types import Array, Batch, Buffer, Key, Transition


def take(rows: Transition, index: Array) -> Transition:
    """The rows [N, ...] at `index` [B]."""
    return jax.tree.map(lambda leaf: leaf[index], rows)


def take_both(dataset: Transition, gathered: Ring, index: Array) -> Transition:
    """The rows at `index` [B] of a dataset and, numbered on from its last, a ring."""
    num_rows = dataset.reward.shape[0]
    old = take(dataset, jnp.minimum(index, num_rows - 1))
    new = take(gathered.rows, jnp.maximum(index - num_rows, 0))
    is_old = index < num_rows

    def choose(old, new):
        mask = is_old.reshape(is_old.shape + (1,) * (old.ndim - 1))
        return jnp.where(mask, old, new)

    return jax.tree.map(choose, old, new)


def evenly(data: Transition, index: Array) -> Batch:
    """A batch whose rows all weigh the same."""
    return Batch(data, jnp.ones(index.shape), index)


def offline(dataset: Transition, batch: int) -> Buffer:
    """The dataset alone; nothing is ever added.

    Args:
        dataset: leaves [N, ...].
        batch: rows to draw.
    """
    num_rows = dataset.reward.shape[0]

    def sample(replay, key: Key):
        index = jax.random.randint(key, (batch,), 0, num_rows)
        return replay, evenly(take(dataset, index), index)

    return Buffer(lambda: (), sample)


def online(like: Transition, capacity: int, batch: int) -> Buffer:
    """What the member gathered itself, alone.

    Args:
        like: a transition without leading axes, to shape the ring by.
        capacity: rows kept.
        batch: rows to draw.
    """

    def init() -> Ring:
        return ring.empty(like, capacity)

    def sample(replay: Ring, key: Key):
        index = jax.random.randint(key, (batch,), 0, ring.filled(replay))
        return replay, evenly(take(replay.rows, index), index)

    return Buffer(init, sample, ring.add)


def union(dataset: Transition, capacity: int, batch: int) -> Buffer:
    """The dataset and the ring as one store: every row has the same chance.

    Rows of the dataset come first in `Batch.index`, those of the ring after them.

    Args:
        dataset: leaves [N, ...]; read, never copied.
        capacity: rows kept of the online stream.
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
    """Half of every batch from the dataset, half from the ring.

    Ball et al., "Efficient Online Reinforcement Learning with Offline Data" (2023),
    arxiv.org/abs/2302.02948

    Args:
        dataset: leaves [N, ...]; read, never copied.
        capacity: rows kept of the online stream.
        batch: rows to draw, the half from the ring rounded up.
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
    """The offline phase of every store that hands out single transitions."""
    del options
    return offline(inputs.dataset, inputs.batch)


UNION = Store(
    lambda inputs, options: union(inputs.dataset, inputs.ring_size, inputs.batch),
    of_dataset,
    needs_dataset=True,
)
SYMMETRIC = Store(
    lambda inputs, options: symmetric(inputs.dataset, inputs.ring_size, inputs.batch),
    of_dataset,
    needs_dataset=True,
)
ONLINE = Store(
    lambda inputs, options: online(inputs.like, inputs.ring_size, inputs.batch),
    of_dataset,
)
