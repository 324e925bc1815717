"""The study of Off2OnRL: what it runs, and what it makes of the runs."""

import ast
import dataclasses
from pathlib import Path

import pytest

from experiments import run as command
from experiments import study
from experiments.configs import (
    field_study,
    fowm_pixels_study,
    fowm_study,
    length_study,
    off2on_pixels_study,
    off2on_study,
)
from o2ojax.run.resolve import resolve
from tests.report.test_report import config, curves, is_png, write_run


@pytest.mark.parametrize("dataset", off2on_study.DATASETS)
@pytest.mark.parametrize("method", off2on_study.NAMES)
def test_every_method_has_a_config_that_stands(method, dataset):
    found = off2on_study.get_config(f"{method}/{dataset}")
    if method in off2on_study.STARTS_FROM:
        found.offline["from"] = "runs/some"
    resolve(found)
    goes_online = method not in off2on_study.OFFLINE
    assert found.online.steps == (25_000 if goes_online else 0)
    learns_offline = method not in (*off2on_study.STARTS_FROM, "sac")
    long = dataset.endswith("-medium") and method != "bcq"
    updates = 200_000 if long else 50_000
    assert found.offline.updates == (updates if learns_offline else 0)
    assert (found.batch, found.seeds) == (256, 3)


@pytest.mark.parametrize("env", ["hopper", "halfcheetah"])
def test_the_study_of_lengths_has_the_same_cql_agents(env):
    here, there = (
        resolve(each.get_config(f"cql/{env}-medium")).described()
        for each in (off2on_study, length_study)
    )
    assert here.pop("checkpoint") != there.pop("checkpoint")
    assert here == there


def test_what_tells_the_methods_apart():
    found = {
        method: off2on_study.get_config(f"{method}/hopper-random")
        for method in off2on_study.NAMES
    }
    stores = {method: found[method].replay.name for method in off2on_study.NAMES}
    assert stores["off2on"] == stores["off2on-1"] == "balanced"
    assert stores["off2on-uniform"] == stores["sac-ft"] == stores["awac"] == "uniform"
    assert stores["sac-ft-online"] == stores["sac"] == "online"
    assert found["off2on"].agent.num_agents == found["cql"].agent.num_agents == 5
    assert found["off2on-1"].agent.num_agents == 1
    assert found["sac"].dataset == "" and found["sac"].env == "hopper"


@pytest.mark.parametrize("dataset", field_study.DATASETS)
@pytest.mark.parametrize("method", field_study.NAMES)
def test_every_method_of_the_field_has_a_config_that_stands(method, dataset):
    found = resolve(field_study.get_config(f"{method}/{dataset}"))
    goes_online = method not in field_study.OFFLINE
    assert found.online.steps == (10_000 if goes_online else 0)
    learns_offline = method not in field_study.FROM_SCRATCH
    assert found.offline.updates == (50_000 if learns_offline else 0)
    assert (found.batch, len(found.seeds)) == (256, 4)
    assert bool(found.dataset) == (method != "sac")
    assert found.env.startswith(dataset.split("-")[0].replace("door", "gymnasium:"))


@pytest.mark.parametrize("dataset", field_study.DATASETS)
def test_a_lower_bound_is_all_that_tells_cal_ql_from_cql(dataset):
    cql, cal_ql = (
        resolve(field_study.get_config(f"{name}/{dataset}"))
        for name in ("cql", "cal_ql")
    )
    assert cal_ql.agent.calibrate and not cql.agent.calibrate
    assert cql == dataclasses.replace(
        cal_ql, agent=dataclasses.replace(cal_ql.agent, calibrate=False)
    )


def test_an_unknown_method_is_refused_before_anything_runs(capsys):
    assert study.main(["off2on", "--methods=off2on,sca"]) == 2
    assert "sca" in capsys.readouterr().err


