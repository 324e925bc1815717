"""What a population gains by several CPU devices: `python -m benchmarks.devices`.

By default jax sees a CPU as one device, whose threads share every product. As several
devices, each runs members of its own, and no thread waits for another. Both are
programs of one process, timed in turn beside the matrix limit, which is one device's.
"""

import argparse
import os

import jax
from rich.console import Console
from rich.table import Table

from benchmarks import record, timing, updates, workloads
from o2ojax import devices
from o2ojax.files import write_json

NAMES = ("iql", "sac", "cql", "fowm")
MEMBERS = 8


def measure(name: str, windows: int) -> dict:
    """Updates per second of MEMBERS members, on one device and on all."""
    case = updates.CASES[name]
    layouts = {
        "one": devices.lay_out(MEMBERS, jax.devices()[:1]),
        "all": devices.lay_out(MEMBERS),
    }
    works = {
        on: workloads.learner(case, MEMBERS, layout) for on, layout in layouts.items()
    }
    rates = timing.rates(works | {"limit": timing.matrix_limit()}, windows)
    flop = workloads.flop(case)
    return {"agent": name, "members": MEMBERS, "flop_per_update": flop} | {
        "one": timing.spread(rates["one"]),
        "all": timing.spread(rates["all"]),
        "ratio": timing.spread(rates["all"] / rates["one"]),
        "one_of_limit": timing.spread(rates["one"] * flop / rates["limit"]),
        "all_of_limit": timing.spread(rates["all"] * flop / rates["limit"]),
    }


def show(rows: list[dict], num_devices: int) -> None:
    """Prints the table."""
    table = Table(title=f"{MEMBERS} members on a CPU that is {num_devices} devices")
    table.add_column("agent")
    heads = {
        "one": "one device, updates/s",
        "one_of_limit": "of matrix products",
        "all": f"{num_devices} devices, updates/s",
        "all_of_limit": "of matrix products",
        "ratio": "ratio",
    }
    for head in heads.values():
        table.add_column(head, justify="right")
    for row in rows:
        cells = (
            f"{row[key]['median']:,.1f}"
            if key in ("one", "all")
            else in_range(row[key])
            for key in heads
        )
        table.add_row(row["agent"], *cells)
    Console(width=120).print(table)


def in_range(figure: dict[str, float]) -> str:
    """Median, least and greatest."""
    return f"{figure['median']:.2f} [{figure['min']:.2f}, {figure['max']:.2f}]"


def main() -> None:
    """Some minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.devices")
    parser.add_argument("--windows", type=int, default=5, help="timed, in turn")
    parser.add_argument("--only", default=",".join(NAMES), help="agents")
    options = parser.parse_args()
    num_devices = len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", num_devices)
    rows = [measure(name, options.windows) for name in options.only.split(",")]
    show(rows, num_devices)
    if options.only == ",".join(NAMES):
        path = record.RESULTS / "devices-cpu.json"
        write_json(path, {"machine": timing.machine(), "updates": rows})
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
