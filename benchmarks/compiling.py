"""Seconds to trace and compile: with an empty persistent cache, and with a full one.

Each in a process of its own: what has been compiled in one is not compiled again. A
program that calls the host, as one that steps the C library does, is never cached, nor
is one that compiles in less than a second.

`python -m benchmarks.compiling CASE` prints the seconds of each of its programs.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import steps, timing, workloads
from benchmarks.record import Figure, Section, figure
from experiments.configs import demo, fowm
from o2ojax import envs
from o2ojax.run import job

REPEATS = 3  # at the most; a process each, cold and warm
Lowered = tuple[str, Callable[[], Any]]  # a program's name, and what traces it


def phases(config: ConfigDict) -> Iterator[Lowered]:
    """The programs of a run; both phases are judged by nearly the same one."""
    made = workloads.prepare(config)
    rest = (made.members, made.dataset, np.int32(0))
    every, sizes, programs = config.log.every, made.sizes, made.programs
    size = max(1, every // sizes.transitions_per_round), sizes.updates_per_round
    run = job.shape(made, "offline")
    yield "offline", lambda: programs.offline.learn.lower(run, *rest, every)
    online = job.shape(made, "online")
    yield "online", lambda: programs.online.learn.lower(online, *rest, size)
    yield "evaluation", lambda: programs.online.evaluate.lower(online, *rest)


def mjx_steps() -> Iterator[Lowered]:
    """Random play of 64 environments."""
    start, play = steps.playing(envs.make("halfcheetah", "mjx"), 64, 4)
    key = jax.random.key(0)
    run = jax.eval_shape(start, key)
    yield "steps", lambda: jax.jit(play).lower(run, key, np.int32(0))


PROGRAMS: dict[str, Callable[[], Iterator[Lowered]]] = {
    "demo": lambda: phases(demo.get_config()),
    "fowm": lambda: phases(fowm.get_config()),
    "halfcheetah on mjx": mjx_steps,
}


def compile_all(name: str) -> dict[str, float]:
    """Seconds of each program, in this process."""
    taken = {}
    for program, lower in PROGRAMS[name]():
        started = time.perf_counter()
        lower().compile()
        taken[program] = time.perf_counter() - started
    return taken


def measure(name: str, windows: int) -> list[Figure]:
    """Cold and warm seconds of a case's programs."""
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(min(windows, REPEATS)):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "warm"):
                taken = timing.in_own_process(
                    "benchmarks.compiling", name, JAX_COMPILATION_CACHE_DIR=cache
                )
                for program, seconds in taken.items():
                    found.setdefault((program, state), []).append(seconds)
    return [
        figure({"program": program, "cache": state}, "s", seconds)
        for (program, state), seconds in found.items()
    ]


SECTION = Section(
    "seconds to trace and compile, the persistent cache empty (cold) and full (warm)",
    tuple(PROGRAMS),
    measure,
    across="cache",
)

if __name__ == "__main__":
    print(json.dumps(compile_all(sys.argv[1])))