def test_a_method_that_a_dataset_does_not_have_is_refused(capsys):
    on = f"--datasets={fowm_study.LARGE}"
    assert study.main(["fowm", on, "--methods=iql"]) == 2
    error = capsys.readouterr().err
    assert "unknown method 'iql'. Known: fowm, fowm-offline, fowm-uniform" in error


def test_a_run_that_fails_ends_the_study(monkeypatch, tmp_path):
    seen = []

    def main(arguments):
        seen.append(arguments)
        return 1

    monkeypatch.setattr(command, "main", main)
    options = [
        "off2on",
        "--datasets=hopper-random",
        f"--workdir={tmp_path}",
        "--config.seeds=2",
    ]
    assert study.main([*options, "--methods=cql,off2on"]) == 1
    [[first, override, workdir]] = seen
    assert first.endswith("off2on_study.py:cql/hopper-random")
    assert override == "--config.seeds=2"
    assert workdir == f"--workdir={tmp_path / 'hopper-random' / 'cql'}"


def test_all_runs_end_in_figures_and_tables(monkeypatch, tmp_path):
    """CQL is trained once for all that start from it; the tables say who got where."""
    started_from = {}

    def main(arguments):
        given = dict(argument.split("=", 1) for argument in arguments)
        method, _, dataset = given["--config"].rpartition(":")[2].partition("/")
        started_from[method] = given.get("--config.offline.from")
        score = 10.0 * len(started_from)
        online = [] if method in off2on_study.OFFLINE else [[score + 5] * 2]
        run = tmp_path / dataset / method
        run.parent.mkdir(exist_ok=True)
        write_run(
            run,
            config(dataset=dataset, algorithm=method.split("-")[0]),
            curves([[score] * 2], online),
        )
        return 0

    monkeypatch.setattr(command, "main", main)
    arguments = ["off2on", f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert study.main([*arguments, "--datasets=counter-a"]) == 0
    cql = str(tmp_path / "counter-a" / "cql")
    assert {method for method, run in started_from.items() if run == cql} == set(
        off2on_study.STARTS_FROM
    )
    assert is_png(tmp_path / "out" / "counter-a.png")
    table = (tmp_path / "out" / "table.md").read_text()
    at = {method: 10.0 * (1 + i) for i, method in enumerate(off2on_study.NAMES)}
    online, offline = table.split("## Offline scores")
    for method in set(off2on_study.NAMES) - set(off2on_study.OFFLINE):
        [row] = [row for row in online.splitlines() if row.startswith(f"| {method} |")]
        assert f"{at[method] + 5:.1f} [" in row
    assert "Not run" not in table
    for agent, method in off2on_study.AFTER_OFFLINE.items():
        [row] = [row for row in offline.splitlines() if row.startswith(f"| {agent} |")]
        assert f"{at[method]:.1f} [" in row

    # what has not ended is named, and the rest is shown
    (tmp_path / "counter-a" / "bcq" / "summary.json").unlink()
    monkeypatch.setattr(command, "main", None)  # nothing is run
    assert study.main([*arguments, "--datasets=counter-a", "--report"]) == 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert "Not run to its end: bcq." in table
    assert "| bcq |" not in table and "| bcq | - |" not in table
    assert "| awac | " in table


def test_seeds_are_run_apart_and_shown_together(monkeypatch, tmp_path, capsys):
    asked = {}

    def main(arguments):
        given = dict(argument.split("=", 1) for argument in arguments)
        run = Path(given["--workdir"])
        seeds = ast.literal_eval(given.get("--config.seeds", "(0, 1)"))
        asked[run.name, seeds] = given.get("--config.offline.from")
        run.parent.mkdir(parents=True, exist_ok=True)
        scores = [[10.0 + seed for seed in seeds]]
        online = [] if run.name == "cql" else scores
        if run.exists():
            return 0
        lengths = {"offline": {"updates": 1}, "online": {"steps": 1}, "agent": {}}
        write_run(run, config(seeds=list(seeds), **lengths), curves(scores, online))
        return 0

    monkeypatch.setattr(command, "main", main)
    options = ["off2on", "--datasets=counter-a", f"--workdir={tmp_path}"]
    both = "--methods=cql,off2on"
    assert study.main([*options, both]) == 0
    assert study.main([*options, both, "--seeds=2,5"]) == 0
    there = tmp_path / "counter-a" / "seeds-2-5"
    assert asked["off2on", (2, 5)] == str(there / "cql")
    assert study.main([*options, "--methods=sac", "--seeds=5"]) == 0
    assert study.main([*options, f"{both},sac", "--report"]) == 0
    table = (tmp_path / "table.md").read_text()
    [row] = [row for row in table.splitlines() if row.startswith("| off2on |")]
    assert row.split("|")[3].strip() == "4"
    assert "Of fewer seeds: sac (1 of 4)." in table

    # what has been run is not run again, not even what stands before it
    asked.clear()
    assert study.main([*options, "--methods=bc,off2on", "--seeds=4,5"]) == 2
    assert "seed 5 of off2on is one of the run in" in capsys.readouterr().err
    assert study.main([*options, "--methods=sac", "--config.seeds=6"]) == 2
    (there / "off2on" / "summary.json").unlink()  # begun, and not ended
    assert study.main([*options, both, "--seeds=5"]) == 2
    assert not asked
    assert study.main([*options, both, "--seeds=2,5"]) == 0  # goes on with it


@pytest.mark.parametrize("seeds", ["a", "3,3", "-1", "", "1.5"])
def test_seeds_that_are_none_are_refused(seeds, capsys):
    with pytest.raises(SystemExit):
        study.main(["off2on", f"--seeds={seeds}"])
    assert "give different seeds, as 3,4" in capsys.readouterr().err


def test_settings_are_no_seeds(tmp_path):
    folder = tmp_path / "counter-a"
    folder.mkdir()
    settings = config(seeds=[0], population={"penalty": [0.1, 1.0]})
    write_run(folder / "fowm-lambdas", settings, curves([[1, 2]], [[3, 4]]))
    write_run(folder / "fowm", config(seeds=[0]), curves([[1]], [[3]]))
    options = ["fowm", "--datasets=counter-a", "--methods=fowm-lambdas,fowm"]
    assert study.main([*options, f"--workdir={tmp_path}", "--report"]) == 0
    assert "Of fewer seeds" not in (tmp_path / "table.md").read_text()


def test_the_study_of_lengths_draws_how_far_agents_fall(monkeypatch, tmp_path):
    for name in ("balanced-20k", "balanced-200k", "online-50k"):
        run = tmp_path / "hopper-medium" / "seeds-1" / name
        run.parent.mkdir(parents=True, exist_ok=True)
        write_run(run, config(seeds=[1]), curves([[30]], [[20]]))
    drawn = {}
    monkeypatch.setattr(study.falls, "draw", lambda runs, path: drawn.update(runs))
    options = ["length", f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert study.main([*options, "--datasets=hopper-medium", "--report"]) == 0
    names = {
        (store, updates): [Path(run.name).name for run in runs]
        for store, lengths in drawn.items()
        for updates, runs in lengths.items()
    }
    assert names.pop(("balanced", 20_000)) == ["balanced-20k"]
    assert names.pop(("balanced", 200_000)) == ["balanced-200k"]
    assert names.pop(("online", 50_000)) == ["online-50k"]
    assert len(names) == 9 and not any(names.values())


@pytest.mark.parametrize(
    "dataset, method",
    [
        (dataset, method)
        for dataset in fowm_study.DATASETS
        for method in study.methods_of(fowm_study, dataset)
    ],
)
def test_every_method_of_fowms_study_has_a_config_that_stands(method, dataset):
    found = fowm_study.get_config(f"{method}/{dataset}")
    if method in fowm_study.STARTS_FROM:
        found.offline["from"] = "runs/some"
    resolve(found)
    starved, on_lift = dataset == fowm_study.LARGE, dataset.startswith("lift")
    steps = 2_500 if starved else 5_000
    assert found.offline.updates == (0 if method in fowm_study.STARTS_FROM else 15_000)
    assert found.online.steps == (0 if method == "fowm-offline" else steps)
    assert (found.batch, found.seeds) == (128, 8 if on_lift else 4)
    assert starved == (found.dataset == "datasets/lift-medium-replay.npz")


def test_a_study_may_have_few_methods_on_a_dataset():
    starved = study.methods_of(fowm_study, fowm_study.LARGE)
    assert set(starved) == {"fowm-offline", "fowm", "fowm-uniform"}
    assert study.methods_of(fowm_study, "push-medium-replay") == fowm_study.NAMES


def test_what_tells_fowms_ablations_apart():
    found = {
        method: fowm_study.get_config(f"{method}/lift-medium-replay")
        for method in fowm_study.NAMES
    }
    assert (
        found["fowm"].agent.penalty == 1 and found["fowm-lambda-0"].agent.penalty == 0
    )
    assert found["fowm"].replay.name == found["tdmpc"].replay.name
    assert found["fowm"].replay.name == "symmetric_windows"
    assert found["fowm-uniform"].replay.name == "uniform_windows"
    assert found["iql"].replay.name == "uniform"
    assert found["fowm"].agent.in_sample and not found["tdmpc"].agent.in_sample
    assert {0.0, 1.0} < set(found["fowm-lambdas"].population.penalty)
    for shared in ("gamma", "expectile"):
        assert found["iql"].agent[shared] == found["fowm"].agent[shared]
    assert found["iql"].reward.scale == found["fowm"].reward.scale == 1


def test_a_sweep_has_a_figure_of_its_own(tmp_path):
    dataset = "counter-a"
    (tmp_path / dataset).mkdir()
    plain = config(dataset=dataset, algorithm="fowm")
    write_run(tmp_path / dataset / "fowm", plain, curves([[1, 1]], [[2, 2]]))
    swept = plain | {"seeds": 1, "population": {"penalty": [0.0, 1.0]}}
    write_run(tmp_path / dataset / "fowm-lambdas", swept, curves([[1, 1]], [[2, 9]]))
    out = tmp_path / "out"
    given = ["fowm", "--report", f"--workdir={tmp_path}", f"--out={out}"]
    assert study.main([*given, f"--datasets={dataset}"]) == 0
    assert is_png(out / "counter-a.png") and is_png(out / "counter-a-fowm-lambdas.png")
    table = (out / "table.md").read_text()
    assert "| fowm-lambdas, penalty=1.0 |" in table


def test_nothing_is_shown_of_nothing(tmp_path, capsys):
    given = ["fowm", "--report", f"--workdir={tmp_path}", "--datasets=lift"]
    assert study.main(given) == 2
    assert "no run of lift has ended" in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()


PIXELS = [
    (study, method)
    for study in (fowm_pixels_study, off2on_pixels_study)
    for method in study.NAMES
]


@pytest.mark.parametrize(("module", "method"), PIXELS)
def test_every_method_sees_pictures(module, method):
    found = resolve(module.get_config(f"{method}/{module.DATASETS[0]}"))
    assert found.env.endswith("-pixels") and hasattr(found.agent, "shift")
    assert found.pixels.size == module.SIZE and found.batch == 64
    algorithm = method.split("-")[0]
    assert found.algorithm == {"cql": "off2on"}.get(algorithm, algorithm)
    assert found.dataset == f"datasets/{module.DATASETS[0]}.npz"
    learns_offline = method not in module.STARTS_FROM
    assert (found.offline.updates, found.online.steps > 0) == (
        5_000 if learns_offline else 0,
        method not in (*module.OFFLINE, "fowm-offline"),
    )
