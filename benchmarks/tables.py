"""Figures as tables: a section is a table, for a terminal or for a Markdown page."""

import sys
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from benchmarks.record import Figure, Section

Cells = list[str]


def number(x: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def ranged(figure: Mapping[str, float]) -> str:
    """Median with its range."""
    return "{} [{}, {}]".format(*(number(figure[x]) for x in ("median", "min", "max")))


def in_words(share: Mapping[str, float]) -> str:
    """A share's median with its range."""
    return f"{share['median']:.2f} [{share['min']:.2f}, {share['max']:.2f}]"


def cells(figure: Figure) -> dict[str, str]:
    """What a table says of a figure, by the end of a column's name."""
    told = {"": ranged(figure) if figure["max"] > figure["min"] else ""}
    told[""] = told[""] or number(figure["median"])
    if "share_of_limit" in figure:
        told[""] = number(figure["median"])
        told[f", share of {figure['limit']}"] = in_words(figure["share_of_limit"])
    if "share_of_run" in figure:
        told[", share of the run"] = in_words(figure["share_of_run"])
    return told


def lay_out(section: Section, figures: Iterable[Figure]) -> tuple[Cells, list[Cells]]:
    """The columns of a section's table, and its rows."""
    rows: dict[tuple, dict[str, str]] = {}
    heads: list[str] = [""]
    columns: dict[str, None] = {}
    for figure in figures:
        sizes = dict(figure["sizes"])
        at = sizes.pop(section.across, None)
        where = "" if at is None else f"{at} {section.across}, "
        heads += [name for name in sizes if name not in heads]
        told = {
            where + figure["unit"] + end: cell for end, cell in cells(figure).items()
        }
        columns |= dict.fromkeys(told)
        identity = (figure["name"], *sizes.items())
        named = {"": figure["name"]} | {name: str(x) for name, x in sizes.items()}
        rows.setdefault(identity, named).update(told)
    order = [*heads, *columns]
    return order, [[row.get(name, "") for name in order] for row in rows.values()]


def of_section(figures: Iterable[Figure], section: str) -> list[Figure]:
    """Those of a section."""
    return [figure for figure in figures if figure["section"] == section]


def show(section: Section, figures: Iterable[Figure]) -> None:
    """Prints a section's table."""
    columns, rows = lay_out(section, figures)
    table = Table(title=section.title)
    for column in columns:
        table.add_column(column, justify="right" if ", " in column else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def markdown(section: Section, figures: Iterable[Figure]) -> str:
    """A section's table for a Markdown page."""
    columns, rows = lay_out(section, figures)
    rule = ["---:" if any(mark in c for mark in ",/") else "---" for c in columns]
    lines = (f"| {' | '.join(line)} |" for line in (columns, rule, *rows))
    return "\n".join([f"{section.title}:", "", *lines, ""])
