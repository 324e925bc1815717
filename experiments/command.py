"""The console script: `o2ojax run|collect|inspect|report|sweep|study|export`."""

import importlib
import os
import sys
from collections.abc import Sequence

from . import leave

COMMANDS = {
    "run": "train agents offline, then online; or go on with a run",
    "collect": "make a dataset in an environment",
    "inspect": "see what is in a dataset before training on it",
    "report": "compare runs: tables, curves, films",
    "sweep": "many runs over hyper-parameters, on many machines",
    "study": "the comparisons of the papers",
    "export": "write a trained policy as one file",
}
HELP = "\n".join(
    [
        "usage: o2ojax COMMAND ...",
        "",
        "Offline-to-online reinforcement learning, many seeds at once.",
        "",
        *(f"  {name:<8} {what}" for name, what in COMMANDS.items()),
        "",
        "o2ojax COMMAND --help tells more.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Calls a command; the exit status is its own, and 2 for one that there is not."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(HELP)
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(f"o2ojax {version('o2ojax')}")
        return 0
    if name not in COMMANDS:
        print(HELP, file=sys.stderr)
        print(f"\nerror: there is no command {name!r}", file=sys.stderr)
        return 2
    sys.path.insert(0, os.getcwd())  # as `python -m` does: a user's modules are here
    return importlib.import_module(f".{name}", __package__).main(rest)


def console() -> None:
    """The console script."""
    leave(main)


if __name__ == "__main__":
    console()
