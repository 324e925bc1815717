"""Compiles the C++ part on first use, and loads it.

The headers and the library that it needs come with the wheels of jaxlib and mujoco.
What is compiled is kept, by the source, the versions and the machine.
"""

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
import warnings
from pathlib import Path
from shutil import which

import jax
import jaxlib
import mujoco

from o2ojax.data.files import cache_folder, write_whole

SOURCES = tuple(Path(__file__).parent / name for name in ("step.cc", "call.cc"))
FLAGS = ("-O2", "-std=c++17", "-shared", "-fPIC", "-pthread")


class Unavailable(Exception):
    """There is no native step on this machine; the message says why."""


@functools.cache
def digest() -> str:
    """Names what is compiled: another source, version or machine has another one."""
    parts = (
        *(path.read_text() for path in SOURCES),
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
    if jax.default_backend() != "cpu":
        return "agents learn on an accelerator, from which MuJoCo is far"
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
    found = _load()
    if isinstance(found, str):
        raise Unavailable(found)
    return found


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none; what has failed once is not tried again."""
    name = f"step-{digest()[:16]}.so"
    kept = cache_folder() / "native" / name
    try:
        if kept.is_file():
            return ctypes.CDLL(str(kept))
    except OSError:
        pass  # it is compiled again
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, _compile)
        return ctypes.CDLL(str(kept))
    except Unavailable as error:
        return str(error)
    except OSError as error:
        return _load_from_elsewhere(name, error)


def _load_from_elsewhere(name: str, why: OSError) -> ctypes.CDLL | str:
    """Compiles for this process alone, where nothing can be kept."""
    warnings.warn(
        f"the native step is compiled at each start, as it cannot be kept: {why}",
        RuntimeWarning,
        stacklevel=2,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            _compile(Path(folder) / name)
            return ctypes.CDLL(str(Path(folder) / name))  # stays when the file is gone
    except (OSError, Unavailable) as error:
        return str(error)


def _compile(path: Path) -> None:
    """Runs the compiler: $CXX, or the first of the usual ones."""
    names = os.environ.get("CXX"), "c++", "g++", "clang++"
    compiler = next((found for name in names if name and (found := which(name))), None)
    if compiler is None:
        raise Unavailable("there is no C++ compiler here (c++, g++, clang++ or $CXX)")
    home = Path(mujoco.__file__).parent
    libraries = sorted(home.glob("libmujoco.so*"))
    if not libraries:
        raise Unavailable(f"{home} has no libmujoco.so to link with")
    command = [compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", f"-I{home / 'include'}"]
    command += [
        *map(str, SOURCES),
        str(libraries[0]),
        f"-Wl,-rpath,{home}",
        "-o",
        str(path),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{compiler} took longer than 5 minutes") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise Unavailable(f"{compiler} failed: {first}")
