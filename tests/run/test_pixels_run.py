"""Runs from pictures by the public command: both phases, stops, and exports."""

import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import o2ojax
from benchmarks.same_bits import compare
from experiments import collect
from experiments import run as command
from o2ojax import envs, exported
from o2ojax.data import read
from o2ojax.envs import rendering
from o2ojax.errors import GO_ON, UserError
from o2ojax.run import training

ROOT = Path(__file__).parents[2]
TASK = "lift-pixels"
SIZE = ("--config.pixels.size=40",)  # FOWM's four strides need 39
SMALL = (
    *SIZE,
    "--config.batch=8",
    "--config.seeds=2",
    "--config.offline.updates=10",
    "--config.online.steps=20",
    "--config.online.round=5",
    "--config.online.warmup=0",
    "--config.online.updates_per_step=0.2",
    "--config.eval.every=20",
    "--config.eval.episodes=1",
    "--config.checkpoint.every=5",
    "--config.log.every=5",
)
AGENTS = {
    "fowm": ("width=16", "encoder_width=16", "num_samples=16", "num_elites=8"),
    "iql": ("widths=8,8",),
    "sac": ("widths=8,8",),
    "cql": ("widths=8,8", "num_actions=2"),
    "off2on": ("widths=8,8", "num_actions=2", "num_agents=2"),
}
SLOW = ("fowm", "sac", "cql", "off2on")  # what they share is asked of the others


def draws() -> bool:
    try:
        return bool(rendering.find_backend())
    except UserError:
        return False


pytestmark = pytest.mark.skipif(not draws(), reason="nothing draws here")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Ten episodes, made by the public command."""
    folder = tmp_path_factory.mktemp("pictures")
    given = (f"--config=experiments/configs/collect.py:{TASK}", *SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        wanted = ("--kinds=medium-replay", "--rows=250", f"--out={folder}")
        assert collect.main([*given, *wanted]) == 0
    return folder / f"{TASK}-medium-replay.npz"


def arguments(name, dataset, workdir):
    changed = [f"--config.agent.{field}" for field in AGENTS[name]]
    config = f"--config=experiments/configs/{name}.py:{TASK}"
    given = f"--config.dataset={dataset}", f"--workdir={workdir}"
    return [config, *SMALL, *changed, *given, "--config.replay.capacity=0"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in AGENTS
    ],
)
def test_a_run_that_was_stopped_twice_ends_with_the_same_bits(
    name, dataset, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert command.main(arguments(name, dataset, whole)) == 0
    for sign in ('"phase": "offline", "step": 5,', '"phase": "online", "step": 10,'):

        @contextmanager
        def after_some(sign=sign):
            log = stopped / "metrics.jsonl"
            yield lambda: log.exists() and sign in log.read_text()

        with monkeypatch.context() as patch:
            patch.setattr(training, "stop_on_signal", after_some)
            assert command.main(arguments(name, dataset, stopped)) == GO_ON
    assert command.main(arguments(name, dataset, stopped)) == 0
    compared, apart = compare(whole, stopped)
    assert compared and not apart
    acts_on_frames(whole, tmp_path / "policy.o2o")
    plays(tmp_path / "policy.o2o", tmp_path / "played.npz")


def plays(policy, out):
    """`collect` has a policy gather rows, each frame of which stands once."""
    others = ("dataset=", "replay.name=online", "offline.updates=0", "online.envs=3")
    given = [
        f"--config=experiments/configs/sac.py:{TASK}",
        *SIZE,
        *(f"--config.{field}" for field in others),
        f"--policy={policy}",
        "--rows=50",
        f"--file={out}",
    ]
    assert collect.main(given) == 0
    found = read(out)
    rows, inside = found.transitions, ~found.transitions.last[:-1]
    assert len(inside) >= 49 and rows.obs.keys() == {"pixels", "state"}
    for name, part in rows.obs.items():
        after = rows.next_obs[name]
        np.testing.assert_array_equal(part[1:][inside], after[:-1][inside])


def test_random_play_gathers_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plays("random", tmp_path / "played.npz")


def acts_on_frames(run, path):
    """An exported policy acts as the run's, on frames as the environment has them."""
    policy = o2ojax.load(run).policy()
    policy.export(path)
    other = exported.load(path)
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    obs = {"pixels": frames, "state": np.zeros(4, np.float32)}
    one, two = (player.act(obs, player.start(seed=1))[0] for player in (policy, other))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert one.shape == (4,) and (np.abs(one) <= 1).all()
    for wrong, said in (
        ({"state": obs["state"]}, "a dict with pixels"),
        (obs | {"pixels": frames / 255}, r"float64; it must be \[40, 40, 3\] of uint8"),
        (obs | {"pixels": frames[:39]}, r"shape \[39, 40, 3\]; it must be"),
        (frames, "a dict with"),
    ):
        with pytest.raises(UserError, match=said):
            other.act(wrong, other.start())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("algorithm=td3_bc",), "learns from numbers, and lift-pixels shows images"),
        (
            ("env=lift", "pixels.size=84"),
            "pictures of 40 x 40 x 3.* 'lift' has size 18",
        ),
        (("env=none", "online.steps=0"), "has images; without an environment"),
        (("pixels.size=48",), "40 x 40 x 3"),
        (("env=hopper", "pixels.size=48"), "config.pixels.size is 48, and hopper is"),
    ],
)
def test_what_cannot_be_seen_is_told(changed, said, dataset, tmp_path, capsys):
    name = "iql" if "env=none" in changed else "fowm"
    given = [x for x in arguments(name, dataset, tmp_path) if "agent." not in x]
    given += [f"--config.{field}" for field in changed]
    if changed == ("algorithm=td3_bc",):
        given[0] = f"--config=experiments/configs/td3_bc.py:{TASK}"
        given = [x for x in given if "algorithm" not in x]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert command.main(given) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") or "\nerror: " in told
    assert re.search(said, told), told


def test_every_pictured_task_is_known():
    assert set(envs.PICTURED) <= set(envs.ENVS)
