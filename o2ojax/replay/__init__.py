"""Registry of replay stores."""

from o2ojax.parallel import devices
from o2ojax.registry import Registry
from o2ojax.replay.store import (
    ROWS,
    TASKS,
    WINDOWS,
    Inputs,
    Needs,
    NoOptions,
    Store,
    adopt,
)
from o2ojax.types import Array, Buffer

__all__ = [
    "ROWS",
    "STORES",
    "TASKS",
    "WINDOWS",
    "Inputs",
    "Needs",
    "NoOptions",
    "Store",
    "divided",
    "rewarded",
]


STORES = Registry(
    "replay",
    {
        "uniform": "o2ojax.replay.uniform:UNION",
        "symmetric": "o2ojax.replay.uniform:SYMMETRIC",
        "online": "o2ojax.replay.uniform:ONLINE",
        "balanced": "o2ojax.replay.balanced:STORE",
        "uniform_windows": "o2ojax.replay.windows:UNION",
        "symmetric_windows": "o2ojax.replay.windows:SYMMETRIC",
        "tasks": "o2ojax.meta.task_store:STORE",
    },
    adopt,
)


def divided(buffer: Buffer) -> Buffer:
    """Wraps a store so that each device gets its part of a batch shared by devices."""

    def sample(replay, key):
        replay, batch = buffer.sample(replay, devices.shard_key(key, (devices.ROWS,)))
        rows = (batch.data, batch.weight, batch.index)
        data, weight, index = devices.shard_rows(rows)
        return replay, batch._replace(data=data, weight=weight, index=index)

    return buffer._replace(sample=sample)


def rewarded(buffer: Buffer, scale: Array, shift: Array) -> Buffer:
    """Wraps a store so that rewards in its batches are `scale * reward + shift`.

    Stores hold raw rewards of both offline and online data. Rewards are transformed
    only here, so the same transform always applies to both.
    """

    def sample(replay, key):
        replay, batch = buffer.sample(replay, key)
        reward = scale * batch.data.reward + shift
        return replay, batch._replace(data=batch.data._replace(reward=reward))

    return buffer._replace(sample=sample)
