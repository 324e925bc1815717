"""Seconds to trace and compile: with an empty persistent cache, and with a full one.

Each in a process of its own: what has been compiled in one is not compiled again. A
program that calls the host, as one that steps the C library does, is never cached, nor
is one that compiles in less than a second.

`python -m benchmarks.compiling CASE` prints the seconds of each of its programs.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.record import Figure, Section, figure
from experiments.configs import demo, fowm
from o2ojax import envs, loop, policies
from o2ojax.replay import uniform
from o2ojax.run import job
from o2ojax.run.config import ConfigDict

REPEATS = 3  # at the most; a process each, cold and warm
Lowered = tuple[str, Callable[[], Any]]  # a program's name, and what traces it


def phases(config: ConfigDict) -> Iterator[Lowered]:
    """The programs of a run; both phases are judged by nearly the same one."""
    with tempfile.TemporaryDirectory() as folder:
        made = job.prepare(config, Path(folder))
    rest = (made.members, made.dataset, np.int32(0))
    offline, online = (job.shape(made, phase) for phase in ("offline", "online"))
    every, programs = config.log.every, made.programs
    rounds = max(1, every // made.sizes.transitions_per_round)
    yield "offline", functools.partial(programs.offline.lower, offline, *rest, every)
    yield "online", functools.partial(programs.online.lower, online, *rest, rounds)
    yield "evaluation", functools.partial(programs.evaluate_online.lower, online, *rest)


def mjx_steps() -> Iterator[Lowered]:
    """Random play of 64 environments."""
    env = envs.make("halfcheetah", "mjx")
    policy, nothing = policies.uniform(env.spec.action_dim), uniform.nothing()

    def start(key):
        return loop.start_workers(env, policy, nothing, (), (), key, 64)

    def play(workers, key):
        keys = jax.random.split(key, 4)
        return loop.collect(env, policy, (), workers, keys)[0]

    key = jax.random.key(0)
    workers = jax.eval_shape(start, key)
    yield "steps", lambda: jax.jit(play).lower(workers, key)


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


def in_own_process(name: str, cache: str) -> dict[str, float]:
    """`compile_all` in a fresh process with a persistent cache."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compiling", name],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, windows: int) -> list[Figure]:
    """Cold and warm seconds of a case's programs."""
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(min(windows, REPEATS)):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "warm"):
                for program, seconds in in_own_process(name, cache).items():
                    found.setdefault((program, state), []).append(seconds)
    return [
        figure("compile", name, {"program": program, "cache": state}, "s", seconds)
        for (program, state), seconds in found.items()
    ]


def cases():
    """The demo's phases, FOWM's, and environments on MJX."""
    return {name: functools.partial(measure, name) for name in PROGRAMS}


SECTION = Section(
    "seconds to trace and compile, the persistent cache empty (cold) and full (warm)",
    cases,
    across="cache",
)


if __name__ == "__main__":
    print(json.dumps(compile_all(sys.argv[1])))
