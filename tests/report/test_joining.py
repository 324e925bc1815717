"""Runs of other seeds are joined to what one run of all of them would have shown."""

import csv
import io
import json

import numpy as np
import pytest

from experiments.report import main
from o2ojax import report
from o2ojax.errors import UserError
from o2ojax.report import statistics
from o2ojax.report.joining import join
from o2ojax.report.statistics import Curves
from o2ojax.run import readiness
from tests.report.test_report import SPEEDS, config, curves, write_run

POPULATION = {"lr": [0.1, 0.2]}


def some(num_members, seed=0, success=False):
    """Curves of two points offline and two online, three episodes each."""
    draw = np.random.default_rng(seed)
    shape = 4, num_members, 3
    returns = draw.normal(30, 20, shape).astype(np.float32)
    done = draw.integers(0, 2, shape).astype(np.float32) if success else None
    phase = np.array(["offline"] * 2 + ["online"] * 2)
    return Curves(returns, phase, np.array([0, 100, 50, 100]), done)


def fewer_episodes():
    shown = some(1)
    return shown._replace(returns=shown.returns[:, :, :2])


def cut(whole, members):
    success = None if whole.success is None else whole.success[:, members]
    return whole._replace(returns=whole.returns[:, members], success=success)


@pytest.mark.parametrize("success", [False, True])
def test_two_parts_are_as_one_run(tmp_path, success):
    whole = some(3, success=success)
    parts = [
        write_run(tmp_path / "a", config(seeds=[0, 1]), cut(whole, [0, 1])),
        write_run(tmp_path / "b", config(seeds=[4]), cut(whole, [2])),
    ]
    found = join([report.read(part) for part in parts])
    wanted = statistics.summarise(config(seeds=[0, 1, 4]), whole, SPEEDS)
    for figures in (found.summary, wanted):
        figures["online"].pop("steps_per_second")
    assert found.summary == wanted
    assert found.config["seeds"] == [0, 1, 4]
    np.testing.assert_array_equal(found.curves.returns, whole.returns)


def test_settings_stay_the_outer_loop(tmp_path):
    whole = some(6)  # two settings of three seeds
    first = config(seeds=[0, 1], population=POPULATION)
    parts = [
        write_run(tmp_path / "a", first, cut(whole, [0, 1, 3, 4])),
        write_run(tmp_path / "b", first | {"seeds": [2]}, cut(whole, [2, 5])),
    ]
    found = join([report.read(part) for part in parts])
    np.testing.assert_array_equal(found.curves.returns, whole.returns)
    asked = config(seeds=[0, 1, 2], population=POPULATION)
    wanted = statistics.summarise(asked, whole, SPEEDS)
    assert found.summary["groups"] == wanted["groups"]


def test_speeds_are_those_of_one_part_after_another(tmp_path):
    parts = []
    for name, seeds, rate in (("a", [0, 1], 40.0), ("b", [2], 10.0)):
        run = write_run(tmp_path / name, config(seeds=seeds), some(len(seeds)))
        parts.append(report.read(run))
        parts[-1].summary["offline"]["updates_per_second"] = rate
        parts[-1].summary["online"]["steps_per_second"] = None
    summary = join(parts).summary
    # 200 updates of two members at 40/s, then of one at 10/s: 600 in 30 s
    assert summary["offline"]["updates_per_second"] == pytest.approx(20.0)
    assert summary["online"]["steps_per_second"] == 0.0
    assert summary["online"]["steps"] == 100


