"""Stores of experience, by name."""

from o2ojax.errors import UserError, unknown
from o2ojax.meta import task_store
from o2ojax.parallel import devices
from o2ojax.replay import balanced, uniform, windows
from o2ojax.types import Array, Buffer, Transition

BUFFERS = ("uniform", "symmetric", "balanced", "online", "tasks")
OF_WINDOWS = ("uniform", "symmetric")  # those that can hand out windows

# Metrics that are above 0 where something has gone wrong, and what to tell of it.
WARNINGS = {
    balanced.DEAD: "the balanced replay's density ratio has died (0 for every row);"
    " it draws evenly from the dataset and the ring instead",
}

__all__ = [
    "BUFFERS",
    "OF_WINDOWS",
    "WARNINGS",
    "balanced",
    "divided",
    "make",
    "offline",
    "rewarded",
    "tasks",
    "uniform",
    "windows",
]


def offline(
    dataset: Transition,
    batch: int,
    horizon: int = 0,
    of_windows: windows.Options = windows.Options(),  # noqa: B008
    context_sampling: task_store.ContextSampling | None = None,
    num_tasks: int = 1,
) -> Buffer:
    """The store of an offline phase: of windows, where the agent needs a horizon.

    Or of `num_tasks` tasks, for an agent that draws from each, `batch` rows of each.
    """
    if context_sampling:
        return task_store.offline(dataset, num_tasks, batch, context_sampling)
    if horizon:
        return windows.offline(dataset, horizon, batch, of_windows)
    return uniform.offline(dataset, batch)


def make(
    name: str,
    dataset: Transition | None,
    like: Transition,
    capacity: int,
    batch: int,
    options: balanced.Options = balanced.Options(),  # noqa: B008
    horizon: int = 0,
    num_envs: int = 1,
    of_windows: windows.Options = windows.Options(),  # noqa: B008
    context_sampling: task_store.ContextSampling | None = None,
    num_tasks: int = 1,
) -> Buffer:
    """The store of an online phase.

    Args:
        name: `uniform`: dataset and ring as one; `symmetric`: half a batch from each;
            `balanced`: as one, by learned priorities; `online`: the ring alone;
            `tasks`: of each task, dataset and ring as one.
        dataset: leaves [N, ...], or None where there is no data.
        like: a transition without leading axes, to shape a ring by.
        capacity: rows kept of the online stream.
        batch: rows to draw.
        options: of the balanced store.
        horizon: transitions of the windows to hand out; 0 for single transitions.
        num_envs: environments whose transitions arrive in turn.
        of_windows: options of a store of windows.
        context_sampling: what an agent that infers its task asks for; None for others.
        num_tasks: of the family.
    Raises:
        UserError: for an unknown name, or a store that needs the missing dataset.
    """
    if name not in BUFFERS:
        raise unknown("replay", name, BUFFERS)
    if (name == "tasks") != (context_sampling is not None):
        raise UserError(
            f"replay {name!r} does not go with this agent: those that infer their task"
            " need replay.name 'tasks', and no others do"
        )
    if context_sampling:
        return task_store.online(
            dataset,
            like,
            num_tasks,
            capacity,
            context_sampling.online,
            context_sampling,
        )
    if horizon and name not in OF_WINDOWS:
        raise UserError(
            f"replay {name!r} hands out single transitions, and the agent learns from"
            f" windows of {horizon}; set replay.name to 'symmetric' or 'uniform'"
        )
    if name == "online":
        return uniform.online(like, capacity, batch)
    if dataset is None:
        raise UserError(
            f"replay {name!r} draws from a dataset, and the config has none; set"
            " replay.name to 'online', or name a dataset"
        )
    if name == "balanced":
        return balanced.balanced(dataset, capacity, batch, options)
    if horizon:
        make_store = {"uniform": windows.union, "symmetric": windows.symmetric}[name]
        return make_store(dataset, capacity, batch, horizon, num_envs, of_windows)
    from_data = {"uniform": uniform.union, "symmetric": uniform.symmetric}
    return from_data[name](dataset, capacity, batch)


def divided(buffer: Buffer) -> Buffer:
    """The same store, of whose batches a device has its part, where devices share."""

    def sample(replay, key):
        replay, batch = buffer.sample(replay, devices.shard_key(key, (devices.ROWS,)))
        data, weight, index = devices.shard_rows(
            (batch.data, batch.weight, batch.index)
        )
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
