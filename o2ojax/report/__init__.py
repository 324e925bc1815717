"""Comparison of runs: reading results, tables, learning curves and films."""

from collections.abc import Sequence
from pathlib import Path

from o2ojax.report.published import Published
from o2ojax.report.results import Result, choose, names, read, title
from o2ojax.report.tables import (
    csv,
    estimate,
    latex,
    markdown,
    piped,
    rows,
    table,
    unmarked,
)


def draw(
    results: Sequence[Result], path: str | Path, published: Published | None = None
) -> None:
    """Writes learning curves, as `figures.draw` does."""
    from o2ojax.report import figures  # matplotlib takes half a second to import

    figures.draw(results, path, published)


__all__ = [
    "Published",
    "Result",
    "choose",
    "csv",
    "draw",
    "estimate",
    "latex",
    "markdown",
    "names",
    "piped",
    "read",
    "rows",
    "table",
    "title",
    "unmarked",
]
