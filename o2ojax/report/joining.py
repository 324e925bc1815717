"""One result of runs that differ in nothing but their seeds.

A seed learns the same alone and in company, so seeds can be run one after another, on
several days or machines, and be shown as the one run that they would have been.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from o2ojax.errors import UserError
from o2ojax.report import foretelling, statistics
from o2ojax.report.results import Result
from o2ojax.run import readiness
from o2ojax.run.config import differences
from o2ojax.run.workdir import FREE_TO_CHANGE

# What may tell one part from another: the seeds, and what they were run with.
APART = ("seeds", "members", "versions", "commit", "device", *FREE_TO_CHANGE)
RATES = {"offline": ("updates", "updates_per_second")}
RATES["online"] = ("steps", "steps_per_second")


def join(results: Sequence[Result]) -> Result:
    """Joins runs of other seeds, in the order in which they are given.

    Speeds are those of the parts one after another. What critics said is joined where
    all parts have their `metrics.jsonl`.

    Raises:
        UserError: two runs differ in more than their seeds, or have one in common.
    """
    first, *others = results
    if not others:
        return first
    for other in others:
        _hold_alike(first, other)
    seeds = [seed for result in results for seed in _seeds(result)]
    for seed in seeds:
        holders = [result.name for result in results if seed in _seeds(result)]
        if len(holders) > 1:
            raise UserError(
                f"{' and '.join(holders)} both have seed {seed}; joined are runs of"
                " different seeds"
            )
    config = first.config | {"seeds": seeds}
    curves = statistics.Curves(
        _members([result.curves.returns for result in results], results),
        first.curves.phase,
        first.curves.step,
        None
        if first.curves.success is None
        else _members([result.curves.success for result in results], results),
    )
    summary = statistics.summarise(
        config, curves, _speeds(results), _adaptation(results)
    )
    if told := _readiness(results):
        summary["readiness"] = told
    return Result(first.name, config, curves, summary)


def _hold_alike(first: Result, other: Result) -> None:
    """Checks that two runs differ in their seeds alone."""
    changed = differences(_compared(first.config), _compared(other.config))
    if not changed and not _same_points(first.curves, other.curves):
        changed = ["they were not judged after the same steps"]
    if changed:
        raise UserError(
            f"{first.name} and {other.name} cannot be joined: {'; '.join(changed)}"
        )


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """What must be the same; of a run to start from, its last folder."""
    kept = {name: config[name] for name in config.keys() - {*APART}}
    offline = dict(kept.get("offline", {}))
    offline["from"] = Path(offline.get("from", "")).name
    return kept | {"offline": offline}


def _same_points(a: statistics.Curves, b: statistics.Curves) -> bool:
    same = np.array_equal(a.phase, b.phase) and np.array_equal(a.step, b.step)
    return same and (a.success is None) == (b.success is None)


def _seeds(result: Result) -> list[int]:
    seeds = result.config["seeds"]
    return [*range(seeds)] if isinstance(seeds, int) else [*seeds]


def _members(leaves: Sequence[np.ndarray], results: Sequence[Result]) -> np.ndarray:
    """Joins leaves [P, M, ...], whose members are settings x seeds."""
    points = len(leaves[0])
    apart = [
        leaf.reshape(points, -1, len(_seeds(result)), *leaf.shape[2:])
        for leaf, result in zip(leaves, results, strict=True)
    ]
    joined = np.concatenate(apart, axis=2)
    return joined.reshape(points, -1, *leaves[0].shape[2:])


def _speeds(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Those of all parts, one after another."""
    speeds = {}
    for phase, (amount, rate) in RATES.items():
        parts = [result.summary[phase] for result in results if phase in result.summary]
        if not parts:
            continue
        members = [result.curves.returns.shape[1] for result in results]
        done = [part[amount] * num for part, num in zip(parts, members, strict=True)]
        seconds = sum(
            one / part[rate]
            for one, part in zip(done, parts, strict=True)
            if part[rate]
        )
        speeds[phase] = parts[0] | {rate: sum(done) / seconds if seconds else 0.0}
    return speeds


def _adaptation(results: Sequence[Result]) -> dict[str, list[float]]:
    """Means over members, a value for every member of each part."""
    found: dict[str, list[float]] = {}
    for result in results:
        for name, mean in result.summary.get("adaptation", {}).items():
            value = np.nan if mean is None else mean
            found.setdefault(name, []).extend([value] * result.curves.returns.shape[1])
    return found


def _readiness(results: Sequence[Result]) -> dict[str, Any]:
    """What the critics of all members said; {} where it is not known of each."""
    parts = [foretelling.said(Path(each.name) / "metrics.jsonl") for each in results]
    if not all(parts):
        return {}
    shared = set.intersection(*(set(part) for part in parts))
    return readiness.summarise(
        {name: [x for part in parts for x in part[name]] for name in shared}
    )
