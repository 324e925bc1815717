"""What a population gains by several CPU devices: `python -m benchmarks.devices`.

By default jax sees a CPU as one device, whose threads share every product. As several
devices, each runs members of its own, and no thread waits for another. Both are
programs of one process, timed in turn beside the matrix limit, which is one device's:
that one uses all threads, too. See `command` for the options.
"""

import sys

import jax

from benchmarks import command, timing, updates, workloads
from benchmarks.record import Figure, Section, timed
from o2ojax.parallel import devices

MEMBERS = 8


def measure(name: str, windows: int) -> list[Figure]:
    """Updates per second of MEMBERS members, on one device and on all."""
    layouts = [
        devices.assign_devices(MEMBERS, used)
        for used in (jax.devices()[:1], jax.devices())
    ]
    works = (
        (
            {"devices": layout.mesh.size if layout.mesh else 1},
            workloads.learner(updates.CASES[name], MEMBERS, layout),
        )
        for layout in layouts
    )
    return timed(works, "updates/s", windows)


SECTION = Section(
    f"{MEMBERS} members on a CPU seen as one device, and as several",
    ("iql", "sac", "cql", "fowm"),
    measure,
    across="devices",
)

if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", timing.cores())
    sys.exit(command.main("devices", {"devices": SECTION}))
