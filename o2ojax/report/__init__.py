"""Comparison of runs: reading results, tables, learning curves and films."""

from o2ojax.report.figures import draw
from o2ojax.report.results import Result, choose, names, read, title
from o2ojax.report.tables import estimate, markdown, rows, table

__all__ = [
    "Result",
    "choose",
    "draw",
    "estimate",
    "markdown",
    "names",
    "read",
    "rows",
    "table",
    "title",
]
