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
    tasks: dict[str, list[list[Point]]] = {}
    for agent in agents([x for x in points if figure in x.said and outcome in x.came]):
        tasks.setdefault(agent[0].task, []).append(agent)
    times = _times_drawn([len(each) for each in tasks.values()], num_resamples)
    sums = np.zeros((3, 1 + num_resamples))
    for each, drawn in zip(tasks.values(), times, strict=True):
        members = [(point, at) for at, agent in enumerate(each) for point in agent]
        weights = drawn[:, [at for _, at in members]]
        x = np.array([point.said[figure] for point, _ in members])
        y = np.array([point.came[outcome] for point, _ in members])
        sums += _products(x, y, weights)
    xy, xx, yy = sums
    with np.errstate(invalid="ignore"):
        whole, *drawn = xy / np.sqrt(xx * yy)
    finite = [each for each in drawn if math.isfinite(each)]
    if not math.isfinite(whole) or not finite:
        return {"iqm": math.nan, "ci95": [math.nan, math.nan]}
    low, high = np.percentile(finite, [2.5, 97.5])
    return {"iqm": float(whole), "ci95": [float(low), float(high)]}


def _times_drawn(num_agents: Sequence[int], num_resamples: int) -> list[np.ndarray]:
    """How often each agent is in a resample, a task's [1 + R, agents]; first, once."""
    rng = np.random.default_rng(0)
    times = [np.ones((1 + num_resamples, num)) for num in num_agents]
    for resample in range(1, 1 + num_resamples):
        for each, num in zip(times, num_agents, strict=True):
            each[resample] = np.bincount(rng.integers(0, num, num), minlength=num)
    return times


def _products(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of xy, xx and yy, [3, R], of centred ranks of one task's members.

    Args:
        weights: how often each member counts, [R, members].
    """
    total, centred = weights.sum(axis=1, keepdims=True), []
    for values in (x, y):
        different, at = np.unique(values, return_inverse=True)
        held = weights @ np.eye(len(different))[at]
        below = held.cumsum(axis=1) - held
        ranks = (below + (held + 1) / 2)[:, at]
        mean = (weights * ranks).sum(axis=1, keepdims=True) / total
        centred.append((ranks - mean) / total)
    a, b = centred
    return np.stack(
        [(weights * c * d).sum(axis=1) for c, d in ((a, b), (a, a), (b, b))]
    )


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
