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
from o2ojax.report.results import Result, seeds_of
from o2ojax.report.tables import data_name
from o2ojax.run import readiness
from o2ojax.run.config import differences
from o2ojax.run.workdir import FREE_TO_CHANGE

# What may tell one run from another: its seeds, and the machine and the day.
MAY_DIFFER = ("seeds", "members", "versions", "commit", "device", *FREE_TO_CHANGE)


def join(results: Sequence[Result]) -> Result:
    """Joins runs of other seeds, in the order in which they are given.

    Speeds are those of the runs one after another. What critics said is joined where
    all runs have their `metrics.jsonl`.

    Raises:
        UserError: two runs differ in more than their seeds, have one in common, or
            were not judged alike; or files are not as a run writes them.
    """
    first, *others = results
    if not others:
        return first
    for other in others:
        _hold_alike(first, other)
    seeds = [seed for result in results for seed in seeds_of(result)]
    for seed in seeds:
        holders = [result.name for result in results if seed in seeds_of(result)]
        if len(holders) > 1:
            raise UserError(
                f"{' and '.join(holders)} both have seed {seed}; joined are runs of"
                " different seeds"
            )
    config = first.config | {"seeds": seeds}
    returns = _members([result.curves.returns for result in results], results)
    success = None
    if first.curves.success is not None:
        success = _members([result.curves.success for result in results], results)
    curves = first.curves._replace(returns=returns, success=success)
    try:
        adapted, speeds = _adaptation(results), _speeds(results)
        summary = statistics.summarise(config, curves, speeds, adapted)
    except (AttributeError, KeyError, TypeError, ValueError):
        names = ", ".join(result.name for result in results)
        raise UserError(
            f"a summary.json is not as a run writes it, of one of {names}"
        ) from None
    if told := _readiness(results):
        summary["readiness"] = told
    return Result(first.name, config, curves, summary)


def _hold_alike(first: Result, other: Result) -> None:
    """Checks that two runs differ in their seeds alone."""
    changed = differences(*_compared(first.config, other.config))
    a, b = first.curves, other.curves
    if not changed and (a.success is None) != (b.success is None):
        changed = ["one of them tells no success"]
    alike = np.array_equal(a.phase, b.phase) and np.array_equal(a.step, b.step)
    if not changed and not (alike and a.returns.shape[2] == b.returns.shape[2]):
        changed = ["they were not judged after the same steps, on as many episodes"]
    if changed:
        raise UserError(
            f"{first.name} and {other.name} cannot be joined, as they differ in more"
            f" than their seeds: {'; '.join(changed)}; runs of two kinds are told apart"
            " by names, NAME=RUN"
        )


def _compared(a: dict[str, Any], b: dict[str, Any]) -> tuple[dict, dict]:
    """What must be the same, of fields that both configs have: one may be older.

    Of a dataset and of a run to start from, their folders may be other ones.
    """
    names = (a.keys() & b.keys()) - {*MAY_DIFFER}
    left, right = ({name: config[name] for name in names} for config in (a, b))
    for config in (left, right):
        config["dataset"] = data_name(config["dataset"])
        if isinstance(offline := config.get("offline"), dict):
            source = Path(str(offline.get("from", ""))).name
            config["offline"] = offline | {"from": source}
    for name in names:
        if isinstance(left[name], dict) and isinstance(right[name], dict):
            shared = left[name].keys() & right[name].keys()
            left[name] = {key: left[name][key] for key in shared}
            right[name] = {key: right[name][key] for key in shared}
    return left, right


def _members(leaves: Sequence[np.ndarray], results: Sequence[Result]) -> np.ndarray:
    """Joins leaves [P, M, ...], members being settings x seeds, to [P, all M, ...]."""
    num_points = len(leaves[0])
    by_setting = [
        leaf.reshape(num_points, -1, len(seeds_of(result)), *leaf.shape[2:])
        for leaf, result in zip(leaves, results, strict=True)
    ]
    joined = np.concatenate(by_setting, axis=2)
    return joined.reshape(num_points, -1, *leaves[0].shape[2:])


def _speeds(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Those of all runs, one after another, but for runs that tell none."""
    speeds = {}
    for phase, (amount, *_, rate) in statistics.SPEEDS.items():
        if phase not in results[0].curves.phase:
            continue
        done = seconds = 0.0
        for result in results:
            told = result.summary[phase]
            if told[rate]:
                work = told[amount] * result.curves.returns.shape[1]
                done, seconds = done + work, seconds + work / told[rate]
        speed = done / seconds if seconds else 0.0
        speeds[phase] = results[0].summary[phase] | {rate: speed}
    return speeds


def _adaptation(results: Sequence[Result]) -> dict[str, np.ndarray]:
    """Means over the members of each run, as values of all its members: name -> [M]."""
    told = [result.summary.get("adaptation", {}) for result in results]
    found = {}
    for name in told[0]:
        means = [np.float64(np.nan if one[name] is None else one[name]) for one in told]
        leaves = [
            np.full((1, result.curves.returns.shape[1]), mean)
            for result, mean in zip(results, means, strict=True)
        ]
        found[name] = _members(leaves, results)[0]
    return found


def _readiness(results: Sequence[Result]) -> dict[str, Any]:
    """What the critics of all members said; {} where it is not known of each."""
    files = [Path(result.name) / "metrics.jsonl" for result in results]
    told = [foretelling.readiness_by_member(file) for file in files]
    shared = set.intersection(*map(set, told))
    if not {*readiness.FIGURES} - {"rise"} <= shared:
        return {}
    return readiness.summarise(
        {name: np.concatenate([one[name] for one in told]) for name in shared}
    )
