"""A new user's whole way: log, inspect, train, be killed, resume, play, export."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import o2ojax
from experiments.inspect import main as inspect
from o2ojax import envs, loop
from o2ojax.types import EMPTY, Run

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_environment.py"
SHORT = {
    "agent.widths": (16, 16),
    "batch": 32,
    "offline.updates": 200,
    "online.steps": 200,
    "log.every": 50,
    "eval.every": 100,
    "eval.episodes": 3,
    "checkpoint.every": 50,
}
# What a user's script does, which is killed.
SCRIPT = f"""
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("own_environment", {str(EXAMPLE)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.train(Path(sys.argv[1]), **{SHORT!r})
"""


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("own_environment", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(example, tmp_path_factory):
    path = tmp_path_factory.mktemp("puck")
    example.log(path / "puck.npz")
    return path


def started(folder):
    """The script, compiled as users have it, so that a cached program rounds alike."""
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1]), "XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)], env=environment
    )


@pytest.fixture(scope="module")
def trained(folder):
    assert started(folder).wait() == 0
    return o2ojax.load(folder / "run")


def test_the_log_is_inspected(folder, capsys):
    assert inspect([str(folder / "puck.npz"), "--action-bounds=-2,2"]) == 0
    assert "5,000" in capsys.readouterr().out


def test_a_killed_run_ends_as_an_undisturbed_one(example, trained, tmp_path):
    example.log(tmp_path / "puck.npz")
    process = started(tmp_path)
    while not (tmp_path / "run" / "checkpoints" / "251").is_dir():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert started(tmp_path).wait() == 0
    resumed = o2ojax.load(tmp_path / "run")
    np.testing.assert_array_equal(resumed.returns, trained.returns)
    np.testing.assert_array_equal(resumed.success, trained.success)
    metrics = [run.directory / "metrics.jsonl" for run in (resumed, trained)]
    assert metrics[0].read_text() == metrics[1].read_text()


def test_python_plays_the_episodes_that_the_loop_plays(example, trained):
    """From the same seeds, to the same ends."""
    policy, num = trained.policy(), 8
    env = envs.make(f"{EXAMPLE}:Puck", horizon=example.LIMIT, keys=example.KEYS)
    tasks, key = jnp.zeros(num, jnp.int32), jax.random.key(5)
    run = Run(policy.state, (), ())
    given = env, policy.acts, EMPTY, run, key, tasks
    played, _ = jax.jit(lambda: loop.play(*given))()
    key_start, _ = jax.random.split(key)
    begun = loop.start_workers(
        env, policy.acts, EMPTY, policy.state, (), key_start, num, tasks
    )
    puck, earned = gymnasium.make("Puck-v0"), []
    for seed in np.asarray(begun.env.physics.seed):
        obs, _ = puck.reset(seed=int(seed))
        state, over, total = policy.start(), False, 0.0
        while not over:
            action, state = policy.act(obs, state)
            obs, reward, ended, cut, _ = puck.step(action)
            over, total = ended or cut, total + reward
        earned.append(total)
    env.check()
    np.testing.assert_array_equal(played.returns, earned)


def test_its_file_acts_elsewhere(trained, tmp_path):
    policy = trained.policy()
    path = policy.export(tmp_path / "puck.o2o")
    script = f"""
import sys
sys.modules.update({{"o2ojax.agents": None, "o2ojax.api": None}})
import numpy as np
from o2ojax import exported
policy = exported.load({str(path)!r})
state = policy.start(seed=1)
obs = {{"position": np.zeros(2), "velocity": np.zeros(2), "goal": np.ones(2)}}
action, state = policy.act(obs, state)
print(*map(float, action))
"""
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    obs = {"position": np.zeros(2), "velocity": np.zeros(2), "goal": np.ones(2)}
    expected, _ = policy.act(obs, policy.start(seed=1))
    np.testing.assert_allclose([float(x) for x in done.stdout.split()], expected, 1e-5)
