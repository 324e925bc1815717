"""Data of any environment by any policy, as `collect --policy` writes them."""

from pathlib import Path

import numpy as np
import pytest

from experiments.collect import main
from o2ojax.data import read

ROOT = Path(__file__).parents[2]
WALK = f"{ROOT / 'tests' / 'envs' / 'hosted.py'}:Walk"


def collect(out, *others, env=WALK):
    return main(
        [
            "--config=sac",
            f"--config.env={env}",
            "--config.dataset=",
            "--config.replay.name=online",
            "--config.offline.updates=0",
            "--config.online.envs=3",
            f"--file={out}",
            "--rows=100",
            *(["--config.horizon=20"] if env == WALK else []),
            *others,
        ]
    )


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_a_random_policy_fills_a_file_in_the_environments_units(suffix, tmp_path):
    out = tmp_path / f"walk.{suffix}"
    assert collect(out, "--policy=random") == 0
    rows = read(out, action_bounds=(-2.0, 2.0)).transitions
    assert 100 <= len(rows.last) < 120 and rows.last[-1]
    assert (np.diff(np.flatnonzero(rows.last), prepend=-1) <= 20).all()
    assert 0.9 < np.abs(rows.action).max() <= 1.0
    inside = ~rows.last[:-1]
    np.testing.assert_array_equal(rows.next_obs[:-1][inside], rows.obs[1:][inside])


def test_a_scripted_policy_is_a_function(tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("def right(obs, key):\n    return 0 * obs + 0.5\n")
    out = tmp_path / "walk.npz"
    assert collect(out, f"--policy={script}:right") == 0
    np.testing.assert_allclose(read(out, action_bounds=(-2, 2)).transitions.action, 0.5)
    assert collect(out, "--policy=nowhere") == 2
    assert "--policy=nowhere: neither random, nor" in capsys.readouterr().err


def test_an_exported_policy_plays(tmp_path, capsys):
    """SAC's, which draws its actions."""
    file, out = ROOT / "experiments" / "hopper-medium.o2o", tmp_path / "hopper.npz"
    assert collect(out, f"--policy={file}", env="hopper") == 0
    rows = read(out).transitions
    assert rows.reward.sum() / rows.last.sum() > 300  # random play: some 20
    capsys.readouterr()
    assert collect(out, f"--policy={file}") == 2
    assert "observations of 11 numbers and actions of 3" in capsys.readouterr().err


def test_it_goes_to_minari_in_its_units(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    assert collect("minari:walk/random-v0", "--policy=random") == 0
    space = minari.load_dataset("walk/random-v0").action_space
    assert (space.low == -2).all() and (space.high == 2).all()
    assert np.abs(read("minari:walk/random-v0").transitions.action).max() > 0.9
