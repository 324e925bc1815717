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
from typing import IO, Any

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


class Npz(Mapping):
    """The arrays of an npz file, by name.

    Args:
        file: as NumPy opens it.
        num_bytes: of each array, by name.
    """

    def __init__(self, file: np.lib.npyio.NpzFile, num_bytes: Mapping[str, int]):
        self._file, self.num_bytes = file, num_bytes

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads an array."""
        return self._file[name]

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
            sizes = {
                info.filename.removesuffix(".npy"): _size(archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
        raw.seek(0)
        with np.load(raw, allow_pickle=False) as file:
            yield Npz(file, sizes)


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


def _size(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Bytes of an array; those that its header tells must be there."""
    with archive.open(info) as member:
        shape, dtype = _header(info.filename, member)
        told, held = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
    if told != held and not dtype.hasobject:  # an object is pickled, and not read
        raise ValueError(
            f"{info.filename} tells of {shape} numbers of {dtype}, {told:,} bytes, and"
            f" has {held:,}"
        )
    return told


def _header(name: str, member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type, as an array's header has them."""
    form = np.lib.format
    read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    try:
        shape, _, dtype = read[form.read_magic(member)](member)
    except UNREADABLE as error:
        raise ValueError(f"{name}: no header of an array ({error})") from error
    except Exception as error:  # it is Python's text: its parser has errors of its own
        raise ValueError(f"{name}: a damaged header ({error})") from error
    return shape, dtype


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
