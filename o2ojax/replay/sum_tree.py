"""Draws among many rows in proportion to their priorities: a tree of sums.

Every cell of a level is the sum of FAN_OUT cells of the level below, whose lowest are
the priorities. A draw walks down from the top, one gather and one short cumulative sum
a level: four levels hold a million rows. Changing B priorities recomputes the B sums
above them, a level at a time.
"""

import jax
import jax.numpy as jnp

from o2ojax.types import Array, Key

FAN_OUT = 32

SumTree = tuple[Array, ...]  # from the priorities up: [rows / FAN_OUT, FAN_OUT], ...


def build(priorities: Array) -> SumTree:
    """The tree of priorities [N], at least 0. Rows are padded with priority 0."""
    levels, cells = [], priorities
    while not levels or len(cells) > 1:
        padding = -len(cells) % FAN_OUT
        level = jnp.pad(cells, (0, padding)).reshape(-1, FAN_OUT)
        levels.append(level)
        cells = level.sum(axis=1)
    return tuple(levels)


def set(tree: SumTree, index: Array, priorities: Array) -> SumTree:
    """Gives the rows at `index` [B] their `priorities` [B].

    Where a row stands in `index` twice, both must say the same.
    """
    changed, values = [], priorities
    for level in tree:
        parent, child = index // FAN_OUT, index % FAN_OUT
        level = level.at[parent, child].set(values)
        changed.append(level)
        index, values = parent, level[parent].sum(axis=1)
    return tuple(changed)


def total(tree: SumTree) -> Array:
    """The sum of all priorities, []."""
    return tree[-1].sum()


def sample(tree: SumTree, key: Key, num: int) -> Array:
    """`num` rows by their priorities, [num], one from each of as many equal segments.

    Stratified, as in Schaul et al., "Prioritized Experience Replay" (2016),
    arxiv.org/abs/1511.05952.
    """
    offsets = jax.random.uniform(key, (num,))
    left = (jnp.arange(num) + offsets) / num * total(tree)
    index = jnp.zeros(num, jnp.int32)
    for level in reversed(tree):
        cells = level[index]  # [num, FAN_OUT]
        before = jnp.cumsum(cells, axis=1)
        child = (before <= left[:, None]).sum(axis=1)
        # Rounding may lead past the last cell that holds anything.
        last_held = FAN_OUT - 1 - jnp.argmax(cells[:, ::-1] > 0, axis=1)
        child = jnp.minimum(child, last_held)
        passed = jnp.take_along_axis(before - cells, child[:, None], axis=1)[:, 0]
        left = left - passed
        index = index * FAN_OUT + child
    return index


def get(tree: SumTree, index: Array) -> Array:
    """The priorities of rows [B]."""
    return tree[0][index // FAN_OUT, index % FAN_OUT]
