"""Reads datasets from files, Minari's store, the package, or a user's function.

HDF5 files have D4RL's columns. Fu et al., "D4RL: Datasets for Deep Data-Driven
Reinforcement Learning" (2020), arxiv.org/abs/2004.07219. npz files have the same
columns, or OGBench's, or those of `writers.write`.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from o2ojax import registry
from o2ojax.data import antmaze, compact, frames, minari, ogbench, shipped
from o2ojax.data.arrays import DataError, flags, matrix, vector
from o2ojax.data.columns import SIGHTS, num_rows
from o2ojax.data.dataset import (
    EXTRAS,
    ONE_STREAM,
    PARAMETERS,
    Dataset,
    DataWarning,
    Log,
    from_log,
    from_transitions,
)
from o2ojax.data.files import UNREADABLE, Head, open_hdf5, open_npz, refuse_too_large
from o2ojax.errors import RAISED, UserError, first_line, unknown
from o2ojax.types import Transition

REQUIRED = ("observations", "actions", "rewards", "terminals")
LENGTHS = "episode_lengths"  # steps of each episode, in place of timeouts
# D4RL's, or told otherwise; and the group that extras are in
UNREAD = ("infos", "metadata", "episode_starts")
OPTIONAL = ("timeouts", *compact.NESTED, "tasks", PARAMETERS, LENGTHS)


def read(
    source: str | os.PathLike,
    clip_actions: bool = False,
    action_bounds: Any = None,
    keys: Sequence[str] = (),
) -> Dataset:
    """Reads a shipped dataset, a file, a dataset of Minari, or the result of a door.

    Emits a DataWarning for a log that has neither timeouts nor next_observations.

    Args:
        source: one of `shipped_names()`; a path ending in .hdf5, .h5 or .npz; or
            `minari:ID`, with Dict observations `minari:ID:KEY,KEY`, as in
            `minari.load`; or a door, `module:NAME` or `file.py:NAME`, of a function
            that returns Transitions, or a Dataset.
        clip_actions: accepts and clips actions outside [-1, 1].
        action_bounds: the lowest and the highest action, numbers or [A], that become
            -1 and 1; DATA for those that occur; None where actions are in [-1, 1]
            already. A dataset of Minari has bounds of its own.
        keys: of Dict observations in Minari, the entries to join; () for all.
    Raises:
        DataError: the name is unknown, or the data are invalid.
    """
    name = os.fspath(source)
    if registry.is_door(name):
        return _behind(name, clip_actions, action_bounds)
    log = load(source, keys)
    units = None
    if action_bounds is not None and not name.startswith(minari.PREFIX):
        actions = matrix(f"{log.source}: actions", log.columns["actions"])
        low, high = bounds_of(log.source, actions, action_bounds)
        units = tuple(low.tolist()), tuple(high.tolist())
        log = rescale(log, action_bounds)
    return _dataset(log, clip_actions)._replace(action_bounds=units)


def rescale(log: Log, bounds: Any) -> Log:
    """A log whose actions are stretched from their bounds, as for `read`, to [-1, 1].

    Raises:
        DataError: the bounds are not those of such actions.
    """
    actions = matrix(f"{log.source}: actions", log.columns["actions"])
    low, high = bounds_of(log.source, actions, bounds)
    scaled = 2 * (actions - low) / (high - low) - 1
    return log._replace(columns=log.columns | {"actions": scaled})


DATA = "data"  # bounds that are those of the actions that occur


def bounds_of(
    where: str, actions: np.ndarray, bounds: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action, float64 [A] each, of `bounds` as for `read`.

    Raises:
        DataError: there are not as many as numbers of an action, or two are equal.
    """
    given = not isinstance(bounds, str)
    if not given:
        bounds = actions.min(axis=0), actions.max(axis=0)
    try:
        low, high = (np.broadcast_to(np.float64(x), actions.shape[1:]) for x in bounds)
    except ValueError:
        raise DataError(
            f"{where}: actions have {actions.shape[1]} numbers, and their bounds are"
            f" given for {np.size(bounds[0])}"
        ) from None
    if (low >= high).any():
        at = int((low >= high).argmax())
        if given:
            raise DataError(
                f"{where}: the bounds of number {at} of the actions are {low[at]:g} and"
                f" {high[at]:g}; give the lower one first"
            )
        raise DataError(
            f"{where}: number {at} of the actions is always {low[at]:g}, so what occurs"
            " tells no bounds: give config.action_bounds, as -1,1"
        )
    return low, high


def read_hdf5(path: str | os.PathLike, clip_actions: bool = False) -> Dataset:
    """Reads a D4RL file; ignores its `infos` and `metadata`.

    Raises:
        DataError: the file is missing, unreadable, incomplete or refused by
            `from_arrays`.
    """
    return _dataset(_load(path, open_hdf5), clip_actions)


