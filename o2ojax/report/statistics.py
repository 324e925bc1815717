"""Scores, dips and regrets of the members of a run, with confidence intervals.

The interquartile mean and its bootstrap interval are those of Agarwal et al., "Deep
Reinforcement Learning at the Edge of the Statistical Precipice" (2021),
arxiv.org/abs/2108.13264. In shape comments P counts evaluation points, M members.
"""

import itertools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from o2ojax.data import reference
from o2ojax.errors import UserError

SPEEDS = {
    "offline": ("updates", "updates_per_second"),
    "online": ("steps", "updates", "steps_per_second"),
}


class Curves(NamedTuple):
    """The evaluations of a run, in order.

    returns: [P, M, episode]  undiscounted; NaN once a member's weights were not finite.
    phase:   [P]              "offline" or "online".
    step:    [P]              updates offline, environment steps per member online.
    success: [P, M, episode]  1 if the success criterion held after the last step, else
             0, or NaN as above; None if the environment does not define success.
    """

    returns: np.ndarray
    phase: np.ndarray
    step: np.ndarray
    success: np.ndarray | None = None


def interval(values: np.ndarray, num_resamples: int = 2000) -> dict[str, Any]:
    """Interquartile mean over members, with its 95% percentile bootstrap interval.

    Each resample draws M members with replacement. This is rliable's estimate for one
    task, with our own generator: rliable 1.2.0 uses NumPy's global generator,
    whatever its `random_state`.

    Args:
        values: one value per member, [M]; NaN members are left out.
        num_resamples: bootstrap replications.
    Returns:
        {"iqm": float, "ci95": [low, high]}; NaN if all members are NaN.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return {"iqm": math.nan, "ci95": [math.nan, math.nan]}
    drawn = np.random.default_rng(0).choice(values, (num_resamples, values.size))
    low, high = np.percentile(interquartile_mean(drawn), [2.5, 97.5])
    return {"iqm": float(interquartile_mean(values)), "ci95": [float(low), float(high)]}


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean without the lowest and the highest quarter of the last axis."""
    cut, num = values.shape[-1] // 4, values.shape[-1]
    within = np.partition(values, (cut, num - cut - 1), axis=-1)[..., cut : num - cut]
    return within.mean(axis=-1)


def scores(curves: Curves, env: str) -> np.ndarray:
    """Score of each member at each evaluation.

    It is the success rate in percent; if the environment does not define success, it is
    the mean return, normalised by D4RL's reference returns if there are any.

    Returns:
        scores, [P, M].
    """
    if curves.success is not None:
        return 100 * np.asarray(curves.success, np.float64).mean(axis=2)
    return np.asarray(reference.score(env, mean_return(curves)))


def mean_return(curves: Curves) -> np.ndarray:
    """Mean return over episodes, [P, M]."""
    return np.asarray(curves.returns, np.float64).mean(axis=2)


