"""Ring buffer of the last transitions of one member, on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.types import Array, Transition


class Ring(NamedTuple):
    """The last N transitions.

    rows:  leaves [N, ...]; rows at or past `count` have never been written.
    count: []  int32, transitions written so far, including overwritten ones.
    """

    rows: Transition
    count: Array


def empty(like: Transition, capacity: int) -> Ring:
    """An empty ring of `capacity` rows; `like` is a transition without leading axes."""
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), like)
    return Ring(rows, jnp.zeros((), jnp.int32))


def add(ring: Ring, fresh: Transition) -> Ring:
    """Writes `fresh`, leaves [N, ...], over the oldest rows."""
    at = slots(ring, fresh)
    rows = jax.tree.map(lambda old, new: old.at[at].set(new), ring.rows, fresh)
    return Ring(rows, ring.count + len(at))


def slots(ring: Ring, fresh: Transition) -> Array:
    """Row indices [N] at which `add` would write `fresh`, leaves [N, ...]."""
    return (ring.count + jnp.arange(fresh.reward.shape[0])) % size(ring)


def size(ring: Ring) -> int:
    """Capacity of the ring, in rows."""
    return ring.rows.reward.shape[0]


def filled(ring: Ring) -> Array:
    """Number of rows that hold a transition, int32 []."""
    return jnp.minimum(ring.count, size(ring))
