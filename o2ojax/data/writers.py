"""Datasets into files, and into Minari's store."""

import os
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from o2ojax.data import compact, minari
from o2ojax.data.dataset import PARAMETERS, DataError, matrix, rows_of_each
from o2ojax.data.files import write_whole
from o2ojax.types import Transition


def write(
    target: str | os.PathLike,
    transitions: Transition,
    parameters: np.ndarray | None = None,
) -> None:
    """Writes transitions, whole or not at all. The final row ends an episode.

    Actions are clipped to +-(1 - 1e-5); all else comes back from `read` as it was in
    float32.

    Args:
        target: a path ending in .npz, for a compact file as `compact.pack` tells;
            one ending in .hdf5 or .h5, for D4RL's columns: float32 observations and
            next_observations [N, O], actions [N, A], rewards [N], bool terminals [N]
            and timeouts [N]; or `minari:ID`, for a new dataset in Minari's store.
        transitions: leaves [N, ...], in the order of time.
        parameters: [T, P] of a family's tasks, if it is a meta-dataset, which has as
            many rows of each; not to Minari.
    Raises:
        DataError: for a target of another kind, a dataset of Minari's that is already
            there, a place that cannot be written, and transitions that cannot be held:
            discounts other than 0 and 1, an observation that is not the next one of the
            row before, tasks that are not those of the parameters.
    """
    name = os.fspath(target)
    if name.startswith(minari.PREFIX):
        if parameters is not None or np.any(transitions.task):
            raise DataError(
                f"{name}: Minari has no place for several tasks; write a file"
            )
        if transitions.extras:
            raise DataError(f"{name}: Minari has no place for extras; write a file")
        minari.write(name, compact.pack(name, transitions))
        return
    path = Path(target).expanduser()
    fill = _FILLERS.get(path.suffix)
    if fill is None:
        raise DataError(
            f"{path}: a dataset's name must end in {', '.join(_FILLERS)}, or begin "
            f"with {minari.PREFIX}"
        )
    columns = compact.pack(str(path), transitions)
    if parameters is not None:
        columns[PARAMETERS] = matrix(f"{path}: parameters", parameters)
        rows_of_each(str(path), np.asarray(transitions.task), len(parameters))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, partial(fill, columns))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error})"
        ) from error


def _fill_npz(columns: dict[str, np.ndarray], path: Path) -> None:
    np.savez_compressed(path, **columns)


def _fill_hdf5(columns: dict[str, np.ndarray], path: Path) -> None:
    with h5py.File(path, "w") as file:
        given = {key: columns[key] for key in columns if key != PARAMETERS}
        written = {key: columns[key] for key in columns if key == PARAMETERS}
        for key, values in (compact.unpack(str(path), given) | written).items():
            file.create_dataset(key, data=values, compression="gzip")


_FILLERS = {".npz": _fill_npz, ".hdf5": _fill_hdf5, ".h5": _fill_hdf5}
