"""Judged by data alone: what is estimated of a policy, against what is known."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import run as command
from o2ojax.errors import UserError
from o2ojax.run import estimation
from o2ojax.run.config import defaults
from o2ojax.run.job import prepare
from o2ojax.run.resolve import resolve
from o2ojax.types import Transition

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)


def episodes(*lengths, ends=False):
    """Rows whose observation tells the episode and the step."""
    number = np.concatenate([np.full(n, e) for e, n in enumerate(lengths)])
    step = np.concatenate([np.arange(n) for n in lengths])
    last = np.concatenate([np.arange(n) == n - 1 for n in lengths])
    size = len(step)
    return Transition(
        obs=np.float32(np.stack([number, step], 1)),
        action=np.zeros((size, 1), np.float32),
        reward=np.arange(size, dtype=np.float32),
        discount=np.float32(1 - last * ends),
        next_obs=np.float32(np.stack([number, step + 1], 1)),
        last=last,
        task=np.zeros(size, np.int32),
    )


@pytest.mark.parametrize("finished", [True, False])
def test_whole_episodes_are_held_out_and_none_is_lost(finished):
    rows = episodes(3, 5, 2, 4, 6, 1, 7, 2, 3, 4)
    if not finished:
        rows.last[-1] = False
    moved, held = estimation.hold_out(rows, 0.3, 9)
    assert len(held.starts) == 3 and held.updates == 9
    train, test = estimation.divided(moved, held)
    np.testing.assert_array_equal(test.obs[list(held.starts), 1], 0)
    seen = [set(part.obs[:, 0]) for part in (train, test)]
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 10
    np.testing.assert_array_equal(np.sort(moved.reward), rows.reward)
    assert train.last[-1] and test.last[-1] and moved.last.sum() == 10
    again, _ = estimation.hold_out(rows, 0.3, 9)
    np.testing.assert_array_equal(moved.obs, again.obs)


def test_one_is_held_out_at_least_and_one_is_left():
    for share, num in ((0.01, 1), (0.99, 2)):
        _, held = estimation.hold_out(episodes(3, 4, 5), share, 1)
        assert len(held.starts) == num
    with pytest.raises(UserError, match="one episode alone; give its timeouts"):
        estimation.hold_out(episodes(5), 0.5, 1)


def test_returns_to_go_by_hand():
    rows = episodes(3, 2)._replace(reward=np.float32([1, 2, 4, 8, 16]))
    found = estimation.returns_to_go(rows, 0.5)
    np.testing.assert_allclose(found, [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16])


def test_fitted_q_evaluation_finds_the_value_of_another_policy():
    """Data by chance: an action above 0 earns 1, and steps end with a chance of 0.1.

    A policy that always acts by a is worth r(a) / (1 - 0.9 gamma).
    """
    draw, size, gamma = np.random.default_rng(0), 4000, 0.9
    action = draw.uniform(-1, 1, (size, 1))
    rows = Transition(
        obs=jnp.float32(draw.normal(size=(size, 2))),
        action=jnp.float32(action),
        reward=jnp.float32(10 * (action[:, 0] > 0)),
        discount=jnp.float32(draw.uniform(size=size) > 0.1),
        next_obs=jnp.float32(draw.normal(size=(size, 2))),
        last=jnp.zeros(size, bool),
        task=jnp.zeros(size, jnp.int32),
    )

    @jax.jit
    def value(chosen):
        def act(obs, key):
            del key
            return jnp.full((len(obs), 1), chosen)

        found, _ = estimation.fitted_q(act, rows, gamma, 3000, KEY)
        return found(rows.obs[:50], jnp.full((50, 1), chosen)).mean()

    best = 10 / (1 - 0.9 * gamma)
    np.testing.assert_allclose(value(0.8), best, rtol=0.05)
    assert abs(value(-0.8)) < 0.05 * best


SMALL = (
    "--config.env=none",
    "--config.agent.widths=8,8",
    "--config.batch=8",
    "--config.seeds=2",
    "--config.online.steps=0",
    "--config.offline.updates=20",
    "--config.offline.fitted_q=5",
    "--config.eval.every=10",
    "--config.checkpoint.every=10",
    "--config.log.every=10",
)


def run(workdir, algorithm, *others):
    config = f"--config={algorithm}:hopper-medium-replay"
    return command.main([config, *SMALL, f"--workdir={workdir}", *others])


OF_CRITICS = {"td_error", "value_at_start", "calibration", "value_rank"}


@pytest.mark.parametrize(
    "algorithm", ["iql", "bc", pytest.param("cql", marks=pytest.mark.slow)]
)
def test_a_run_without_an_environment_tells_estimates(algorithm, tmp_path, capsys):
    assert run(tmp_path, algorithm) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "It is no return" in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    named = {"value", "value_change", "logged_value", "action_error"} | (
        OF_CRITICS if algorithm != "bc" else set()
    )
    assert summary["estimates"].keys() == named
    assert all(np.isfinite(x["iqm"]) for x in summary["estimates"].values())
    with np.load(tmp_path / "returns.npz") as curves:
        assert curves["returns"].shape[:2] == (2, 2)
    assert run(tmp_path, algorithm) == 0  # it is finished


@pytest.mark.parametrize(
    "algorithm, change, said",
    [
        ("iql", "--config.dataset=", "there is nothing but data to learn from"),
        (
            "iql",
            "--config.online.steps=20",
            "there is nothing to play in: set",
        ),
        ("iql", "--config.offline.held_out=1", "config.offline.held_out is 1; it must"),
        ("iql", "--config.action_bounds=env", "config.action_bounds is env, and"),
    ],
)
def test_what_needs_one_is_refused(algorithm, change, said, tmp_path, capsys):
    assert run(tmp_path, algorithm, change) == 2
    assert said in capsys.readouterr().err


def test_a_planner_is_refused(tmp_path, capsys):
    given = [x for x in SMALL if "widths" not in x]
    config = "--config=fowm:lift-medium-replay"
    assert command.main([config, *given, f"--workdir={tmp_path}"]) == 2
    assert "can only be judged by playing it" in capsys.readouterr().err


def test_the_range_of_returns_counts_rows_that_are_left_out(tmp_path):
    """Of four episodes, two earn 1, in their last step, whose next is not known."""
    number = np.arange(40)
    np.savez(
        tmp_path / "sparse.npz",
        observations=np.stack([number, number % 10], axis=1),
        actions=np.sin(number)[:, None],
        rewards=np.isin(number, [9, 29]),
        terminals=np.zeros(40),
        timeouts=number % 10 == 9,
    )
    config = defaults("bc", "none")
    config.update(dataset=str(tmp_path / "sparse.npz"), seeds=1)
    config.offline.updates, config.online.steps = 10, 0
    config.reward.scale = "return_range"
    job = prepare(resolve(config), tmp_path / "run")
    assert job.sizes.reward_scale == 1000
    assert len(job.dataset.reward) == 36


def test_an_observation_whose_variance_is_beyond_float32_is_refused(tmp_path):
    number = np.arange(40.0)
    np.savez(
        tmp_path / "huge.npz",
        observations=np.stack([number, np.where(number == 7, 1e30, 0)], axis=1),
        actions=np.sin(number)[:, None],
        rewards=number,
        terminals=number % 10 == 9,
        timeouts=np.zeros(40),
    )
    config = defaults("bc", "none")
    config.update(dataset=str(tmp_path / "huge.npz"), seeds=1)
    config.offline.updates, config.online.steps = 10, 0
    with pytest.raises(UserError, match=r"number 1 of .* reaches 1e\+30, .* scale it"):
        prepare(resolve(config), tmp_path / "run")
