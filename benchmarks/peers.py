"""`make bench-peers`: ours beside what others would use, on the same data and cores.

Prints tables and writes `benchmarks/results/peers-cpu.json`.

*Updates* of one seed, offline. Ours: the offline phase of a run, compiled, as
`experiments.run` calls it: a draw from the dataset, and the update. Theirs: the
same, a call each, as in their `fit`. Counted on both sides: the draw, its way to the
device, all losses, gradients, optimisers and targets, and the metrics. Not counted:
loading, compiling, the first calls, logs, evaluations, checkpoints. Networks, batch and
drawn actions are of one size, which is printed; what an algorithm does within an update
is the library's own. Ours besides normalises TD3+BC's observations, which d3rlpy leaves
out unless it is asked, and computes its delayed steps where d3rlpy skips them.

*Steps* of random play, restarts included. Ours: a compiled loop that draws the actions
and returns whole transitions. Gymnasium's: a call for all environments, with actions
drawn by NumPy; a call that only restarts an environment counts as a step of it.
`mujoco.rollout` neither observes, rewards nor restarts: it is the ceiling.

All may have as many threads as the process has cores; d3rlpy takes fewer where that is
faster when it warms up. Each peer is a process that waits while another is timed:
windows of all are taken in turn, and a ratio is of windows in the same turn. Threads of
PyTorch suffer most from other work on the machine: use a quiet one, or give all a core
(`taskset -c 0`).
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import steps, tables, timing, workloads
from benchmarks.peers_protocol import ROOT, PeerError, Process, running
from o2ojax import agents, envs, loop
from o2ojax.data.files import write_json
from o2ojax.errors import UserError, unknown
from o2ojax.run import population
from o2ojax.types import EnvSpec, Transition

RESULT = Path(__file__).parent / "results" / "peers-cpu.json"
VENV = ROOT / ".venv-peers"
OURS = "o2ojax"
SECONDS = 1.0  # that a window should last, about
NUM_EPISODES, EPISODE = 100, 1_000
UPDATES = 50  # in a compiled call
BATCH, WIDTHS, NUM_CRITICS, NUM_ACTIONS = 256, (256, 256), 2, 10
TASKS = ("halfcheetah", "hopper")
NUM_ENVS = (1, 8, 64)

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


class Work(NamedTuple):
    """Something to be timed.

    go:   (times) -> seconds that it took to do it so many times.
    each: updates or steps in doing it once.
    """

    go: Callable[[int], float]
    each: int


def d3rlpy(algorithm: str, data: Path) -> Peer:
    """d3rlpy's algorithm on a file of episodes."""
    job = {
        "algorithm": algorithm,
        "data": str(data),
        "threads": timing.machine()["cores"],
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


# A peer is an entry here: its name, and what starts it.
LEARNERS: dict[str, Callable[[str, Path], Peer]] = {"d3rlpy": d3rlpy}
STEPPERS: dict[str, Callable[[str, int], Peer]] = {
    "SyncVectorEnv": lambda task, num_envs: gymnasium("sync", task, num_envs),
    "AsyncVectorEnv": lambda task, num_envs: gymnasium("async", task, num_envs),
}


def in_turn(works: dict[str, Work], windows: int) -> dict[str, np.ndarray]:
    """Units per second of each work [windows], taken in turn when all are warm."""
    times = {}
    for name, work in works.items():
        work.go(1)
        times[name] = max(1, round(3 * SECONDS / work.go(3)))
    rates = {name: [] for name in works}
    for _ in range(windows):
        for name, work in works.items():
            done = work.each * times[name]
            rates[name].append(done / work.go(times[name]))
    return {name: np.array(found) for name, found in rates.items()}


def compare(works: dict[str, Work], windows: int) -> dict[str, Any]:
    """Rates of all works, ours first, and ours over each other, window by window."""
    rates = in_turn(works, windows)
    ours, *peers = works
    return {
        "per_second": {name: timing.spread(rate) for name, rate in rates.items()},
        "ratio": {peer: timing.spread(rates[ours] / rates[peer]) for peer in peers},
    }


def episodes(spec: EnvSpec) -> Transition:
    """Noise [NUM_EPISODES, EPISODE + 1], each row followed by the next."""
    shape = NUM_EPISODES, EPISODE + 1
    rows = workloads.random_data(spec, shape[0] * shape[1])
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), rows)


