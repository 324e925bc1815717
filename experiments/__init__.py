"""The command line: run, collect, report, and the configs."""

from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"  # which are known by their names
