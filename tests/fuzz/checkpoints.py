"""Directories of runs, damaged, that are then resumed, reported, loaded, exported, or
started from.

A changed byte must be noticed in what has sums: checkpoints, and returns.npz. Files of
JSON that people may edit (config.json, summary.json) have none: there, a digit that
became another one cannot be told from one that somebody wrote.
"""

import contextlib
import io
import json
import random
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments import report
from o2ojax import api
from o2ojax.errors import UserError
from o2ojax.parallel import compiled
from o2ojax.run import resolve, training, workdir
from o2ojax.run.config import defaults
from o2ojax.run.job import prepare
from o2ojax.run.progress import Progress
from o2ojax.run.training import train
from o2ojax.run.warm_start import warm_start
from tests.fuzz import changes
from tests.fuzz.harness import ROOT, Case, Unnoticed

POINT = ROOT / "tests" / "fuzz" / "point.py"
FIELDS = {
    "dataset": f"{POINT}:play",
    "agent.widths": (8, 8),
    "batch": 16,
    "offline.updates": 20,
    "online.steps": 20,
    "eval.every": 10,
    "eval.episodes": 2,
    "log.every": 10,
    "checkpoint.every": 10,
}
ACTIONS = ("restore", "restore", "policy", "report", "warm", "resume", "play on")
SUMMED = re.compile(r"checkpoints/|returns\.npz")


def config(seed: int, **fields: Any):
    made = defaults("iql", f"{POINT}:point")
    made.seeds = (seed, seed + 10)
    resolve.put(made, FIELDS | fields)
    return resolve.resolve(made)


def quiet() -> Progress:
    return Progress(Console(quiet=True))


