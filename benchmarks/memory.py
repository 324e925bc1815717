"""Bytes: the peak of a process that trains, and what XLA asks for in each phase.

XLA's account is of arguments, results and workspace, what is donated counted once: the
arrays that must be there at once. A process has the interpreter and compiler besides;
on an accelerator, its peak is the device's.

`python -m benchmarks.memory MEMBERS ROWS` trains for a moment and prints its own peak.
"""

import functools
import resource
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing, workloads
from benchmarks.record import Figure, Section, figure
from o2ojax import envs

ROWS, CAPACITY = 1_000_000, 100_000


def needed(compiled: Any) -> int:
    """Bytes of arguments, results and workspace, what is donated counted once."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def account(num_members: int, num_rows: int) -> dict[str, int]:
    """Bytes of the agents, and of IQL's phases, by XLA's account. Nothing is run."""
    env = envs.make("halfcheetah")
    programs = workloads.programs("iql", env, online_steps=CAPACITY, capacity=CAPACITY)
    members = workloads.members("iql", num_members)
    rows = functools.partial(workloads.random_data, env.spec, num_rows)
    dataset = jax.eval_shape(rows)
    rest = (members, dataset, np.int32(0))
    run = jax.eval_shape(programs.init, members, dataset)
    online_run = jax.eval_shape(programs.hand_over, run, members, dataset)
    offline = programs.offline.learn.lower(run, *rest, 100)
    online = programs.online.learn.lower(online_run, *rest, (100, 1))
    return {
        "agents": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run)),
        "offline phase": needed(offline.compile()),
        "online phase": needed(online.compile()),
    }


def peak(num_members: int, num_rows: int) -> int:
    """Peak bytes of a fresh process that trains offline, or of its device."""
    return timing.in_own_process("benchmarks.memory", num_members, num_rows)


def train(num_members: int, num_rows: int) -> int:
    """Trains offline for a while. Returns the peak of this process or its device."""
    workloads.learner(workloads.Case("iql", rows=num_rows), num_members).run(1)
    on_device = jax.devices()[0].memory_stats()
    return on_device["peak_bytes_in_use"] if on_device else resident()


def resident() -> int:
    """Peak resident bytes of this process.

    On Linux, `ru_maxrss` begins as that of the process which started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(name: str, windows: int) -> list[Figure]:
    """Megabytes of IQL's phases, for one member and for eight."""
    found = []
    for num_members in (1, 8):
        measured: dict[str, Any] = account(num_members, ROWS)
        measured["offline phase, the process"] = [
            peak(num_members, ROWS) for _ in range(min(windows, 3))
        ]
        for what, num_bytes in measured.items():
            sizes = {"what": what, "members": num_members}
            megabytes = np.asarray(num_bytes) / 1e6
            found.append(figure(sizes, "MB", megabytes))
    return found


SECTION = Section(
    "memory, IQL: a dataset of 1M rows (173 MB), rings of 100k (17 MB a member); arrays"
    " by XLA's account, and the peak of a process",
    ("iql",),
    measure,
    across="members",
)

if __name__ == "__main__":
    print(train(*map(int, sys.argv[1:])))
