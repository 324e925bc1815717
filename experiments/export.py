"""Writes a trained policy as one file: `python -m experiments.export RUN FILE.o2o`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import entry_point, leave, program


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Exports a policy; the exit status is 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog=program("export"),
        description="Writes a trained policy as one file, which acts by itself:"
        " o2ojax.exported.load(FILE).",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("file", type=Path, metavar="FILE.o2o", help="where it goes")
    parser.add_argument(
        "--member", type=int, metavar="K", help="default: the one with the best score"
    )
    parser.add_argument(
        "--checkpoint",
        type=int,
        metavar="N",
        help="as a folder in RUN/checkpoints is named: the updates of the offline"
        " phase, and online these, 1, and the steps since (default: the newest)",
    )
    parser.add_argument(
        "--explore", action="store_true", help="the policy that gathers data"
    )
    options = parser.parse_args(arguments)

    from o2ojax import api
    from o2ojax.errors import UserError

    try:
        policy = api.load(options.run).policy(
            options.member, options.checkpoint, options.explore
        )
        policy.export(options.file)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.file}")
    return 0


if __name__ == "__main__":
    leave(main)
