"""What critics say at the hand-over: by hand, and in runs."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import report
from experiments import run as command
from o2ojax import policies
from o2ojax.run import readiness
from o2ojax.types import Agent, Transition

GAMMA = 0.5


def rows(reward, last, ended):
    num = len(reward)
    return Transition(
        obs=jnp.float32(np.linspace(-1, 1, num))[:, None],
        action=jnp.zeros((num, 1)),
        reward=jnp.float32(reward),
        discount=1 - jnp.float32(ended),
        next_obs=jnp.zeros((num, 1)),
        last=jnp.array(last, bool),
        task=jnp.zeros(num, jnp.int32),
    )


def test_returns_by_hand():
    """An episode that ends, and one that is cut: of that, some lies beyond the cut."""
    data = rows([1, 2, 4, 8], last=[0, 1, 0, 0], ended=[0, 1, 0, 0])
    followed, beyond = readiness.returns_that_followed(data, 10.0, 1.0, GAMMA)
    np.testing.assert_allclose(followed, [11 + 0.5 * 21, 21, 41 + 0.5 * 81, 81])
    np.testing.assert_allclose(beyond, [0, 0, 0.25, 0.5])


def agent_of(q):
    """One that acts by 0.5, and whose two critics say q and q + 0.2."""
    act = policies.gaussian(lambda state, obs: None)
    chosen = act[1]._replace(
        act=lambda state, memory, obs, key: (jnp.full(1, 0.5), memory)
    )
    return Agent(
        None, None, chosen, chosen,
        q=lambda state, obs, action: q(obs, action) + jnp.array([[0.0], [0.2]]),
    )  # fmt: skip


def measured(q, data):
    found = readiness.measure(
        agent_of(q), (), data, GAMMA, (1.0, 0.0), jax.random.key(0)
    )
    return {name: float(value) for name, value in found.items()}


def test_critics_that_are_right_are_calibrated():
    """A reward of 1 for ever is worth 2, wherever an episode is cut."""
    data = rows(np.ones(4000), np.arange(4000) % 7 == 6, np.zeros(4000))
    right = measured(lambda obs, action: 1.9 + 0 * obs[:, 0][None], data)
    np.testing.assert_allclose(right["q_minus_return"], 0, atol=1e-3)
    high = measured(lambda obs, action: 3.9 + 0 * obs[:, 0][None], data)
    np.testing.assert_allclose(high["q_minus_return"], 2, atol=1e-3)
    assert high["q_above_return"] == 1
    np.testing.assert_allclose(high["q"], 4, rtol=1e-6)


def test_gaps_are_in_spreads_of_q():
    """Q = obs - |a|: the data's actions are 0, the policy's 0.5, uniform ones 0.5."""
    data = rows(np.ones(4000), np.ones(4000), np.ones(4000))
    found = measured(lambda obs, action: (obs - jnp.abs(action))[:, 0][None], data)
    spread = found["spread"]
    np.testing.assert_allclose(spread, np.sqrt(1 / 3), rtol=0.1)
    np.testing.assert_allclose(found["gap_policy"], 0.5 / spread, rtol=1e-3)
    np.testing.assert_allclose(found["gap_uniform"], 0.5 / spread, rtol=0.1)
    np.testing.assert_allclose(found["disagreement"], 0.1 / spread, rtol=1e-3)


def test_a_rise_is_told_by_1000_updates():
    now, before = {"q": [5.0, 1.0], "spread": [2.0, 4.0]}, {"q": [4.0, 2.0]}
    assert readiness.with_rise(now, before, 500)["rise"] == [1.0, -0.5]
    assert "rise" not in readiness.with_rise(now, None, 500)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({}, "The critics are calibrated on the data's actions."),
        ({"q_minus_return": [1.5, 1.5]}, "optimistic, or of a policy that has improve"),
        ({"q_minus_return": [-9.0, -9.0]}, "pessimistic: on average, they value"),
        ({"q_minus_return": [9.0, np.nan], "spread": [1.0, np.nan]}, "optimistic"),
        ({"rise": [0.5, 0.5]}, "actions; still rising, so that it may be too early"),
        ({"rise": [-0.5, -0.5]}, "actions; still falling, so"),
        ({"rise": [0.005, 0.005]}, "calibrated on the data's actions."),
    ],
)
def test_the_sentence(changes, said):
    told = dict.fromkeys(readiness.FIGURES, [0.0, 0.0])
    told |= {"gap_uniform": [2.0, 2.0], "spread": [1.0, 1.0]} | changes
    assert said in readiness.summarise(told)["meaning"]


SMALL = (
    "--config.agent.widths=8,8",
    "--config.batch=8",
    "--config.seeds=2",
    "--config.offline.updates=40",
    "--config.online.steps=20",
    "--config.online.round=0",
    "--config.online.warmup=0",
    "--config.eval.every=20",
    "--config.eval.episodes=1",
    "--config.checkpoint.every=20",
    "--config.log.every=20",
)


def run(folder, algorithm, *others):
    root = Path(__file__).parents[2]
    config = f"--config={root}/experiments/configs/{algorithm}.py:hopper-medium-replay"
    return command.main([config, *SMALL, f"--workdir={folder}", *others])


@pytest.mark.parametrize(
    "algorithm", ["iql", pytest.param("off2on", marks=pytest.mark.slow)]
)
def test_a_run_tells_it_before_it_goes_online(algorithm, tmp_path, capsys):
    assert run(tmp_path, algorithm) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.index("The critics are") < said.index("online 20 score")
    ready = json.loads((tmp_path / "summary.json").read_text())["readiness"]
    assert ready.keys() == {*readiness.FIGURES, "meaning"}
    assert all(np.isfinite(ready[name]["iqm"]) for name in readiness.FIGURES)
    assert report.main([str(tmp_path), "--readiness"]) == 0
    told = capsys.readouterr().out
    assert "gap_uniform" in told and ready["meaning"] in " ".join(told.split())


def test_two_looks_at_the_same_critics_see_no_rise(tmp_path):
    assert run(tmp_path, "iql", "--config.agent.lr=1e-12") == 0
    ready = json.loads((tmp_path / "summary.json").read_text())["readiness"]
    np.testing.assert_allclose(ready["rise"]["iqm"], 0, atol=1e-6)


def test_an_agent_without_critics_tells_none(tmp_path, capsys):
    assert run(tmp_path, "bc", "--config.online.steps=0") == 0
    assert "readiness" not in json.loads((tmp_path / "summary.json").read_text())
    capsys.readouterr()
    assert report.main([str(tmp_path), "--readiness"]) == 2
    assert "no critics were looked at" in capsys.readouterr().err
