"""What bounds an agent's updates on a CPU: `python -m benchmarks.bounds`.

A call of many updates is traced by jax's profiler. Its time is divided by what runs:
where several things do, a product counts before a sum, that before other fusions, and
those before copies. The counted operations over the time in products say how fast these
are: 2048 x 2048 ones are the limit. See `command` for the options.
"""

import gzip
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import command, timing, updates, workloads
from benchmarks.record import MATRIX, Cells, Figure, Section, figure

KINDS = ("products", "sums", "other fusions", "copies", "nothing")
AROUND = ("while", "call", "conditional")  # events around others


class Event(NamedTuple):
    """One operation of a compiled program, on one thread; in microseconds."""

    op: str
    start: float
    end: float


def kind(op: str) -> str:
    """One of KINDS, by XLA's name of an operation."""
    if op.startswith(("ynn", "dot")) or "dot_general" in op:
        return "products"
    if "reduce" in op:
        return "sums"
    moves = ("copy", "slice", "transpose")
    moved = op.removeprefix("wrapped_").startswith(moves)
    return "copies" if moved else "other fusions"


def traced(work: timing.Work) -> list[Event]:
    """The operations of one call."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            work.run(1)
        path = next(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return [
        Event(each["args"]["hlo_op"], each["ts"], each["ts"] + each["dur"])
        for each in events
        if "hlo_op" in each.get("args", ())
        and not each["args"]["hlo_op"].startswith(AROUND)
    ]


def divide(events: Iterable[Event]) -> dict[str, float]:
    """Microseconds from the first event to the last, by the kind that counts.

    A `dot` may go on in other threads after its event: where nothing runs and it was
    the last to end, it does.
    """
    steps = []
    for event in events:
        order = KINDS.index(kind(event.op))
        steps += [(event.start, order, 1, event.op), (event.end, order, -1, event.op)]
    steps.sort()
    running, taken = np.zeros(len(KINDS), int), np.zeros(len(KINDS))
    for (now, order, change, op), (then, *_) in zip(steps, steps[1:], strict=False):
        running[order] += change
        goes_on = 0 if op.startswith("dot") else len(KINDS) - 1
        taken[np.append(np.flatnonzero(running), goes_on)[0]] += then - now
    return dict(zip(KINDS, taken.tolist(), strict=True))


def measure(name: str, windows: int) -> list[Figure]:
    """Shares of an update's time, in percent, and how fast its products are."""
    workloads.refuse_accelerator("names and times of a GPU's operations are others")
    work = workloads.learner(updates.CASES[name], 1)
    limit = timing.matrix_limit()
    work.run(1), limit.run(1)
    shares, speeds = [], []
    for _ in range(windows):
        taken = divide(traced(work))
        best = 10 * limit.units / limit.run(10)
        shares.append([100 * x / sum(taken.values()) for x in taken.values()])
        speeds.append(work.flop * work.units / (taken["products"] / 1e6) / best)
    sizes = {"members": 1}
    found = [
        figure(sizes | {"what": what}, "% of the time", values)
        for what, values in zip(KINDS, np.transpose(shares), strict=True)
    ]
    return [*found, figure(sizes, f"of {MATRIX}", speeds)]


def lay_out(figures: Iterable[Figure]) -> tuple[Cells, list[Cells]]:
    """A row for an agent, a column for a kind."""
    rows: dict[str, Cells] = {}
    for found in figures:
        first = [found["name"], str(found["sizes"]["members"])]
        text = "{:.0f}%" if "what" in found["sizes"] else "{:.2f}"
        rows.setdefault(found["name"], first).append(text.format(found["median"]))
    heads = ["", "members", *KINDS, f"products alone, of {MATRIX}"]
    return heads, list(rows.values())


SECTION = Section(
    "an update's time, by what runs",
    ("iql", "cql", "fowm"),
    measure,
    lay_out=lay_out,
)

if __name__ == "__main__":
    sys.exit(command.main("bounds", {"bounds": SECTION}))
