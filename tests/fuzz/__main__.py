"""Fuzzers: `python -m tests.fuzz NAME [--seconds=600] [--seed=0]`.

NAME is files, configs, checkpoints, environments, or all. What is found is told as it
is found, and the last line has the figures. Exit status: 0 nothing was found, 1 else.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from tests.fuzz import harness


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("name", choices=[*harness.FUZZERS, "all"])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, metavar="CASES")
    options = parser.parse_args(arguments)
    names = harness.FUZZERS if options.name == "all" else (options.name,)
    lines = []
    for name in names:
        started = time.monotonic()
        worker = harness.Worker(name)
        try:
            given = options.seconds, options.seed, options.most
            counts, found = harness.fuzz(worker, *given)
        finally:
            worker.close()
        lines.append(harness.line(name, counts, found, time.monotonic() - started))
        print(lines[-1], flush=True)
        if any(counts[kind] for kind in harness.BAD):
            lines.append("")
    return int("" in lines)


if __name__ == "__main__":
    sys.exit(main())
