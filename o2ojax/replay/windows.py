"""Stores of windows, which are H consecutive transitions, sampled by priority.

A window may begin at any row and may extend beyond the end of an episode; `until_last`
gives the mask that excludes what follows that end from a loss. A window of the ring is
drawn only once all of its transitions have been written.

Schaul et al., "Prioritized Experience Replay" (2016), arxiv.org/abs/1511.05952, as used
by Feng et al., "Finetuning Offline World Models in the Real World" (2023),
arxiv.org/abs/2310.16029: probabilities P ~ p^alpha; weights ~ P^-beta, scaled to a
maximum of 1 in each part of a batch; new windows get the highest p of their part.
Departure: draws are stratified, with replacement; those of Feng et al. are independent,
and without replacement once their buffer is full.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax import fields
from o2ojax.errors import UserError
from o2ojax.fields import non_negative
from o2ojax.replay import ring, sum_tree
from o2ojax.replay.frames import num_rows, one_row, take
from o2ojax.replay.ring import Ring
from o2ojax.replay.store import WINDOWS, Inputs, Store
from o2ojax.replay.sum_tree import SumTree
from o2ojax.replay.uniform import Rows, take_both
from o2ojax.types import Array, Batch, Buffer, Info, Key, Transition

HIGHEST, LEAST = 1e4, 1e-6  # upper bound of a TD error; constant added to it


@fields.section
class Options:
    """Options of prioritised sampling. The defaults are those of FOWM.

    alpha: exponent of the priorities; 0 samples uniformly.
    beta:  exponent of the importance weights; 1 corrects the bias fully.
    """

    alpha: float = non_negative(0.6)
    beta: float = non_negative(0.4)


class Part(NamedTuple):
    """A range of rows [first, end) of dataset plus ring, and how many are drawn."""

    first: int
    end: int
    num: int


class Windows(NamedTuple):
    """State of a member's store. It does not contain the dataset.

    priorities: part name -> p^alpha of the window that begins at each row.
    rows:       the member's online transitions; () in an offline store.
    """

    priorities: dict[str, SumTree]
    rows: Ring | tuple[()]


def until_last(last: Array) -> Array:
    """Mask of a window's first episode: 1 up to its end, 0 after it, [..., H].

    Args:
        last: [..., H], True at the last transition of an episode.
    """
    ends_before = jnp.cumsum(last, axis=-1) - last
    return (ends_before == 0).astype(jnp.float32)


def keep_priorities(online: Windows, offline: Windows) -> Windows:
    """Copies the dataset's priorities from an offline store to an online store."""
    known = offline.priorities["data"][0].reshape(-1)
    rows = jnp.arange(len(known))
    priorities = {
        # the zeros of the padding may reach the ring's rows, which are still empty
        name: tree if name == "ring" else sum_tree.set(tree, rows, known)
        for name, tree in online.priorities.items()
    }
    return online._replace(priorities=priorities)


def offline(
    dataset: Rows,
    horizon: int,
    batch: int,
    options: Options = Options(),  # noqa: B008
) -> Buffer:
    """Samples windows of the dataset only; has no `add`.

    Args:
        dataset: leaves [N, ...], in order of time, whose last row ends an episode;
            never copied.
        horizon: transitions per window.
        batch: windows to draw.
    """
    parts = {"data": Part(0, num_rows(dataset), batch)}
    return _windows(parts, dataset, 0, 1, horizon, options)._replace(add=None)


def union(
    dataset: Rows,
    capacity: int,
    batch: int,
    horizon: int,
    num_envs: int,
    options: Options = Options(),  # noqa: B008
) -> Buffer:
    """Samples from dataset and ring together. Arguments are those of `symmetric`."""
    capacity = size(capacity, horizon, num_envs)
    parts = {"both": Part(0, num_rows(dataset) + capacity, batch)}
    return _windows(parts, dataset, capacity, num_envs, horizon, options)


def symmetric(
    dataset: Rows,
    capacity: int,
    batch: int,
    horizon: int,
    num_envs: int,
    options: Options = Options(),  # noqa: B008
) -> Buffer:
    """Symmetric sampling: half of every batch from the dataset, half from the ring.

    Args:
        dataset: as for `offline`.
        capacity: number of online windows that can be drawn.
        batch: windows to draw; the ring's half is rounded up.
        horizon: transitions per window.
        num_envs: environments whose transitions arrive interleaved.
    """
    capacity = size(capacity, horizon, num_envs)
    old, num = batch // 2, num_rows(dataset)
    parts = {"data": Part(0, num, old), "ring": Part(num, num + capacity, batch - old)}
    return _windows(parts, dataset, capacity, num_envs, horizon, options)


