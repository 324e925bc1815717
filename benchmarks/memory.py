"""Bytes: the peak of a process that trains, and what XLA asks for in each phase.

XLA's account is of arguments, results and workspace, what is donated counted once: the
arrays that must be there at once. A process has the interpreter and compiler besides;
on an accelerator, its peak is the device's.

`python -m benchmarks.memory MEMBERS ROWS` trains for a moment and prints its own peak.
"""

import functools
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import workloads
from benchmarks.record import Figure, Section, figure
from o2ojax import agents, envs
from o2ojax.agents import iql
from o2ojax.run import population

ROWS, CAPACITY = 1_000_000, 100_000


def size_of(tree: Any) -> int:
    """Bytes of a pytree's arrays, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


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
    sizes = workloads.sizes(online_steps=CAPACITY, capacity=CAPACITY)
    programs = population.programs(agents.find("iql"), env, sizes)
    members = population.members(iql.IQLConfig(), range(num_members), {})
    rows = functools.partial(workloads.random_data, env.spec, num_rows)
    dataset = jax.eval_shape(rows)
    rest = (members, dataset, np.int32(0), 100)
    run = jax.eval_shape(programs.init, members, dataset)
    online_run = jax.eval_shape(programs.hand_over, run, members, dataset)
    return {
        "agents": size_of(run),
        "offline phase": needed(programs.offline.lower(run, *rest).compile()),
        "online phase": needed(programs.online.lower(online_run, *rest).compile()),
    }


def peak(num_members: int, num_rows: int) -> int:
    """Peak bytes of a fresh process that trains offline, or of its device."""
    command = [sys.executable, "-m", "benchmarks.memory"]
    done = subprocess.run(
        [*command, str(num_members), str(num_rows)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def train(num_members: int, num_rows: int) -> int:
    """Trains offline for a while. Returns the peak of this process or its device."""
    env = envs.make("halfcheetah")
    programs = population.programs(agents.find("iql"), env, workloads.sizes())
    members = population.members(iql.IQLConfig(), range(num_members), {})
    dataset = workloads.random_data(env.spec, num_rows)
    run = programs.init(members, dataset)
    run, _ = programs.offline(run, members, dataset, np.int32(0), 20)
    jax.block_until_ready(run)
    on_device = jax.devices()[0].memory_stats()
    if on_device:
        return on_device["peak_bytes_in_use"]
    return resident()


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
        figures: dict[str, Any] = account(num_members, ROWS)
        figures["offline phase, the process"] = [
            peak(num_members, ROWS) for _ in range(min(windows, 3))
        ]
        for what, found_bytes in figures.items():
            sizes = {"what": what, "members": num_members}
            values = np.asarray(found_bytes) / 1e6
            found.append(figure("memory", name, sizes, "MB", values))
    return found


def cases():
    """IQL's."""
    return {"iql": functools.partial(measure, "iql")}


SECTION = Section(
    "memory, IQL: a dataset of 1M rows (173 MB), rings of 100k (17 MB a member); arrays"
    " by XLA's account, and the peak of a process",
    cases,
    across="members",
)


if __name__ == "__main__":
    print(train(*map(int, sys.argv[1:])))
