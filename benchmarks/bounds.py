"""What bounds an agent's updates on a CPU: `python -m benchmarks.bounds`.

A call of many updates is traced by jax's profiler. Its time is divided by what runs:
where several things do, a product counts before a sum, that before other fusions, and
those before copies. The counted operations over the time in products say how fast these
are: 2048 x 2048 ones are the limit.
"""

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import record, timing, updates, workloads
from benchmarks.record import MATRIX, Figure, figure
from o2ojax.errors import UserError, unknown

NAMES = ("iql", "cql", "fowm")
KINDS = ("products", "sums", "other fusions", "copies", "nothing")
AROUND = ("while", "call", "conditional")  # what they hold is told by itself


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
    moved = op.startswith(moves) or op.startswith(tuple(f"wrapped_{x}" for x in moves))
    return "copies" if moved else "other fusions"


def traced(work: timing.Work) -> list[Event]:
    """The operations of one call."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(work.call())
        path = next(Path(folder).rglob("*.trace.json.gz"))
        told = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return [
        Event(each["args"]["hlo_op"], each["ts"], each["ts"] + each["dur"])
        for each in told
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


def measure(name: str, num_members: int, windows: int) -> list[Figure]:
    """Shares of an update's time, in percent, and how fast its products are."""
    case = updates.CASES[name]
    work, limit = workloads.learner(case, num_members), timing.matrix_limit()
    flop = workloads.flop(case) * work.units
    for each in (work, limit):
        timing.seconds(each.call)
    shares, speeds = [], []
    for _ in range(windows):
        taken = divide(traced(work))
        best = limit.units / timing.seconds(timing.repeated(limit, 10).call) * 10
        shares.append([100 * x / sum(taken.values()) for x in taken.values()])
        speeds.append(flop / (taken["products"] / 1e6) / best)
    sizes = {"members": num_members}
    found = [
        figure("bounds", name, sizes | {"what": what}, "% of the time", values)
        for what, values in zip(KINDS, np.transpose(shares), strict=True)
    ]
    return [*found, figure("bounds", name, sizes, f"of {MATRIX}", speeds)]


def markdown(figures: Iterable[Figure]) -> str:
    """A table, for a terminal or for a Markdown page."""
    rows: dict[tuple, list[str]] = {}
    for told in figures:
        first = [told["name"], str(told["sizes"]["members"])]
        row = rows.setdefault(tuple(first), first)
        share = "what" in told["sizes"]
        row.append(f"{told['median']:.0f}%" if share else f"{told['median']:.2f}")
    heads = ["", "members", *KINDS, f"products alone, of {MATRIX}"]
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(x)} |" for x in (heads, rule, *rows.values()))


def main() -> int:
    """Exit status: 0 done, 2 bad input. A minute or two."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounds")
    parser.add_argument("--windows", type=int, default=5, help="traces")
    parser.add_argument("--only", default=",".join(NAMES), metavar="AGENT,AGENT")
    options = parser.parse_args()
    try:
        for name in (names := options.only.split(",")):
            if name not in updates.CASES:
                raise unknown("agent", name, updates.CASES)
        if options.windows < 1:
            raise UserError(f"--windows is {options.windows}; it must be at least 1")
        if workloads.on_accelerator():
            raise UserError(
                "names and times of a GPU's operations are others; run it"
                " with JAX_PLATFORMS=cpu"
            )
        figures = [x for name in names for x in measure(name, 1, options.windows)]
        results: Mapping = record.surroundings() | {"figures": figures}
        if options.only == ",".join(NAMES):
            record.write(record.default_path("bounds"), dict(results))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
