"""Atomic writing of files, and careful reading of arrays."""

import errno
import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np

from o2ojax.machine import memory

# Exceptions of h5py and numpy for files that are truncated, damaged or of another type.
UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary file beside `path`, then renames it to `path`.

    Raises:
        OSError: the folder is missing, or cannot be written to.
    """
    if not os.path.isdir(path.parent):
        raise FileNotFoundError(
            errno.ENOENT, "there is no such folder", str(path.parent)
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text atomically, in UTF-8 wherever it is written."""
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


class Head(NamedTuple):
    """What an array of a file is, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool = False  # the first axis varies fastest

    @property
    def num_bytes(self) -> int:
        """Of all its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


class Npz(Mapping):
    """The arrays of an npz file, by name.

    Args:
        file: as NumPy opens it.
        heads: of each array, by name.
    """

    def __init__(self, file: np.lib.npyio.NpzFile, heads: Mapping[str, Head]):
        self._file, self.heads = file, heads

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads an array."""
        return self._file[name]

    def blocks(self, name: str, step: int) -> Iterator[np.ndarray]:
        """Reads an array of bytes, `step` rows after `step` rows."""
        head = self.heads[name]
        if head.by_columns:
            yield self[name]
            return
        shape = head.shape
        with self._file.zip.open(f"{name}.npy") as member:
            _header(name, member)
            for at in range(0, shape[0], step):
                some = (min(step, shape[0] - at), *shape[1:])
                content = member.read(math.prod(some))
                yield np.frombuffer(content, np.uint8).reshape(some)

    def __iter__(self) -> Iterator[str]:
        """The names of the arrays."""
        return iter(self._file)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._file)


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Opens an npz file whose arrays are as large as their headers say.

    Raises:
        one of `UNREADABLE`: it is no such file, or damaged.
    """
    with path.open("rb") as raw:
        if not zipfile.is_zipfile(raw):  # numpy would try to unpickle it
            raise zipfile.BadZipFile("no zip archive, or not all of one")
        raw.seek(0)
        with zipfile.ZipFile(raw) as archive:
            _hold_all(raw, archive)
            heads = {
                info.filename.removesuffix(".npy"): _head(archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
        raw.seek(0)
        with np.load(raw, allow_pickle=False) as file:
            yield Npz(file, heads)


def open_hdf5(path: Path) -> h5py.File:
    """Opens an HDF5 file whose addresses count from its beginning.

    From elsewhere, as a damaged file may have it, HDF5 can read on for ever.

    Raises:
        one of `UNREADABLE`: it is no such file, or damaged.
    """
    with path.open("rb") as raw:
        head = raw.read(36)
    first = {0: 24, 1: 28}.get(head[8]) if head[:8] == HDF5 and head[8:] else None
    if first is not None and any(head[first : first + 8]):  # later forms have sums
        raise OSError("its addresses do not count from its beginning")
    return h5py.File(path, "r")


HDF5 = b"\x89HDF\r\n\x1a\n"  # begins a file


def _hold_all(raw: IO[bytes], archive: zipfile.ZipFile) -> None:
    """Checks that an archive has as many files as its end tells.

    A damaged entry of its directory can swallow the next one, which Python overlooks.

    Raises:
        zipfile.BadZipFile: it has not.
    """
    end = max(0, raw.seek(0, io.SEEK_END) - LONGEST_END)
    raw.seek(end)
    tail = raw.read()
    at = tail.rfind(END)
    told = int.from_bytes(tail[at + 10 : at + 12], "little")
    if told not in (len(archive.infolist()), MANY):
        raise zipfile.BadZipFile(
            f"its end tells of {told} files, its directory of {len(archive.infolist())}"
        )


END = b"PK\x05\x06"  # begins the last record of a zip archive
LONGEST_END = 22 + 0xFFFF  # bytes of this record, with its comment
MANY = 0xFFFF  # files: their number is told elsewhere


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Head:
    """What an array is; the bytes that its header tells must be there."""
    with archive.open(info) as member:
        head = _header(info.filename, member)
        told, held = head.num_bytes, info.file_size - member.tell()
    if told != held and not head.dtype.hasobject:  # an object is pickled, and not read
        raise ValueError(
            f"{info.filename} tells of {head.shape} numbers of {head.dtype}, {told:,}"
            f" bytes, and has {held:,}"
        )
    return head


def _header(name: str, member: IO[bytes]) -> Head:
    """Shape and type, as an array's header has them."""
    form = np.lib.format
    read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    try:
        shape, by_columns, dtype = read[form.read_magic(member)](member)
    except UNREADABLE as error:
        raise ValueError(f"{name}: no header of an array ({error})") from error
    except Exception as error:  # it is Python's text: its parser has errors of its own
        raise ValueError(f"{name}: a damaged header ({error})") from error
    return Head(shape, dtype, by_columns)


def refuse_too_large(num_bytes: int) -> None:
    """Checks that arrays could be in this machine's memory.

    Raises:
        MemoryError: they could not; the message has both sizes.
    """
    if num_bytes > memory():
        raise MemoryError(
            f"its arrays have {num_bytes:,} bytes, and this machine has a memory of"
            f" {memory():,}"
        )
