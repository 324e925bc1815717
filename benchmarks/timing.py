"""How things are timed here: several windows, in turn, and their median.

Machines are shared, so a figure is a ratio of two things measured in one process,
window by window in turn.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SECONDS = 0.7  # that a window should last, about


class Work(NamedTuple):
    """Something to be timed.

    call:  () -> arrays to wait for. What it changes it keeps for its next call.
    units: of work in one call.
    """

    call: Callable[[], Any]
    units: float


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call, the device's work included."""
    started = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - started


def rates(works: Mapping[str, Work], windows: int) -> dict[str, np.ndarray]:
    """Units per second of each work [windows], in turn, after two calls to warm up.

    A window is as many calls as last about SECONDS, at least one.
    """
    windowed = {}
    for name, work in works.items():
        seconds(work.call)
        calls = max(1, round(SECONDS / seconds(work.call)))
        windowed[name] = repeated(work, calls)
    found = {name: [] for name in works}
    for _ in range(windows):
        for name, work in windowed.items():
            found[name].append(work.units / seconds(work.call))
    return {name: np.array(each) for name, each in found.items()}


def repeated(work: Work, calls: int) -> Work:
    """So many calls of a work, as one."""

    def call():
        for _ in range(calls):
            out = work.call()
        return out

    return Work(call, calls * work.units)


def spread(values: np.ndarray) -> dict[str, float]:
    """Median, least and greatest."""
    return {
        "median": float(np.median(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


MATRIX = 2048


def matrix_limit() -> Work:
    """float32 products of 2048 x 2048, in operations: the machine's limit."""
    a = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX))
    product = jax.jit(jnp.matmul)
    return Work(lambda: product(a, a), 2 * MATRIX**3)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform} {device.device_kind} x{jax.device_count()}",
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":")[1].strip() for line in file if "model name" in line
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()
