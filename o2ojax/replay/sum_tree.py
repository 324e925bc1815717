"""Sum tree: draws rows in proportion to their priorities.

Each cell of a level is the sum of FAN_OUT cells of the level below; the lowest level
holds the priorities. A draw descends from the top with one gather and one short
cumulative sum per level; four levels hold a million rows. Changing B priorities
recomputes the B sums above them, level by level.
"""

import jax
import jax.numpy as jnp

from o2ojax.types import Array, Key

FAN_OUT = 32

SumTree = tuple[Array, ...]  # from the priorities up: [rows / FAN_OUT, FAN_OUT], ...


def build(priorities: Array) -> SumTree:
    """Builds the tree of priorities [N], at least 0. Padding rows have priority 0."""
    levels, cells = [], priorities
    while not levels or len(cells) > 1:
        padding = -len(cells) % FAN_OUT
        level = jnp.pad(cells, (0, padding)).reshape(-1, FAN_OUT)
        levels.append(level)
        cells = level.sum(axis=1)
    return tuple(levels)


def set(tree: SumTree, index: Array, priorities: Array) -> SumTree:
    """Sets the priorities [B] of the rows at `index` [B].

    If a row occurs in `index` twice, both of its priorities must be equal.
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
    """Samples `num` rows by priority, [num]: one from each of `num` equal segments.

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
        # Rounding may lead past the last cell that is above 0.
        last_held = FAN_OUT - 1 - jnp.argmax(cells[:, ::-1] > 0, axis=1)
        child = jnp.minimum(child, last_held)
        passed = jnp.take_along_axis(before - cells, child[:, None], axis=1)[:, 0]
        left = left - passed
        index = index * FAN_OUT + child
    return index


def get(tree: SumTree, index: Array) -> Array:
    """Returns the priorities of the rows at `index` [B], [B]."""
    return tree[0][index // FAN_OUT, index % FAN_OUT]
