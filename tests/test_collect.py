"""Datasets by D4RL's protocol, through the public command."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import collect
from o2ojax import data

ROOT = Path(__file__).parents[1]
SMALL = (
    "--config=experiments/configs/collect.py:hopper",
    "--config.agent.widths=16,16",
    "--config.batch=16",
    "--config.seeds=2",
    "--config.online.envs=2",
    "--config.online.steps=400",
    "--config.online.warmup=100",
    "--config.online.until=-1e9",  # the first evaluation
    "--config.eval.every=200",
    "--config.eval.episodes=2",
    "--config.checkpoint.every=200",
    "--config.log.every=100",
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(folder, *options):
    return collect.main(
        [*SMALL, f"--out={folder / 'data'}", f"--workdir={folder / 'runs'}", *options]
    )


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collect")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        kinds = "random,medium-replay,medium-expert"
        assert run(folder, f"--kinds={kinds}", "--rows=500") == 0
    return folder


def rows_of(folder, kind):
    return data.read(folder / "data" / f"hopper-{kind}.npz").transitions


def test_each_kind_has_its_rows(collected):
    assert len(rows_of(collected, "random").reward) == 500
    assert len(rows_of(collected, "medium-expert").reward) == 2 * 500
    # All that one member gathered until its first evaluation.
    assert len(rows_of(collected, "medium-replay").reward) == 200


def test_random_actions_are_uniform(collected):
    action = rows_of(collected, "random").action
    assert np.abs(action.mean()) < 0.06
    np.testing.assert_allclose(action.std(), 1 / np.sqrt(3), rtol=0.05)


def test_a_stream_that_is_cut_goes_on_in_no_other(collected):
    """20 environments one after another: the row after a last row begins anew."""
    rows = rows_of(collected, "random")
    goes_on = ~rows.last[:-1]
    np.testing.assert_array_equal(rows.next_obs[:-1][goes_on], rows.obs[1:][goes_on])
    assert (rows.last & (rows.discount == 1)).sum() >= 1


def test_where_a_dataset_came_from_lies_beside_it(collected):
    path = collected / "data" / "hopper-medium-expert.json"
    provenance = json.loads(path.read_text())
    assert [run["environment_steps"] for run in provenance["runs"]] == [200, 400]
    assert provenance["physics"] == "mujoco"
    assert provenance["rows"] == 1000
    random = json.loads((collected / "data" / "hopper-random.json").read_text())
    assert random["runs"] == []


@pytest.mark.parametrize(
    "option, said",
    [
        ("--kinds=medium,exprt", "did you mean 'expert'"),
        ("--rows=0", "--rows=0; it must be at least 1"),
        ("--subsample=-5", "--subsample=-5; it must be at least 0"),
        ("--config.env=hoper", "did you mean 'hopper'"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(option, said, tmp_path, capsys):
    assert run(tmp_path, option) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
