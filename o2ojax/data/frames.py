"""Pictures of a dataset, each kept once.

A table has the frames of a part of the observations, uint8 [F, H, W, C]; a row's
`obs[part]` and `next_obs[part]` are their numbers in it, int32. What is seen after a
row is what is seen before the next one, so it has the same number; only where an
episode stops is there a frame of its own. Frames are never copied to floats.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from o2ojax.data.arrays import DataError
from o2ojax.machine import memory
from o2ojax.types import Transition

PIXELS = "pixels"  # the part that observations are, where they are pictures alone
STATE = "state"  # the part that the numbers beside pictures are
BLOCK = 2**24  # bytes of frames that are looked at together
COLUMNS = ("observations", "next_observations")  # that may hold pictures

Tables = Mapping[str, np.ndarray]


def are_pictures(shape: Sequence[int], dtype: np.dtype) -> bool:
    """Whether an array is meant to hold pictures, well formed or not."""
    return len(shape) == 4 or (len(shape) > 2 and dtype == np.uint8)


def check(where: str, shape: Sequence[int], dtype: np.dtype) -> None:
    """Checks that an array holds frames, uint8 [rows, height, width, channels].

    Args:
        where: begins the message of a DataError.
    Raises:
        DataError: they are of another type, of mixed sizes, or in another order.
    """
    if dtype.hasobject:
        raise DataError(
            f"{where} hold objects, as pictures of mixed sizes make them, or encoded"
            " ones; all must be of one size, uint8 [rows, height, width, channels], and"
            " pickled objects are never read"
        )
    if dtype != np.uint8:
        how = "numpy.uint8(x)"
        if dtype.kind == "f":
            how = "numpy.uint8(numpy.round(255 * x)), if they go from 0 to 1"
        raise DataError(
            f"{where} are pictures of {dtype}; frames must be uint8, 0 to 255: {how}"
        )
    if len(shape) != 4:
        raise DataError(
            f"{where} have shape {tuple(shape)}; frames must be [rows, height, width,"
            " channels], the last of 1 where they are grey"
        )
    if 0 in shape:
        raise DataError(f"{where} are empty, of shape {tuple(shape)}")
    if shape[1] in (1, 3) and shape[3] > shape[1]:
        raise DataError(
            f"{where} are pictures of shape {tuple(shape[1:])}, channels first; frames"
            " must be [rows, height, width, channels]: numpy.moveaxis(x, 1, -1)"
        )


def check_agree(name: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Checks that pictures are as many, and of one size.

    Args:
        shapes: of columns, by name; the first is what the others are held against.
    """
    (first, wanted), *others = shapes.items()
    for key, found in others:
        if found[0] != wanted[0]:
            raise DataError(
                f"{name}: {key} has {found[0]} rows but {first} has {wanted[0]}; every"
                " array must have one row per step"
            )
        if found[1:] != wanted[1:]:
            raise DataError(
                f"{name}: {key} are pictures of {in_words(found[1:])}, but {first} of"
                f" {in_words(wanted[1:])}; they must be of one size"
            )


def in_words(shape: Sequence[int]) -> str:
    """A size as people say it, as in 84 x 84 x 3."""
    return " x ".join(map(str, shape))


def refuse_too_many(name: str, shapes: Iterable[Sequence[int]]) -> None:
    """Checks that tables of frames could be in this machine's memory.

    Args:
        name: of the data, in the error message.
        shapes: of the tables, [F, H, W, C] each.
    Raises:
        DataError: they could not; the message has their size, and what would fit.
    """
    shapes = [tuple(map(int, shape)) for shape in shapes]
    sizes = [int(np.prod(shape[1:], dtype=object)) for shape in shapes]
    told = sum(shape[0] * size for shape, size in zip(shapes, sizes, strict=True))
    if told <= memory():
        return
    frames = " and ".join(f"{x[0]:,} of {in_words(x[1:])}" for x in shapes)
    raise DataError(
        f"{name}: its frames, {frames}, have {told:,} bytes, and this machine has a"
        f" memory of {memory():,}: {memory() // sum(sizes):,} rows of them would fit;"
        " keep fewer episodes, or smaller frames"
    )