def transitions(rows: Transition) -> Transition:
    """Episodes as we store them: all but their last rows, each with the next one's obs.

    Leaves [N, T + 1, ...] to [N * T, ...].
    """
    told = jax.tree.map(lambda leaf: leaf[:, :-1], rows)
    return loop.flat(
        told._replace(next_obs=rows.obs[:, 1:], last=told.last.at[:, -1].set(True))
    )


def write_episodes(path: Path, rows: Transition) -> None:
    """Episodes for peers, one after another, `last` in the rows where they stop."""
    last = rows.last.at[:, -1].set(True)
    flat = loop.flat(rows._replace(last=last))
    named = {name: getattr(flat, name) for name in ("obs", "action", "reward", "last")}
    np.savez(path, **named)


def repeated(call: Callable[[], Any], each: int) -> Work:
    """Our work: a compiled call, the state kept from one to the next."""
    return Work(lambda num: sum(timing.seconds(call) for _ in range(num)), each)


def sized(algorithm: str) -> Any:
    """Our config, in the sizes compared."""
    sizes = {"widths": WIDTHS, "num_critics": NUM_CRITICS} | ALGORITHMS[algorithm]
    return agents.find(algorithm).config(**sizes)


def our_learner(config: Any, algorithm: str, dataset: Transition) -> Work:
    """The offline phase of one member."""
    programs = population.programs(
        agents.find(algorithm),
        envs.make(TASKS[0], "mujoco"),
        workloads.sizes(batch=BATCH),
    )
    members = population.members(config, range(1), {})
    run = programs.init(members, dataset)

    def call():
        nonlocal run
        run, metrics = programs.offline(run, members, dataset, np.int32(0), UPDATES)
        return run, metrics

    return repeated(call, UPDATES)


def bench_learner(algorithm: str, windows: int) -> dict[str, Any]:
    """Updates per second of an algorithm: ours and the peers'."""
    rows = episodes(envs.make(TASKS[0], "mujoco").spec)
    config = sized(algorithm)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        data = Path(folder) / "episodes.npz"
        write_episodes(data, rows)
        processes = {
            name: stack.enter_context(start(algorithm, data))
            for name, start in LEARNERS.items()
        }
        works = {OURS: our_learner(config, algorithm, transitions(rows))}
        works |= {name: Work(process.go, 1) for name, process in processes.items()}
        told = {name: process.ready for name, process in processes.items()}
        settings = {"batch": BATCH, **compiled_in(config)}
        cores = timing.machine()["cores"]
        return {
            "what": algorithm,
            **compare(works, windows),
            "told": {OURS: {"threads": cores, "settings": settings}} | told,
        }


def compiled_in(config: Any) -> dict[str, Any]:
    """The sizes and choices of a config: what its speed depends on."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if not field.metadata.get("pytree_node", True)
    }


def decisions(num_envs: int) -> int:
    """Of each environment in a compiled call."""
    return max(20, 2_000 // num_envs)


def our_stepper(task: str, num_envs: int) -> tuple[Work, Callable[[], Any]]:
    """Random play in a compiled loop. Returns also what gives its present state."""
    num_steps = decisions(num_envs)
    call, state = steps.playing(envs.make(task, "mujoco"), num_envs, num_steps)
    return repeated(call, num_steps * num_envs), state


def bench_stepper(task: str, num_envs: int, windows: int) -> dict[str, Any]:
    """Steps per second of environments side by side: ours, the peers' and physics."""
    ours, state = our_stepper(task, num_envs)
    ours.go(1)  # to the middle of an episode
    num_steps = decisions(num_envs)
    physics = steps.raw_rollout(task, jax.tree.map(np.asarray, state()), num_steps)
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(start(task, num_envs))
            for name, start in STEPPERS.items()
        }
        works = {OURS: ours}
        works |= {name: Work(peer.go, num_envs) for name, peer in processes.items()}
        works["mujoco.rollout"] = repeated(physics, num_steps * num_envs)
        return {
            "what": f"{task} x {num_envs}",
            **compare(works, windows),
            "told": {name: process.ready for name, process in processes.items()},
        }


