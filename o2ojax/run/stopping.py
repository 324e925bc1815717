"""Stops a run that is asked to: where all is saved; at a second Ctrl-C, at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from o2ojax.parallel import processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 3.0  # seconds that Python gets to obey a second signal


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Defers SIGTERM and the first SIGINT; yields a function that tells if one came.

    A SIGINT after another signal raises KeyboardInterrupt. Python cannot raise it while
    compiled code runs, or an environment that never answers: then a thread, which sees
    signals as they come, ends the process.
    """
    received: list[int] = []
    obeyed = threading.Event()  # Python was free to raise, or it is over

    def note(number, frame):
        del frame
        received.append(number)
        if len(received) > 1 and number == signal.SIGINT:
            obeyed.set()
            raise KeyboardInterrupt

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handlers = {number: signal.signal(number, note) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, obeyed), daemon=True)
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
            signal.signal(number, handler)
        os.close(writer)  # ends the thread
        watch.join()
        os.close(reader)


def _watch(reader: int, obeyed: threading.Event) -> None:
    """Answers signals while Python cannot."""
    came = 0
    while byte := os.read(reader, 1):  # the number of a signal, as it comes
        number = int.from_bytes(byte)
        if number not in SIGNALS:
            continue
        came += 1
        if came == 1 and processes.leads():
            os.write(2, b"stops and saves as soon as it can; Ctrl-C again: at once\n")
        if came > 1 and number == signal.SIGINT and not obeyed.wait(PATIENCE):
            os.write(2, b"stopped at once; what was saved before is kept\n")
            os._exit(128 + number)
