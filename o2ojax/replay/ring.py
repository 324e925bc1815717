"""Ring buffer of the last transitions of one member, on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.replay import frames
from o2ojax.replay.frames import Album, Film
from o2ojax.types import Array, Transition


class Ring(NamedTuple):
    """The last N transitions.

    rows:  leaves [N, ...]; rows at or past `count` have never been written. They hold
           numbers of frames in place of images.
    count: []  int32, transitions written so far, including overwritten ones.
    films: the frames of images, by their names.
    """

    rows: Transition
    count: Array
    films: dict[str, Film] = {}


def empty(like: Transition | Album, capacity: int) -> Ring:
    """An empty ring of `capacity` rows; `like` is a row without leading axes."""
    one = frames.rows_of(like)
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), one)
    return Ring(rows, jnp.zeros((), jnp.int32), frames.empty(like, capacity))


def add(ring: Ring, fresh: Transition) -> Ring:
    """Writes `fresh`, leaves [N, ...], over the oldest rows."""
    at = slots(ring, fresh)
    films, fresh = frames.add(ring.films, fresh)
    rows = jax.tree.map(lambda old, new: old.at[at].set(new), ring.rows, fresh)
    return Ring(rows, ring.count + len(at), films)


def take(ring: Ring, index: Array) -> Transition:
    """Gathers the rows at `index` [...], with their images."""
    rows = jax.tree.map(lambda leaf: leaf[index], ring.rows)
    if not ring.films:
        return rows
    none = {name: film.frames[:0] for name, film in ring.films.items()}
    return frames.with_images(rows, none, ring.films)


def slots(ring: Ring, fresh: Transition) -> Array:
    """Row indices [N] at which `add` would write `fresh`, leaves [N, ...]."""
    return (ring.count + jnp.arange(fresh.reward.shape[0])) % size(ring)


def size(ring: Ring) -> int:
    """Capacity of the ring, in rows."""
    return ring.rows.reward.shape[0]


def filled(ring: Ring) -> Array:
    """Number of rows that hold a transition, int32 []."""
    return jnp.minimum(ring.count, size(ring))
