"""How things are timed here: several windows, in turn, and their median.

Machines are shared, so a figure is a ratio of two things measured in one process,
window by window in turn.
"""

import os
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call, the device's work included."""
    started = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - started


def alternate(
    works: dict[str, Callable[[], Any]], windows: int
) -> dict[str, np.ndarray]:
    """Seconds of each work [windows], measured in turn after one call to warm up."""
    for work in works.values():
        jax.block_until_ready(work())
    taken = {name: [] for name in works}
    for _ in range(windows):
        for name, work in works.items():
            taken[name].append(seconds(work))
    return {name: np.array(times) for name, times in taken.items()}


def spread(values: np.ndarray) -> dict[str, float]:
    """Median, least and greatest."""
    return {
        "median": float(np.median(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


MATRIX = 2048
MATRIX_FLOP = 2 * MATRIX**3
MATRIX_REPEATS = 8


def matrix_limit() -> Callable[[], Any]:
    """MATRIX_REPEATS float32 products of 2048 x 2048: the machine's limit."""
    a = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX))
    product = jax.jit(jnp.matmul)

    def work():
        for _ in range(MATRIX_REPEATS):
            c = product(a, a)
        return c

    return work


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
