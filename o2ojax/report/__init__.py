"""Comparison of runs: reading results, tables, learning curves and films."""

from o2ojax.report.figures import draw
from o2ojax.report.results import Result, choose, names, read, title
from o2ojax.report.tables import csv, estimate, latex, markdown, rows, table

__all__ = [
    "Result",
    "choose",
    "csv",
    "draw",
    "estimate",
    "latex",
    "markdown",
    "names",
    "read",
    "rows",
    "table",
    "title",
]
