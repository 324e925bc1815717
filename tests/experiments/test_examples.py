"""What a stranger adds from outside: an algorithm, a store, a task and its data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import report, sweep
from experiments import run as command

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = (
    "--config.seeds=2",
    "--config.batch=16",
    "--config.agent.widths=8,8",
    "--config.replay.newest=10",
    "--config.population.bc_weight=0.5,2.0",
    "--config.offline.updates=20",
    "--config.online.steps=40",
    "--config.online.envs=2",
    "--config.eval.episodes=2",
    "--config.eval.every=20",
    "--config.log.every=20",
    "--config.checkpoint.every=20",
)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A stranger's folder, which is no part of the package."""
    folder = tmp_path_factory.mktemp("stranger") / "work"
    shutil.copytree(EXAMPLES, folder)
    return folder


@pytest.fixture(scope="module")
def finished(examples):
    config, workdir = examples / "own.py", examples / "run"
    assert command.main([f"--config={config}", *SMALL, f"--workdir={workdir}"]) == 0
    return workdir


def test_the_three_are_trained_together(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["members"] == 4
    assert [group["settings"] for group in summary["groups"]] == [
        {"bc_weight": 0.5},
        {"bc_weight": 2.0},
    ]
    described = json.loads((finished / "config.json").read_text())
    assert described["replay"]["newest"] == 10
    assert described["physics"] == "mujoco"
    assert set(described["doors"]) == {"algorithm", "env", "dataset", "replay.name"}
    assert all(len(found) == 16 for found in described["doors"].values())


def test_a_run_of_theirs_resumes_to_the_same_numbers(finished, tmp_path, capsys):
    before, again = np.load(finished / "returns.npz"), tmp_path / "again"
    shutil.copytree(finished, again)
    (again / "summary.json").unlink()
    newest = max(int(x.name) for x in (again / "checkpoints").iterdir())
    shutil.rmtree(again / "checkpoints" / str(newest))
    config = finished.parent / "own.py"
    assert command.main([f"--config={config}", *SMALL, f"--workdir={again}"]) == 0
    assert "goes on from" in capsys.readouterr().out
    np.testing.assert_array_equal(
        np.load(again / "returns.npz")["returns"], before["returns"]
    )


def test_a_resumed_run_says_which_file_has_changed(finished, tmp_path, capsys):
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    (again / "summary.json").unlink()
    described = json.loads((again / "config.json").read_text())
    described["doors"]["replay.name"] = "0" * 16  # as if the file had been another
    (again / "config.json").write_text(json.dumps(described))
    config = finished.parent / "own.py"
    assert command.main([f"--config={config}", *SMALL, f"--workdir={again}"]) == 0
    said = capsys.readouterr().out
    assert "the file behind config.replay.name has changed" in said
    assert "behind config.algorithm" not in said


def test_their_runs_are_reported_by_short_names(finished, tmp_path, capsys):
    picture = f"--out={tmp_path / 'a.png'}"
    assert report.main([str(finished), "--markdown", picture]) == 0
    table = capsys.readouterr().out
    assert "layernorm_iql, bc_weight=0.5 | pendulum:random_play" in table
    assert str(finished.parent) not in table.replace(str(tmp_path), "")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_sweep_runs_over_fields_of_theirs(examples, tmp_path, capsys):
    grid = {"agent.gamma": (0.9, 0.99), "replay.newest": (5, 20)}
    path = tmp_path / "grid.py"
    path.write_text(f"def get_sweep():\n    return {grid!r}\n")
    given = [
        f"--sweep={path}",
        f"--config={examples / 'own.py'}",
        *SMALL[:3],
        *SMALL[4:],
    ]
    given += [f"--workdir={tmp_path / 'sweep'}"]
    assert sweep.main([*given, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "gamma=0.9,newest=20" in said
    assert sweep.main([*given, "--trial=1"]) == 0
    [directory] = (tmp_path / "sweep").iterdir()
    assert directory.name == "own,gamma=0.9,newest=20"
    assert (directory / "summary.json").is_file()


@pytest.mark.parametrize(
    "override, sentence",
    [
        ("agent.bc_weight=-1", "config.agent.bc_weight is -1; it must be"),
        ("agent.bc_weigth=1", "did you mean 'agent.bc_weight'"),
        ("replay.newest=0", "config.replay.newest is 0; it must be"),
        ("replay.oldest=3", "did you mean 'replay.newest'"),
        ("population.widths=1,2", "layernorm_iql.py:ALGORITHM traces) 'widths'"),
        ("env={folder}/pendulum.py:XML", "pendulum.py:XML is of type str; it must be"),
        ("env={folder}/pendulum.py:standing", "standing fails with TypeError"),
        ("env={folder}/nowhere.py:env", "nowhere.py: there is no such file"),
        ("algorithm={folder}/pendulum.py:pendulum", "it must be an o2ojax.agents.Algo"),
        ("dataset={folder}/pendulum.py:observe", "observe fails with TypeError"),
        ("dataset={folder}/pendulum.py:XML", "XML gives a str; it must be a function"),
        ("replay.name={folder}/pendulum.py:XML", "o2ojax.replay.store.Store"),
        ("replay.name={folder}/recent_store.py:STORES", "defines no STORES"),
    ],
)
def test_errors_name_their_fields(examples, override, sentence, tmp_path, capsys):
    given = f"--config.{override.format(folder=examples)}"
    config = f"--config={examples / 'own.py'}"
    assert command.main([config, given, f"--workdir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "name, fewer_than",
    [("layernorm_iql.py", 120), ("recent_store.py", 80), ("pendulum.py", 100)],
)
def test_examples_are_short(name, fewer_than):
    assert len((EXAMPLES / name).read_text().splitlines()) < fewer_than
