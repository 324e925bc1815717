"""Trials as Ray tasks: sent out, waited for, and sent out again when a worker is lost.

Ray is imported here alone, and only when it is needed.
"""

import os
import signal
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from o2ojax.errors import UserError
from o2ojax.run.config import as_json

from . import live, worker
from .trials import Trial

FAILED = 2  # a run's exit status, if it would only fail again


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, on this machine or on the cluster at an address, while inside.

    Yields:
        the module.
    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "a sweep needs Ray: pip install 'o2ojax[sweep]'. Without it, --trial=N runs"
            " one trial"
        ) from error
    try:
        _begin(ray, address)
    except (OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if address is None:
            raise UserError(f"Ray does not start here: {said}") from error
        raise UserError(
            f"--address={address}: no Ray cluster that can be used: {said}. (One that"
            " wants a token is answered with RAY_AUTH_MODE=token in the environment)"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _begin(ray: Any, address: str | None) -> None:
    """Connects to a cluster, or starts one of this machine."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon:  # where nobody listens Ray itself would go on trying for many minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, **quiet)
    else:
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)),
            include_dashboard=False,
            object_store_memory=10**8,  # bytes; only configs are sent
            **quiet,
        )


def refuse_too_much(ray: Any, trials: Sequence[Trial]) -> None:
    """Holds what trials ask for against what the nodes have.

    Raises:
        UserError: no node has that much.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for trial in trials:
        if not any(
            node.get("CPU", 0) >= trial.cpus and node.get("GPU", 0) >= trial.gpus
            for node in nodes
        ):
            most = [
                f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes
            ]
            raise UserError(
                f"trial {trial.name} asks for {trial.cpus} CPUs and {trial.gpus:g}"
                f" GPUs; the nodes of Ray have {', '.join(most)}"
            )


class Jobs:
    """Trials on their way.

    Args:
        ray: the module, connected.
        trials: those to run.
        retries: how often a trial is sent out again after a lost worker.
        say: told of lost workers, a sentence each.
    """

    def __init__(
        self,
        ray: Any,
        trials: Sequence[Trial],
        retries: int,
        say: Callable[[str], None],
    ):
        self._ray, self._retries, self._say = ray, retries, say
        self._task = ray.remote(max_calls=1, max_retries=0)(worker.work)
        self._lost: Counter[str] = Counter()
        self._attempts: dict[str, str] = {}
        self.failed: dict[str, str] = {}  # trial -> why
        self.pending: dict[Any, Trial] = {}
        for trial in trials:
            self._send(trial)

    def _send(self, trial: Trial) -> None:
        attempt = self._attempts[trial.name] = uuid.uuid4().hex
        asked = {"num_cpus": trial.cpus, "num_gpus": trial.gpus, "name": trial.name}
        reference = self._task.options(**asked).remote(
            as_json(trial.config),
            str(trial.directory.absolute()),
            trial.cpus,
            trial.gpus,
            attempt,
            str(Path.cwd()),
        )
        self.pending[reference] = trial

    def word(self, trial: Trial) -> str:
        """How a trial stands, in one word, as in `live.State`."""
        if trial.name in self.failed:
            return "failed"
        if trial.name not in {waited.name for waited in self.pending.values()}:
            return "done"
        attempt = live.note(trial.directory).get("attempt")
        return "running" if attempt == self._attempts.get(trial.name) else "waiting"

    def wait(self, seconds: float) -> None:
        """Waits until a trial ends, no longer than that; sends out what was lost."""
        ended, _ = self._ray.wait(list(self.pending), timeout=seconds)
        for reference in ended:
            trial = self.pending.pop(reference)
            outcome, why = self._outcome(reference, trial)
            retry = self._lost[trial.name] + 1
            if outcome == "failed":
                self.failed[trial.name] = why
            elif outcome == "lost" and retry > self._retries:
                self.failed[trial.name] = f"{why}, after {self._retries} retries"
            elif outcome == "lost":
                self._lost[trial.name] = retry
                self._say(f"{trial.name} {why}: retry {retry} of {self._retries}")
                self._send(trial)

    def _outcome(self, reference: Any, trial: Trial) -> tuple[str, str]:
        """How a task ended, "done", "failed" or "lost", and why."""
        errors = self._ray.exceptions
        try:
            status = self._ray.get(reference)
        except errors.RayTaskError as error:  # before there was a log
            return "failed", f"{type(error.cause).__name__}: {error.cause}"
        except errors.RayError as error:
            return "lost", f"has lost its worker ({type(error).__name__})"
        if status == FAILED:
            return "failed", live.last_words(trial.directory)
        return ("lost", "was told to stop") if status else ("done", "")

    def stop(self) -> None:
        """Asks all to save and stop, and waits until they have."""
        for reference in self.pending:
            self._ray.cancel(reference)
        self._ray.wait(list(self.pending), num_returns=len(self.pending))


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While inside, SIGTERM does what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
