"""The main program: `python -m experiments.run --config=FILE.py:TASK`.

The same command on a directory that holds an unfinished run goes on with it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import entry_point, leave, program


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a crash here, 2 bad input, 69 another process of the run
    was lost or has failed, 75 interrupted and saved, 130 interrupted before anything
    was.
    """
    parser = argparse.ArgumentParser(
        prog=program("run"),
        description="Trains agents offline, then fine-tunes them online.",
        epilog="Any field of the config: --config.FIELD=VALUE, as in"
        " --config.agent.expectile=0.9, --config.population.expectile=0.7,0.9",
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME[:TASK]",
        help="a config by its name, as iql:hopper-medium-replay, or a file of yours,"
        " FILE.py[:TASK]",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="the run directory (default: runs/ALGORITHM/TASK)",
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="make the run in the directory longer, by larger --config.online.steps or"
        " --config.offline.updates",
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="print all fields of the config with their values, and run nothing",
    )
    parser.add_argument(
        "--cpu-devices",
        type=int,
        metavar="N",
        help="see the CPU as N devices, and divide the members over them, each with a"
        " copy of the data (where there is a GPU, with JAX_PLATFORMS=cpu)",
    )
    many = parser.add_argument_group("many processes, each given the same command")
    many.add_argument(
        "--distributed",
        action="store_true",
        help="as the cluster has started them: SLURM, Open MPI, Kubernetes, Cloud TPU",
    )
    many.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    many.add_argument("--processes", type=int, metavar="N", help="how many there are")
    many.add_argument("--process", type=int, metavar="I", help="which this one is")
    options, overrides = parser.parse_known_args(arguments)
    from .execution import run  # JAX and what is built on it take seconds to import

    return run(options, overrides)


if __name__ == "__main__":
    leave(main)
