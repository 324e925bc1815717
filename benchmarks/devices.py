"""What a population gains by several CPU devices: `python -m benchmarks.devices`.

By default jax sees a CPU as one device, whose threads share every product. As several
devices, each runs members of its own, and no thread waits for another. Both are
programs of one process, timed in turn beside the matrix limit, which is one device's:
that one uses all threads, too.
"""

import argparse
import os
import sys

import jax

from benchmarks import record, tables, timing, updates, workloads
from benchmarks.record import MATRIX, Figure, Section, figure
from o2ojax.errors import UserError, unknown
from o2ojax.parallel import devices

NAMES = ("iql", "sac", "cql", "fowm")
MEMBERS = 8
SECTION = Section(
    f"{MEMBERS} members on a CPU seen as one device, and as several",
    lambda: {},
    across="devices",
)


def measure(name: str, windows: int) -> list[Figure]:
    """Updates per second of MEMBERS members, on one device and on all."""
    case = updates.CASES[name]
    layouts = {
        "one": devices.assign_devices(MEMBERS, jax.devices()[:1]),
        "all": devices.assign_devices(MEMBERS),
    }
    works = {
        on: workloads.learner(case, MEMBERS, layout) for on, layout in layouts.items()
    }
    rates = timing.rates(works | {"limit": timing.matrix_limit()}, windows)
    flop, found = workloads.flop(case), []
    for on, layout in layouts.items():
        sizes = {"devices": layout.mesh.size if layout.mesh else 1}
        share = MATRIX, rates[on] * flop / rates["limit"]
        found.append(
            figure("devices", name, sizes, "updates/s", rates[on], share, flop)
        )
    ratio = timing.spread(rates["all"] / rates["one"])
    print(f"{name}: {tables.in_words(ratio)} times as fast", flush=True)
    return found


def main() -> int:
    """Exit status: 0 done, 2 bad input. Some minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.devices")
    parser.add_argument("--windows", type=int, default=5, help="timed, in turn")
    parser.add_argument("--only", default=",".join(NAMES), help="agents")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    try:
        names = options.only.split(",")
        for name in names:
            if name not in updates.CASES:
                raise unknown("agent", name, updates.CASES)
        if options.windows < 1:
            raise UserError(f"--windows is {options.windows}; it must be at least 1")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures = [row for name in names for row in measure(name, options.windows)]
    tables.show(SECTION, figures)
    if names == list(NAMES):
        path = record.RESULTS / "devices-cpu.json"
        record.write(path, record.surroundings() | {"figures": figures})
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
