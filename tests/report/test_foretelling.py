"""Rank correlations of what critics say with what follows."""

import json

import numpy as np
import pytest
from scipy import stats

from o2ojax.errors import UserError
from o2ojax.report import Result, foretelling
from o2ojax.report.statistics import Curves

RNG = np.random.default_rng(0)


def points(x, y, task="", agents=None):
    """Members of one task; each is an agent of its own, or as told."""
    agents = range(len(x)) if agents is None else agents
    told = zip(x, y, agents, strict=True)
    return [
        foretelling.Point(task, {"q": q, "agent": agent}, {"dip": dip})
        for q, dip, agent in told
    ]


def test_a_correlation_is_spearmans():
    x = RNG.normal(size=30)
    y = np.round(x + RNG.normal(size=30))  # with ties
    found = foretelling.correlation(points(x, y), "q", "dip")
    np.testing.assert_allclose(found["iqm"], stats.spearmanr(x, y).statistic)
    low, high = found["ci95"]
    assert low < found["iqm"] < high and 0.2 < high - low < 0.8


def test_what_tells_tasks_apart_counts_for_nothing():
    x = RNG.normal(size=(2, 200))
    y = RNG.normal(size=(2, 200))
    apart = np.array([[0.0], [9.0]])
    pairs = zip(x + apart, y + apart, strict=True)
    both = [points(*each, str(n)) for n, each in enumerate(pairs)]
    assert abs(foretelling.correlation(sum(both, []), "q", "dip")["iqm"]) < 0.15


def test_members_that_began_as_the_same_agent_are_drawn_together():
    x, y = RNG.normal(size=(2, 12))
    alone = foretelling.correlation(points(x, y), "q", "dip")
    ten = np.repeat([x, y, np.arange(12)], 10, axis=1)
    found = foretelling.correlation(points(*ten[:2], agents=ten[2]), "q", "dip")
    np.testing.assert_allclose(found["iqm"], alone["iqm"])
    np.testing.assert_allclose(found["ci95"], alone["ci95"], atol=0.02)


def test_what_never_varies_foretells_nothing():
    found = foretelling.correlation(points(np.ones(9), RNG.normal(size=9)), "q", "dip")
    assert np.isnan(found["iqm"])


def run(path, q, falls):
    """A run whose members fall by so much from a score of 50."""
    returns = np.stack([np.full(len(q), 50.0), 50.0 - np.asarray(falls)])[..., None]
    path.mkdir()
    lines = [
        {"phase": "offline", "step": 1, "readiness_q": [0.0] * len(q)},
        {"phase": "offline", "step": 2, "readiness_q": q},
        {"phase": "online", "step": 1, "score": [0.0] * len(q)},
    ]
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    curves = Curves(returns, np.array(["offline", "online"]), np.array([2, 1]))
    return Result(str(path), {"env": "halfcheetah"}, curves, {})


def test_members_of_all_runs_are_points(tmp_path):
    results = [
        run(tmp_path / "a", [1.0, 2.0, np.nan], [10.0, 20.0, 5.0]),
        run(tmp_path / "b", [3.0, 4.0], [30.0, 40.0]),
    ]
    lines = foretelling.table(results).splitlines()
    assert lines[0] == "| figure | members | agents | dip | lost | regret |"
    name, members, agents, *came = lines[2].strip("| ").split(" | ")
    assert (name, members, agents) == ("q", "4", "4")  # the one of NaN is left out
    assert all(each.startswith("1.00") for each in came)


def test_the_share_that_is_lost_needs_a_score_above_zero(tmp_path):
    result = run(tmp_path / "a", [1.0, 2.0], [10.0, 20.0])
    result.curves.returns[0, 1] = -300.0  # a score below 0, and no fall from there
    with_share, without = foretelling.members_of(result)
    score = 100 * (50 + 280.178953) / (12135 + 280.178953)
    np.testing.assert_allclose(
        with_share.came["lost"] * score, with_share.came["dip"], rtol=1e-6
    )
    assert without.came["dip"] == 0 and "lost" not in without.came


def test_few_members_tell_nothing(tmp_path):
    with pytest.raises(UserError, match="at least four members .* these runs have 2"):
        foretelling.table([run(tmp_path / "a", [1.0, 2.0], [1.0, 2.0])])