def read_npz(path: str | os.PathLike, clip_actions: bool = False) -> Dataset:
    """Reads an npz file with columns of D4RL, OGBench or `writers.write`.

    Pickled objects are never read.

    Raises:
        DataError: the file is missing, unreadable, incomplete or refused by
            `from_arrays`.
    """
    return _dataset(_load(path, open_npz), clip_actions)


def load(source: str | os.PathLike, keys: Sequence[str] = ()) -> Log:
    """Reads the sources of `read`, except doors, into columns without validation.

    Raises:
        DataError: the name is unknown, or the data are missing, unreadable or
            incomplete.
    """
    name = os.fspath(source)
    if name.startswith(minari.PREFIX):
        return minari.load(name, keys)
    open_file = _OPENERS.get(Path(source).suffix.lower())
    if open_file is not None:
        return _load(source, open_file)
    known = shipped.shipped_names()
    if name not in known:
        raise DataError(
            f"{unknown('dataset', name, known)}; or a path ending in "
            f"{', '.join(_OPENERS)}, or {minari.PREFIX}ID"
        )
    with resources.as_file(shipped.folder() / f"{name}.npz") as path:
        return _load(path, open_npz)


def _behind(name: str, clip_actions: bool, bounds: Any) -> Dataset:
    function = registry.behind(name)
    try:
        made = function() if callable(function) else function
    except UserError:
        raise
    except RAISED as error:
        raise DataError(str(registry.failure(name, error))) from error
    if not isinstance(made, Transition | Dataset):
        raise DataError(
            f"{name} gives a {type(made).__name__}; it must be a function that returns"
            " an o2ojax.types.Transition, leaves [N, ...]"
        )
    rows, tables = made, {}
    if isinstance(made, Dataset):
        rows, tables = made.transitions, made.frames
    if bounds is not None:
        low, high = bounds_of(name, np.asarray(rows.action), bounds)
        rows = rows._replace(action=2 * (rows.action - low) / (high - low) - 1)
    return from_transitions(rows, name, clip_actions, tables)


def _dataset(log: Log, clip_actions: bool) -> Dataset:
    if "timeouts" not in log.columns and "next_observations" not in log.columns:
        warnings.warn(f"{log.source}: {ONE_STREAM}", DataWarning, stacklevel=3)
    return from_log(log, clip_actions)


def _load(path: str | os.PathLike, open_file: Callable) -> Log:
    path = Path(os.path.expanduser(path))
    source, (found, read_columns) = str(path), _columns(path, open_file)
    columns = compact.nested(source, read_columns)
    extras, tables = columns.pop(EXTRAS, {}), columns.pop(compact.FRAMES, {})
    for key, found_there in ((EXTRAS, extras), (compact.FRAMES, tables)):
        if not isinstance(found_there, dict):
            raise DataError(
                f"{source}: {key} is an array; it must be under a name, as {key}/NAME"
            )
    columns, tables = frames.once(source, columns, tables)
    if open_file is open_npz and ogbench.recognised(found):
        columns = ogbench.convert(source, columns, tables)
        return Log(path.stem, source, columns, frames=tables)
    _cut_into_episodes(source, columns)
    missing = [key for key in REQUIRED if key not in columns]
    if missing:
        names = ", ".join(found) or "nothing"
        raise DataError(f"{path}: has no {', '.join(missing)}; found {names}")
    parameters = columns.pop(PARAMETERS, None)
    if parameters is not None:
        parameters = matrix(f"{source}: {PARAMETERS}", parameters)
    if "next_observations" in columns:
        columns.pop(compact.FINAL, None)
    elif compact.FINAL in columns:
        columns = compact.unpack(source, columns, tables)
    columns = antmaze.mend(source, columns)
    return Log(path.stem, source, columns, parameters, extras, tables)


def _cut_into_episodes(source: str, columns: dict[str, Any]) -> None:
    """Turns lengths of episodes into timeouts, in place; no episode ends by them."""
    lengths = columns.pop(LENGTHS, None)
    if lengths is None or "observations" not in columns:
        return
    rows = num_rows(columns["observations"])
    ends = np.cumsum(np.int64(vector(f"{source}: {LENGTHS}", lengths)))
    if np.diff(ends, prepend=0).min() < 1 or ends[-1] != rows:
        raise DataError(
            f"{source}: {LENGTHS} sum to {ends[-1]}, and there are {rows} rows;"
            " give the steps of each episode, in order"
        )
    columns.setdefault("terminals", np.zeros(rows, bool))
    ended = flags(f"{source}: terminals", columns["terminals"])
    if "timeouts" not in columns and len(ended) == rows:  # else it is told later
        timeouts = np.zeros(rows, bool)
        timeouts[ends - 1] = True
        columns["timeouts"] = timeouts & ~ended


