"""From a command to its first update, and what of a run is not compiled calls.

A run is begun twice with a compilation cache of its own: the first start compiles, the
second does not. `demo` is `make demo`; the others are cut down as far as tests cut.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import Figure, Section, figure

ROOT = Path(__file__).parents[1]
SMALL = (
    "--config.seeds=2",
    "--config.offline.updates=200",
    "--config.batch=32",
    "--config.log.every=100",
    "--config.checkpoint.every=200",
    "--config.eval.every=100",
)
CASES = {
    "demo": ("demo",),
    "iql": (
        *("iql:hopper-medium-replay", *SMALL, "--config.online.steps=100"),
        *("--config.eval.episodes=2", "--config.online.warmup=0"),
    ),
    "fowm": (
        *("fowm:lift-medium-replay", *SMALL, "--config.online.steps=100"),
        *("--config.eval.episodes=2", "--config.online.warmup=0"),
        *("--config.agent.width=32", "--config.agent.encoder_width=32"),
    ),
    "smac": (
        *("smac:cheetah-vel-pearl", *SMALL, "--config.online.steps=1000"),
        *("--config.eval.episodes=8", "--config.online.round=1000"),
        *("--config.online.envs=1", "--config.online.updates_per_step=0.1"),
        *("--config.agent.widths=32,32", "--config.log.every=1000"),
        *("--config.eval.every=1000", "--config.checkpoint.every=1000"),
        "--config.offline.updates=1000",
    ),
}


def measure_starts(name: str, windows: int) -> list[Figure]:
    """Seconds, and percent of the whole; of the first start, and of later ones."""
    with tempfile.TemporaryDirectory() as folder:
        first = [_started(name, folder)]
        later = [_started(name, folder) for _ in range(windows)]
    found = []
    for start, runs in (("first", first), ("second", later)):
        whole = [run["whole"] for run in runs]
        outside = [100 * (1 - run["compiled calls"] / run["whole"]) for run in runs]
        judging = [100 * run["evaluations"] / run["whole"] for run in runs]
        for what, unit, values in (
            ("to the first update", "s", [run["first update"] for run in runs]),
            ("whole", "s", whole),
            ("outside compiled calls", "%", outside),
            ("evaluations", "%", judging),
        ):
            found.append(figure({"start": start, "what": what}, unit, values))
    return found


def _started(name: str, cache: str) -> dict[str, float]:
    """What one run tells, in a process of its own."""
    settings = {"JAX_COMPILATION_CACHE_DIR": str(Path(cache) / "jax")}
    settings |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with tempfile.TemporaryDirectory() as workdir:
        config, *others = CASES[name]
        done = subprocess.run(
            [
                *(sys.executable, str(ROOT / "benchmarks" / "started.py")),
                *(f"--config={config}", *others, f"--workdir={workdir}/run"),
            ],
            env=os.environ | settings | {"PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(f"the run of {name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


SECTION = Section(
    "starts of a run: with nothing compiled yet, and again",
    tuple(CASES),
    measure_starts,
    across="what",
)
