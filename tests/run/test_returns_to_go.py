"""Returns-to-go in a whole run: closed online, and across a stop in mid-episode."""

from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import run as command
from o2ojax.data.dataset import Dataset
from o2ojax.data.derived import return_to_go
from o2ojax.errors import GO_ON
from o2ojax.run import job, training
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.resolve import load, override, resolve

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config=experiments/configs/cal_ql.py:hopper-medium-replay",
    "--config.agent.widths=8,8",
    "--config.agent.actor_widths=8,8",
    "--config.agent.num_actions=2",
    "--config.reward.scale=0.5",
    "--config.reward.shift=-1.0",
    "--config.batch=16",
    "--config.seeds=2",
    "--config.offline.updates=20",
    "--config.online.steps=240",
    "--config.online.envs=2",
    "--config.online.round=20",
    "--config.eval.every=240",
    "--config.eval.episodes=1",
    "--config.checkpoint.every=20",
    "--config.log.every=20",
)


def end_of(workdir):
    config = load(SMALL[0].partition("=")[2])
    override(config, SMALL[1:])
    prepared = job.prepare(resolve(config), workdir)
    return training.restore(prepared, Checkpoints(workdir / "checkpoints"))[0]


def test_a_stop_in_mid_episode_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert command.main([*SMALL, f"--workdir={whole}"]) == 0

    @contextmanager
    def after_some():
        """Asks to stop from the 100th step on."""
        log = stopped / "metrics.jsonl"
        online = '"phase": "online", "step": 100'
        yield lambda: log.exists() and online in log.read_text()

    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_on_signal", after_some)
        assert command.main([*SMALL, f"--workdir={stopped}"]) == GO_ON
    cut = end_of(stopped)
    assert (cut.workers.env.age > 0).any()  # in mid-episode
    reached = int(cut.replay.count[0])
    assert 0 < reached < 240
    assert command.main([*SMALL, f"--workdir={stopped}"]) == 0
    end = end_of(stopped)
    jax.tree.map(np.testing.assert_array_equal, end, end_of(whole))

    for member in range(2):
        ring = jax.tree.map(lambda x, member=member: np.asarray(x[member]), end.replay)
        before = np.asarray(cut.replay.rows.extras["return_to_go"][member, :reached])
        for env in range(2):
            rows = jax.tree.map(lambda x, env=env: x[env::2], ring.rows)
            closed = np.flatnonzero(rows.last)[-1] + 1
            found = rows.extras["return_to_go"]
            assert (found[closed:] == -np.inf).all()
            done = jax.tree.map(lambda x, closed=closed: x[:closed], rows)
            wanted = return_to_go(Dataset("ring", done), 0.99, (0.5, -1.0))
            np.testing.assert_allclose(found[:closed], wanted, rtol=1e-5, atol=1e-5)
            open_then = np.flatnonzero(before[env::2] == -np.inf)
            if np.isfinite(found[open_then]).any():
                break
        else:
            pytest.fail("no episode was open at the stop and closed by the end")
