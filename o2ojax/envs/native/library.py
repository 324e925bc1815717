"""Compiles the C++ part on first use, and loads it.

The headers and the library that it needs come with the wheels of jaxlib and mujoco.
What is compiled is kept, by the source, the versions and the machine.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

import jax
import jaxlib
import mujoco

from o2ojax.data.files import write_whole
from o2ojax.machine import cache_folder

SOURCES = tuple(Path(__file__).parent / name for name in ("step.cc", "call.cc"))
FLAGS = ("-O2", "-std=c++17", "-shared", "-fPIC", "-pthread")


class Unavailable(Exception):
    """The C++ part cannot be had on this machine; the message says why."""


@functools.cache
def digest() -> str:
    """Names what is compiled: another source, version or machine has another one."""
    parts = (
        *(path.read_text("utf-8") for path in SOURCES),
        jaxlib.__version__,
        mujoco.__version__,
        str(FLAGS),
    )
    parts += platform.machine(), *platform.libc_ver()
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def target(symbol: str) -> str:
    """Makes a handler known to XLA. Returns its name, which tells versions apart.

    Raises:
        Unavailable: the library cannot be compiled or loaded.
    """
    name = f"o2ojax_{symbol}_{digest()[:16]}"
    handler = jax.ffi.pycapsule(getattr(load(), symbol))
    jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return name


def why_not() -> str:
    """Why XLA cannot call the C++ part on this machine; "" where it can."""
    if (backend := jax.default_backend()) != "cpu":
        return f"JAX runs on a {backend}, and our C++ part works on CPUs only"
    try:
        load()
    except Unavailable as error:
        return str(error)
    return ""


def load() -> ctypes.CDLL:
    """The compiled library.

    Raises:
        Unavailable: it cannot be compiled or loaded.
    """
    with _LOCK:
        found = _load()
    if isinstance(found, str):
        raise Unavailable(found)
    return found


_LOCK = threading.Lock()


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none; what has failed once is not tried again."""
    kept = cache_folder() / "native" / f"{digest()[:16]}.so"
    try:
        return _kept(kept) or _compiled(kept)
    except (OSError, Unavailable) as error:
        return str(error)


def _kept(path: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(path)) if path.is_file() else None
    except OSError:
        return None  # damaged: it is compiled again


def _compiled(kept: Path) -> ctypes.CDLL:
    """Compiles the library, loads it and keeps it, if that can be."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / kept.name
        _compile(made)
        try:
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(kept, lambda path: shutil.copyfile(made, path))
        except OSError as error:
            warnings.warn(
                f"what is compiled of C++ is so at each start, as it cannot be kept"
                f" ({error})",
                RuntimeWarning,
                stacklevel=2,
            )
        return ctypes.CDLL(str(made))  # it stays when the file is gone


def _compile(path: Path) -> None:
    """Runs the compiler: $CXX, or the first of the usual ones."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    usual = (name for name in ("c++", "g++", "clang++") if shutil.which(name))
    compiler = chosen or [next(usual, "")]
    if not shutil.which(compiler[0]):
        what = (
            f"$CXX is {compiler[0]}, which is not there"
            if chosen
            else ("there is no C++ compiler here (c++, g++, clang++ or $CXX)")
        )
        raise Unavailable(what)
    home = Path(mujoco.__file__).parent
    libraries = sorted(home.glob("libmujoco.so*"))
    if not libraries:
        raise Unavailable(f"{home} has no libmujoco.so to link with")
    command = [*compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", f"-I{home / 'include'}"]
    command += [
        *map(str, SOURCES),
        str(libraries[0]),
        f"-Wl,-rpath,{home}",
        "-o",
        str(path),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=300
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{compiler[0]} took longer than 5 minutes") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise Unavailable(f"{compiler[0]} failed: {first}")
