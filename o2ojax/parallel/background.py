"""Work that Python's main thread need not wait for, so that it can answer signals."""

import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 3.0  # seconds that work may take to its end once it is to be given up
LOOK_EVERY = 0.05  # seconds

_begun: weakref.WeakSet[futures.Future] = weakref.WeakSet()


class GivenUp(Exception):
    """Nobody waits any more for work that goes on; what it returns is lost."""


def note(work: futures.Future) -> futures.Future:
    """Remembers work for `is_busy`; returns it."""
    _begun.add(work)
    return work


def is_busy() -> bool:
    """Whether something still works, perhaps in vain: Python would wait for it before
    it exits.
    """
    return any(not work.done() for work in list(_begun))


class Aside:
    """Calls functions in one thread of its own, one after another."""

    def __init__(self):
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], T], give_up: Callable[[], bool]) -> T:
        """What a function returns, or raises.

        Args:
            give_up: whether its result is no longer wanted.
        Raises:
            GivenUp: for PATIENCE.
        """
        if threading.current_thread() is not threading.main_thread():
            return function()  # signals are others' to answer
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        work: futures.Future = note(futures.Future())
        self._calls.put((function, work))
        since = None
        while not futures.wait([work], LOOK_EVERY).done:
            if give_up():
                since = since or time.monotonic()
                if time.monotonic() - since > PATIENCE:
                    raise GivenUp
        return work.result()

    def close(self) -> None:
        """Ends the thread after what it does now."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, work = call
            _settle(work, function)


def _settle(work: futures.Future, function: Callable[[], Any]) -> None:
    try:
        work.set_result(function())
    except BaseException as error:
        work.set_exception(error)
