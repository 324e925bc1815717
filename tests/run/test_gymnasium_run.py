"""Runs in environments of Gymnasium, by the public command, killed and resumed."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import collect
from experiments import run as command
from o2ojax.errors import GO_ON

ROOT = Path(__file__).parents[2]
HOSTED = ROOT / "tests" / "envs" / "hosted.py"
SMALL = (
    "--config=experiments/configs/iql.py",
    "--config.dataset=",
    "--config.reward.scale=1",
    "--config.horizon=10",
    "--config.agent.widths=8,8",
    "--config.batch=8",
    "--config.seeds=2",
    "--config.replay.name=online",
    "--config.offline.updates=0",
    "--config.online.steps=240",
    "--config.online.warmup=0",
    "--config.online.envs=3",
    "--config.eval.every=60",
    "--config.eval.episodes=2",
    "--config.checkpoint.every=60",
    "--config.log.every=30",
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def arguments(workdir, name="Walk", *others):
    return [
        *SMALL,
        f"--config.env={HOSTED}:{name}",
        f"--workdir={workdir}",
        *others,
    ]


def returns(workdir):
    with np.load(workdir / "returns.npz") as curves:
        return curves["returns"]


def metrics(workdir):
    return (workdir / "metrics.jsonl").read_text()


def close(whole, broken):
    for one, other in zip(whole.splitlines(), broken.splitlines(), strict=True):
        one, other = json.loads(one), json.loads(other)
        assert one.keys() == other.keys()
        for name in one.keys() - {"phase"}:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5)


def killed(workdir, given, checkpoint):
    """Starts a run in a process of its own, and kills it after a checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", "experiments.run", *given])
    deadline = time.monotonic() + 300
    while not (workdir / "checkpoints" / str(checkpoint)).is_dir():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    "others",
    [pytest.param((), marks=pytest.mark.slow), ("--config.host.workers=2",)],
)
def test_a_killed_run_goes_on_to_the_same_end(others, tmp_path):
    """In the middle of episodes: a checkpoint is every 20 steps of an environment.

    But for rounding: each process compiles for itself. test_own_environment.py holds
    bits.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    given = ("--config.horizon=37", *others)
    assert command.main(arguments(whole, "Walk", *given)) == 0
    killed(broken, arguments(broken, "Walk", *given), 61)
    assert command.main(arguments(broken, "Walk", *given)) == 0
    np.testing.assert_allclose(returns(whole), returns(broken), rtol=1e-4, atol=1e-5)
    close(metrics(whole), metrics(broken))
    assert len(np.unique(returns(whole))) > 8


def test_success_is_the_score(tmp_path):
    assert command.main(arguments(tmp_path / "run")) == 0
    with np.load(tmp_path / "run" / "returns.npz") as curves:
        success = curves["success"]
    assert set(np.unique(success)) <= {0.0, 1.0}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "return" in summary["online"]


def test_one_with_hidden_state_begins_episodes_anew(tmp_path, capsys):
    hidden = "--config.env_args={'hidden': True}"
    assert command.main(arguments(tmp_path, "Walk", hidden)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "does not lead to the same states by the same seed" in said
    more = ("--config.online.steps=300", "--extend")
    assert command.main(arguments(tmp_path, "Walk", hidden, *more)) == 0
    assert returns(tmp_path).shape[0] == 6


def test_a_failure_is_told_and_what_was_learned_stays(tmp_path, capsys):
    fails = ("--config.env_args={'how': 'raises'}", "--config.horizon=99")
    assert command.main(arguments(tmp_path, "Fails", *fails)) == 2
    said = capsys.readouterr().err
    assert "error: the environment failed at step 25 of the episode of seed" in said
    assert "RuntimeError: the gripper" in said and "Traceback" not in said
    with np.load(tmp_path / "failed_episode.npz") as episode:
        assert episode["actions"].shape == (25, 2)
        assert str(episode["seed"]) in said
    assert (tmp_path / "checkpoints").is_dir()


@pytest.mark.slow
def test_a_stop_in_an_episode_is_no_loss(tmp_path, monkeypatch):
    """As by Ctrl-C: the run saves, and goes on to the same numbers."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert command.main(arguments(whole)) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *arguments(stopped)]
    )
    while not (stopped / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() in (0, GO_ON)
    assert command.main(arguments(stopped)) == 0
    np.testing.assert_array_equal(returns(whole), returns(stopped))


SUITES = {
    "gymnasium_robotics": [
        ("gymnasium:AntMaze_UMaze-v5", 109, 8),
        ("gymnasium:PointMaze_UMaze-v3", 8, 2),
        ("gymnasium:AdroitHandDoor-v1", 39, 28),
        ("gymnasium:FrankaKitchen-v1", 93, 9),
        ("gymnasium:FetchReach-v4", 16, 4),
    ],
    "ogbench": [("gymnasium:cube-single-singletask-v0", 28, 5)],
    "shimmy": [("gymnasium:dm_control/cheetah-run-v0", 17, 6)],
}


ALIKE = {  # of a package of which others are tried
    "gymnasium:PointMaze_UMaze-v3",
    "gymnasium:AdroitHandDoor-v1",
    "gymnasium:FrankaKitchen-v1",
    "gymnasium:FetchReach-v4",
}
NAMED = (
    "gymnasium:Pendulum-v1",
    "gymnasium:Pusher-v5",
    "gymnasium:AntMaze_UMaze-v5",
    "gymnasium:AdroitHandDoor-v1",
    "gymnasium:FrankaKitchen-v1",
    "gymnasium:cube-single-singletask-v0",
    "gymnasium:dm_control/cheetah-run-v0",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_a_named_environment_goes_on_to_the_same_bits(name, tmp_path):
    """Offline on a log of it, and online, killed in the middle of episodes."""
    log = tmp_path / "log.npz"
    horizon = ("--config.horizon=50",)
    given = [*SMALL, f"--config.env={name}", *horizon]
    collected = [f"--file={log}", "--rows=400", "--policy=random"]
    assert collect.main([*given, *collected]) == 0
    given += [
        f"--config.dataset={log}",
        "--config.replay.name=uniform",
        "--config.offline.updates=60",
        "--config.online.steps=120",
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    environment = os.environ | {"XLA_FLAGS": ""}
    command = [sys.executable, "-m", "experiments.run", *given]
    run = functools.partial(subprocess.run, env=environment, check=True)
    run([*command, f"--workdir={whole}"])
    process = subprocess.Popen([*command, f"--workdir={broken}"], env=environment)
    while not (broken / "checkpoints" / "121").is_dir():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run([*command, f"--workdir={broken}"])
    np.testing.assert_array_equal(returns(whole), returns(broken))
    assert metrics(whole) == metrics(broken)


@pytest.mark.parametrize(
    "package, name, num_obs, num_actions",
    [
        pytest.param(package, *row, marks=[pytest.mark.slow] if row[0] in ALIKE else [])
        for package, rows in SUITES.items()
        for row in rows
    ],
)
def test_suites_train(package, name, num_obs, num_actions, tmp_path):
    pytest.importorskip(package)
    given = [
        f"--config.env={name}",
        f"--workdir={tmp_path}",
        "--config.online.steps=30",
        "--config.eval.every=30",
        "--config.eval.episodes=1",
    ]
    assert command.main([*SMALL, *given]) == 0
    described = json.loads((tmp_path / "config.json").read_text())["spec"]
    assert described["obs"] == {"": [[num_obs], "float32"]}
    assert len(described["action_bounds"][0]) == num_actions
    assert np.isfinite(returns(tmp_path)).all()
