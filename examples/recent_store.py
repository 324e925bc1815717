"""A store of one's own: half of a batch from the dataset, half from the newest rows.

--config.replay.name=examples/recent_store.py:STORE --config.replay.newest=500
"""

import jax
import jax.numpy as jnp

from o2ojax import fields
from o2ojax.fields import count
from o2ojax.replay import Inputs, Store, ring
from o2ojax.replay.uniform import evenly, of_dataset, take
from o2ojax.types import Buffer


@fields.section
class Options:
    """What is set by `config.replay.newest`."""

    newest: int = count(1_000)  # rows of the ring that are drawn from


def recent(inputs: Inputs, options: Options) -> Buffer:
    """The store of the online phase: the half from the ring is rounded up."""
    dataset, num_rows = inputs.dataset, len(inputs.dataset.reward)
    num_old = inputs.batch // 2

    def init():
        return ring.empty(inputs.like, inputs.ring_size)

    def sample(replay, key):
        key_old, key_new = jax.random.split(key)
        old = jax.random.randint(key_old, (num_old,), 0, num_rows)
        within = jnp.minimum(ring.filled(replay), options.newest)
        back = jax.random.randint(key_new, (inputs.batch - num_old,), 0, within)
        new = (replay.count - 1 - back) % ring.size(replay)
        data = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new]),
            take(dataset, old),
            take(replay.rows, new),
        )
        return replay, evenly(data, jnp.concatenate([old, num_rows + new]))

    return Buffer(init, sample, ring.add)


# Offline there is the dataset alone, drawn evenly.
STORE = Store(recent, of_dataset, Options, needs_dataset=True)
