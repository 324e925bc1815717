"""How a peer is timed: in a process of its own, which works only while it is asked to.

The peer warms up, prints `{"ready": what to know of it}`, and waits. Asked `go N`, a
line on its standard input, it does its work N times and prints `{"seconds": taken}`. It
ends where its input does. This file needs nothing but Python, as a peer's environment
has nothing else of ours.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
LAST = 2_000  # characters of what a peer said before it ended
PATIENCE = 10.0  # seconds that a peer has to end by itself


class PeerError(RuntimeError):
    """A peer that ended, or said what is no answer."""


class Process:
    """A peer that has warmed up. See `running`.

    ready: what it says of itself.
    """

    def __init__(self, name: str, process: subprocess.Popen, errors: IO[bytes]):
        self.name, self.process, self.errors = name, process, errors
        self.ready = self._answer("ready")

    def go(self, num: int) -> float:
        """Seconds that the peer took to do its work `num` times."""
        try:
            self.process.stdin.write(f"go {num}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, as its answer will tell
        return float(self._answer("seconds"))

    def _answer(self, name: str) -> Any:
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip()[-LAST:]
            raise PeerError(
                f"peer {self.name!r} has ended, with status {status}, where {name!r}"
                f" was due. Its last words: {said or 'none'}"
            )
        try:
            return json.loads(line)[name]
        except (ValueError, TypeError, KeyError):
            raise PeerError(
                f"peer {self.name!r} said {line.strip()!r} where {name!r} was due"
            ) from None


@contextlib.contextmanager
def running(name: str, command: Sequence[str]) -> Iterator[Process]:
    """A peer, which ends with the context.

    Raises:
        PeerError: also later, for a peer that ends before, or says what is no answer.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            text=True,
        )
        try:
            yield Process(name, process, errors)
        finally:
            end(process)


def end(process: subprocess.Popen) -> None:
    """Closes a peer's input, and kills what does not end by that."""
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def serve(prepare: Callable[[], tuple[Any, Callable[[], Any]]]) -> None:
    """The peer's side. All else that it prints goes to standard error.

    Args:
        prepare: warms up. Returns what to know of the peer, and its work.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        ready, work = prepare()
        print(json.dumps({"ready": ready}), file=answers, flush=True)
        for line in sys.stdin:
            num = int(line.removeprefix("go "))
            started = time.perf_counter()
            for _ in range(num):
                work()
            seconds = time.perf_counter() - started
            print(json.dumps({"seconds": seconds}), file=answers, flush=True)
