"""Aggregates over tasks, beside rliable's figures, and the command that prints them.

rliable 1.2.0's were computed once, in an environment of its own, as it does not import
beside pandas 3: `aggregate_iqm` and `aggregate_optimality_gap` (of scores over 100,
times 100), `probability_of_improvement`, `run_score_deviation` at 40, 60 and 80, and
intervals of 20,000 replications (5,000 of the third).
"""

import numpy as np
import pytest
from test_report import config, curves, write_run

from experiments.report import main
from o2ojax.report import aggregates

DRAWN = np.random.default_rng(5)
OURS = {"run": DRAWN.normal(70, 25, 6), "jump": DRAWN.normal(50, 10, 6)}
THEIRS = {"run": DRAWN.normal(55, 25, 6), "jump": DRAWN.normal(48, 10, 6)}


RLIABLE = [55.796529, 41.404661, 0.708333, 0.833333, 0.416667, 0.166667]
RLIABLE_INTERVALS = [[45.5258, 66.3950], [32.6205, 50.2519], [0.4861, 0.9031]]


def test_the_figures_are_rliables():
    found = [
        aggregates.iqm(OURS),
        aggregates.optimality_gap(OURS),
        aggregates.improvement(OURS, THEIRS),
        *aggregates.profile(OURS, np.array([40.0, 60.0, 80.0])),
    ]
    np.testing.assert_allclose(found, RLIABLE, rtol=1e-5)


def test_the_intervals_are_rliables():
    found = [
        aggregates.interval(aggregates.iqm, OURS),
        aggregates.interval(aggregates.optimality_gap, OURS),
        aggregates.interval(aggregates.improvement, OURS, THEIRS),
    ]
    np.testing.assert_allclose(found, RLIABLE_INTERVALS, rtol=0.03)


def test_equal_scores_win_half():
    assert aggregates.improvement(OURS, OURS) == 0.5


def run(folder, name, scores, **fields):
    final = np.float32(scores)[None]
    return str(write_run(folder / name, config(**fields), curves(final)))


def four(folder):
    return [
        run(folder, "a", [10, 20], env="hopper", dataset="hopper-random"),
        run(folder, "b", [30, 50], env="halfcheetah", dataset="halfcheetah-random"),
        run(folder, "c", [5, 5], env="hopper", dataset="hopper-random", algorithm="bc"),
        run(
            folder,
            "d",
            [20, 10],
            env="halfcheetah",
            dataset="halfcheetah-random",
            algorithm="bc",
        ),
    ]


def test_methods_are_compared_over_tasks(tmp_path, capsys):
    picture = tmp_path / "profiles.svg"
    assert main([*four(tmp_path), "--aggregate", f"--out={picture}"]) == 0
    said = capsys.readouterr().out
    assert "| method | runs | IQM | optimality gap | P(better than iql) |" in said
    lines = [line for line in said.splitlines() if line.startswith(("| iql", "| bc"))]
    assert [line.split(" | ")[1] for line in lines] == ["4", "4"]
    assert lines[1].rstrip(" |").endswith("0.00 [0.00, 0.00]")  # on either task
    assert picture.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    "fewer, said",
    [
        (slice(0, 3), "no run of bc on halfcheetah, halfcheetah-random: methods are"),
        ([0, 1, 0], "is a second run of iql on hopper, hopper-random; give one of e"),
    ],
)
def test_what_cannot_be_compared_is_refused(fewer, said, tmp_path, capsys):
    runs = np.array(four(tmp_path))[fewer]
    assert main([*runs, "--aggregate", f"--out={tmp_path / 'x.png'}"]) == 2
    assert said in capsys.readouterr().err


def test_runs_may_have_names_of_their_own_and_the_dead_are_counted(tmp_path, capsys):
    told = dict(env="hopper", dataset="hopper-random")
    one = run(tmp_path, "a", [10, np.nan], **told)
    two = run(tmp_path, "b", [30, 50], **told)
    given = [f"uniform={one}", f"balanced={two}"]
    assert main([*given, "--aggregate", f"--out={tmp_path / 'x.png'}"]) == 0
    said = capsys.readouterr().out
    assert "| uniform | 1 (1 died) |" in said and "| balanced | 2 |" in said


def test_tasks_without_a_common_scale_are_refused(tmp_path, capsys):
    runs = [
        run(tmp_path, "a", [1, 2], env="counter", dataset="x"),
        run(tmp_path, "b", [1, 2], env="hopper", dataset="y"),
    ]
    assert main([*runs, "--aggregate", f"--out={tmp_path / 'x.png'}"]) == 2
    assert (
        "returns of counter have no scale that other tasks" in capsys.readouterr().err
    )
