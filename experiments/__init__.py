"""The command line: run, collect, report, and the configs."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

CONFIGS = Path(__file__).parent / "configs"  # which are known by their names
UNHEARD = 141  # exit status of what nobody reads any more, as shells tell SIGPIPE


def program(name: str) -> str:
    """What a command is called, as it was called."""
    called = Path(sys.argv[0]).name
    return f"o2ojax {name}" if called == "o2ojax" else f"python -m experiments.{name}"


def entry_point(main: Callable[[Sequence[str] | None], int]) -> Callable:
    """A command's `main`, whose output may be closed, or know few letters."""

    @functools.wraps(main)
    def called(arguments: Sequence[str] | None = None) -> int:
        usable_output()
        try:
            status = main(arguments)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads the output, as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return UNHEARD
        return status

    return called


def leave(status: int) -> NoReturn:
    """Ends Python with an exit status, without waiting for what works in vain."""
    background = sys.modules.get("o2ojax.parallel.background")
    if background and background.is_busy():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


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
