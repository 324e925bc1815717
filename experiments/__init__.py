"""The command line: run, collect, report, and the configs."""

import sys
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"  # which are known by their names


def program(name: str) -> str:
    """What a command is called, as it was called."""
    called = Path(sys.argv[0]).name
    return f"o2ojax {name}" if called == "o2ojax" else f"python -m experiments.{name}"
