"""A run's directory: its lock, and the files that describe the run."""

import fcntl
import importlib.metadata
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from o2ojax.data.files import write_json, write_whole
from o2ojax.errors import UserError
from o2ojax.report import statistics
from o2ojax.run.config import FORMAT, differences

VERSIONED = ("jax", "jaxlib", "flax", "optax", "distrax", "mujoco", "gymnasium")
# Fields that may change when a run is resumed. A changed door's file causes a warning.
FREE_TO_CHANGE = ("wandb", "checkpoint", "doors")


@contextmanager
def sole_owner(workdir: Path) -> Iterator[None]:
    """Creates a run directory and locks it against other processes, as a context.

    Raises:
        UserError: the directory cannot be written, or another process is running in it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written: {error.strerror}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another process is running in {workdir}; wait for it, or give"
                " another --workdir"
            ) from error
        yield


def describe(workdir: Path, described: dict[str, Any]) -> None:
    """Writes `config.json`, unless it already has the same content."""
    before = read_description(workdir) or {}
    if any(before.get(name) != value for name, value in described.items()):
        write_json(workdir / "config.json", described | surroundings())


def refuse_another_config(described: dict[str, Any], workdir: Path) -> None:
    """Checks that a config is the one that the directory's run was started with.

    Raises:
        UserError: the configs differ; the message lists the fields.
    """
    before = read_description(workdir)
    if before is None:
        return
    refuse_another_format(before, workdir)
    compared = [name for name in described if name not in FREE_TO_CHANGE]
    changed = differences(
        {name: before.get(name) for name in compared},
        {name: described[name] for name in compared},
    )
    if changed:
        hint = ""
        physics = before.get("physics")
        if physics and physics != described["physics"]:  # `auto` on another device
            hint = f", here with --config.physics={physics}"
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(changed)}); give"
            f" another --workdir, or the same config to go on{hint}"
        )


def refuse_another_format(described: dict[str, Any], workdir: Path) -> None:
    """Checks that the format of a run's files is the current one.

    Raises:
        UserError: the formats differ.
    """
    found = described.get("format", 1)
    if found != FORMAT:
        raise UserError(
            f"{workdir} holds a run of format {found}, and this version of o2ojax goes"
            f" on with those of format {FORMAT} alone: start it again in another"
            " --workdir, or use the version that config.json names as its commit"
        )


def changed_doors(described: dict[str, Any], workdir: Path) -> list[str]:
    """Says of each door whose file has changed since the run was started that it has."""
    before = (read_description(workdir) or {}).get("doors", {})
    return [
        f"the file behind config.{name} has changed since this run began"
        for name, fingerprint in described["doors"].items()
        if before.get(name, fingerprint) != fingerprint
    ]


def read_description(directory: Path) -> dict[str, Any] | None:
    """Reads a run's `config.json`; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / "config.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def newest_checkpoint(directory: Path) -> int | None:
    """Number of a run's newest checkpoint, from folder names; None if there is none."""
    names = [path.name for path in (directory / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=None)


def surroundings() -> dict[str, Any]:
    """Package versions, git commit and device."""
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        "commit": _commit(),
        "device": f"{device.platform} {device.device_kind} x{jax.device_count()}",
    }


def _commit() -> str:
    """Git commit of this package, plus "-dirty" if changed; "" outside a checkout."""
    here = Path(__file__).parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        sources = ("--", "*.py", "setup.py", "requirements.lock")
        changed = git("status", "--porcelain", "--untracked-files=no", *sources)
        return git("rev-parse", "HEAD") + "-dirty" * bool(changed)
    except OSError:  # no git
        return ""


def save_returns(workdir: Path, curves: statistics.Curves) -> None:
    """Writes `returns.npz` atomically; without `success` if it is None."""
    known = {name: x for name, x in curves._asdict().items() if x is not None}
    write_whole(
        workdir / "returns.npz",
        lambda path: np.savez(path, **known),
    )
