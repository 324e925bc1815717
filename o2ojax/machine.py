"""What this machine has: cores, memory, and a place for what was compiled."""

import os
import tempfile
from pathlib import Path


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


LIMITS = (  # of a container's memory, where it has one
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory() -> int:
    """Bytes of memory that this process may use, of all that there are."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in LIMITS:
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # no container, or "max"
            continue
    return min(found)


def cache_folder() -> Path:
    """Where what was compiled is kept: $XDG_CACHE_HOME/o2ojax, or ~/.cache/o2ojax.

    A user without a home has a folder of their own among the temporary files.
    """
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no $HOME, and no entry of the user
        return Path(tempfile.gettempdir()) / f"o2ojax-{os.getuid()}"
    return Path(base) / "o2ojax"
