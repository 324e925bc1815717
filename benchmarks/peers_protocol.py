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
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PATIENCE = 10.0  # seconds that a peer has to end by itself
IDS = {  # of Gymnasium's tasks, by ours
    "halfcheetah": "HalfCheetah-v4",
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
    "ant": "Ant-v4",
}


class PeerError(RuntimeError):
    """A peer that ended, or said what is no answer."""


class Process(NamedTuple):
    """A peer that has warmed up.

    ready: what it says of itself.
    go:    (times) -> seconds that it took to do its work so many times.
    """

    ready: Any
    go: Callable[[int], float]


@contextlib.contextmanager
def running(name: str, command: Sequence[str]) -> Iterator[Process]:
    """A peer, which ends with the context. Its errors go where ours go.

    Raises:
        PeerError: also later, for a peer that ends before, or says what is no answer.
    """
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:

        def answer(key: str) -> Any:
            line = process.stdout.readline()
            try:
                return json.loads(line)[key]
            except (ValueError, TypeError, KeyError):
                said = f"said {line.strip()!r}"
                if not line:
                    said = f"has ended, with status {process.wait()},"
                text = f"peer {name!r} {said} where {key!r} was due"
                raise PeerError(text) from None

        def go(times: int) -> float:
            with contextlib.suppress(BrokenPipeError):  # it has ended: `answer` says so
                process.stdin.write(f"go {times}\n")
                process.stdin.flush()
            return float(answer("seconds"))

        try:
            yield Process(answer("ready"), go)
        finally:
            end(process)


def end(process: subprocess.Popen) -> None:
    """Closes a peer's input, and kills what does not end by that."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


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
