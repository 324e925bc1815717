"""Reads datasets from files, Minari's store, the package, or a user's function.

HDF5 files have D4RL's columns. Fu et al., "D4RL: Datasets for Deep Data-Driven
Reinforcement Learning" (2020), arxiv.org/abs/2004.07219. npz files have the same
columns, or OGBench's, or those of `writers.write`.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from o2ojax import registry
from o2ojax.data import antmaze, compact, minari, ogbench, shipped
from o2ojax.data.dataset import (
    EXTRAS,
    ONE_STREAM,
    PARAMETERS,
    DataError,
    Dataset,
    DataWarning,
    Log,
    flags,
    from_columns,
    from_transitions,
    matrix,
    vector,
)
from o2ojax.data.files import UNREADABLE, open_npz, refuse_too_large
from o2ojax.errors import RAISED, UserError, first_line, unknown
from o2ojax.types import Transition

REQUIRED = ("observations", "actions", "rewards", "terminals")
LENGTHS = "episode_lengths"  # steps of each episode, in place of timeouts
# D4RL's, or told otherwise; and the group that extras are in
UNREAD = ("infos", "metadata", "episode_starts", EXTRAS)
OPTIONAL = (
    "timeouts",
    "next_observations",
    "final_observations",
    "tasks",
    PARAMETERS,
    LENGTHS,
)


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
            that returns Transitions.
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
    return _dataset(_load(path, _open_hdf5), clip_actions)


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
    if not isinstance(made, Transition):
        raise DataError(
            f"{name} gives a {type(made).__name__}; it must be a function that returns"
            " an o2ojax.types.Transition, leaves [N, ...]"
        )
    if bounds is not None:
        low, high = bounds_of(name, np.asarray(made.action), bounds)
        made = made._replace(action=2 * (made.action - low) / (high - low) - 1)
    return Dataset(name, from_transitions(made, name, clip_actions))


def _dataset(log: Log, clip_actions: bool) -> Dataset:
    if "timeouts" not in log.columns and "next_observations" not in log.columns:
        warnings.warn(f"{log.source}: {ONE_STREAM}", DataWarning, stacklevel=3)
    rows, recorded = from_columns(log.columns, log.extras, log.source, clip_actions)
    return Dataset(log.name, rows, log.parameters, recorded=recorded)


_open_hdf5 = partial(h5py.File, mode="r")


def _load(path: str | os.PathLike, open_file: Callable) -> Log:
    path = Path(os.path.expanduser(path))
    source, found, columns = str(path), *_columns(path, open_file)
    if open_file is open_npz and ogbench.recognised(found):
        return Log(path.stem, source, ogbench.convert(source, columns))
    _cut_into_episodes(source, columns)
    missing = [key for key in REQUIRED if key not in columns]
    if missing:
        names = ", ".join(found) or "nothing"
        raise DataError(f"{path}: has no {', '.join(missing)}; found {names}")
    parameters = columns.pop(PARAMETERS, None)
    if parameters is not None:
        parameters = matrix(f"{source}: {PARAMETERS}", parameters)
    if "next_observations" in columns:
        columns.pop("final_observations", None)
    elif "final_observations" in columns:
        columns = compact.unpack(source, columns)
    extras = {
        key.removeprefix(f"{EXTRAS}/"): columns.pop(key)
        for key in list(columns)
        if key.startswith(f"{EXTRAS}/")
    }
    columns = antmaze.mend(source, columns)
    return Log(path.stem, source, columns, parameters, extras)


def _cut_into_episodes(source: str, columns: dict[str, np.ndarray]) -> None:
    """Turns lengths of episodes into timeouts, in place; no episode ends by them."""
    lengths = columns.pop(LENGTHS, None)
    if lengths is None or "observations" not in columns:
        return
    num_rows = len(matrix(f"{source}: observations", columns["observations"]))
    ends = np.cumsum(np.int64(vector(f"{source}: {LENGTHS}", lengths)))
    if np.diff(ends, prepend=0).min() < 1 or ends[-1] != num_rows:
        raise DataError(
            f"{source}: {LENGTHS} sum to {ends[-1]}, and there are {num_rows} rows;"
            " give the steps of each episode, in order"
        )
    columns.setdefault("terminals", np.zeros(num_rows, bool))
    ended = flags(f"{source}: terminals", columns["terminals"])
    if "timeouts" not in columns and len(ended) == num_rows:  # else it is told later
        timeouts = np.zeros(num_rows, bool)
        timeouts[ends - 1] = True
        columns["timeouts"] = timeouts & ~ended


def _columns(
    path: Path, open_file: Callable
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names in a file, and the arrays with known names."""
    if not os.path.isfile(path):  # of any name, also one too long
        raise DataError(f"{path}: no such file")
    try:
        with open_file(path) as file:
            found = sorted(file)
            known, unread = (*REQUIRED, *OPTIONAL, *_extras(file, found)), UNREAD
            if open_file is open_npz and ogbench.recognised(found):
                known, unread = (*ogbench.REQUIRED, *ogbench.OPTIONAL), UNREAD[:-1]
            unread = [
                key
                for key in found
                if key not in known and key.partition("/")[0] not in unread
            ]
            if unread:
                warnings.warn(
                    f"{path}: {', '.join(unread)}: not read, as nothing here uses it",
                    DataWarning,
                    stacklevel=4,
                )
            known = [key for key in known if key in file]
            refuse_too_large(sum(_num_bytes(file, key) for key in known))
            return found, {key: np.asarray(file[key][()]) for key in known}
    except UNREADABLE as error:
        raise DataError(
            f"{path}: cannot be read ({first_line(error)}); it must be whole, of the "
            "kind that its name says, and hold plain arrays: pickled objects are never "
            "read"
        ) from error


def _num_bytes(file: Any, key: str) -> int:
    """Bytes of an array, before it is read."""
    if isinstance(file, h5py.File):
        return getattr(file[key], "nbytes", 0)  # a group has none
    return file.num_bytes[key]


def _extras(file: Any, found: list[str]) -> list[str]:
    """Names of the extras of a file, which are a group in HDF5."""
    if EXTRAS in found and hasattr(file[EXTRAS], "keys"):
        return [f"{EXTRAS}/{key}" for key in file[EXTRAS]]
    return [key for key in found if key.startswith(f"{EXTRAS}/")]


_OPENERS = {".hdf5": _open_hdf5, ".h5": _open_hdf5, ".npz": open_npz}