class Fuzzer:
    def __init__(self, folder: Path):
        compiled.use_cache()
        self.folder, self.base, self.other = folder, folder / "one", folder / "two"
        train(config(0), self.base, quiet())
        train(config(1), self.other, quiet())
        self.begun = folder / "begun"  # it was stopped on its way online
        shutil.copytree(self.base, self.begun)
        for name in ("summary.json", "returns.npz", "curves.png", "checkpoints/41"):
            path = self.begun / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.job = prepare(config(0), self.base)
        self.warm = prepare(config(0, **{"offline.updates": 0}), folder / "warm")
        self.files = {run: named(run) for run in (self.base, self.begun, self.other)}
        self.whole = {
            (run, action): self.act(action, run)
            for run in (self.base, self.begun)
            for action in ("restore", "policy", "warm")
            if (run, action) != (self.begun, "policy")
        }

    def draw(self, chance: random.Random) -> Case:
        action = chance.choice(ACTIONS)
        begun = action in ("resume", "restore") and chance.random() < 0.5
        run = self.begun if begun or action == "resume" else self.base
        files = self.files[run]
        names = sorted(files)
        kept = [
            x for x in names if not x.startswith(("tensorboard", "curves", ".lock"))
        ]
        todo: list[tuple] = []
        for _ in range(chance.choice((1, 1, 1, 1, 2, 3))):
            name = chance.choice(kept)
            how = chance.choice(
                (
                    "bytes",
                    "bytes",
                    "bytes",
                    "bytes",
                    "remove",
                    "swap",
                    "empty",
                    "folder",
                )
                + ("json", "json", "extra", "drop")
            )
            if how == "bytes":
                size = files[name].stat().st_size
                todo.append((how, name, *changes.draw_bytes(chance, max(size, 1))))
            elif how == "json":
                name = chance.choice([x for x in kept if readable(files[x])])
                told = json.loads(files[name].read_text())
                todo.append((how, name, *changes.draw_json(chance, told)))
            elif how == "extra":
                odd = ("7", "abc", "99999", "41.orbax-checkpoint-tmp", "-1", "041", "é")
                todo.append(
                    (how, f"checkpoints/{chance.choice(odd)}", chance.random() < 0.5)
                )
            elif how == "drop":  # a folder, with all that is in it
                todo.append((how, str(Path(name).parent)))
            else:
                todo.append((how, name))
        return f"{run.name} {action}", todo

    def run(self, case: Case) -> bool:
        name, _, action = case[0].partition(" ")
        run, here = self.folder / name, self.folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(run, here)
        for change in case[1]:
            self._damage(run, here, change)
        found = self.act(action, here)
        summed = all(x[0] == "bytes" and SUMMED.match(x[1]) for x in case[1])
        whole = self.whole.get((run, action))
        if summed and whole is not None and not same(found, whole):
            where = {re.sub(r"\d+", "N", x[1]) for x in case[1]}
            raise Unnoticed(f"{action}: other numbers by {', '.join(sorted(where))}")
        return True

    def _damage(self, run: Path, here: Path, change: tuple) -> None:
        how, name, *how_so = change
        files = self.files[run]
        path = here / (files[name].relative_to(run) if name in files else name)
        with contextlib.suppress(OSError, ValueError):  # other changes came before
            if how == "bytes":
                path.write_bytes(changes.change_bytes(path.read_bytes(), tuple(how_so)))
            elif how == "remove":
                path.unlink()
            elif how == "swap" and name in self.files[self.other]:
                path.write_bytes(self.files[self.other][name].read_bytes())
            elif how == "empty":
                path.write_bytes(b"")
            elif how == "folder":
                path.unlink()
                path.mkdir()
            elif how == "json":
                told = changes.change_json(json.loads(path.read_text()), tuple(how_so))
                path.write_text(changes.dump(told))
            elif how == "extra" and how_so[0]:
                path.mkdir(parents=True, exist_ok=True)
            elif how == "extra":
                path.write_bytes(b"x")
            elif how == "drop" and path != here:
                shutil.rmtree(path)

    def act(self, action: str, here: Path) -> Any:
        """Does something with a run's directory; returns what numbers it led to."""
        if action == "restore":
            return self._restored(here)
        if action == "policy":
            return self._policy(here)
        if action == "report":
            return self._report(here)
        if action == "warm":
            job = self.warm
            state, _ = warm_start(job, str(here), quiet())
            return jax.tree.map(np.asarray, jax.tree.leaves(state.agent))
        given = config(0, **({"online.steps": 30} if action == "play on" else {}))
        train(given, here, quiet(), extend=action == "play on")
        return None

    def _restored(self, here: Path) -> Any:
        job = self.job._replace(workdir=here)
        workdir.summary_of(job.config, here)
        with contextlib.ExitStack() as opened:
            opened.enter_context(workdir.sole_owner(here))
            checkpoints = training.open_checkpoints(job)
            opened.callback(checkpoints.close)
            if checkpoints.numbers():
                workdir.refuse_another_config(job.description(), here)
            found = training.restore(job, checkpoints)
        if found is None:
            raise UserError("it has no checkpoint, and begins anew")
        run, record = found
        return [
            *map(np.asarray, jax.tree.leaves(run)),
            np.array(json.dumps(vars(record))),
        ]

    def _policy(self, here: Path) -> Any:
        run = api.load(here)
        run.table()
        policy = run.policy(member=1)
        action, _ = policy.act([0.3, -0.2], policy.start(0))
        return [action, run.returns]

    def _report(self, here: Path) -> None:
        said = io.StringIO()
        for options in ((), ("--readiness",)):
            out = () if options else (f"--out={self.folder / 'curves.png'}",)
            with (
                contextlib.redirect_stderr(said),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                status = report.main([str(here), *out, *options])
            if status == 2:
                told = said.getvalue().rstrip("\n").rpartition("error: ")[2]
                raise UserError(told)
            assert status == 0, status


def named(run: Path) -> dict[str, Path]:
    """The files of a run by names that are the same in all runs of its kind: what is
    numbered at random is numbered by its size.
    """
    found = defaultdict(list)
    for path in run.rglob("*"):
        if path.is_file():
            name = re.sub(
                r"[0-9a-f]{16,}|\.\d{9,}\..*", "*", str(path.relative_to(run))
            )
            found[name].append((path.stat().st_size, path))
    return {
        f"{name} {rank}" if "*" in name else name: path
        for name, paths in found.items()
        for rank, (_, path) in enumerate(sorted(paths))
    }


def readable(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def same(found: list, whole: list) -> bool:
    return len(found) == len(whole) and all(
        a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(found, whole, strict=True)
    )
