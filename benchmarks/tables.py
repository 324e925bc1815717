"""Figures as tables, in Markdown: of aligned columns, for a terminal as for a page."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.record import Cells, Figure, Section


def number(x: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def ranged(figure: Mapping[str, float]) -> str:
    """Median with its range."""
    return "{} [{}, {}]".format(*(number(figure[x]) for x in ("median", "min", "max")))


def ratio(share: Mapping[str, float]) -> str:
    """Median of a ratio with its range."""
    return f"{share['median']:.2f} [{share['min']:.2f}, {share['max']:.2f}]"


def cells(figure: Figure) -> dict[str, str]:
    """What a table says of a figure, by the names of its columns."""
    value = number(figure["median"])
    if "share_of_limit" in figure:
        found = {figure["unit"]: value}
        found[f"of {figure['limit']}"] = ratio(figure["share_of_limit"])
        if "times_one" in figure:
            found["of one's"] = ratio(figure["times_one"])
        return found
    found = {figure["unit"]: ranged(figure) if figure["max"] > figure["min"] else value}
    if "share_of_run" in figure:
        found["of the run"] = ratio(figure["share_of_run"])
    return found


def sized(size: object) -> str:
    """A size in words."""
    return f"{size:,}" if isinstance(size, int) else str(size)


def lay_out(section: Section, figures: Iterable[Figure]) -> tuple[Cells, list[Cells]]:
    """The heads of a section's table, and its rows."""
    if section.lay_out:
        return section.lay_out(figures)
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


def of_section(
    sections: Mapping[str, Section], name: str, figures: Iterable[Figure]
) -> str:
    """The table of a section's figures, which are among these, under its title."""
    section, found = sections[name], [x for x in figures if x["section"] == name]
    return f"{section.title}:\n\n{markdown(*lay_out(section, found))}\n"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns of numbers are flush right."""
    rows = [list(row) for row in rows]
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    right = [numeric(cells) for _, *cells in columns]
    rule = ["-" * (w - r) + ":" * r for w, r in zip(widths, right, strict=True)]
    lines = []
    for line in (heads, rule, *rows):
        padded = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        )
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def numeric(cells: Iterable[str]) -> bool:
    """Whether all that a column says are numbers, some with a range or a unit."""
    said = [cell.lstrip("-") for cell in cells]
    said = [cell for cell in said if cell]  # "-" and "" say nothing
    return bool(said) and all(cell[0].isdigit() for cell in said)
