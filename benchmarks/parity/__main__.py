"""`python -m benchmarks.parity ORIGINALS`: see README.md.

The exit status is 1 where loss terms or weights differ by more than their limit in
double precision: 1e-9, or that of a named departure. With --control it is 1 where the
fault that is put on our side does not show. Single precision is printed, not judged.
"""

import argparse
import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

AGENTS = ("iql", "fowm", "smac", "cql", "td3_bc", "bcq", "awac", "off2on")


def parse(argv: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser("python -m benchmarks.parity", description=__doc__)
    parser.add_argument("originals", type=Path, help="the folder of the originals")
    parser.add_argument("--only", default=",".join(AGENTS), help="as iql,cql")
    parser.add_argument("--float32", action="store_true", help="in single precision")
    parser.add_argument("--control", action="store_true", help="a fault on our side")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of weights")
    options = parser.parse_args(argv)
    options.only = options.only.split(",")
    unknown = [name for name in options.only if name not in AGENTS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(AGENTS)}")
    if not options.originals.is_dir():
        parser.error(f"{options.originals} is not a folder")
    return options


def prepare(options: argparse.Namespace) -> None:
    """Sets what JAX reads when it is imported; originals warn of much that is old."""
    warnings.simplefilter("ignore")
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_X64"] = "0" if options.float32 else "1"
    # Programs run a few times only: compile them fast rather than well.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        " --xla_cpu_multi_thread_eigen=false",
    )


def flags(options: argparse.Namespace) -> list[str]:
    """The same options for the process of one agent."""
    found = [f"--updates={options.updates}", f"--seed={options.seed}"]
    found += ["--float32"] * options.float32 + ["--control"] * options.control
    return found


def compare(name: str, options: argparse.Namespace) -> bool:
    """Runs an agent's comparisons and prints them; returns whether all is well."""
    prepare(options)
    harness = importlib.import_module("benchmarks.parity.harness")
    harness.begin(options)
    agent = importlib.import_module(f"benchmarks.parity.{name}")
    well = True
    for report in agent.comparisons():
        print(report.table(judged=not options.float32), flush=True)
        well &= options.float32 or is_right(report, options.control)
    return well


def is_right(report: Any, control: bool) -> bool:
    """Whether what is equal is within its limit; or whether the fault shows."""
    if control:
        return report.exceeds() or not report.must_show_control()
    return not report.exceeds()


def main(argv: list[str]) -> int:
    """Gives each agent a process: two originals have packages of the same name."""
    options = parse(argv)
    if len(options.only) == 1:
        return 0 if compare(options.only[0], options) else 1
    failed = []
    for name in options.only:
        command = [sys.executable, "-m", "benchmarks.parity", str(options.originals)]
        command += [f"--only={name}", *flags(options)]
        if subprocess.run(command).returncode:
            failed.append(name)
    found = f"failed: {', '.join(failed)}" if failed else "none failed"
    print(found, "(single precision is not judged)" if options.float32 else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
