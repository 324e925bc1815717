"""What the figure of falls shows: estimates against updates, members by readiness."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from o2ojax import report
from o2ojax.errors import UserError
from o2ojax.report import falls, statistics
from tests.report.test_report import config, curves, is_png, write_run


def hand_over(directory, seeds, offline, online, gap):
    """A run of which one point is offline and two are online."""
    shown = curves([offline], [online, offline])
    run = write_run(directory, config(seeds=list(seeds)), shown)
    (run / "metrics.jsonl").write_text(json.dumps({"readiness_gap_uniform": gap}))
    return report.read(run)


@pytest.fixture
def shown(monkeypatch):
    """The figure that was written last."""
    seen, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, *a, **k: seen.append(self) or save(self, *a, **k),
    )
    return seen


def test_parts_count_as_one_and_every_member_is_a_point(tmp_path, shown):
    early = [
        hand_over(tmp_path / "a", [0, 1], [30, 40], [10, 30], [0.1, 0.2]),
        hand_over(tmp_path / "b", [2], [50], [20], [0.3]),
    ]
    late = [hand_over(tmp_path / "c", [0, 1, 2], [30, 40, 50], [30, 39, 48], [4, 5, 6])]
    other = [hand_over(tmp_path / "d", [0], [30], [29], [None])]  # without a figure
    runs = {"balanced": {20_000: early, 200_000: late}, "uniform": {50_000: other}}
    falls.draw(runs, tmp_path / "falls.png")
    assert is_png(tmp_path / "falls.png")

    lengths, members, regrets, _ = shown[-1].axes
    told = [tick.get_text() for tick in lengths.get_xticklabels()]
    assert told == ["20k", "50k", "200k"]
    line, _ = lengths.get_lines()
    dips = [20, 10, 30], [0, 1, 2]
    iqm = [statistics.interval(np.float64(dip))["iqm"] for dip in dips]
    np.testing.assert_array_equal(line.get_xdata(), [20_000, 200_000])
    np.testing.assert_allclose(line.get_ydata(), iqm)
    assert regrets.get_lines()
    [points] = members.get_lines()
    np.testing.assert_allclose(points.get_xdata(), [0.1, 0.2, 0.3, 4, 5, 6])
    np.testing.assert_allclose(points.get_ydata(), [20, 10, 30, 0, 1, 2])
    # ranks 1 to 6 beside 5, 4, 6, 1, 2, 3: 1 - 6 * 56 / (6 * 35)
    assert members.get_title(loc="right").startswith("rank correlation -0.60 [")


def test_agents_that_stayed_offline_have_not_fallen(tmp_path):
    run = write_run(tmp_path / "a", config(), curves([[1, 2]]))
    with pytest.raises(UserError, match="have gone online"):
        falls.draw({"balanced": {1000: [report.read(run)]}}, tmp_path / "f.png")
