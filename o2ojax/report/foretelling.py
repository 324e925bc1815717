"""How well what critics say at the hand-over foretells the fall after it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from o2ojax.errors import UserError
from o2ojax.report import statistics
from o2ojax.report.results import Result
from o2ojax.report.tables import estimate, piped

OUTCOMES = ("dip", "lost", "regret")
PREFIX = "readiness_"


class Point(NamedTuple):
    """A member of a run that has gone online.

    task:   environment and dataset.
    said:   what its critics said last before the online phase, by the figure's name.
    came:   dip; lost: the dip as a share of the score before it, unless that is not
            above 0; and regret.
    """

    task: str
    said: Mapping[str, float]
    came: Mapping[str, float]


def table(results: Sequence[Result], num_resamples: int = 2000) -> str:
    """In Markdown: `correlation` of each figure with each outcome.

    Raises:
        UserError: fewer than four members have both figures and an online phase.
    """
    points = [point for result in results for point in members_of(result)]
    if len(points) < 4:
        raise UserError(
            "a rank correlation needs at least four members whose critics were looked"
            f" at and that have gone online; these runs have {len(points)}"
        )
    names = sorted({name for point in points for name in point.said})
    outcomes = [
        each for each in OUTCOMES if any(each in point.came for point in points)
    ]
    lines = [
        ["figure", "members", "agents", *outcomes],
        ["---", *["---:"] * (2 + len(outcomes))],
    ]
    for name in names:
        told = [point for point in points if name in point.said]
        cells = [
            estimate(correlation(told, name, outcome, num_resamples), 2)
            for outcome in outcomes
        ]
        counts = str(len(told)), str(len(agents(told)))
        lines.append([name, *counts, *cells])
    return piped(lines)


def agents(points: Sequence[Point]) -> list[list[Point]]:
    """Members that began as the same offline agent: their critics said the same."""
    found: dict[Any, list[Point]] = {}
    for point in points:
        key = point.task, *sorted(point.said.items())
        found.setdefault(key, []).append(point)
    return [*found.values()]


def correlation(
    points: Sequence[Point], figure: str, outcome: str, num_resamples: int = 2000
) -> dict:
    """Spearman's rank correlation of a figure with an outcome, within tasks.

    Ranks are among the members of one task, as shares of their number, so that what
    tells tasks apart counts for nothing. The 95% percentile bootstrap draws offline
    agents, of each task as many as it has, with all that began as them.

    Returns:
        {"iqm": the correlation, "ci95": [low, high]}, as `statistics.interval` has it;
        NaN where no task's figures or outcomes differ.
    """
    tasks: dict[str, list[np.ndarray]] = {}  # of each agent, [2, members]
    for agent in agents([x for x in points if figure in x.said and outcome in x.came]):
        pairs = [(point.said[figure], point.came[outcome]) for point in agent]
        tasks.setdefault(agent[0].task, []).append(np.array(pairs).T)
    whole = _within([np.concatenate(each, axis=1) for each in tasks.values()])
    rng, drawn = np.random.default_rng(0), []
    for _ in range(num_resamples):
        chosen = [
            np.concatenate(
                [each[at] for at in rng.integers(0, len(each), len(each))], 1
            )
            for each in tasks.values()
        ]
        drawn.append(_within(chosen))
    finite = [each for each in drawn if math.isfinite(each)]
    if not math.isfinite(whole) or not finite:
        return {"iqm": math.nan, "ci95": [math.nan, math.nan]}
    low, high = np.percentile(finite, [2.5, 97.5])
    return {"iqm": whole, "ci95": [float(low), float(high)]}


def _within(tasks: Sequence[np.ndarray]) -> float:
    """The correlation of ranks within tasks, each [2, members]."""
    from scipy.stats import rankdata  # most of a second to import

    if not tasks:
        return math.nan
    ranks = [rankdata(each, axis=1) / each.shape[1] for each in tasks]
    centred = [each - each.mean(axis=1, keepdims=True) for each in ranks]
    a, b = np.concatenate(centred, axis=1)
    squares = (a**2).sum() * (b**2).sum()
    return float((a * b).sum() / math.sqrt(squares)) if squares else math.nan


def members_of(result: Result) -> list[Point]:
    """Each member that lives; none without an online phase, or without critics."""
    figures = readiness_by_member(Path(result.name) / "metrics.jsonl")
    curves, env = result.curves, result.config["env"]
    score = statistics.scores(curves, env)
    each = statistics.by_member(score, curves.phase, step=curves.step)
    num_members = score.shape[1]
    whole = all(values.shape == (num_members,) for values in figures.values())
    if not figures or not whole or "online" not in each:
        return []
    before, came = each["offline"]["score"], dict(each["online"])
    came["lost"] = came["dip"] / np.where(before > 0, before, np.nan)
    task = f"{env} {result.config.get('dataset', '')}"
    points = [
        Point(
            task,
            {name: float(values[member]) for name, values in figures.items()},
            {
                name: float(came[name][member])
                for name in OUTCOMES
                if name in came and (name != "lost" or before[member] > 0)
            },
        )
        for member in range(num_members)
    ]
    return [
        x for x in points if np.isfinite([*x.said.values(), *x.came.values()]).all()
    ]


def readiness_by_member(path: Path) -> dict[str, np.ndarray]:
    """What critics said last before the online phase: name -> [M], NaN of the dead.

    It is empty where a `metrics.jsonl` is missing or does not tell; a line that was cut
    is left out.
    """
    found: dict[str, np.ndarray] = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return found
    for line in lines:
        if PREFIX not in line:
            continue
        try:
            told = {
                name.removeprefix(PREFIX): np.array(values, np.float64)
                for name, values in json.loads(line).items()
                if name.startswith(PREFIX)
            }
        except (AttributeError, TypeError, ValueError):
            continue
        found = told or found
    return found