def _columns(
    path: Path, open_file: Callable
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names in a file, and the arrays with known names, pictures by numbers."""
    if not os.path.isfile(path):  # of any name, also one too long
        raise DataError(f"{path}: no such file")
    try:
        with open_file(path) as file:
            found = sorted(_names(file))
            wanted = (*REQUIRED, *OPTIONAL)
            if open_file is open_npz and ogbench.recognised(found):
                wanted = (*ogbench.REQUIRED, *ogbench.OPTIONAL)
            known = [key for key in found if _top(key) in wanted]
            known.sort(key=lambda key: wanted.index(_top(key)))
            unread = [
                key for key in found if key not in known and _top(key) not in UNREAD
            ]
            if unread:
                warnings.warn(
                    f"{path}: {', '.join(unread)}: not read, as nothing here uses it",
                    DataWarning,
                    stacklevel=4,
                )
            return found, _arrays(str(path), file, known)
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(
            f"{path}: cannot be read ({first_line(error)}); it must be whole, of the "
            "kind that its name says, and hold plain arrays: pickled objects are never "
            "read"
        ) from error


def _top(key: str) -> str:
    """The column that an array is, or is a part of."""
    whole, _, _ = key.partition("/")
    return whole if whole in compact.NESTED else key


def _names(file: Any, before: str = "") -> Iterator[str]:
    """Names of the arrays of a file; in HDF5, the parts of a column are in a group."""
    for key in file:
        name = f"{before}{key}"
        if _top(name) in compact.NESTED and isinstance(file, h5py.Group):
            if file.get(key, getclass=True) is h5py.Group:
                yield from _names(file[key], f"{name}/")
                continue
        yield name


def _arrays(source: str, file: Any, known: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads arrays; of pictures, a table that has each once, and numbers of rows."""
    heads = {key: _head(file, key) for key in known}
    compact.nested(source, heads)  # nothing is there twice
    for key, head in heads.items():
        kept = _top(key) in (*SIGHTS, compact.FRAMES)
        if kept and (head.dtype.hasobject or frames.are_pictures(*head[:2])):
            frames.check(f"{source}: {key}", head.shape, head.dtype)
    pictures = _pictures(heads)
    numbered = [key for keys in pictures.values() for key in keys]
    tables = [keys[0] for keys in pictures.values()]
    tables += [key for key in known if _top(key) == compact.FRAMES]
    frames.refuse_too_many(source, [heads[key].shape for key in tables])
    whole = [key for key in known if key not in numbered]
    refuse_too_large(sum(heads[key].num_bytes for key in {*whole, *tables}))
    found = {key: np.asarray(file[key][()]) for key in whole}
    for part, keys in pictures.items():
        frames.check_agree(source, {key: heads[key].shape for key in keys})
        found |= _numbered(file, heads, part, *keys)
    return found


def _pictures(heads: Mapping[str, Head]) -> dict[str, list[str]]:
    """The arrays of pictures of each part, those of the rows first."""
    found: dict[str, list[str]] = {}
    for column in SIGHTS:
        for key, head in heads.items():
            part = key.partition("/")[2] or frames.PIXELS
            begun = column == SIGHTS[0] or part in found
            numbered = f"{compact.FRAMES}/{part}" in heads  # already
            is_of_it = _top(key) == column and frames.are_pictures(*head[:2])
            if is_of_it and begun and not numbered:
                found.setdefault(part, []).append(key)
    return found


def _numbered(
    file: Any, heads: Mapping[str, Head], part: str, obs: str, after: str | None = None
) -> dict[str, np.ndarray]:
    """Reads pictures into a table, and gives rows their numbers, by names."""
    shape = heads[obs].shape
    found = {f"{SIGHTS[0]}/{part}": frames.numbers_of(shape[0])}
    if after is None:
        return found | {f"{compact.FRAMES}/{part}": np.asarray(file[obs][()])}
    table, following = frames.number(
        shape, *(_blocks(file, key, heads[key]) for key in (obs, after))
    )
    return found | {
        f"{compact.FRAMES}/{part}": table,
        f"{SIGHTS[1]}/{part}": following,
    }


def _blocks(file: Any, key: str, head: Head) -> Iterator[np.ndarray]:
    """Reads pictures, some rows after some rows."""
    if isinstance(file, h5py.File):
        return frames.slices(file[key], head.shape)
    return file.blocks(key, frames.rows_of(frames.BLOCK, head.shape))


def _head(file: Any, key: str) -> Head:
    """What an array is, before it is read."""
    if not isinstance(file, h5py.File):
        return file.heads[key]
    found = file[key]  # a group has no shape
    return Head(getattr(found, "shape", None) or (), getattr(found, "dtype", BYTES))


BYTES = np.dtype(np.uint8)
_OPENERS = {".hdf5": open_hdf5, ".h5": open_hdf5, ".npz": open_npz}
