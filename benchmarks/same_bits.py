"""Whether a change to the code changes what is learned, to the last bit.

    python -m benchmarks.same_bits OLD NEW [--only=iql,fowm] [--keep=DIR]

Runs the same small experiments in two checkouts, by their public command, and compares
every metric, every return and every array of the last checkpoint. What was renamed in
between is listed in the tables below; a difference that is meant is written down in the
commit that makes it.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console
from rich.table import Table

# What an older checkout calls it -> what it is called here.
CONFIG_FIELDS = {
    "agent.opening": "agent.trial_context",
    "replay.windows.alpha": "replay.alpha",
    "replay.balanced.widths": "replay.widths",
}
CONFIG_VALUES = {  # (field, value here) -> value there, for algorithms of the pattern
    ("replay.name", "uniform_windows"): "uniform",
    ("replay.name", "symmetric_windows"): "symmetric",
}
METRICS = {"told": "oracle"}
LEAVES = ((r"^replay/sums/", "replay/priorities/"),)

TINY = {
    "seeds": "2",
    "batch": "32",
    "offline.updates": "40",
    "online.steps": "40",
    "eval.every": "20",
    "eval.episodes": "2",
    "log.every": "20",
    "checkpoint.every": "20",
}
SMALL = {"agent.widths": "32,32"}
AT_ONCE = SMALL | {"online.round": "0", "online.warmup": "0"}
PLANS = {
    "agent.encoder_width": "32",
    "agent.width": "32",
    "agent.latent_dim": "8",
    "agent.num_samples": "16",
    "agent.num_proposals": "4",
    "agent.num_elites": "4",
    "online.round": "10",
}
TASKS = {
    "agent.widths": "32,32",
    "agent.encoder_widths": "32,32",
    "agent.context": "16",
    "agent.trial_context": "16",
    "agent.online_batch": "16",
    "tasks.test": "2",
    "online.steps": "2000",
    "online.envs": "1",
    "online.round": "1000",
    "online.updates_per_step": "0.01",
    "eval.every": "1000",
    "log.every": "1000",
    "checkpoint.every": "1000",
}


class Case(NamedTuple):
    """One small experiment.

    config: file of experiments/configs, and its task.
    fields: that differ from TINY.
    options: of the command, besides.
    start:  the case whose offline agents it takes.
    killed: whether it is killed after its first checkpoint, and resumed.
    """

    config: str
    fields: dict[str, str] = {}
    options: tuple[str, ...] = ()
    start: str = ""
    killed: bool = False


HOPPER, PUSH, POINT = "hopper-medium-replay", "push-medium-replay", "point-robot-pearl"
CASES = {
    "awac": Case(f"awac.py:{HOPPER}", AT_ONCE | {"agent.actor_widths": "32,32"}),
    "bc": Case(f"bc.py:{HOPPER}", SMALL | {"online.steps": "0"}),
    "bcq": Case(f"bcq.py:{HOPPER}", SMALL | {"agent.vae_widths": "32,32"}),
    "cql": Case(f"cql.py:{HOPPER}", AT_ONCE | {"population.conservatism": "1,5"}),
    "cql lagrange": Case(f"cql.py:{HOPPER}", AT_ONCE | {"agent.lagrange": "True"}),
    "fowm": Case(f"fowm.py:{PUSH}", PLANS | {"population.penalty": "1,20"}),
    "fowm uniform": Case(f"fowm.py:{PUSH}", PLANS | {"replay.name": "uniform_windows"}),
    "iql": Case(f"iql.py:{HOPPER}", SMALL),
    "iql population": Case(
        f"iql.py:{HOPPER}", SMALL | {"population.expectile": "0.7,0.9"}
    ),
    "iql symmetric": Case(f"iql.py:{HOPPER}", SMALL | {"replay.name": "symmetric"}),
    "iql killed": Case(f"iql.py:{HOPPER}", SMALL, killed=True),
    "iql warm": Case(f"iql.py:{HOPPER}", SMALL | {"offline.updates": "0"}, start="iql"),
    "iql devices": Case(f"iql.py:{HOPPER}", SMALL, ("--cpu-devices=2",)),
    "iql shared batch": Case(
        f"iql.py:{HOPPER}", SMALL | {"devices.per_batch": "2"}, ("--cpu-devices=2",)
    ),
    "o2ac": Case(f"o2ac.py:{HOPPER}", SMALL),
    "off2on": Case(
        f"off2on.py:{HOPPER}",
        SMALL
        | {
            "agent.num_agents": "2",
            "replay.widths": "16,16",
            "online.round": "20",
            "online.first_round": "2",
        },
    ),
    "pearl": Case(
        "pearl.py:point-robot",
        TASKS
        | {
            "tasks.train": "5",
            "online.envs": "5",
            "online.round": "3000",
            "online.warmup": "3000",
            "online.steps": "6000",
            "eval.every": "3000",
            "log.every": "3000",
            "checkpoint.every": "3000",
            "offline.updates": "0",
            "replay.capacity": "1200",
            "agent.recent": "600",
        },
    ),
    "sac": Case(
        "sac.py:hopper", SMALL | {"offline.updates": "0", "online.warmup": "20"}
    ),
    "sac warm": Case(
        f"sac.py:{HOPPER}",
        SMALL
        | {"offline.updates": "0", "replay.name": "uniform", "online.warmup": "0"},
        start="cql lagrange",
    ),
    "smac": Case(f"smac.py:{POINT}", TASKS | {"agent.decoder_widths": "16,16"}),
    "td3_bc": Case(f"td3_bc.py:{HOPPER}", SMALL),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 the same, 1 something differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_bits")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", metavar="CASE,CASE", help=", ".join(CASES))
    parser.add_argument("--keep", type=Path, default=Path("runs/same_bits"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else list(CASES)
    sides = {
        side: Side(getattr(options, side), options.keep) for side in ("old", "new")
    }
    todo = [(side, name) for name in sorted(names, key=_order) for side in sides]
    with ThreadPoolExecutor(options.jobs) as pool:
        done = {
            (side, name): pool.submit(sides[side].run, name, side == "old")
            for side, name in todo
        }
        directories = {which: future.result() for which, future in done.items()}
    table, same = Table("case", "metrics", "leaves", ""), True
    for name in names:
        old, new = directories["old", name], directories["new", name]
        counts, differences = compare(old, new)
        same &= not differences
        verdict = "the same" if not differences else "\n".join(differences[:8])
        table.add_row(name, *map(str, counts), verdict)
    Console(width=120).print(table)
    return 0 if same else 1


def _order(name: str) -> tuple[bool, list[str]]:
    """What others start from comes first."""
    return bool(CASES[name].start), list(CASES).index(name)


class Side:
    """One of the two checkouts, and where its runs are kept."""

    def __init__(self, checkout: Path, keep: Path):
        self.checkout, self.keep = checkout.resolve(), keep.resolve()
        self.commit = _git(self.checkout, "rev-parse", "HEAD")
        if _git(self.checkout, "status", "--porcelain", "--untracked-files=no"):
            diff = _git(self.checkout, "diff", "HEAD").encode()
            self.commit += "-" + hashlib.sha256(diff).hexdigest()[:12]

    def run(self, name: str, is_old: bool) -> Path:
        """Runs a case, unless it has been run already. Returns its directory."""
        case, command = CASES[name], self.command(name, is_old)
        digest = hashlib.sha256(" ".join(command).encode()).hexdigest()[:12]
        directory = self.keep / self.commit / f"{name.replace(' ', '-')}-{digest}"
        finished = directory / "summary.json"
        if finished.exists():
            return directory
        if case.start:
            start = self.run(case.start, is_old)
            command.append(f"--config.offline.from={start}")
        command.append(f"--workdir={directory}")
        environment = os.environ | {
            "PYTHONPATH": str(self.checkout),
            "JAX_COMPILATION_CACHE_DIR": str(self.keep / "cache"),
        }
        environment.pop("XLA_FLAGS", None)
        given = dict(cwd=self.checkout, env=environment, text=True)
        if case.killed:
            self._kill_once(command, directory, given)
        done = subprocess.run(command, capture_output=True, **given)
        if done.returncode or not finished.exists():
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return directory

    def command(self, name: str, is_old: bool) -> list[str]:
        """The public command of a case, in this checkout's words."""
        case = CASES[name]
        config = f"--config=experiments/configs/{case.config}"
        command = [sys.executable, "-m", "experiments.run", config, *case.options]
        there = {here: old for old, here in CONFIG_FIELDS.items()}
        for field, value in (TINY | case.fields).items():
            if is_old:
                value = CONFIG_VALUES.get((field, value), value)
                field = there.get(field, field)
            command.append(f"--config.{field}={value}")
        return command

    def _kill_once(self, command: list[str], directory: Path, given: dict) -> None:
        """Starts a run, and kills it once a checkpoint of it is whole."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = subprocess.Popen(command, **quiet, **given)
        while running.poll() is None:
            whole = [x for x in directory.glob("checkpoints/*") if x.name.isdecimal()]
            if whole:
                running.send_signal(signal.SIGKILL)
            time.sleep(0.01)
        if running.returncode != -signal.SIGKILL:
            raise SystemExit(f"{' '.join(command)}\nended before it could be killed")


def _git(checkout: Path, *words: str) -> str:
    command = ["git", "-C", str(checkout), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def compare(old: Path, new: Path) -> tuple[tuple[int, int], list[str]]:
    """What two runs hold: how many numbers of either kind, and where they differ."""
    differences: list[str] = []
    ours, theirs = _metrics(new, {}), _metrics(old, METRICS)
    differences += _apart("metrics", theirs.keys(), ours.keys())
    for at in theirs.keys() & ours.keys():
        differences += _difference(str(at), theirs[at], ours[at])
    found, before = _leaves(new, ()), _leaves(old, LEAVES)
    differences += _apart("leaves", before.keys(), found.keys())
    for at in before.keys() & found.keys():
        differences += _difference(at, before[at], found[at])
    return (sum(x.size for x in ours.values()), len(found)), differences


def _metrics(directory: Path, renamed: dict[str, str]) -> dict[tuple, np.ndarray]:
    found = {}
    for number, line in enumerate((directory / "metrics.jsonl").open()):
        entry: dict[str, Any] = json.loads(line)
        for name, value in entry.items():
            if name != "phase":
                at = number, entry["phase"], entry["step"], renamed.get(name, name)
                found[at] = np.array(value, np.float64)  # None is NaN
    with np.load(directory / "returns.npz") as returns:
        for name in returns.files:
            if returns[name].dtype.kind == "f":
                found["returns.npz", name] = returns[name]
    return found


def _leaves(directory: Path, renamed: Sequence) -> dict[str, np.ndarray]:
    numbers = [
        int(x.name) for x in (directory / "checkpoints").iterdir() if x.name.isdecimal()
    ]
    path = directory / "checkpoints" / str(max(numbers)) / "arrays"
    found = {}
    for name, leaf in ocp.StandardCheckpointer().restore(path).items():
        for pattern, replacement in renamed:
            name = re.sub(pattern, replacement, name)
        found[name] = np.asarray(leaf)
    return found


def _apart(what: str, old: Any, new: Any) -> list[str]:
    only_old, only_new = sorted(map(str, old - new)), sorted(map(str, new - old))
    return [
        f"{what} {where} only: {', '.join(names[:6])}"
        for where, names in (("old", only_old), ("new", only_new))
        if names
    ]


def _difference(name: str, old: np.ndarray, new: np.ndarray) -> list[str]:
    if old.shape != new.shape or old.dtype != new.dtype:
        return [f"{name}: {old.dtype}{old.shape} -> {new.dtype}{new.shape}"]
    if old.tobytes() == new.tobytes() or np.array_equal(old, new, equal_nan=True):
        return []
    apart = np.abs(np.float64(old) - np.float64(new))
    relative = apart / np.maximum(np.abs(np.float64(old)), 1e-12)
    return [f"{name}: differs by {apart.max():.3g}, {relative.max():.2g} of it"]


if __name__ == "__main__":
    sys.exit(main())
