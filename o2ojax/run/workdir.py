"""A run's directory: its lock, and the files that describe the run."""

import fcntl
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from o2ojax.data.files import write_json, write_whole
from o2ojax.errors import UserError
from o2ojax.fields import shown
from o2ojax.registry import short
from o2ojax.report import statistics
from o2ojax.report.tables import data_name
from o2ojax.run.config import FORMAT, RunConfig, differences, with_newer_fields

VERSIONED = ("jax", "jaxlib", "flax", "optax", "distrax", "mujoco", "gymnasium")
# Fields that may change when a run is resumed. A changed door's file causes a warning;
# observations are a dataset's, whose fingerprint is compared, as the machine rounds it.
FREE_TO_CHANGE = (
    *("wandb", "checkpoint", "doors", "host", "native", "store_steps"),
    "observations",
)


@contextmanager
def sole_owner(workdir: Path) -> Iterator[None]:
    """Creates a run directory and locks it against other processes, as a context.

    Raises:
        UserError: the directory cannot be written, or another process is running in it.
    """
    try:
        os.fspath(workdir.absolute()).encode()
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written: {error.strerror}"
        ) from error
    except UnicodeEncodeError as error:  # what Python could not decode
        raise UserError(
            f"--workdir={ascii(str(workdir))}: its folders have letters that this"
            f" locale ({sys.getfilesystemencoding()}) does not know; set"
            " LC_ALL=C.UTF-8, or PYTHONUTF8=1"
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


def default_workdir(config: RunConfig) -> Path:
    """The directory of a run that is not given one: runs/ALGORITHM/DATASET."""
    data = data_name(config.dataset) or config.env
    return Path("runs") / _folder(config.algorithm) / _folder(data)


def _folder(name: str) -> str:
    """A name as that of a folder."""
    return short(name).replace("/", "-").replace(":", "-")


def summary_of(config: RunConfig, workdir: Path) -> dict[str, Any] | None:
    """The summary of a finished run of this config; None if there is none.

    Raises:
        UserError: the directory holds a finished run of another config.
    """
    path = workdir / "summary.json"
    if not os.path.exists(path):
        return None
    refuse_another_config(config.described(), workdir)
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:  # damaged: it is made again from the checkpoint
        return None


def describe(workdir: Path, described: dict[str, Any]) -> None:
    """Writes `config.json`, unless it already has the same content."""
    before = read_description(workdir) or {}
    if any(before.get(name) != value for name, value in described.items()):
        write_json(workdir / "config.json", described | surroundings())


def refuse_another_config(
    described: dict[str, Any], workdir: Path, extend: bool = False
) -> None:
    """Checks that a config is the one that the directory's run was started with.

    Args:
        extend: whether the run may become longer.
    Raises:
        UserError: the configs differ; the message lists the fields.
    """
    before = read_description(workdir)
    if before is None:
        return
    refuse_another_format(before, workdir)
    compared = [name for name in described if name not in FREE_TO_CHANGE]
    old, new = (
        {name: config.get(name) for name in compared}
        for config in (with_newer_fields(before), described)
    )
    changed = differences(old, new)
    longer = [
        f"{phase}.{length}"
        for phase, length in LENGTHS.items()
        if new[phase][length] > old[phase][length]
    ]
    if extend and longer:
        _refuse_to_extend(old, longer, workdir)
        changed = [line for line in changed if line.partition(":")[0] not in longer]
    if changed:
        hint = ""
        physics = before.get("physics")
        if physics and physics != described["physics"]:  # `auto` on another device
            hint = f", here with --config.physics={physics}"
        if longer and len(changed) == len(longer):
            hint = ", or --extend to make it longer"
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(changed)}); give"
            f" another --workdir, or the same config to go on{hint}"
        )


LENGTHS = {"offline": "updates", "online": "steps"}  # of a run's phases


def is_longer(config: RunConfig, workdir: Path) -> bool:
    """Whether a config makes the run of a directory longer."""
    before, new = read_description(workdir) or {}, config.described()
    return bool(before) and any(
        new[phase][length] > before[phase][length] for phase, length in LENGTHS.items()
    )


def _refuse_to_extend(old: dict[str, Any], longer: list[str], workdir: Path) -> None:
    if "offline.updates" in longer and old["online"]["steps"]:
        raise UserError(
            f"{workdir} has an online phase, so its offline phase cannot become longer:"
            " extend --config.online.steps alone"
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
    """A sentence for each door whose file has changed since the run was started."""
    before = (read_description(workdir) or {}).get("doors", {})
    return [
        f"the file behind config.{name} has changed since this run began"
        for name, fingerprint in described["doors"].items()
        if before.get(name, fingerprint) != fingerprint
    ]


def read_description(directory: Path) -> dict[str, Any] | None:
    """Reads a run's `config.json`; None if there is none.

    Raises:
        UserError: the file is damaged, or something else is in the place of a file or
            of a folder of a run.
    """
    for name, is_folder in PLACES.items():
        place = directory / name
        if os.path.exists(place) and os.path.isdir(place) != is_folder:
            kinds = ("file", "folder")
            raise UserError(
                f"{place} is a {kinds[not is_folder]}, and a run has a"
                f" {kinds[is_folder]} there: move it away"
            )
    path = directory / "config.json"
    if not os.path.exists(path):
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a run's: it holds no dictionary")
    _check_form(found, path)
    return found


def _check_form(described: dict[str, Any], path: Path) -> None:
    """Checks what is read again of a `config.json`.

    Raises:
        UserError: an entry is missing, or of another type.
    """
    for name, kind in (REQUIRED | OPTIONAL).items():
        *outer, last = name.split(".")
        within = described.get(*outer, {}) if outer else described
        if last not in within and name in OPTIONAL:
            continue
        value = within.get(last)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(
                f"{path} is damaged: {name} is {shown(value)}; it must be a"
                f" {kind.__name__}"
            )


REQUIRED = {  # entries of config.json, those within another after it
    "algorithm": str,
    **dict.fromkeys(("agent", "offline", "online", "population"), dict),
    **dict.fromkeys(("offline.updates", "online.steps"), int),
    "seeds": list,
}
OF_AGENTS = {  # those without which no agent can be made of its checkpoints
    **dict.fromkeys(("spec", "observations"), dict),
    "members": list,
    "store_steps": int,
}
OPTIONAL = OF_AGENTS | dict.fromkeys(("doors", "replay", "eval", "log"), dict)


def hold_agents(described: dict[str, Any], directory: Path) -> None:
    """Checks that a `config.json` says what agents are made of.

    Raises:
        UserError: an entry is missing.
    """
    if absent := OF_AGENTS.keys() - described.keys():
        path = directory / "config.json"
        raise UserError(f"{path} is damaged: it lacks {', '.join(sorted(absent))}")


PLACES = {  # in a run's directory, and whether they are folders
    **dict.fromkeys(("config.json", "metrics.jsonl", "returns.npz"), False),
    **dict.fromkeys(("summary.json", "curves.png"), False),
    **dict.fromkeys(("checkpoints", "best", "tensorboard"), True),
}


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
