"""`make bench`: what everything costs, and of what is possible which share.

Prints a table for every section and writes `benchmarks/results/bench-DEVICE.json`, of
figures as `record` describes them. `--markdown=FILE` prints the tables of such a file;
`python -m benchmarks.compare OLD NEW` holds two against each other.

`--only=SECTION,SECTION/NAME` measures less. What is in the file stays until it is
measured anew, with its commit, if it was measured on the same machine and versions;
otherwise another file must be given by `--out`, or all be measured.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    compiling,
    memory,
    online,
    planning,
    record,
    steps,
    stores,
    tables,
    updates,
    whole,
)
from benchmarks.record import Figure, Results, Section
from o2ojax.errors import UserError, unknown

SECTIONS: dict[str, Section] = {
    "updates": updates.SECTION,
    "planning": planning.SECTION,
    "steps": steps.SECTION,
    "acting": steps.ACTING,
    "online": online.SECTION,
    "replay": stores.SECTION,
    "compile": compiling.SECTION,
    "memory": memory.SECTION,
    "whole": whole.SECTION,
}
WINDOWS = 5


def choose(only: str) -> dict[str, list[str]]:
    """Names of cases by section, from `SECTION` or `SECTION/NAME`, by commas apart.

    Raises:
        UserError: an unknown section or name.
    """
    if not only:
        return {section: list(made.cases()) for section, made in SECTIONS.items()}
    chosen: dict[str, list[str]] = {}
    for part in only.split(","):
        section, _, name = part.partition("/")
        if section not in SECTIONS:
            raise unknown("section", section, SECTIONS)
        known = list(SECTIONS[section].cases())
        if name and name not in known:
            raise unknown(f"name in section {section!r},", name, known)
        names = chosen.setdefault(section, [])
        names += [x for x in ([name] if name else known) if x not in names]
    return chosen


def keep(path: Path, chosen: dict[str, list[str]], new: Results) -> list[Figure]:
    """The figures of a file, with their commit: each stays until it is measured anew.

    What nothing measures any more is left out.

    Raises:
        UserError: some will not be measured, and they come from elsewhere.
    """
    everything = choose("")
    if not path.exists():
        return []
    try:
        old = record.read(path)
    except UserError:
        if chosen == everything:  # the file is replaced whole
            return []
        raise
    figures = [
        x for x in old["figures"] if x["name"] in everything.get(x["section"], ())
    ]
    others = [x for x in figures if x["name"] not in chosen.get(x["section"], ())]
    for name in ("machine", "versions"):
        if old[name] == new[name]:
            continue
        if others:
            raise UserError(
                f"{path} has other figures, of another {name} ({old[name]}; this is"
                f" {new[name]}): name another file by --out"
            )
        return []
    return [{"commit": old["commit"]} | figure for figure in figures]


def run(
    chosen: dict[str, list[str]], windows: int, save: Callable[[list[Figure]], None]
) -> None:
    """Measures the chosen cases; prints a table for each section, and saves.

    Args:
        save: is given all figures so far, after each case.
    """
    found: list[Figure] = []
    for section, names in chosen.items():
        cases = SECTIONS[section].cases()
        for name in names:
            print(f"{section}: {name}", file=sys.stderr, flush=True)
            found += cases[name](windows)
            save(found)
        tables.show(SECTIONS[section], tables.of_section(found, section))


def in_order(figures: Sequence[Figure]) -> list[Figure]:
    """Sections as they are listed, names in them likewise."""
    order = {
        (section, name): at
        for section, names in choose("").items()
        for at, name in enumerate(names)
    }
    sections = list(SECTIONS)
    return sorted(
        figures,
        key=lambda x: (sections.index(x["section"]), order[x["section"], x["name"]]),
    )


def short(commit: str) -> str:
    """Ten characters, and whether files differed from it."""
    return commit[:10] + "-dirty" * commit.endswith("-dirty")


def markdown(results: Results) -> str:
    """All tables for a Markdown page."""
    machine = results["machine"]
    parts = [
        f"{machine['cores']} cores, {machine['processor']}, {machine['device']}; jax"
        f" {results['versions']['jax']}; commit {short(results['commit'])}\n"
    ]
    commits = {told.get("commit", results["commit"]) for told in results["figures"]}
    others = sorted(map(short, commits - {results["commit"]}))
    if others:
        parts.append(f"Some figures are of another commit: {', '.join(others)}\n")
    for name, section in SECTIONS.items():
        figures = tables.of_section(results["figures"], name)
        if figures:
            parts.append(tables.markdown(section, figures))
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench")
    parser.add_argument("--only", default="", metavar="SECTION,SECTION/NAME")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="timed, in turn")
    parser.add_argument("--out", type=Path, help="by default results/bench-DEVICE.json")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="print its tables"
    )
    options = parser.parse_args(arguments)
    try:
        if options.markdown:
            print(markdown(record.read(options.markdown)))
            return 0
        if options.windows < 1:
            raise UserError(f"--windows is {options.windows}; it must be at least 1")
        chosen = choose(options.only)
        path = options.out or record.default_path()
        results = record.surroundings()
        kept = keep(path, chosen, results)
        given = sys.argv[1:] if arguments is None else arguments
        results["command"] = " ".join(["python -m benchmarks.bench", *given])

        def save(figures: list[Figure]) -> None:
            done = {(x["section"], x["name"]) for x in figures}
            rest = [x for x in kept if (x["section"], x["name"]) not in done]
            record.write(path, results | {"figures": in_order(rest + figures)})

        run(chosen, options.windows, save)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
