"""Rank correlations of what critics say with what follows."""

import json

import numpy as np
import pytest
from scipy import stats

from o2ojax.errors import UserError
from o2ojax.report import Result, foretelling
from o2ojax.report.statistics import Curves

RNG = np.random.default_rng(0)


def test_a_correlation_is_spearmans():
    x = RNG.normal(size=30)
    y = np.round(x + RNG.normal(size=30))  # with ties
    found = foretelling.correlation(x, y)
    np.testing.assert_allclose(found["iqm"], stats.spearmanr(x, y).statistic)
    low, high = found["ci95"]
    assert low < found["iqm"] < high and 0.2 < high - low < 0.8


def test_what_never_varies_foretells_nothing():
    found = foretelling.correlation(np.ones(9), RNG.normal(size=9))
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
    assert lines[0] == "| figure | members | dip | regret |"
    name, members, dip, regret = lines[2].strip("| ").split(" | ")
    assert (name, members) == ("q", "4")  # the one of NaN is left out
    assert dip.startswith("1.00") and regret.startswith("1.00")


def test_few_members_tell_nothing(tmp_path):
    with pytest.raises(UserError, match="2 members .* at least four"):
        foretelling.table([run(tmp_path / "a", [1.0, 2.0], [1.0, 2.0])])
