"""Stores for families of tasks: each task has its rows of the dataset and a ring.

A batch has several tasks, drawn with replacement, and for each task rows to learn from
and, drawn separately, context rows to infer the task from. All members share one copy
of the dataset; only the rings belong to a member.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.errors import UserError
from o2ojax.replay.ring import Ring
from o2ojax.replay.store import TASKS, Inputs, Store
from o2ojax.types import Array, Batch, Buffer, Key, Transition


class ContextSampling(NamedTuple):
    """Batch and context sizes of an agent that infers its task.

    tasks:   G, tasks per batch.
    context: C, context rows per task.
    trial_context: context rows that the store provides at the start of a trial.
    online:  rows per task in an online batch.
    recent:  contexts are drawn from this number of a task's last rows; 0: from all.
    trial:   rows per trial. The sizes of the dataset, the ring, additions to it and
             `recent` are multiples of it. 0 if contexts may be drawn from any rows.
    explored: contexts are drawn from this number of each trial's first rows.
    """

    tasks: int
    context: int
    trial_context: int
    online: int
    recent: int = 0
    trial: int = 0
    explored: int = 0


class TrialContext(NamedTuple):
    """Rows of a task that the store provides at the start of a trial.

    known:  Transition [`ContextSampling.trial_context`], drawn as contexts are.
    logged: as many rows of the task in the dataset; () without a dataset.
    """

    known: Transition
    logged: Transition | tuple[()]


def offline(
    dataset: Transition, num_tasks: int, batch: int, sampling: ContextSampling
) -> Buffer:
    """Samples only the dataset; has no `add`.

    Args:
        dataset: leaves [G * N, ...], ordered by task; never copied.
        num_tasks: G.
        batch: rows per task in a batch.
        sampling: sizes of batches and contexts.
    Raises:
        UserError: N is not a multiple of the rows of a trial.
    """

    return _tasks(dataset, dataset, num_tasks, 0, batch, sampling)._replace(add=None)


def online(
    dataset: Transition | None,
    like: Transition,
    num_tasks: int,
    capacity: int,
    batch: int,
    sampling: ContextSampling,
) -> Buffer:
    """Samples the dataset together with a ring for each task.

    Args:
        dataset: as for `offline`, or None.
        like: a transition without leading axes, which gives shapes and dtypes.
        capacity: rows of each ring.
        num_tasks, batch, sampling: as for `offline`.
    """
    if dataset is None:
        dataset = jax.tree.map(lambda x: jnp.zeros((0, *x.shape), x.dtype), like)
        return _tasks(dataset, None, num_tasks, capacity, batch, sampling)
    return _tasks(dataset, dataset, num_tasks, capacity, batch, sampling)


def _tasks(
    rows: Transition,
    logged: Transition | None,
    num_tasks: int,
    capacity: int,
    batch: int,
    sampling: ContextSampling,
) -> Buffer:
    num_old = len(rows.reward) // num_tasks  # of each task
    if sampling.trial and num_old % sampling.trial:
        raise UserError(
            f"config.agent.trial_rows is {sampling.trial}, but the dataset has"
            f" {num_old} rows of each task, which are no whole trials; 0 draws contexts"
            " from all"
        )

    def init() -> Ring | tuple[()]:
        if not capacity:
            return ()
        kept = jax.tree.map(
            lambda x: jnp.zeros((num_tasks, capacity, *x.shape[1:]), x.dtype), rows
        )
        return Ring(kept, jnp.zeros(num_tasks, jnp.int32))

    def add(replay: Ring, fresh: Transition) -> Ring:
        """Writes each transition over the oldest row of its task's ring."""
        is_of = fresh.task[:, None] == jnp.arange(num_tasks)[None]  # [N, T]
        so_far = jnp.cumsum(is_of, axis=0, dtype=jnp.int32)
        rank = jnp.take_along_axis(so_far, fresh.task[:, None], axis=1)[:, 0]
        # of more rows than a ring holds, only the last are written
        kept = so_far[-1][fresh.task] - rank < capacity
        slot = (replay.count[fresh.task] + rank - 1) % capacity
        slot = jnp.where(kept, slot, capacity)  # an index past the end is dropped
        rows = jax.tree.map(
            lambda old, new: old.at[fresh.task, slot].set(new, mode="drop"),
            replay.rows,
            fresh,
        )
        return Ring(rows, replay.count + so_far[-1])

    def filled(replay, task: Array) -> Array:
        """Number of rows of each task, in the dataset and the ring together."""
        if not capacity:
            return jnp.full(task.shape, num_old)
        return num_old + jnp.minimum(replay.count[task], capacity)

    def read(replay, task: Array, index: Array) -> Transition:
        """Gathers rows `index` of tasks, both [...]: dataset, then ring, by age."""
        at = jnp.clip(task * num_old + index, 0, max(num_tasks * num_old - 1, 0))
        if not capacity:
            return jax.tree.map(lambda x: x[at], rows)
        count = replay.count[task]
        slot = index - num_old
        slot = jnp.where(count > capacity, (count + slot) % capacity, slot)
        new = jax.tree.map(lambda x: x[task, slot], replay.rows)
        if not num_old:
            return new

        def choose(old, new):
            is_old = (index < num_old).reshape(
                index.shape + (1,) * (new.ndim - index.ndim)
            )
            return jnp.where(is_old, old[at], new)

        return jax.tree.map(choose, rows, new)

    def drawn(replay, task: Array, key: Key, num: int) -> Array:
        """Samples `num` row indices per task uniformly, [..., num]."""
        end = jnp.maximum(filled(replay, task)[..., None], 1)
        return jax.random.randint(key, (*task.shape, num), 0, end)

    def context(replay, task: Array, key: Key, num: int) -> Transition:
        end = jnp.maximum(filled(replay, task)[..., None], 1)
        first = jnp.maximum(end - sampling.recent, 0) if sampling.recent else 0 * end
        key_row, key_within = jax.random.split(key)
        at = jax.random.randint(key_row, (*task.shape, num), first, end)
        if sampling.trial:
            within = jax.random.randint(key_within, at.shape, 0, sampling.explored)
            at = at // sampling.trial * sampling.trial + within
        return read(replay, jnp.broadcast_to(task[..., None], at.shape), at)

    def sample(replay, key: Key) -> tuple[Ring, Batch]:
        key_task, key_data, key_context = jax.random.split(key, 3)
        task = jax.random.randint(key_task, (sampling.tasks,), 0, num_tasks)
        index = drawn(replay, task, key_data, batch)
        return replay, Batch(
            data=read(replay, jnp.broadcast_to(task[:, None], index.shape), index),
            weight=jnp.ones(index.shape),
            index=index,
            context=context(replay, task, key_context, sampling.context),
        )

    def trial_context(replay, task: Array, key: Key) -> TrialContext:
        """Draws the context of a task []. A test task has no rows: it gets those of the
        last training task, which the policies that play test tasks ignore.
        """
        task = jnp.minimum(task, num_tasks - 1)
        key_known, key_logged = jax.random.split(key)
        known = context(replay, task, key_known, sampling.trial_context)
        if logged is None:
            return TrialContext(known, ())
        at = jax.random.randint(key_logged, (sampling.trial_context,), 0, num_old)
        at = task * num_old + at
        return TrialContext(known, jax.tree.map(lambda x: x[at], logged))

    return Buffer(init, sample, add, trial_context=trial_context)


def ring_size(inputs: Inputs) -> int:
    """Capacity of each task's ring, by default three times its share of the steps."""
    steps, trial = max(inputs.steps, 1), inputs.needs.context.trial or 1
    share = -(-steps // inputs.num_tasks)
    whole_trials = -(-min(steps, 3 * share) // trial) * trial
    return inputs.capacity or whole_trials


def _offline(inputs: Inputs, options) -> Buffer:
    del options
    return offline(inputs.dataset, inputs.num_tasks, inputs.batch, inputs.needs.context)


def _online(inputs: Inputs, options) -> Buffer:
    del options
    sampling = inputs.needs.context
    return online(
        inputs.dataset,
        inputs.like,
        inputs.num_tasks,
        ring_size(inputs),
        sampling.online,
        sampling,
    )


STORE = Store(_online, _offline, serves=TASKS)