def size(capacity: int, horizon: int, num_envs: int) -> int:
    """Rows of a ring for `capacity` windows, rounded up to a multiple of `num_envs`."""
    rows = capacity + (horizon - 1) * num_envs
    return -(-rows // num_envs) * num_envs


def _windows(
    parts: dict[str, Part],
    dataset: Rows,
    capacity: int,
    num_envs: int,
    horizon: int,
    options: Options,
) -> Buffer:
    num_old = num_rows(dataset)
    ring_part = list(parts)[-1]
    reach = (horizon - 1) * num_envs  # ring rows between a window's first and last

    def init() -> Windows:
        known = (jnp.arange(num_old + capacity) < num_old).astype(jnp.float32)
        return Windows(
            {name: sum_tree.build(known[p.first : p.end]) for name, p in parts.items()},
            ring.empty(one_row(dataset), capacity) if capacity else (),
        )

    def add(store: Windows, fresh: Transition) -> Windows:
        # A window gets a priority once it is complete, `reach` rows after its first.
        count, num = store.rows.count, len(fresh.reward)
        row = count - reach + jnp.arange(num + reach)
        complete = (row >= 0) & (row < count + num - reach)
        tree = store.priorities[ring_part]
        highest = tree[0].max()
        entry = jnp.where(highest > 0, highest, 1.0)  # the first windows get 1
        tree = sum_tree.set(
            tree,
            num_old - parts[ring_part].first + row % capacity,
            jnp.where(complete, entry, 0.0),
        )
        return store._replace(
            priorities=store.priorities | {ring_part: tree},
            rows=ring.add(store.rows, fresh),
        )

    def read(store: Windows, index: Array) -> Transition:
        """Gathers the windows [B, H] that begin at rows `index` [B]."""
        index, steps = index[:, None], jnp.arange(horizon)[None]
        old = jnp.minimum(index + steps, num_old - 1)
        if not capacity:
            return take(dataset, old)
        new = num_old + (index - num_old + steps * num_envs) % capacity
        rows = jnp.where(index < num_old, old, new)
        flat = take_both(dataset, store.rows, rows.reshape(-1))
        return jax.tree.map(lambda x: x.reshape(*rows.shape, *x.shape[1:]), flat)

    def sample(store: Windows, key: Key) -> tuple[Windows, Batch]:
        keys = jax.random.split(key, len(parts))
        index, weight = [], []
        for (name, part), key_part in zip(parts.items(), keys, strict=True):
            tree = store.priorities[name]
            drawn = sum_tree.sample(tree, key_part, part.num)
            priorities = sum_tree.get(tree, drawn)
            index.append(part.first + drawn)
            weight.append((priorities / priorities.min()) ** -options.beta)
        index = jnp.concatenate(index)
        return store, Batch(read(store, index), jnp.concatenate(weight), index)

    def update_priorities(store: Windows, batch: Batch, info: Info) -> Windows:
        error = jnp.clip(info.td_error, 0.0, HIGHEST)
        found = (error + LEAST) ** options.alpha
        priorities, at = {}, 0
        for name, part in parts.items():
            mine = slice(at, at + part.num)
            priorities[name] = sum_tree.set(
                store.priorities[name], batch.index[mine] - part.first, found[mine]
            )
            at += part.num
        return store._replace(priorities=priorities)

    return Buffer(init, sample, add, update_priorities)


def check(run) -> None:
    """Checks that the first online batch finds a complete window.

    Raises:
        UserError: it does not; the message names the field and a valid value.
    """
    horizon, online = run.needs.horizon, run.online
    steps = max(run.steps_per_round, online.warmup // online.envs)
    if online.steps and steps < horizon:
        raise UserError(
            f"config.online.warmup is {online.warmup}; {run.algorithm} learns from"
            f" windows of {horizon} transitions, so before the first update every"
            f" environment must take {horizon} steps: set config.online.warmup or"
            f" config.online.round to {horizon * online.envs} or more"
        )


def _of_dataset(inputs: Inputs, options: Options) -> Buffer:
    return offline(inputs.dataset, inputs.needs.horizon, inputs.batch, options)


def _store(make: Callable[..., Buffer]) -> Store:
    def online(inputs: Inputs, options: Options) -> Buffer:
        return make(
            inputs.dataset,
            inputs.ring_size,
            inputs.batch,
            inputs.needs.horizon,
            inputs.num_envs,
            options,
        )

    return Store(online, _of_dataset, Options, WINDOWS, needs_dataset=True, check=check)


UNION, SYMMETRIC = _store(union), _store(symmetric)
