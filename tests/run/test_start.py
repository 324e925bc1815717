"""The second start of a run: nothing that was compiled before is compiled again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import run as command
from o2ojax.envs.native import library
from o2ojax.parallel import compiled

ROOT = Path(__file__).parents[2]
COUNTED = """
import collections, json, sys
from jax import monitoring
from experiments import run

events = collections.Counter()
monitoring.register_event_listener(lambda name, **_: events.update([name]))
status = run.main(sys.argv[1:])
print(json.dumps([status, events]))
"""
SMALL = (
    "--config.seeds=2",
    "--config.offline.updates=20",
    "--config.online.steps=20",
    "--config.batch=8",
    "--config.log.every=10",
    "--config.eval.every=20",
    "--config.eval.episodes=1",
    "--config.checkpoint.every=20",
)
RUNS = {
    "iql": ("iql:hopper-medium-replay", "--config.agent.widths=8,8"),
    "fowm": (
        "fowm:lift-medium-replay",
        "--config.agent.width=8",
        "--config.agent.encoder_width=8",
        "--config.online.warmup=0",
    ),
}


def start(name, cache, workdir):
    """Runs in a process of its own; counts what happened to compiled programs."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-c", COUNTED, f"--config={RUNS[name][0]}"]
    command += [*RUNS[name][1:], *SMALL, f"--workdir={workdir}"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    status, events = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    prefix = "/jax/compilation_cache/"
    asked, kept, missed = (
        events.get(prefix + what, 0)
        for what in ("compile_requests_use_cache", "cache_hits", "cache_misses")
    )
    return asked, kept, missed


@pytest.mark.skipif(
    bool(library.why_not()), reason=f"nothing native here: {library.why_not()}"
)
@pytest.mark.parametrize("name", ["iql", pytest.param("fowm", marks=pytest.mark.slow)])
def test_a_second_start_compiles_nothing(name, tmp_path):
    asked, _, missed = start(name, tmp_path / "cache", tmp_path / "one")
    assert missed > 5
    again, kept, missed = start(name, tmp_path / "cache", tmp_path / "two")
    assert (again, kept, missed) == (asked, asked, 0)
    first, second = (
        (tmp_path / run / "metrics.jsonl").read_text() for run in ("one", "two")
    )
    assert first == second


def test_what_is_compiled_ahead_is_what_comes(tmp_path, monkeypatch):
    begun, taken = [], []

    class Watched(compiled.Ahead):
        def begin(self, key, make):
            begun.append(key)
            super().begin(key, make)

        def take(self, key):
            program = super().take(key)
            if program is not None:
                taken.append(key)
            return program

    monkeypatch.setattr(compiled, "Ahead", Watched)
    monkeypatch.chdir(ROOT)
    config, *others = RUNS["iql"]
    arguments = [f"--config={config}", *others, *SMALL, "--config.online.warmup=10"]
    assert command.main([*arguments, f"--workdir={tmp_path / 'run'}"]) == 0
    assert {name for name, _ in begun} == {
        "offline evaluation",
        "a look at critics",
        "the hand-over",
        "online phase",
        "online evaluation",
    }
    assert sorted(map(str, taken)) == sorted(map(str, begun))
