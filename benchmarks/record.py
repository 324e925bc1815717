"""What every benchmark leaves: figures, all of one shape, in one JSON a machine kind.

A figure is a dict, told from all others by the first four of its fields:

    section  a room of `make bench`: "updates"
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from o2ojax.data.files import write_json
from o2ojax.errors import UserError
from o2ojax.run import workdir

RESULTS = Path(__file__).parent / "results"
FORMAT = 2
MATRIX, ROLLOUT = "matrix products", "mujoco.rollout"  # the limits

Figure = dict[str, Any]
Results = dict[str, Any]


class Section(NamedTuple):
    """A room of `make bench`.

    title:  of its table.
    cases:  () -> {name: (windows) -> figures of that name}.
    across: the size that its table has columns for.
    """

    title: str
    cases: Callable[[], Mapping[str, Callable[[int], list[Figure]]]]
    across: str = ""


def figure(
    section: str,
    name: str,
    sizes: Mapping[str, Any],
    unit: str,
    values: Any,
    limit: tuple[str, np.ndarray] | None = None,
    flop: float | None = None,
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
    told = {"section": section, "name": name, "sizes": dict(sizes), "unit": unit}
    told |= timing.spread(values) | {"windows": len(values)}
    if flop is not None:
        told["flop"] = flop
    if limit is not None:
        told |= {"limit": limit[0], "share_of_limit": timing.spread(limit[1])}
    if one is not None:
        told["times_one"] = timing.spread(values / one)
    if whole is not None:
        told["share_of_run"] = timing.spread(values / whole)
    return told


def key(told: Figure) -> tuple:
    """What tells a figure from all others."""
    sizes = tuple(sorted((name, str(size)) for name, size in told["sizes"].items()))
    return told["section"], told["name"], sizes, told["unit"]


def surroundings() -> Results:
    """What figures of this process depend on beside what was measured."""
    found, machine = workdir.surroundings(), timing.machine()
    kept = ("device", "cores", "processor")
    return {
        "format": FORMAT,
        "machine": {name: machine[name] for name in kept},
        "versions": {"python": machine["python"]} | found["versions"],
        "commit": found["commit"],
    }


def default_path(what: str = "bench") -> Path:
    """Where the results of this machine's kind are kept."""
    kind = timing.machine()["device"].split()[0]
    return RESULTS / f"{what}-{kind}.json"


def write(path: Path, results: Results) -> None:
    """Writes results whole.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_json(path, results)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def read(path: Path) -> Results:
    """Results as `write` left them.

    Raises:
        UserError: no such file, or one that is not of this format.
    """
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    found = results.get("format") if isinstance(results, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{path} is of format {found}, and this reads format {FORMAT}: measure anew"
            " with `python -m benchmarks.bench`, at the old commit with its own"
        )
    return results
