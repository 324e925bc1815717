"""What every benchmark leaves: figures, all of one shape, in one JSON a machine kind.

A figure is a dict, told from all others by the first four of its fields:

    section  of the benchmark: "updates"
    name     what was done: "iql"
    sizes    on how much, by name: {"members": 8}
    unit     "updates/s", "ms". More is better where it ends in "/s", else less is.
    median, min, max, windows   of so many measurements
    flop     counted operations of one unit of work; where they are known
    share_of_limit {median, min, max}, limit   what the speed is of a limit that was
             measured beside it, window by window, and which: "matrix products" or
             "mujoco.rollout"; where there is one
    times_one      {median, min, max}, of what one member reached in the same windows
    commit         that it was measured at, where it was kept from an earlier run
    share_of_run   {median, min, max}, of a whole that the figure is a part of
"""

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import timing
from benchmarks.timing import Work
from o2ojax.errors import UserError
from o2ojax.run import workdir

RESULTS = Path(__file__).parent / "results"
FORMAT = 2
MATRIX, ROLLOUT = "matrix products", "mujoco.rollout"  # the limits
IN_A_SECOND = {"ms": 1e3, "us": 1e6}

Figure = dict[str, Any]
Results = dict[str, Any]
Cells = list[str]


class Section(NamedTuple):
    """A part of a benchmark, which has a table of its own.

    title:   of its table.
    names:   of what is measured.
    measure: (name, windows) -> figures of that name, which need not say section and
             name.
    across:  the size that the table has columns for.
    lay_out: (figures) -> the table's heads and rows, where `across` does not say it.
    """

    title: str
    names: Sequence[str]
    measure: Callable[[str, int], list[Figure]]
    across: str = ""
    lay_out: Callable[[Iterable[Figure]], tuple[Cells, list[Cells]]] | None = None


def figure(
    sizes: Mapping[str, Any],
    unit: str,
    values: Any,
    limit: tuple[str, np.ndarray] | None = None,
    flop: int = 0,
    whole: np.ndarray | None = None,
    one: np.ndarray | None = None,
) -> Figure:
    """A figure of values [windows].

    Args:
        limit: a limit's name, and what share of it each value was [windows].
        flop: of one unit of work.
        whole: of what each value is a part [windows].
        one: the same of one member [windows].
    """
    values = np.atleast_1d(np.asarray(values, float))
    found = {"sizes": dict(sizes), "unit": unit}
    found |= timing.spread(values) | {"windows": len(values)}
    if flop:
        found["flop"] = flop
    if limit is not None:
        found |= {"limit": limit[0], "share_of_limit": timing.spread(limit[1])}
    if one is not None:
        found["times_one"] = timing.spread(values / one)
    if whole is not None:
        found["share_of_run"] = timing.spread(values / whole)
    return found


def timed(
    works: Iterable[tuple[Mapping[str, Any], Work]],
    unit: str,
    windows: int,
    beside_first: bool = False,
) -> list[Figure]:
    """Figures of works, by their sizes; beside the matrix limit, if `flop` is counted.

    All are timed in turn, so that what one gains or loses beside another is a ratio.

    Args:
        unit: "updates/s" or the like, or what a unit of work costs: "ms" or "us".
        beside_first: whether all are also told as multiples of the first one's rate.
    """
    works = list(works)
    timed_works = {at: work for at, (_, work) in enumerate(works)}
    if any(work.flop for work in timed_works.values()):
        timed_works[MATRIX] = timing.matrix_limit()
    rates, found = timing.rates(timed_works, windows), []
    for at, (sizes, work) in enumerate(works):
        rate, limit = rates[at], None
        values = rate if unit.endswith("/s") else IN_A_SECOND[unit] / rate
        if work.flop:
            limit = MATRIX, rate * work.flop / rates[MATRIX]
        one = rates[0] if beside_first and at else None
        found.append(figure(sizes, unit, values, limit, work.flop, one=one))
    return found


def key(figure: Figure) -> tuple:
    """What tells a figure from all others."""
    sizes = tuple(sorted((name, str(size)) for name, size in figure["sizes"].items()))
    return figure["section"], figure["name"], sizes, figure["unit"]


def surroundings() -> Results:
    """What figures of this process depend on beside what was measured."""
    found = workdir.surroundings()
    return {
        "format": FORMAT,
        "machine": {
            "device": found["device"],
            "cores": timing.cores(),
            "processor": timing.processor(),
        },
        "versions": {"python": platform.python_version()} | found["versions"],
        "commit": found["commit"],
    }


def default_path(benchmark: str) -> Path:
    """Where the results of this machine's kind are kept."""
    return RESULTS / f"{benchmark}-{jax.devices()[0].platform}.json"


def read(path: Path) -> Results:
    """The results in a file.

    Raises:
        UserError: no such file, or one that is not of this format.
    """
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    found = results.get("format") if isinstance(results, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{path} is of format {found}, and this reads format {FORMAT}: measure anew"
            " with `python -m benchmarks.bench`, at the old commit with its own"
        )
    return results
