"""How well what critics say at the hand-over foretells the fall after it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from o2ojax.errors import UserError
from o2ojax.report import statistics
from o2ojax.report.results import Result
from o2ojax.report.tables import estimate, piped

OUTCOMES = ("dip", "regret")
PREFIX = "readiness_"


def table(results: Sequence[Result], num_resamples: int = 2000) -> str:
    """In Markdown: Spearman's rank correlation of each figure with dip and regret.

    A point is a member of a run that has gone online. Intervals are of a bootstrap over
    all points: members that began as the same offline agents are not independent, so
    with few agents intervals are too narrow.

    Raises:
        UserError: fewer than four members have both figures and an online phase.
    """
    points = [point for result in results for point in members_of(result)]
    if len(points) < 4:
        raise UserError(
            f"{len(points)} members of these runs have critics that were looked at and"
            " an online phase; a rank correlation needs at least four"
        )
    names = sorted({name for point in points for name in point} - {*OUTCOMES})
    outcomes = [each for each in OUTCOMES if any(each in point for point in points)]
    lines = [["figure", "members", *outcomes], ["---", *["---:"] * (1 + len(outcomes))]]
    for name in names:
        told = [point for point in points if name in point]
        cells = []
        for outcome in outcomes:
            pairs = [(x[name], x[outcome]) for x in told if outcome in x]
            x, y = zip(*pairs, strict=True)
            cells.append(estimate(correlation(x, y, num_resamples), 2))
        lines.append([name, str(len(told)), *cells])
    return piped(lines)


def correlation(
    x: Sequence[float], y: Sequence[float], num_resamples: int = 2000
) -> dict:
    """Spearman's rank correlation, with its 95% percentile bootstrap interval.

    Returns:
        {"iqm": the correlation, "ci95": [low, high]}, as `statistics.interval` has it;
        NaN where all of `x` or of `y` are equal.
    """
    x, y = np.float64(x), np.float64(y)
    rows = np.random.default_rng(0).integers(0, len(x), (num_resamples, len(x)))
    drawn = _correlations(x[rows], y[rows])
    drawn = drawn[np.isfinite(drawn)]
    whole = float(_correlations(x[None], y[None])[0])
    if not math.isfinite(whole) or not drawn.size:
        return {"iqm": math.nan, "ci95": [math.nan, math.nan]}
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"iqm": whole, "ci95": [float(low), float(high)]}


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the ranks of rows [N, K]: [N]."""
    from scipy.stats import rankdata  # most of a second to import

    ranks = [rankdata(values, axis=1) for values in (x, y)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def members_of(result: Result) -> list[Mapping[str, float]]:
    """Of each member that lives: what its critics said, its dip and its regret."""
    figures = readiness_by_member(Path(result.name) / "metrics.jsonl")
    curves = result.curves
    score = statistics.scores(curves, result.config["env"])
    outcome = statistics.by_member(score, curves.phase, step=curves.step).get("online")
    num_members = score.shape[1]
    whole = all(values.shape == (num_members,) for values in figures.values())
    if not figures or not whole or outcome is None:
        return []
    columns = figures | {name: outcome[name] for name in OUTCOMES if name in outcome}
    points = [
        {name: float(values[member]) for name, values in columns.items()}
        for member in range(num_members)
    ]
    return [point for point in points if np.isfinite([*point.values()]).all()]


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
