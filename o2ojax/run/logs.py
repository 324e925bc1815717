"""Metrics logging to JSON lines, TensorBoard and, optionally, Weights & Biases."""

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from o2ojax.errors import UserError

FLUSH_EVERY = 30.0  # seconds after which TensorBoard sees what there is


class Logs:
    """The open metrics files of a run.

    Args:
        workdir: the run directory.
        size: bytes of `metrics.jsonl` to keep; later lines were written after the
            checkpoint that is being resumed, and will be written again.
        step: step of that checkpoint; TensorBoard discards points after it.
        wandb_project: a Weights & Biases project, or "" for none.
    Raises:
        UserError: `metrics.jsonl` is shorter than `size`, or wandb is not installed.
    """

    def __init__(self, workdir: Path, size: int, step: int, wandb_project: str = ""):
        path = workdir / "metrics.jsonl"
        path.touch()
        if path.stat().st_size < size:
            raise UserError(f"{path} is shorter than its checkpoint remembers it")
        os.truncate(path, size)
        self._lines = path.open("a", encoding="utf-8")
        self._board = Board(workdir / "tensorboard", step + 1)
        self._wandb = _start_wandb(wandb_project, workdir) if wandb_project else None

    def write(
        self, phase: str, step: int, total: int, values: Mapping[str, np.ndarray]
    ) -> None:
        """Writes one line of values, each [M] or [M, episodes].

        The JSON line has the values as they are; the others get means over episodes.

        Args:
            phase: "offline" or "online".
            step: step within the phase.
            total: step within the run, over both phases.
            values: by name.
        """
        line = {"phase": phase, "step": step}
        line |= {name: _jsonable(np.asarray(value)) for name, value in values.items()}
        self._lines.write(json.dumps(line, allow_nan=False) + "\n")
        self._lines.flush()
        for name, value in values.items():
            per_member = np.asarray(value).reshape(len(value), -1).mean(axis=1)
            for member, number in enumerate(per_member):
                self._board.add(f"{name}/member_{member}", number, total)
            if self._wandb:
                self._wandb.log({f"{phase}/{name}": per_member.tolist()}, step=total)

    def size(self) -> int:
        """Flushes all to disk, and returns the size of `metrics.jsonl` in bytes."""
        self._board.flush()
        os.fsync(self._lines.fileno())
        return self._lines.tell()

    def close(self) -> None:
        """Closes all logs. Lines have been flushed as they were written."""
        with contextlib.suppress(OSError):  # of a full disk: it was told then
            self._lines.close()
        with contextlib.suppress(OSError):
            self._board.close()
        if self._wandb:
            self._wandb.finish()


class Board:
    """A file of TensorBoard's, written at once: in tensorboardX's thread an error, as
    of a full disk, would be shown, not raised, and the run wait for the thread forever.

    Args:
        folder: of TensorBoard's files; created if missing.
        step: TensorBoard discards the points of earlier files from here on.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()
        self._write(step, session_log=SessionLog(status=SessionLog.START))

    def add(self, name: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        self._write(step, summary=summary.scalar(name, value))
        if time.monotonic() - self._flushed > FLUSH_EVERY:
            self.flush()

    def _write(self, step: int, **content: Any) -> None:
        event = Event(wall_time=time.time(), step=step, **content)
        self._events.write_event(event)

    def flush(self) -> None:
        """Writes all to disk."""
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes all to disk, and closes the file."""
        self._events.close()


class NoLogs:
    """Logs that write nothing, for all processes but the first."""

    def write(self, *values: Any) -> None:
        """Does nothing."""

    def size(self) -> int:
        """Returns 0."""
        return 0

    def close(self) -> None:
        """Does nothing."""


def _jsonable(value: np.ndarray) -> Any:
    """Converts an array to nested lists, with None for NaN and infinity."""
    if value.ndim:
        return [_jsonable(x) for x in value]
    return float(value) if math.isfinite(value) else None


def _start_wandb(project: str, workdir: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            f"config.wandb={project!r} needs the wandb package: pip install wandb"
        ) from error
    name = hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16]
    return wandb.init(
        project=project, dir=str(workdir), name=workdir.name, id=name, resume="allow"
    )
