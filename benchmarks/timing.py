"""How things are timed here: several windows, in turn, and their median.

Machines are shared, so a figure is a ratio of two things measured in one process,
window by window in turn.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SECONDS = 0.7  # that a window should last, about
MATRIX = 2048


class Work(NamedTuple):
    """Something to be timed.

    run:   (times) -> seconds that it took to do it so many times.
    units: of work in doing it once.
    flop:  operations in the matrix products of a unit; 0 where they are not counted.
    """

    run: Callable[[int], float]
    units: float
    flop: int = 0


def work(call: Callable[[], Any], units: float, flop: int = 0) -> Work:
    """A work from `call: () -> arrays to wait for`, which keeps its own state."""

    def run(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            out = call()
        jax.block_until_ready(out)
        return time.perf_counter() - started

    return Work(run, units, flop)


def matrix_limit() -> Work:
    """float32 products of 2048 x 2048, in operations: the machine's limit."""
    a = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX))
    product = jax.jit(jnp.matmul)
    return work(lambda: product(a, a), 2 * MATRIX**3)


def rates(works: Mapping[Hashable, Work], windows: int) -> dict[Any, np.ndarray]:
    """Units per second of each work [windows], in turn, when all are warm."""
    times = {name: times_in_window(each) for name, each in works.items()}
    found: dict[Any, list[float]] = {name: [] for name in works}
    for _ in range(windows):
        for name, each in works.items():
            found[name].append(each.units * times[name] / each.run(times[name]))
    return {name: np.array(values) for name, values in found.items()}


def times_in_window(work: Work) -> int:
    """How often it can be done in about SECONDS, at least once. Warms it up."""
    work.run(1)
    times = 1
    while (taken := work.run(times)) < SECONDS / 10:
        times *= 3
    return max(1, round(times * SECONDS / taken))


def spread(values: np.ndarray) -> dict[str, float]:
    """Median, least and greatest."""
    found = {"median": np.median(values), "min": np.min(values), "max": np.max(values)}
    return {name: float(value) for name, value in found.items()}


def in_own_process(module: str, *words: Any, **environment: str) -> Any:
    """What `python -m MODULE WORDS` prints last, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def cores() -> int:
    """Of the machine, for this process."""
    return len(os.sched_getaffinity(0))


def processor() -> str:
    """Its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()
