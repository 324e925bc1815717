"""Steps environments of Gymnasium for a compiled loop, here or in other processes."""

import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from o2ojax.envs.host.live import TICKET, EpisodeError, Known
from o2ojax.envs.host.pool import Pool, answer_width
from o2ojax.envs.host.sources import HostError, Source
from o2ojax.errors import UserError
from o2ojax.machine import num_cores

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
        num_callers: int = 1,
    ):
        """
        Args:
            workers: processes; 0 for this one.
            timeout: seconds after which a process that does not answer is replaced.
            num_callers: devices, each of which asks for rows of its own.
        """
        self.name = repr((*source, known.horizon))
        self.num_words = known.spaces.num_words
        self.failure: Exception | None = None
        self._lock = threading.Lock()  # several devices may call at once
        given = source, known.spaces, known.horizon, known.owns_generators
        if workers:
            given = (*given, 1, num_callers)
            self.pools: list[Any] = [Worker(given, timeout) for _ in range(workers)]
        else:
            cores = num_cores() if known.threaded else 1
            self.pools = [_Here(Pool(*given, cores, num_callers))]

    def reset(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Seeds [N] -> first observations and tickets, as `Pool.reset`."""
        obs = np.full((len(seeds), self.num_words), np.nan, np.float32)
        obs = obs.view(np.uint32)
        tickets = np.zeros((len(seeds), TICKET), np.uint32)
        self._ask("reset", (seeds,), (obs, tickets))
        return obs, tickets

    def step(self, rows: np.ndarray, *actions: np.ndarray) -> np.ndarray:
        """Answers [N, answer_width] to requests, as `Pool.step`.

        What follows a failure is NaN.
        """
        answers = np.ones((len(rows), answer_width(self.num_words)), np.uint32)
        answers.view(np.float32)[:, :-1] = np.nan
        self._ask("step", (rows, *actions), (answers,))
        return answers

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

    def _ask(self, what: str, given: Sequence[np.ndarray], answers: tuple) -> None:
        """Fills in the answers [N, ...] to what is given [N, ...], unless it fails."""
        with self._lock:
            if self.failure is not None:
                return
            try:
                self._spread(what, given, answers)
            except Exception as error:
                self.failure = error
            except BaseException:  # answers may be left over, of nothing that is asked
                self.failure = HostError("when it was interrupted")
                raise

    def _spread(self, what, given, answers) -> None:
        """Row i goes to pool i modulo their number, where it was before, too."""
        num, asked = len(given[0]), []
        for at, pool in enumerate(self.pools[:num]):
            share = slice(at, num, len(self.pools))
            pool.ask(what, tuple(part[share] for part in given))
            asked.append((pool, share))
        failure = None
        for pool, share in asked:  # all are heard, so that none has an answer left over
            try:
                found = pool.answer()
            except Exception as error:
                failure = error
                continue
            found = found if isinstance(found, tuple) else (found,)
            for whole, part in zip(answers, found, strict=True):
                whole[share] = part
        if failure is not None:
            raise failure


class _Here:
    """A pool in this process, in the form of a `Worker`."""

    def __init__(self, pool: Pool):
        self.pool, self.close = pool, pool.close

    def ask(self, what: str, given: Any) -> None:
        self.asked = getattr(self.pool, what), given

    def answer(self) -> Any:
        function, given = self.asked
        return function(*given)


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
        self.asked = what, given
        try:
            self.connection.send(self.asked)
        except OSError:  # it has died; `answer` finds out
            pass

    def answer(self) -> Any:
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
        answer, failed = self.connection.recv()
        if failed:
            raise EpisodeError(*failed) if failed[1:] else HostError(*failed)
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
        try:
            self._answer()
        except (EOFError, OSError, TimeoutError) as error:  # OSError: it has died
            raise HostError(
                f"a worker process, which was to make its environments,"
                f" {self._why(error)}; config.host.timeout gives it longer"
            ) from error

    def close(self) -> None:
        """Ends the process."""
        if hasattr(self, "process"):
            self.connection.close()
            self.process.kill()
            self.process.wait()
