"""Where the numbers go while a run goes on: JSON lines, TensorBoard, W&B if asked."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from o2ojax.errors import UserError


class Logs:
    """The open metrics files of a run.

    Args:
        workdir: the run directory.
        size: bytes of `metrics.jsonl` to keep; what follows them came after the
            checkpoint that is being resumed, and will be written again.
        step: where TensorBoard goes on from; points after it are replaced.
        wandb_project: a Weights & Biases project, or "".
    """

    def __init__(self, workdir: Path, size: int, step: int, wandb_project: str = ""):
        path = workdir / "metrics.jsonl"
        path.touch()
        if path.stat().st_size < size:
            raise UserError(f"{path} is shorter than its checkpoint remembers it")
        os.truncate(path, size)
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
        self._wandb = _start_wandb(wandb_project, workdir) if wandb_project else None

    def write(
        self, phase: str, step: int, total: int, values: Mapping[str, np.ndarray]
    ) -> None:
        """One line: every value is [M] or [M, episodes], members never averaged away.

        Args:
            phase: "offline" or "online".
            step: of the phase.
            total: steps since the run began, both phases together.
        """
        line = {"phase": phase, "step": step}
        line |= {name: _jsonable(np.asarray(value)) for name, value in values.items()}
        self._lines.write(json.dumps(line, allow_nan=False) + "\n")
        self._lines.flush()
        for name, value in values.items():
            per_member = np.asarray(value).reshape(len(value), -1).mean(axis=1)
            for member, number in enumerate(per_member):
                self._board.add_scalar(f"{name}/member_{member}", number, total)
            if self._wandb:
                self._wandb.log({f"{phase}/{name}": per_member.tolist()}, step=total)

    def size(self) -> int:
        """Bytes of `metrics.jsonl` so far, all on disk: what a checkpoint remembers."""
        os.fsync(self._lines.fileno())
        return self._lines.tell()

    def close(self) -> None:
        """Flushes everything."""
        self._lines.close()
        self._board.close()
        if self._wandb:
            self._wandb.finish()


class NoLogs:
    """The logs of a process that leaves writing to another."""

    def write(self, *values: Any) -> None:
        """Nothing."""

    def size(self) -> int:
        """Of nothing."""
        return 0

    def close(self) -> None:
        """Nothing."""


def _jsonable(value: np.ndarray) -> Any:
    """Nested lists; what is not finite is null."""
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
