"""Stops a run that is asked to: where all is saved; at a second Ctrl-C, at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from o2ojax.parallel import processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 3.0  # seconds that Python gets to obey a second Ctrl-C
OVER = 0  # no signal has this number


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Defers SIGTERM and the first SIGINT; yields a function that tells if one came.

    A SIGINT after another signal raises KeyboardInterrupt. Python cannot raise it while
    compiled code runs, or an environment that never answers: then a thread, which sees
    signals as they come, ends the process, unless a user works in it interactively.

    In a thread that is not Python's main one, signals are left to others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []  # as the thread has seen them: Python may see two as one
    received: list[int] = []
    obeyed = threading.Event()  # Python has raised, or it is over

    def note(number, frame):
        del frame
        received.append(number)
        if max(len(came), len(received)) > 1 and number == signal.SIGINT:
            obeyed.set()
            raise KeyboardInterrupt

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handlers = {number: signal.signal(number, note) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, came, obeyed), daemon=True)
    watch.start()
    try:
        yield lambda: bool(received)
    except Exception as error:
        if obeyed.is_set():  # raised in a callback, of which JAX makes another error
            raise KeyboardInterrupt from error
        raise
    finally:
        obeyed.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.write(writer, bytes([OVER]))
        watch.join()
        os.close(writer)
        os.close(reader)


def _watch(reader: int, came: list[int], obeyed: threading.Event) -> None:
    """Answers signals while Python cannot."""
    while (number := int.from_bytes(os.read(reader, 1))) != OVER:
        if number not in SIGNALS:
            continue
        came.append(number)
        if len(came) == 1 and processes.leads():
            os.write(2, b"stops and saves as soon as it can; Ctrl-C again: at once\n")
        if len(came) == 1 or number != signal.SIGINT or _is_interactive():
            continue
        if not obeyed.wait(PATIENCE):
            os.write(2, b"stopped at once; what was saved before is kept\n")
            os._exit(128 + number)


def _is_interactive() -> bool:
    """Whether a user has more in this process than a run, as in a notebook."""
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules
