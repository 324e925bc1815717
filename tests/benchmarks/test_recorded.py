"""Our updates beside what the originals told: see benchmarks/parity/README.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks.parity.__main__ import AGENTS

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests" / "fixtures" / "parity.json"
CACHE = {  # as in `conftest`
    "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def test_all_are_recorded():
    assert set(json.loads(RECORD.read_text())) == set(AGENTS)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], id="ours"),
        pytest.param(
            ["--control", "--first"], id="a fault of ours", marks=pytest.mark.slow
        ),
    ],
)
def test_ours_are_as_recorded_and_a_fault_shows_in_each(flags):
    command = [sys.executable, "-m", "benchmarks.parity", str(RECORD), *flags]
    found = subprocess.run(
        command, cwd=ROOT, env=os.environ | CACHE, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
