"""Two results of a benchmark against each other: ratios, and what got slower.

`python -m benchmarks.compare OLD.json NEW.json`, or `make bench-compare OLD= NEW=`.
Exit status 1 where something got more than 10% slower, 2 for bad input.

A ratio is of speeds, new over old: above 1 is better, for milliseconds and megabytes
too. Machines are shared, so where both figures are shares of the same limit, measured
beside them, it is the shares that are compared, for the work that was counted in each:
an update that needs fewer operations has become faster, though its share may be the
same.

    SLOWER  by more than 10%, and the ranges do not overlap
    ~       by more than 10%, but the ranges overlap, or one of them was measured once,
            in which case nothing is known of its range; or it is less than a hundredth
            of its whole: see for yourself
    faster  likewise, the other way
    gone    only in the old results
    new     only in the new ones
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import record, tables
from benchmarks.record import Cells, Figure, Results
from o2ojax.errors import UserError

SLOWER = 1 / 1.1  # the new speed over the old one
EXACT = ("MB",)  # what does not differ from one measurement to the next
MARKS = ("SLOWER", "faster", "gone", "new")  # those that are counted


class Line(NamedTuple):
    """A figure of both files, or of one.

    ratio: of speeds, new over old; None where one is missing.
    by:    what was compared: "share" or the unit.
    mark:  as listed above, or "".
    """

    figure: Figure
    old: float | None = None
    new: float | None = None
    ratio: float | None = None
    by: str = ""
    mark: str = ""

    def cells(self) -> Cells:
        """Its row in the table."""
        figure = self.figure
        name = f"{figure['section']}: {figure['name']}"
        sizes = ", ".join(f"{name} {size}" for name, size in figure["sizes"].items())
        values = (self.old, self.new, self.ratio)
        numbers = ("-" if value is None else tables.number(value) for value in values)
        return [name, sizes, figure["unit"], *numbers, self.by, self.mark]


def speed(figure: Figure, as_share: bool) -> tuple[float, float, float]:
    """Median, least, most: of a share per operation, a rate, or one over a cost."""
    values = figure["share_of_limit"] if as_share else figure
    median, least, most = (values[name] for name in ("median", "min", "max"))
    if not as_share and not figure["unit"].endswith("/s"):
        return tuple(1 / max(cost, 1e-12) for cost in (median, most, least))
    flop = figure.get("flop", 1) if as_share else 1
    return median / flop, least / flop, most / flop


def judge(old: Figure, new: Figure) -> Line:
    """A figure of both files."""
    as_share = "limit" in old and old["limit"] == new.get("limit")
    slow, fast = sorted(speeds := [speed(old, as_share), speed(new, as_share)])
    ratio, mark = speeds[1][0] / speeds[0][0], ""
    if not SLOWER <= ratio <= 1 / SLOWER:
        mark = "SLOWER" if ratio < 1 else "faster"
        once = min(old["windows"], new["windows"]) == 1 and old["unit"] not in EXACT
        parts = (x.get("share_of_run", {"median": 1.0})["median"] for x in (old, new))
        if once or max(parts) < 0.01 or slow[2] >= fast[1]:
            mark = "~"
    by = "share" if as_share else new["unit"]
    return Line(new, old["median"], new["median"], ratio, by, mark)


def compare(old: Results, new: Results) -> list[Line]:
    """All figures of both, the new ones' order first."""
    before = {record.key(figure): figure for figure in old["figures"]}
    lines = []
    for figure in new["figures"]:
        known = before.pop(record.key(figure), None)
        if known:
            lines.append(judge(known, figure))
        else:
            lines.append(Line(figure, new=figure["median"], mark="new"))
    gone = (Line(x, old=x["median"], mark="gone") for x in before.values())
    return [*lines, *gone]


def warnings(old: Results, new: Results) -> list[str]:
    """What makes two results hard to compare."""
    found = []
    for name, what in (("machine", "machines"), ("versions", "versions")):
        differ = [
            f"{key} {old[name].get(key)} and {new[name].get(key)}"
            for key in {**old[name], **new[name]}
            if old[name].get(key) != new[name].get(key)
        ]
        if differ:
            found.append(f"warning: other {what}: {', '.join(differ)}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 nothing slower, 1 something is, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    options = parser.parse_args(arguments)
    try:
        old, new = record.read(options.old), record.read(options.new)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for warning in warnings(old, new):
        print(warning, file=sys.stderr)
    lines = compare(old, new)
    heads = ("", "sizes", "unit", "old", "new", "speed, new / old", "by", "")
    print(tables.markdown(heads, [line.cells() for line in lines]))
    marks = [line.mark for line in lines]
    counts = ", ".join(f"{marks.count(mark)} {mark}" for mark in MARKS)
    print(f"{len(lines)} figures: {counts}")
    return int("SLOWER" in marks)


if __name__ == "__main__":
    sys.exit(main())