def environment() -> dict[str, float]:
    """What the peers' virtual environment costs.

    Raises:
        UserError: where there is none.
    """
    if not (VENV / ".ready").is_file():
        raise UserError(
            f"the peers' environment, {VENV.name}, is absent or unfinished: run"
            " make bench-peers"
        )
    files = (
        path for path in VENV.rglob("*") if path.is_file() and not path.is_symlink()
    )
    return {
        "megabytes": sum(path.stat().st_size for path in files) / 1e6,
        "install_seconds": float((VENV / ".seconds").read_text()),
    }


def table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """A line for each of what was done and each peer."""
    table = Table(title=title)
    for column in ("", "peer"):
        table.add_column(column)
    for column in (f"{OURS}/s", "peer/s", f"{OURS} / peer"):
        table.add_column(column, justify="right")
    for row in rows:
        rates = row["per_second"]
        for peer, ratio in row["ratio"].items():
            medians = (rates[name]["median"] for name in (OURS, peer))
            rounded = [f"{x:,.0f}" if x > 100 else f"{x:.1f}" for x in medians]
            table.add_row(row["what"], peer, *rounded, tables.in_words(ratio))
    return table


def settings_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What of each algorithm was made the same."""
    table = Table(title="settings compared; the rest are each library's defaults")
    for column in ("", "library", "settings"):
        table.add_column(column)
    for row in rows:
        for name, told in row["told"].items():
            threads = f"threads={told['threads']}"
            settings = (f"{key}={value}" for key, value in told["settings"].items())
            table.add_row(row["what"], name, ", ".join([threads, *settings]))
    return table


def show(results: dict[str, Any]) -> None:
    """Prints the tables."""
    console = Console(width=120)
    machine = results["machine"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores; before, this machine's load"
        f" was {results['load']:.1f}"
    )
    if rows := results["updates"]:
        title = f"offline updates, one seed, {NUM_EPISODES * EPISODE:,} transitions"
        console.print(table(title, rows))
        console.print(settings_table(rows))
    if rows := results["steps"]:
        console.print(table("environment steps, random play", rows))
    if cost := results["environment"]:
        console.print(
            f"{VENV.name}: {cost['megabytes']:,.0f} MB, installed in"
            f" {cost['install_seconds']:.0f} s"
        )


def chosen(only: str | None) -> list[str]:
    """Names of algorithms and tasks.

    Raises:
        UserError: for one that is neither.
    """
    known = (*ALGORITHMS, *TASKS)
    names = only.split(",") if only else known
    for name in names:
        if name not in known:
            raise unknown("algorithm or task", name, known)
    return [name for name in known if name in names]


def measure(names: Sequence[str], windows: int) -> dict[str, Any]:
    """Everything that is asked for; nothing is timed before it is known to be there."""
    algorithms = [name for name in names if name in ALGORITHMS]
    return {
        "environment": environment() if algorithms else {},
        "machine": timing.machine(),
        "load": os.getloadavg()[0],  # of other work, in the minute before
        "updates": [bench_learner(name, windows) for name in algorithms],
        "steps": [
            bench_stepper(name, num_envs, windows)
            for name in names
            if name in TASKS
            for num_envs in NUM_ENVS
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status; some ten minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--windows", type=int, default=15, help="timed, in turn")
    parser.add_argument(
        "--only",
        metavar="NAME,NAME",
        help="of algorithms and tasks, which then are printed and not written",
    )
    options = parser.parse_args(arguments)
    if options.windows < 1:
        parser.error(f"--windows must be at least 1, not {options.windows}")
    jax.config.update("jax_platforms", "cpu")  # as the peers are
    try:
        results = measure(chosen(options.only), options.windows)
    except (UserError, PeerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    show(results)
    if not options.only:
        write_json(RESULT, results)
        print(f"wrote {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
