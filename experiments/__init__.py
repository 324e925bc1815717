"""The command line: run, collect, report, and the configs."""

import atexit
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

CONFIGS = Path(__file__).parent / "configs"  # which are known by their names
UNHEARD = 141  # exit status of what nobody reads any more, as shells tell SIGPIPE


def program(name: str) -> str:
    """What a command is called, as it was called."""
    called = Path(sys.argv[0]).name
    return f"o2ojax {name}" if called == "o2ojax" else f"python -m experiments.{name}"


def entry_point(main: Callable[[Sequence[str] | None], int]) -> Callable:
    """A command's `main`, whose output may be closed, or know few letters.

    Python's warnings are shown as sentences.
    """

    @functools.wraps(main)
    def called(arguments: Sequence[str] | None = None) -> int:
        usable_output()
        try:
            with warnings_in_one_line():
                status = main(arguments)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads the output, as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return UNHEARD
        return status

    return called


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Shows a Python warning as a sentence, without the line of code it came from."""

    def show(message, *where):
        del where
        print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def leave(main: Callable[[], int]) -> NoReturn:
    """Calls a command, and ends Python with the exit status that it returns.

    Nothing waits for what works in vain. Python is not taken apart: a thread of
    compiled code that comes back to Python then ends the process by a signal.
    """
    status: list[int] = []
    atexit.register(lambda: status and _end(*status))  # the first is called last
    status.append(main())
    background = sys.modules.get("o2ojax.parallel.background")
    if background and background.is_busy():
        _end(*status)
    sys.exit(*status)


def _end(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def usable_output() -> None:
    """Makes sure that whatever is printed can be: where nothing is open, it is lost,
    and letters that the output's encoding has not are shown by their numbers.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # a file that is opened would be in its place
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
