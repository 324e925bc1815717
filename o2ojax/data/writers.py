"""Writes datasets to files and to Minari's store."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from o2ojax.data import compact, frames, minari
from o2ojax.data.arrays import DataError, matrix
from o2ojax.data.dataset import EXTRAS, PARAMETERS
from o2ojax.data.files import write_whole
from o2ojax.data.fitting import rows_of_each
from o2ojax.types import Transition


def write(
    target: str | os.PathLike,
    transitions: Transition,
    parameters: np.ndarray | None = None,
    action_bounds: Any = None,
    tables: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Writes transitions atomically. The final row ends an episode.

    `read` returns the same float32 values, except that actions are clipped to
    +-(1 - 1e-5), and the same frames. Those that no row has are left out.

    Args:
        target: a path ending in .npz, for a compact file as by `compact.pack`;
            one ending in .hdf5 or .h5, for D4RL's columns: float32 observations and
            next_observations [N, O], actions [N, A], rewards [N], bool terminals [N]
            and timeouts [N]; or `minari:ID`, for a new dataset in Minari's store.
        transitions: leaves [N, ...], in order of time. Parts of the observations may be
            pictures, uint8 [N, H, W, C].
        parameters: [T, P], parameters of each task of a meta-dataset, which has equally
            many rows per task; not supported for Minari.
        action_bounds: lowest and highest action, [A] each, to write actions in these
            units; None to write them as they are, in [-1, 1].
        tables: frames of the parts that are numbers, as in `Dataset.frames`.
    Raises:
        DataError: the target is of another type, exists in Minari already or cannot be
            written; or the transitions cannot be stored: a discount is neither 0 nor 1,
            an observation is not the previous row's next one, or the tasks are not
            those of the parameters.
    """
    name = os.fspath(target)
    if name.startswith(minari.PREFIX):
        if parameters is not None or np.any(transitions.task):
            raise DataError(
                f"{name}: Minari has no place for several tasks; write a file"
            )
        if transitions.extras:
            raise DataError(f"{name}: Minari has no place for extras; write a file")
        columns = _in_units(compact.pack(name, transitions, tables), action_bounds)
        with _explained(name):
            minari.write(name, columns, action_bounds)
        return
    path = Path(os.path.expanduser(target))
    fill = _FILLERS.get(path.suffix)
    if fill is None:
        raise DataError(
            f"{path}: a dataset's name must end in {', '.join(_FILLERS)}, or begin "
            f"with {minari.PREFIX}"
        )
    columns = _in_units(compact.pack(str(path), transitions, tables), action_bounds)
    if parameters is not None:
        columns[PARAMETERS] = matrix(f"{path}: parameters", parameters)
        rows_of_each(str(path), np.asarray(transitions.task), len(parameters))
    with _explained(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, partial(fill, columns))


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Tells of what could not be written by its name."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"{name}: cannot be written ({error.strerror or error})"
        ) from error
    except ValueError as error:  # a null character in its name
        raise DataError(f"{name!r}: cannot be written ({error})") from error


def _in_units(columns: dict[str, np.ndarray], bounds: Any) -> dict[str, np.ndarray]:
    """The columns, their actions stretched from [-1, 1] over these bounds."""
    if bounds is None:
        return columns
    low, high = np.float64(bounds)
    actions = low + (columns["actions"].astype(np.float64) + 1) / 2 * (high - low)
    return columns | {"actions": np.float32(actions)}


def _fill_npz(columns: dict[str, Any], path: Path) -> None:
    np.savez_compressed(path, **compact.flat(columns))


CHUNK = 2**18  # bytes of frames in HDF5 that are read together, or more


def _fill_hdf5(columns: dict[str, Any], path: Path) -> None:
    # a form that has sums of all its parts, so that a damaged file is noticed
    beside = {key: columns[key] for key in BESIDE if key in columns}
    given = {key: columns[key] for key in columns if key not in BESIDE}
    rows = compact.unpack(str(path), given, columns[compact.FRAMES])
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for key, values in compact.flat(rows | beside).items():
            whole = None
            if key.startswith(compact.FRAMES):
                together = min(len(values), frames.rows_of(CHUNK, values.shape))
                whole = (together, *values.shape[1:])
            file.create_dataset(
                key, data=values, chunks=whole, compression="gzip", fletcher32=True
            )


BESIDE = (EXTRAS, compact.FRAMES, PARAMETERS)  # columns that are no rows of episodes
_FILLERS = {".npz": _fill_npz, ".hdf5": _fill_hdf5, ".h5": _fill_hdf5}