def by_member(
    score: np.ndarray,
    phase: np.ndarray,
    has_scale: bool = True,
    step: np.ndarray | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Score, dip and regret of each member in each phase.

    Offline, `score` is that of the last point: after 0 updates for a run from scratch.
    Online, `score` is that of the last point,
    `dip` = max(0, max_t (offline - score_t)), and
    `regret` = mean_t (100 - score_t), where a point counts for the steps since the one
    before. A member with a NaN in a phase has NaN there.

    Args:
        score: [P, M], at least one of the points offline.
        phase: [P], "offline" or "online".
        step:  [P], as in `Curves`; None for points that are evenly spaced.
        has_scale: whether 100 means something. If not, there is no regret.
    Returns:
        {"offline": {"score": [M]}, "online": {"score", "dip", "regret": [M]}};
        without "online" if no point is online.
    """
    offline = score[phase == "offline"][-1]
    achieved = {"offline": {"score": offline}}
    online = score[phase == "online"]
    if len(online):
        achieved["online"] = {
            "score": online[-1],
            "dip": np.maximum((offline - online).max(axis=0), 0),
        }
        if has_scale:
            achieved["online"]["regret"] = _over_steps(
                100 - online, None if step is None else step[phase == "online"]
            )
    return achieved


def _over_steps(values: np.ndarray, step: np.ndarray | None) -> np.ndarray:
    """The mean [M] over points [P, M], each weighted by the steps that led to it.

    A warm-up before the first point does not count: it stands for as many steps as the
    second, or for its own, if these are fewer.
    """
    if step is None or len(step) < 2:
        return values.mean(axis=0)
    spans = np.diff(step, prepend=max(0, 2 * step[0] - step[1]))
    if (spans == spans[0]).all():
        return values.mean(axis=0)
    return spans @ values / spans.sum()


def groups(config: Mapping, num_members: int) -> list[tuple[dict[str, Any], slice]]:
    """Splits the members of a population by hyper-parameter setting.

    Settings are the outer loop and seeds the inner one. Without a population there is
    one setting, {}.

    Raises:
        UserError: the members are not seeds x settings.
    """
    seeds, population = config["seeds"], config["population"]
    num_seeds = seeds if isinstance(seeds, int) else len(seeds)
    product = list(itertools.product(*population.values()))
    if num_members != num_seeds * len(product):
        raise UserError(
            f"there are {num_members} members, but the config asks for "
            f"{num_seeds} seeds x {len(product)} settings"
        )
    return [
        (dict(zip(population, values, strict=True)), slice(start, start + num_seeds))
        for values, start in zip(product, range(0, num_members, num_seeds), strict=True)
    ]


def summarise(
    config: Mapping,
    curves: Curves,
    speeds: Mapping[str, Mapping[str, float]],
    adaptation: Mapping[str, ArrayLike] = MappingProxyType({}),
) -> dict[str, Any]:
    """Computes the content of `summary.json`, with None in place of NaN.

    Args:
        config: with "env", "physics", "simulator", "dataset", "algorithm",
            "seeds" and "population".
        curves: at least one of the points offline.
        speeds: {"offline": {"updates", "updates_per_second"},
            "online": {"steps", "updates", "steps_per_second"}}; "online" is only read
            if a point is online.
        adaptation: the last result of `adaptation.measure`, name -> [M].
    Returns:
        "env", "physics", "simulator", "dataset", "agent", "members", "offline",
        "online" (if a point is online) and, for a population, "groups": the same
        figures for each hyper-parameter setting. If scores are success rates,
        the mean "return" is included, and if agents infer tasks, "adaptation", means
        over the members with finite weights.
    Raises:
        UserError: the members are not seeds x settings.
    """
    env = config["env"]
    has_scale = curves.success is not None or reference.has_reference(env)
    found = scores(curves, env)
    achieved = by_member(found, curves.phase, has_scale, curves.step)
    if curves.success is not None:  # then the score is not the return
        for phase, figures in achieved.items():
            figures["return"] = mean_return(curves)[curves.phase == phase][-1]
    num_members = curves.returns.shape[1]
    whole = _intervals(achieved, slice(None))
    summary = {
        "env": config["env"],
        "physics": config["physics"],
        "simulator": config["simulator"],
        "dataset": config["dataset"],
        "agent": config["algorithm"],
        "members": num_members,
    }
    for phase, figures in whole.items():
        measured = {name: speeds[phase][name] for name in SPEEDS[phase]}
        summary[phase] = measured | figures
    settings = groups(config, num_members)
    if config["population"]:
        summary["groups"] = [
            {"settings": chosen} | _intervals(achieved, members)
            for chosen, members in settings
        ]
    if adaptation:
        alive = ~np.isnan(curves.returns[-1]).any(axis=1)
        summary["adaptation"] = {
            name: float(np.mean(values, where=alive)) if alive.any() else math.nan
            for name, values in adaptation.items()
        }
    return _without_nan(summary)


def _intervals(achieved: dict, members: slice) -> dict[str, dict[str, Any]]:
    return {
        phase: {name: interval(values[members]) for name, values in figures.items()}
        for phase, figures in achieved.items()
    }


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _without_nan(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_without_nan(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree
