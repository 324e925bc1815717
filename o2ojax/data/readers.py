"""Datasets from files: D4RL's HDF5 columns, the same in npz, and our compact npz.

Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020),
arxiv.org/abs/2004.07219
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import resources
from pathlib import Path

import h5py
import numpy as np

from o2ojax.data import shipped
from o2ojax.data.dataset import DataError, Dataset, from_arrays
from o2ojax.errors import unknown

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "next_observations", "final_observations")

# What h5py and numpy raise for files that are cut short, damaged or of another kind.
UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def read(source: str | os.PathLike, clip_actions: bool = False) -> Dataset:
    """Reads a shipped dataset by its name, or a file by its path.

    Args:
        source: one of `shipped_names()`, or a path ending in .hdf5, .h5 or .npz.
        clip_actions: accept actions beyond [-1, 1], and clip them.
    Raises:
        DataError: for an unknown name, or a file that cannot be used.
    """
    reader = _READERS.get(Path(source).suffix.lower())
    if reader is not None:
        return reader(source, clip_actions)
    name, known = os.fspath(source), shipped.shipped_names()
    if name not in known:
        paths = ", ".join(_READERS)
        raise DataError(
            f"{unknown('dataset', name, known)}; or a path ending in {paths}"
        )
    with resources.as_file(shipped.folder() / f"{name}.npz") as path:
        return read_npz(path, clip_actions)


def read_hdf5(path: str | os.PathLike, clip_actions: bool = False) -> Dataset:
    """Reads a D4RL file; its `infos` and `metadata` are left alone.

    Raises:
        DataError: for a file that is missing, unreadable, incomplete or refused by
            `from_arrays`.
    """
    return _read(path, partial(h5py.File, mode="r"), clip_actions)


def read_npz(path: str | os.PathLike, clip_actions: bool = False) -> Dataset:
    """Reads an npz file with D4RL's columns, or one that `write` wrote.

    Raises:
        DataError: for a file that is missing, unreadable, incomplete or refused by
            `from_arrays`. Pickled objects are never read.
    """
    return _read(path, _open_npz, clip_actions)


@contextmanager
def _open_npz(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    with path.open("rb") as raw:
        if not zipfile.is_zipfile(raw):  # numpy would guess at a pickle
            raise zipfile.BadZipFile("no zip archive, or not all of one")
        raw.seek(0)
        with np.load(raw, allow_pickle=False) as file:
            yield file


def _read(path: str | os.PathLike, open_file: Callable, clip_actions: bool) -> Dataset:
    path = Path(path).expanduser()
    name, columns = str(path), _columns(path, open_file)
    final = columns.pop("final_observations", None)
    if final is None or "next_observations" in columns:
        rows = from_arrays(**columns, name=name, clip_actions=clip_actions)
    else:
        rows = shipped.unpack(name, columns, final, clip_actions)
    return Dataset(path.stem, rows)


def _columns(path: Path, open_file: Callable) -> dict[str, np.ndarray]:
    """The arrays of a file that we know by name."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with open_file(path) as file:
            found = sorted(file)
            wanted = [key for key in (*REQUIRED, *OPTIONAL) if key in found]
            columns = {key: file[key][()] for key in wanted}
    except UNREADABLE as error:
        raise DataError(
            f"{path}: cannot be read ({error}); it must be whole, of the kind that "
            "its name says, and hold plain arrays: pickled objects are never read"
        ) from error
    missing = [key for key in REQUIRED if key not in columns]
    if missing:
        names = ", ".join(found) or "nothing"
        raise DataError(f"{path}: has no {', '.join(missing)}; found {names}")
    return columns


_READERS = {".hdf5": read_hdf5, ".h5": read_hdf5, ".npz": read_npz}
