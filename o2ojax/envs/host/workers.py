"""Steps environments of Gymnasium for a compiled loop, here or in other processes."""

import os
import socket
import subprocess
import sys
import threading
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from o2ojax.envs.host.live import TICKET, EpisodeError, Known
from o2ojax.envs.host.pool import EXTRAS, Pool, Request
from o2ojax.envs.host.sources import HostError, Source
from o2ojax.errors import UserError

# The modules beside this one under another name, as o2ojax itself would import JAX.
BOOT = """
import importlib.util, sys
from multiprocessing.connection import Connection
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "_o2ojax_host", folder + "/__init__.py", submodule_search_locations=[folder]
)
sys.modules["_o2ojax_host"] = importlib.util.module_from_spec(spec)
from _o2ojax_host import pool
pool.work(Connection(int(sys.argv[2])))
"""


class HostWarning(UserWarning):
    """Something about an environment that a user should know of."""


class EnvironmentFailed(UserError):
    """An environment has raised an error, which `__cause__` is.

    Of an EpisodeError, `seed` and `actions` [T, A], in [-1, 1], lead to it again.
    """


class Host:
    """The environments of a run, as NumPy functions of whole batches.

    An error is kept, and all that is asked later is answered with NaN, as a compiled
    program cannot be left by an exception. `check` raises it.
    """

    def __init__(
        self,
        source: Source,
        known: Known,
        workers: int = 0,
        timeout: float = 60.0,
    ):
        """
        Args:
            workers: processes; 0 for this one.
            timeout: seconds after which a process that does not answer is replaced.
        """
        self.num_obs = known.spaces.num_obs
        self.failure: Exception | None = None
        self._lock = threading.Lock()  # several devices may call at once
        given = source, known.spaces, known.horizon, known.owns_generators
        if workers:
            self.pools: list[Any] = [Worker(given, timeout) for _ in range(workers)]
        else:
            self.pools = [_Here(Pool(*given))]

    def reset(self, seeds: Any) -> tuple[np.ndarray, np.ndarray]:
        """Seeds [...] -> first observations [..., O] and tickets [..., TICKET]."""
        seeds = np.asarray(seeds)
        rows, tickets = self._asked("reset", seeds.reshape(-1), self.num_obs)
        return rows.reshape(*seeds.shape, -1), tickets.reshape(*seeds.shape, TICKET)

    def step(self, *request: Any) -> tuple[np.ndarray, np.ndarray]:
        """The parts of a `Request`, under any leading axes, as `Pool.step`."""
        parts = Request(*map(np.asarray, request))
        lead = parts.seed.shape
        flat = (part.reshape(-1, *part.shape[len(lead) :]) for part in parts)
        width = 2 * self.num_obs + EXTRAS
        rows, tickets = self._asked("step", Request(*flat), width)
        return rows.reshape(*lead, width), tickets.reshape(*lead, TICKET)

    def check(self) -> None:
        """Raises what an environment has raised since the last call.

        Raises:
            EnvironmentFailed: the message has the seed and the number of the step.
        """
        failure, self.failure = self.failure, None
        if failure is not None:
            raise EnvironmentFailed(f"the environment failed {failure}") from failure

    def close(self) -> None:
        """Ends the worker processes."""
        for pool in self.pools:
            pool.close()

    def _asked(self, what: str, given: Any, width: int) -> tuple:
        num = len(given.seed if isinstance(given, Request) else given)
        blank = (
            np.full((num, width), np.nan, np.float32),
            np.zeros((num, TICKET), np.uint32),
        )
        with self._lock:
            if self.failure is not None:
                return blank
            try:
                return self._spread(what, given, num, *blank)
            except Exception as error:
                self.failure = error
                return blank

    def _spread(self, what, given, num, rows, tickets) -> tuple:
        """Row i goes to pool i modulo their number, where it was before, too."""
        shares = [slice(at, num, len(self.pools)) for at in range(len(self.pools))]
        asked = []
        for pool, share in zip(self.pools, shares, strict=True):
            if range(num)[share]:
                part = (
                    Request(*(x[share] for x in given))
                    if isinstance(given, Request)
                    else given[share]
                )
                pool.ask(what, part)
                asked.append((pool, share))
        failure = None
        for pool, share in asked:  # all are heard, so that none has an answer left over
            try:
                rows[share], tickets[share] = pool.answer()
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure
        return rows, tickets


class _Here:
    """A pool in this process, in the form of a `Worker`."""

    def __init__(self, pool: Pool):
        self.pool, self.close = pool, pool.close

    def ask(self, what: str, given: Any) -> None:
        self.asked = getattr(self.pool, what), given

    def answer(self) -> tuple[np.ndarray, np.ndarray]:
        function, given = self.asked
        return function(given)


class Worker:
    """A pool in a process of its own, which is replaced if it dies or hangs.

    The new one plays the episodes again from their seeds.
    """

    def __init__(self, given: tuple, timeout: float):
        source, spaces, *sizes = given
        self.given = (tuple(source), tuple(spaces), *sizes)
        self.timeout = timeout
        self._start()

    def ask(self, what: str, given: Any) -> None:
        """Sends a request."""
        self.asked = what, tuple(given) if isinstance(given, Request) else given
        try:
            self.connection.send(self.asked)
        except OSError:  # it has died; `answer` finds out
            pass

    def answer(self) -> tuple[np.ndarray, np.ndarray]:
        """Waits for the answer.

        Raises:
            EpisodeError: an environment has failed.
            HostError: two processes have died over the same request, or did not answer.
        """
        for last in (False, True):
            try:
                return self._answer()
            except (EOFError, OSError, TimeoutError) as error:
                why = self._why(error)
                self._start()
                if last:
                    raise HostError(
                        f"in a worker process, which {why}, and so did another one that"
                        " was asked for the same steps"
                    ) from error
                warnings.warn(
                    f"a worker process of the environments {why}; another one plays its"
                    " episodes again",
                    HostWarning,
                    stacklevel=2,
                )
                self.connection.send(self.asked)
        raise AssertionError

    def _answer(self) -> Any:
        if not self.connection.poll(self.timeout):
            raise TimeoutError
        answer = self.connection.recv()
        if answer and isinstance(answer[0], str):  # "failed"
            raise EpisodeError(*answer[1:]) if answer[2:] else HostError(answer[1])
        return answer

    def _why(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"did not answer for {self.timeout:g} s"
        self.process.wait()
        return f"died with status {self.process.returncode}"

    def _start(self) -> None:
        self.close()
        ours, theirs = socket.socketpair()
        folder = str(Path(__file__).parent)
        self.connection = Connection(ours.detach())
        self.process = subprocess.Popen(
            [sys.executable, "-c", BOOT, folder, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
        )
        theirs.close()
        self.connection.send(("open", self.given))
        self._answer()

    def close(self) -> None:
        """Ends the process."""
        if hasattr(self, "process"):
            self.connection.close()
            self.process.kill()
            self.process.wait()
