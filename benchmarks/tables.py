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
    """What a table says of a figure, by the names of its columns."""
    value = number(figure["median"])
    if "share_of_limit" in figure:
        share = in_words(figure["share_of_limit"])
        told = {figure["unit"]: value, f"of {figure['limit']}": share}
        if "times_one" in figure:
            told["of one's"] = in_words(figure["times_one"])
        return told
    if figure["max"] > figure["min"]:
        value = ranged(figure)
    if "share_of_run" in figure:
        share = in_words(figure["share_of_run"])
        return {figure["unit"]: value, "of the run": share}
    return {figure["unit"]: value}


def sized(size: object) -> str:
    """A size in words."""
    return f"{size:,}" if isinstance(size, int) else str(size)


def lay_out(section: Section, figures: Iterable[Figure]) -> tuple[Cells, list[Cells]]:
    """The heads of a section's table, and its rows."""
    rows: dict[tuple, dict[tuple, str]] = {}
    heads: dict[tuple, str] = {("name",): ""}
    columns: dict[tuple, str] = {}
    for figure in figures:
        sizes = dict(figure["sizes"])
        at = sizes.pop(section.across, None)
        where = "" if at is None else f"{section.across} {sized(at)}, "
        heads |= {("size", name): name for name in sizes}
        identity = (figure["name"], *sizes.items())
        row = rows.setdefault(identity, {("name",): figure["name"]})
        row |= {("size", name): sized(size) for name, size in sizes.items()}
        for place, (column, cell) in enumerate(cells(figure).items()):
            columns[at, figure["unit"], column] = column if place else where + column
            row[at, figure["unit"], column] = cell
    order = heads | columns
    return list(order.values()), [
        [row.get(key, "") for key in order] for row in rows.values()
    ]


def of_section(figures: Iterable[Figure], section: str) -> list[Figure]:
    """Those of a section."""
    return [figure for figure in figures if figure["section"] == section]


def numeric(column: str) -> bool:
    """Whether a column is of numbers."""
    return (
        column.endswith(("/s", " s", "ms", "MB", "rows"))
        or column.startswith("of ")
        or column == "s"
    )


def show(section: Section, figures: Iterable[Figure]) -> None:
    """Prints a section's table."""
    columns, rows = lay_out(section, figures)
    table = Table(title=section.title)
    for column in columns:
        table.add_column(column, justify="right" if numeric(column) else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def markdown(section: Section, figures: Iterable[Figure]) -> str:
    """A section's table for a Markdown page."""
    columns, rows = lay_out(section, figures)
    rule = ["---:" if numeric(column) else "---" for column in columns]
    lines = (f"| {' | '.join(line)} |" for line in (columns, rule, *rows))
    return "\n".join([f"{section.title}:", "", *lines, ""])
