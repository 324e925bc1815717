"""Stores of experience, by name."""

from o2ojax.parallel import devices
from o2ojax.registry import Registry, instance_of
from o2ojax.replay.store import ROWS, TASKS, WINDOWS, Inputs, Needs, NoOptions, Store
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
    instance_of(Store),
)


def divided(buffer: Buffer) -> Buffer:
    """The same store, of whose batches a device has its part, where devices share."""

    def sample(replay, key):
        replay, batch = buffer.sample(replay, devices.shard_key(key, (devices.ROWS,)))
        rows = (batch.data, batch.weight, batch.index)
        data, weight, index = devices.shard_rows(rows)
        return replay, batch._replace(data=data, weight=weight, index=index)

    return buffer._replace(sample=sample)


def rewarded(buffer: Buffer, scale: Array, shift: Array) -> Buffer:
    """The same store, whose batches have `scale * reward + shift` for a reward.

    Offline data and what is gathered online keep their raw rewards and pass through
    the same gate, so no transform can be applied to one and not to the other.
    """

    def sample(replay, key):
        replay, batch = buffer.sample(replay, key)
        reward = scale * batch.data.reward + shift
        return replay, batch._replace(data=batch.data._replace(reward=reward))

    return buffer._replace(sample=sample)