def test_what_critics_said_is_joined_where_all_of_it_is_known(tmp_path):
    told = {
        name: [float(i), float(i) + 0.5, float(i) + 2.0]
        for i, name in enumerate(readiness.FIGURES)
    }
    parts = []
    for name, seeds in (("a", [0, 1]), ("b", [2])):
        run = write_run(tmp_path / name, config(seeds=seeds), some(len(seeds)))
        line = {f"readiness_{key}": [told[key][at] for at in seeds] for key in told}
        (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        parts.append(report.read(run))
    assert join(parts).summary["readiness"] == readiness.summarise(told)
    (tmp_path / "b" / "metrics.jsonl").unlink()
    assert "readiness" not in join(parts).summary


def test_a_member_that_died_is_left_out_of_what_critics_said(tmp_path):
    parts = []
    for seed, value in ((0, 1.0), (1, None), (2, 3.0)):
        run = write_run(tmp_path / str(seed), config(seeds=[seed]), some(1))
        line = {f"readiness_{name}": [value] for name in readiness.FIGURES}
        text = json.dumps(line) + '\n{"readiness_q": [1'  # a line that was cut
        (run / "metrics.jsonl").write_text(text)
        parts.append(report.read(run))
    assert join(parts).summary["readiness"]["q"]["iqm"] == 2.0


def test_adaptation_is_of_the_members_that_live(tmp_path):
    """Of two settings; the second run's member of the first setting has died."""
    parts = []
    for seed, shift in ((0, 10.0), (1, 40.0)):
        shown = some(2, seed)
        if seed:
            shown.returns[:, 0] = np.nan
        asked = config(seeds=[seed], population=POPULATION)
        parts.append(report.read(write_run(tmp_path / str(seed), asked, shown)))
        parts[-1].summary["adaptation"] = {"z_shift": shift}
    assert join(parts).summary["adaptation"] == {"z_shift": pytest.approx(20.0)}
    parts[0].summary["adaptation"]["z_shift"] = None  # all had died
    parts[0].curves.returns[:] = np.nan
    assert join(parts).summary["adaptation"] == {"z_shift": pytest.approx(40.0)}


def test_a_run_that_tells_no_speed_does_not_count_for_it(tmp_path):
    parts = [
        report.read(write_run(tmp_path / str(seed), config(seeds=[seed]), some(1)))
        for seed in (0, 1)
    ]
    parts[0].summary["offline"]["updates_per_second"] = None
    parts[1].summary["offline"]["updates_per_second"] = 10.0
    assert join(parts).summary["offline"]["updates_per_second"] == pytest.approx(10.0)


def test_runs_that_stayed_offline_are_joined(tmp_path):
    parts = [
        write_run(tmp_path / str(seed), config(seeds=[seed]), curves([[seed]]))
        for seed in (3, 5)
    ]
    summary = join([report.read(part) for part in parts]).summary
    assert summary["offline"]["score"]["iqm"] == 4 and "online" not in summary


def test_where_a_run_was_made_and_fields_newer_than_it_do_not_matter(tmp_path):
    here = config(seeds=[0], dataset="datasets/h.npz", agent={"lr": 1, "new": 2})
    there = config(seeds=[1], dataset="/data/h.npz", agent={"lr": 1}) | {"pixels": {}}
    parts = [
        report.read(write_run(tmp_path / "a", here, some(1))),
        report.read(write_run(tmp_path / "b", there, some(1))),
    ]
    assert join(parts).config["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("fields", "shown", "told"),
    [
        ({"seeds": [1, 2]}, some(2), "both have seed 1"),
        ({"seeds": [2], "batch": 64}, some(1), "batch: 32 -> 64"),
        ({"seeds": [2]}, curves([[50]], [[40]]), "not judged after the same steps"),
        ({"seeds": [2]}, some(1, success=True), "one of them tells no success"),
        ({"seeds": [2]}, fewer_episodes(), "not judged after the same steps"),
    ],
)
def test_what_is_no_part_of_the_same_is_refused(tmp_path, fields, shown, told):
    known = config(seeds=[0, 1], batch=32, offline={"from": "runs/here/cql@20"})
    there = {"offline": {"from": "runs/there/cql@20"}, "commit": "of another day"}
    parts = [
        write_run(tmp_path / "a", known, some(2)),
        write_run(tmp_path / "b", known | there | fields, shown),
    ]
    with pytest.raises(UserError, match=told):
        join([report.read(part) for part in parts])


def test_a_run_by_itself_stays_what_it_is(tmp_path):
    run = report.read(write_run(tmp_path / "a", config(seeds=[3]), some(1)))
    assert join([run]) is run


@pytest.mark.parametrize("seeds", ["01", {"a": 1}, [7, 7], [0.5], [], 0, True])
def test_seeds_that_no_run_has_are_told(tmp_path, seeds):
    run = write_run(tmp_path / "a", config(seeds=[0]), some(1))
    (run / "config.json").write_text(json.dumps(config(seeds=seeds)))
    with pytest.raises(UserError, match="config.json is damaged: seeds must be"):
        report.read(run)


def test_a_summary_that_no_run_wrote_is_told(tmp_path):
    parts = [
        report.read(write_run(tmp_path / str(seed), config(seeds=[seed]), some(1)))
        for seed in (0, 1)
    ]
    del parts[1].summary["online"]
    with pytest.raises(UserError, match="summary.json is not as a run writes it"):
        join(parts)


def test_agents_are_joined_each_by_itself(tmp_path, capsys):
    runs = [
        write_run(
            tmp_path / f"{name}-{seed}",
            config(seeds=[seed], algorithm="sac", batch=batch),
            some(1, seed),
        )
        for name, batch in (("small", 32), ("large", 64))
        for seed in (0, 1)
    ]
    assert main([*map(str, runs), "--csv", "--join"]) == 2
    assert "batch: 32 -> 64" in capsys.readouterr().err
    named = [f"{run.name.partition('-')[0]}={run}" for run in runs]
    out = f"--out={tmp_path / 'curves.png'}"
    assert main([*named, "--csv", "--join", out]) == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    told = [(row["agent"], row["members"]) for row in rows]
    assert told == [("small", "2"), ("large", "2")]


def test_the_command_shows_one_row(tmp_path, capsys):
    runs = [
        str(write_run(tmp_path / str(seed), config(seeds=[seed]), some(1, seed)))
        for seed in (0, 7)
    ]
    out = f"--out={tmp_path / 'curves.png'}"
    assert main([*runs, "--csv", out]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main([*runs, "--csv", "--join", out]) == 0
    head, row = (line.split(",") for line in capsys.readouterr().out.splitlines())
    assert row[head.index("members")] == "2"
