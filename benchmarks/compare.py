"""Two results of `make bench` against each other: ratios, and what got slower.

`python -m benchmarks.compare OLD.json NEW.json`, or `make bench-compare OLD= NEW=`.
Exit status 1 where something got more than 10% slower, 2 for bad input.

A ratio is of speeds, new over old: above 1 is better, for milliseconds and megabytes
too. Machines are shared, so where both figures are told as shares of the same limit,
measured beside them, it is the shares that are compared, for the work that was counted
in each: an update that needs fewer operations has become faster, though its share may
be the same.

    SLOWER  by more than 10%, and the ranges do not overlap
    ~       by more than 10%, but the ranges overlap, or one of them was measured once,
            in which case nothing is known of its range; or it is less than a hundredth
            of its whole: see for yourself
    faster  likewise, the other way
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks import record
from benchmarks.record import Figure, Results
from benchmarks.tables import number
from o2ojax.errors import UserError

SLOWER = 1 / 1.1  # the new speed over the old one
EXACT = ("MB",)  # what does not differ from one measurement to the next


class Speed(NamedTuple):
    """A figure as a speed: more is better."""

    median: float
    low: float
    high: float


class Line(NamedTuple):
    """A figure of both files.

    ratio: of speeds, new over old; None where one is missing.
    by:    what was compared: "share" or the unit.
    mark:  "SLOWER", "faster", "~", "", "gone" or "new".
    """

    figure: Figure
    old: float | None
    new: float | None
    ratio: float | None
    by: str
    mark: str


def by_limit(old: Figure, new: Figure) -> bool:
    """Whether both are told as shares of the same limit."""
    return "limit" in old and old["limit"] == new.get("limit")


def speed(figure: Figure, as_share: bool) -> Speed:
    """What is compared: a share for each operation, a rate, or one over a cost."""
    told = figure["share_of_limit"] if as_share else figure
    values = [told[name] for name in ("median", "min", "max")]
    if as_share:
        values = [value / figure.get("flop", 1) for value in values]
    elif not figure["unit"].endswith("/s"):
        median, least, most = (1 / max(value, 1e-12) for value in values)
        values = [median, most, least]
    return Speed(*values)


def judge(old: Figure, new: Figure, old_speed: Speed, new_speed: Speed) -> str:
    """The mark of a figure."""
    ratio = new_speed.median / old_speed.median
    if SLOWER <= ratio <= 1 / SLOWER:
        return ""
    once = min(old["windows"], new["windows"]) == 1 and old["unit"] not in EXACT
    slow, fast = sorted((old_speed, new_speed))
    if once or slight(old, new) or slow.high >= fast.low:
        return "~"
    return "SLOWER" if ratio < 1 else "faster"


def slight(old: Figure, new: Figure) -> bool:
    """Whether a part is less than a hundredth of its whole, before and after."""
    shares = (told.get("share_of_run", {"median": 1.0}) for told in (old, new))
    return all(share["median"] < 0.01 for share in shares)


def compare(old: Results, new: Results) -> list[Line]:
    """All figures of both, the new ones' order first."""
    before = {record.key(figure): figure for figure in old["figures"]}
    lines = []
    for figure in new["figures"]:
        known = before.pop(record.key(figure), None)
        if known is None:
            lines.append(Line(figure, None, figure["median"], None, "", "new"))
            continue
        as_share = by_limit(known, figure)
        speeds = speed(known, as_share), speed(figure, as_share)
        ratio = speeds[1].median / speeds[0].median
        by = "share" if as_share else figure["unit"]
        mark = judge(known, figure, *speeds)
        medians = known["median"], figure["median"]
        lines.append(Line(figure, *medians, ratio, by, mark))
    gone = (Line(x, x["median"], None, None, "", "gone") for x in before.values())
    return [*lines, *gone]


def warnings(old: Results, new: Results) -> list[str]:
    """What makes two results hard to compare."""
    told = []
    for name, what in (("machine", "machines"), ("versions", "versions")):
        differ = [
            f"{key} {old[name].get(key)} and {new[name].get(key)}"
            for key in {**old[name], **new[name]}
            if old[name].get(key) != new[name].get(key)
        ]
        if differ:
            told.append(f"warning: other {what}: {', '.join(differ)}")
    return told


def show(lines: Sequence[Line]) -> None:
    """Prints the table, and how many were flagged."""
    table = Table(title="speed, new / old: above 1 is better")
    for column in ("", "sizes", "unit"):
        table.add_column(column)
    for column in ("old", "new", "ratio"):
        table.add_column(column, justify="right")
    for column in ("by", ""):
        table.add_column(column)
    for line in lines:
        figure = line.figure
        sizes = ", ".join(f"{name} {size}" for name, size in figure["sizes"].items())
        values = (
            "-" if value is None else number(value) for value in (line.old, line.new)
        )
        ratio = "-" if line.ratio is None else f"{line.ratio:.2f}"
        name = f"{figure['section']}: {figure['name']}"
        row = (name, sizes, figure["unit"], *values, ratio, line.by, line.mark)
        table.add_row(*map(Text, row), style="bold red" * (line.mark == "SLOWER"))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    marks = [line.mark for line in lines]
    counts = {mark: marks.count(mark) for mark in ("SLOWER", "faster", "gone", "new")}
    told = ", ".join(f"{count} {mark}" for mark, count in counts.items())
    console.print(f"{len(lines)} figures: {told}")


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
    show(lines)
    return int(any(line.mark == "SLOWER" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
