"""`python -m benchmarks.parity ORIGINALS`: see README.md.

ORIGINALS is their folder, or a file of what --write recorded of them; the latter needs
no PyTorch. The exit status is 1 where loss terms or weights differ by more than their
limit in double precision: 1e-9, or that of a named departure. With --control it is 1
where the fault that is put on our side does not show. Single precision is printed, not
judged.
"""

import argparse
import importlib
import itertools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AGENTS = ("iql", "fowm", "smac", "pearl", "cql", "td3_bc", "bcq", "awac", "off2on")
UPDATES, SEED = 3, 0


def parse(argv: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser("python -m benchmarks.parity", description=__doc__)
    parser.add_argument(
        "originals", type=Path, help="their folder, or what is recorded"
    )
    parser.add_argument("--only", default=",".join(AGENTS), help="as iql,cql")
    parser.add_argument("--float32", action="store_true", help="in single precision")
    parser.add_argument("--control", action="store_true", help="a fault on our side")
    parser.add_argument("--first", action="store_true", help="one comparison of each")
    parser.add_argument("--write", type=Path, help="a file to record originals in")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--seed", type=int, default=SEED, help="of weights")
    options = parser.parse_args(argv)
    options.only = options.only.split(",")
    unknown = [name for name in options.only if name not in AGENTS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(AGENTS)}")
    if not options.originals.exists():
        parser.error(f"{options.originals} is missing")
    default = (options.updates, options.seed) == (UPDATES, SEED)
    if (options.originals.is_file() or options.write) and (
        options.float32 or not default
    ):
        parser.error("records are of three updates, seed 0, in double precision")
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
    found += ["--first"] * options.first
    return found + [f"--write={options.write}"] * bool(options.write)


def compare(name: str, options: argparse.Namespace) -> bool:
    """Runs an agent's comparisons and prints them; returns whether all is well."""
    agent = importlib.import_module(f"benchmarks.parity.{name}")
    well = tell(itertools.islice(agent.same(), 1 if options.first else None), options)
    if options.write:
        write(name, options.write)
    if options.originals.is_dir() and not options.first and hasattr(agent, "departing"):
        well &= tell(agent.departing(), options)
    return well


def tell(reports: Iterator[Any], options: argparse.Namespace) -> bool:
    """Prints reports as they come; returns whether all are right."""
    well = True
    for report in reports:
        print(report.table(judged=not options.float32), flush=True)
        well &= options.float32 or is_right(report, options.control)
    return well


def write(name: str, file: Path) -> None:
    """Records what an agent's original has told, beside what is there of others."""
    heard = importlib.import_module("benchmarks.parity.recorded").HEARD
    kept = json.loads(file.read_text()) if file.exists() else {}
    lines = (
        json.dumps(key) + ": " + json.dumps(of)
        for key, of in sorted((kept | {name: heard}).items())
    )
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def is_right(report: Any, control: bool) -> bool:
    """Whether what is equal is within its limit; or whether the fault shows."""
    if control:
        return report.exceeds() or not report.must_show_control()
    return not report.exceeds()


def each_in_a_process(options: argparse.Namespace) -> list[str]:
    """Two originals have packages of the same name; returns which agents failed."""
    failed = []
    for name in options.only:
        command = [sys.executable, "-m", "benchmarks.parity", str(options.originals)]
        command += [f"--only={name}", *flags(options)]
        if subprocess.run(command).returncode:
            failed.append(name)
    return failed


def here(options: argparse.Namespace) -> list[str]:
    """In this process; returns which agents failed."""
    prepare(options)
    importlib.import_module("benchmarks.parity.harness").begin(options)
    return [name for name in options.only if not compare(name, options)]


def main(argv: list[str]) -> int:
    """Compares what was asked for; returns the exit status."""
    options = parse(argv)
    if len(options.only) == 1 or options.originals.is_file():
        return 1 if here(options) else 0
    failed = each_in_a_process(options)
    found = f"failed: {', '.join(failed)}" if failed else "none failed"
    print(found, "(single precision is not judged)" if options.float32 else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