def slices(values: Any, shape: Sequence[int]) -> Iterator[np.ndarray]:
    """An array, or one of HDF5, in blocks of rows."""
    step = rows_of(BLOCK, shape)
    return (values[at : at + step] for at in range(0, shape[0], step))


def rows_of(num_bytes: int, shape: Sequence[int]) -> int:
    """How many frames, of [F, H, W, C], have so many bytes; 1 or more."""
    return max(1, num_bytes // max(1, int(np.prod(shape[1:]))))


def number(
    shape: Sequence[int],
    blocks: Iterable[np.ndarray],
    following: Iterable[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a table of the frames of N rows, and of those seen next that are others.

    Beside the table, only one block is in memory: what is behind the table is asked
    for, and never touched.

    Args:
        shape: (N, H, W, C).
        blocks: uint8 [n, H, W, C], the frames of the rows.
        following: uint8 [n, H, W, C], those that are seen next.
    Returns:
        the table, uint8 [F, H, W, C], the frames of the rows first; and the numbers of
        those that are seen next, int32 [N].
    """
    num_rows, at = shape[0], 0
    room = np.empty((2 * num_rows, *shape[1:]), np.uint8)
    for block in blocks:
        room[at : at + len(block)] = block
        at += len(block)
    after = np.arange(1, num_rows + 1, dtype=np.int32)
    num_frames, at = num_rows, 0
    for block in following:
        rows = slice(at, at + len(block))
        other = np.ones(len(block), bool)
        known = room[rows.start + 1 : min(rows.stop + 1, num_rows)]
        other[: len(known)] = (block[: len(known)] != known).any(axis=(1, 2, 3))
        beyond = slice(num_frames, num_frames + int(other.sum()))
        room[beyond] = block[other]
        after[rows][other] = np.arange(beyond.start, beyond.stop)
        num_frames, at = beyond.stop, rows.stop
    return room[:num_frames], after


def numbers_of(num_rows: int) -> np.ndarray:
    """The numbers of the frames of rows, where the table begins with them."""
    return np.arange(num_rows, dtype=np.int32)


def once(
    name: str, columns: Mapping[str, Any], tables: Tables
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Replaces pictures in columns by numbers of frames in tables.

    A table shares the memory of the pictures where nothing tells what is seen next.

    Args:
        name: name of the data in error messages.
        columns: as in `dataset.Log`. Observations that are pictures become the part
            "pixels".
        tables: of the parts that are numbers already.
    Returns:
        the columns, and all tables.
    Raises:
        DataError: the pictures are no frames, or observations are not of the same parts
            as the next ones.
    """
    tables = {part: _array(f"{name}: frames/{part}", x) for part, x in tables.items()}
    for part, table in tables.items():
        check(f"{name}: frames/{part}", table.shape, table.dtype)
    parts = {key: _parted(f"{name}: {key}", columns.get(key)) for key in COLUMNS}
    parts = {key: found for key, found in parts.items() if found is not None}
    _check_parts(name, columns, parts, tables)
    for part in parts.get("observations", {}).keys() - tables.keys():
        seen = {
            key: _array(f"{name}: {key}/{part}", found[part])
            for key, found in parts.items()
        }
        if any(are_pictures(x.shape, x.dtype) for x in seen.values()):
            tables[part], numbers = _kept(name, part, seen)
            for key, found in parts.items():
                found[part] = numbers[key]
    return dict(columns) | parts, tables


def _check_parts(
    name: str,
    columns: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Any]],
    tables: Tables,
) -> None:
    """Checks that all observations have the same parts, and those that tables have."""
    obs, after = (sorted(parts.get(key, ())) for key in COLUMNS)
    if COLUMNS[1] in columns and after != obs:
        raise DataError(
            f"{name}: observations have the parts {', '.join(obs) or 'none'}, but"
            f" next_observations {', '.join(after) or 'none'}; they must be the same"
        )
    alone = sorted(tables.keys() - set(obs))
    if alone:
        raise DataError(
            f"{name}: has frames/{alone[0]}, but no observations/{alone[0]}, the"
            " number of each row's frame in it"
        )


def _kept(
    name: str, part: str, seen: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A table of pictures, and numbers in it in their place, by column."""
    shapes = {f"{key}/{part}": values.shape for key, values in seen.items()}
    for key, values in seen.items():
        check(f"{name}: {key}/{part}", values.shape, values.dtype)
    check_agree(name, shapes)
    obs, after = (seen.get(key) for key in COLUMNS)
    own = {COLUMNS[0]: numbers_of(len(obs))}
    if after is None:
        return obs, own
    shape = obs.shape
    table, following = number(shape, slices(obs, shape), slices(after, shape))
    return table, own | {COLUMNS[1]: following}


def _parted(where: str, values: Any) -> dict[str, Any] | None:
    """Observations by part; None where they are numbers alone, or none."""
    if values is None:
        return None
    if isinstance(values, Mapping):
        return dict(values)
    values = _array(where, values)
    return {PIXELS: values} if are_pictures(values.shape, values.dtype) else None


def _array(where: str, values: Any) -> np.ndarray:
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where} is ragged: all rows must be of one size") from error
    if values.dtype.hasobject and np.ndim(values.flat[0] if values.size else 0) > 1:
        check(where, values.shape, values.dtype)
    return values


def used(
    transitions: Transition, tables: Tables
) -> tuple[Transition, dict[str, np.ndarray]]:
    """Leaves out the frames that no row has a number of.

    Args:
        transitions: leaves [N, ...], with numbers [N, ...] of frames.
    Returns:
        the transitions with new numbers, and tables; those that are used whole are the
        same ones.
    """
    kept = dict(tables)
    for part, table in tables.items():
        numbers = np.stack([transitions.obs[part], transitions.next_obs[part]])
        seen = np.zeros(len(table), bool)
        seen[numbers] = True
        if seen.all():
            continue
        obs, after = (np.cumsum(seen, dtype=np.int32) - 1)[numbers]
        kept[part] = table[seen]
        transitions = transitions._replace(
            obs=transitions.obs | {part: obs},
            next_obs=transitions.next_obs | {part: after},
        )
    return transitions, kept


def copies(table: np.ndarray) -> np.ndarray:
    """For each frame, the number of the first one with the same bytes, int32 [F]."""
    digests = [
        hashlib.blake2b(np.ascontiguousarray(frame), digest_size=16).digest()
        for frame in table
    ]
    first = {digest: at for at, digest in reversed(list(enumerate(digests)))}
    return np.array([first[digest] for digest in digests], np.int32)


def numbers(where: str, values: Any, num_frames: int) -> np.ndarray:
    """Converts numbers of frames to int32 [N].

    Raises:
        DataError: they are no whole numbers, or none of a table of so many.
    """
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(
            f"{where} has shape {values.shape} and dtype {values.dtype}; as there is a"
            " table of frames, it must be the number of each row's frame in it"
        )
    odd = np.flatnonzero((values < 0) | (values >= num_frames))
    if odd.size:
        raise DataError(
            f"{where}: row {odd[0]} is frame {values[odd[0]]}, and the table has"
            f" {num_frames} frames, counted from 0"
        )
    return values.astype(np.int32, copy=False)


def vectors(obs: Any, tables: Tables) -> np.ndarray:
    """The numbers of observations that are no pictures, float32 [N, O], joined in the
    order of the names of their parts.
    """
    if not isinstance(obs, Mapping):
        return obs
    num_rows = len(jax.tree.leaves(obs)[0])
    parts = [obs[part] for part in sorted(obs) if part not in tables]
    return np.concatenate([np.empty((num_rows, 0), np.float32), *parts], axis=1)
