"""`make bench-peers`: ours beside what others would use, on the same data and cores.

Writes `benchmarks/results/peers-cpu.json`; see `command` for the options.

*Updates* of one seed, offline. Ours: the offline phase of a run, compiled, as
`experiments.run` calls it: a draw from the dataset, and the update. Theirs: the
same, a call each, as in their `fit`. Counted on both sides: the draw, its way to the
device, all losses, gradients, optimisers and targets, and the metrics. Not counted:
loading, compiling, the first calls, logs, evaluations, checkpoints. Networks, batch and
drawn actions are of one size, which figures have as `setup`; what an algorithm does
within an update is the library's own. Ours besides normalises TD3+BC's observations,
which d3rlpy leaves out unless it is asked, and computes its delayed steps where d3rlpy
skips them.

*Steps* of random play, restarts included. Ours: a compiled loop that draws the actions
and returns whole transitions, with MuJoCo called by XLA and, beside it, through Python.
Gymnasium's: a call for all environments, with actions drawn by NumPy; a call that only
restarts an environment counts as a step of it. EnvPool's: its XLA interface in a
compiled loop that draws the actions, too, and sums the rewards. `mujoco.rollout`
neither observes, rewards nor restarts: it is the ceiling.

All may have as many threads as the process has cores; d3rlpy takes fewer where that is
faster when it warms up. Each peer is a process that waits while another is timed:
windows of all are taken in turn, and a ratio is of windows in the same turn. Threads of
PyTorch suffer most from other work on the machine: use a quiet one, or give all a core
(`taskset -c 0`).
"""

import contextlib
import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import command, steps, tables, timing, workloads
from benchmarks.peers_protocol import ROOT, PeerError, Process, running
from benchmarks.record import Cells, Figure, Section, figure
from benchmarks.timing import Work
from benchmarks.workloads import BATCH, Case
from o2ojax import data, envs
from o2ojax.agents import AGENTS
from o2ojax.errors import UserError
from o2ojax.types import EnvSpec

VENV = ROOT / ".venv-peers"
OURS = "o2ojax"
NUM_EPISODES, EPISODE = 100, 1_000
WIDTHS, NUM_CRITICS, NUM_ACTIONS = (256, 256), 2, 10
TASKS = ("halfcheetah", "hopper", "walker2d", "ant")
NUM_ENVS = (1, 8, 64, 512)

# An algorithm: what makes our config's sizes those compared, beside widths and critics.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "iql": {},
    "awac": {"actor_widths": WIDTHS},
    "cql": {"num_actions": NUM_ACTIONS},
    "bcq": {"num_candidates": NUM_ACTIONS, "vae_widths": WIDTHS},
    "td3_bc": {"delay": 2},
    "sac": {},
}
D3RLPY: dict[str, dict[str, Any]] = {  # and d3rlpy's
    "iql": {},
    "awac": {"n_action_samples": 1},
    "cql": {"n_action_samples": NUM_ACTIONS, "alpha_learning_rate": 0.0},  # no Lagrange
    "bcq": {"n_action_samples": NUM_ACTIONS},
    "td3_bc": {"update_actor_interval": 2},
    "sac": {},
}

Peer = contextlib.AbstractContextManager[Process]


def d3rlpy(algorithm: str, path: Path) -> Peer:
    """d3rlpy's algorithm on a file of episodes."""
    job = {
        "algorithm": algorithm,
        "data": str(path),
        "threads": timing.cores(),
        "batch": BATCH,
        "widths": WIDTHS,
        "num_critics": NUM_CRITICS,
        "settings": D3RLPY[algorithm],
    }
    python = str(VENV / "bin" / "python")
    command = [python, "-m", "benchmarks.peers_d3rlpy", json.dumps(job)]
    return running(f"d3rlpy {algorithm}", command)


def gymnasium(mode: str, task: str, num_envs: int) -> Peer:
    """A vector environment of Gymnasium's, `sync` or `async`."""
    job = json.dumps({"mode": mode, "env": task, "envs": num_envs})
    command = [sys.executable, "-m", "benchmarks.peers_gymnasium", job]
    return running(f"gymnasium {mode} {task}", command)


def envpool(task: str, num_envs: int) -> Peer:
    """EnvPool, through its XLA interface."""
    sizes = {"envs": num_envs, "steps": steps_of(num_envs)}
    job = json.dumps({"env": task, "threads": timing.cores(), **sizes})
    command = [str(VENV / "bin" / "python"), "-m", "benchmarks.peers_envpool", job]
    return running(f"envpool {task}", command)


