"""What a Ray worker does: one trial, on cores of its own, with a log of its own.

JAX is imported only once its environment stands, so nothing here imports it, or our
package, at the top.
"""

import fcntl
import os
import socket
import tempfile
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO


def work(
    config: dict, directory: str, cpus: int, gpus: float, attempt: str, home: str
) -> int:
    """Runs a trial, or goes on with it.

    Args:
        config: the trial's, as `as_json` writes it.
        directory: its run directory.
        cpus: how many cores to keep to.
        gpus: how many GPUs Ray has given.
        attempt: a name for this call, by which the sweep can tell that it has begun.
        home: the sweep's working directory, where relative paths begin.
    Returns:
        the exit status of `experiments.run`; why it failed is the log's last line.
    """
    os.chdir(home)
    _cores = claim_cores(cpus)  # ours until this process ends
    if gpus == 0:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    elif gpus < 1:  # of the GPU's memory, the same share
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 * gpus:.3f}")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", buffering=1, encoding="utf-8") as log:
        with redirect_stdout(log), redirect_stderr(log):
            try:
                introduce(folder, attempt)
                from o2ojax.run.resolve import from_json

                from .execution import execute

                return execute(from_json(config), folder)
            except Exception:
                traceback.print_exc()
                return 2


def claim_cores(count: int) -> list[IO]:
    """Keeps this process to `count` cores that no other trial on this machine has.

    JAX and MuJoCo start a thread for each core that they may use. A core is claimed by
    a lock, which ends with the process. Where fewer are free than were asked for, the
    process may use all, as if this had not been called.

    Returns:
        the locked files: closing one gives its core back.
    """
    folder = Path(tempfile.gettempdir()) / f"o2ojax-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    claimed: dict[int, IO] = {}
    for core in sorted(os.sched_getaffinity(0)):
        file = (folder / str(core)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another trial's
            file.close()
            continue
        claimed[core] = file
        if len(claimed) == count:
            os.sched_setaffinity(0, claimed)
            return list(claimed.values())
    for file in claimed.values():
        file.close()
    return []


def introduce(folder: Path, attempt: str) -> None:
    """Writes `worker.json`: who runs a trial, and how often it was taken up again."""
    from o2ojax.data.files import write_json
    from o2ojax.run.workdir import newest_checkpoint

    from . import live

    resumed, checkpoint = live.note(folder).get("resumed", 0), newest_checkpoint(folder)
    if checkpoint is not None:
        resumed += 1
        print(f"resumes from checkpoint {checkpoint}")
    about = {"attempt": attempt, "host": socket.gethostname(), "pid": os.getpid()}
    about |= {"resumed": resumed, "checkpoint": checkpoint}
    write_json(folder / "worker.json", about)