def steps_of(num_envs: int) -> int:
    """Steps of each environment in a compiled call."""
    return max(20, 2_000 // num_envs)


# A peer is an entry here: its name, and what starts it.
LEARNERS: dict[str, Callable[[str, Path], Peer]] = {"d3rlpy": d3rlpy}
STEPPERS: dict[str, Callable[[str, int], Peer]] = {
    "SyncVectorEnv": lambda task, num_envs: gymnasium("sync", task, num_envs),
    "AsyncVectorEnv": lambda task, num_envs: gymnasium("async", task, num_envs),
    "EnvPool": envpool,
}


def compare(
    works: dict[str, tuple[Work, Any]], sizes: dict[str, Any], unit: str, windows: int
) -> list[Figure]:
    """Rates of all works, ours first, and ours over each other, window by window.

    Args:
        works: each with what to know of it.
    """
    rates = timing.rates({name: work for name, (work, _) in works.items()}, windows)
    speeds = [
        figure(sizes | {"library": name}, unit, rates[name]) | {"setup": setup}
        for name, (_, setup) in works.items()
    ]
    ours = rates.pop(OURS)
    return speeds + [
        figure(sizes | {"peer": name}, "times as fast", ours / rate)
        for name, rate in rates.items()
    ]


def episodes(spec: EnvSpec) -> dict[str, np.ndarray]:
    """Noise: NUM_EPISODES, one after another, that all stop at a time limit."""
    num, generator = NUM_EPISODES * (EPISODE + 1), np.random.default_rng(0)
    normal = functools.partial(generator.standard_normal, dtype=np.float32)
    actions = generator.uniform(-1, 1, (num, spec.action_dim)).astype(np.float32)
    return {
        "observations": normal((num, spec.obs_dim)),
        "actions": actions,
        "rewards": normal(num),
        "terminals": np.zeros(num, np.float32),
        "timeouts": (np.arange(num) % (EPISODE + 1) == EPISODE).astype(np.float32),
    }


def sized(algorithm: str) -> Any:
    """Our config, in the sizes compared."""
    sizes = {"widths": WIDTHS, "num_critics": NUM_CRITICS} | ALGORITHMS[algorithm]
    return AGENTS.find(algorithm).config(**sizes)


def measure_updates(algorithm: str, windows: int) -> list[Figure]:
    """Updates per second of an algorithm: ours and the peers'."""
    require_environment()
    case = Case(algorithm, config=sized(algorithm))
    rows = episodes(case.spec())
    dataset = data.from_arrays(**rows)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "episodes.npz"
        np.savez(path, **rows)
        ours = workloads.learner(case, 1, dataset=dataset)
        works = {OURS: (ours, {"batch": BATCH, **compiled_in(case.config)})}
        for name, start in LEARNERS.items():
            process = stack.enter_context(start(algorithm, path))
            works[name] = Work(process.go, 1), process.ready
        return compare(works, {}, "updates/s", windows)


def compiled_in(config: Any) -> dict[str, Any]:
    """The sizes and choices of a config: what its speed depends on."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if not field.metadata.get("pytree_node", True)
    }


def measure_steps(task: str, windows: int) -> list[Figure]:
    """Steps per second of environments side by side: ours, the peers' and physics."""
    require_environment()
    found = []
    for num_envs in NUM_ENVS:
        num_steps = steps_of(num_envs)
        ours, through_python = (
            steps.player(envs.make(task, "mujoco", native=kind), num_envs, num_steps)
            for kind in ("require", "never")
        )
        ours, state = ours
        for work in (ours, through_python[0]):
            work.run(1)  # to the middle of an episode
        with contextlib.ExitStack() as stack:
            works = {OURS: (ours, {}), "through Python": (through_python[0], {})}
            for name, start in STEPPERS.items():
                if name == "AsyncVectorEnv" and num_envs > 64:
                    continue  # as many processes, of some 100 MB each
                process = stack.enter_context(start(task, num_envs))
                in_a_call = num_envs * process.ready.get("steps", 1)
                works[name] = Work(process.go, in_a_call), process.ready
            works["mujoco.rollout"] = steps.raw_rollout(task, state(), num_steps), {}
            found += compare(works, {"environments": num_envs}, "steps/s", windows)
    return found


def require_environment() -> None:
    """Raises UserError where the peers' virtual environment is not there."""
    if not (VENV / ".ready").is_file():
        raise UserError(
            f"the peers' environment, {VENV.name}, is absent or unfinished: run"
            " make bench-peers"
        )


def measure_environment(name: str, windows: int) -> list[Figure]:
    """What the peers' virtual environment costs."""
    require_environment()
    files = (
        path for path in VENV.rglob("*") if path.is_file() and not path.is_symlink()
    )
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    seconds = float((VENV / ".seconds").read_text())
    return [figure({}, "MB", megabytes), figure({}, "s to install", seconds)]


def lay_out(figures: Iterable[Figure]) -> tuple[Cells, list[Cells]]:
    """A row for each of what was done and each peer."""
    speeds: dict[tuple, str] = {}
    rows = []
    for found in figures:
        sizes = found["sizes"]
        what = found["name"], str(sizes.get("environments", ""))
        if "library" in sizes:
            speeds[*what, sizes["library"]] = tables.number(found["median"])
        else:
            of_both = (speeds[*what, name] for name in (OURS, sizes["peer"]))
            rows.append([*what, sizes["peer"], *of_both, tables.ratio(found)])
    heads = ["", "environments", "peer", f"{OURS}/s", "peer/s", f"{OURS} / peer"]
    return heads, rows


SECTIONS = {
    "environment": Section(
        "what the peers' environment costs", (VENV.name,), measure_environment
    ),
    "updates": Section(
        f"offline updates, one seed, {NUM_EPISODES * EPISODE:,} transitions",
        tuple(ALGORITHMS),
        measure_updates,
        lay_out=lay_out,
    ),
    "steps": Section(
        "environment steps, random play", TASKS, measure_steps, lay_out=lay_out
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a peer failed, 2 bad input."""
    jax.config.update("jax_platforms", "cpu")  # as the peers are
    try:
        return command.main("peers", SECTIONS, arguments, windows=15)
    except PeerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
