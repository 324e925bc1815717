"""The command line that benchmarks share: `python -m benchmarks.NAME`.

Measures, prints a table for every section, and writes `results/NAME-DEVICE.json`, of
figures as `record` describes them. `--markdown=FILE` prints the tables of such a file.

`--only=SECTION,NAME,SECTION/NAME` measures less. What else is in the file stays, with
its commit, if it was measured on the same machine and versions; otherwise another file
must be given by `--out`, or all be measured.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import record, tables
from benchmarks.record import Figure, Results, Section
from o2ojax.data.files import write_json
from o2ojax.errors import UserError, unknown

Sections = Mapping[str, Section]
Chosen = list[tuple[str, str]]  # sections and names, in order


def choose(sections: Sections, only: str = "") -> Chosen:
    """What is to be measured.

    Args:
        only: as given by `--only`; "" for all.
    Raises:
        UserError: an unknown section or name.
    """
    every = [(name, x) for name, section in sections.items() for x in section.names]
    if not only:
        return every
    chosen = set()
    for part in only.split(","):
        known = [x for x in every if part in (*x, "/".join(x))]
        if not known:
            raise unknown("section or name", part, {*sections, *map("/".join, every)})
        chosen |= set(known)
    return [x for x in every if x in chosen]


def keep(path: Path, sections: Sections, chosen: Chosen, new: Results) -> list[Figure]:
    """The figures of a file, with their commit: each stays until it is measured anew.

    Raises:
        UserError: they come from elsewhere, and not all are measured now.
    """
    every = choose(sections)
    if not path.exists():
        return []
    try:
        old = record.read(path)
        for name in ("machine", "versions"):
            if old[name] != new[name]:
                raise UserError(
                    f"{path} has other figures, of another {name} ({old[name]}; this is"
                    f" {new[name]}): name another file by --out"
                )
    except UserError:
        if chosen == every:  # the file is replaced whole
            return []
        raise
    figures = ({"commit": old["commit"]} | figure for figure in old["figures"])
    return [x for x in figures if (x["section"], x["name"]) in every]


def measure(
    sections: Sections,
    chosen: Chosen,
    windows: int,
    kept: Sequence[Figure],
    save: Callable[[list[Figure]], None],
) -> None:
    """Measures what is chosen; prints a table for each section.

    Args:
        save: is given all figures, also those kept, in order, after each name.
    """
    found: dict[tuple[str, str], list[Figure]] = {x: [] for x in choose(sections)}
    for figure in kept:
        found[figure["section"], figure["name"]].append(figure)
    for at, (section, name) in enumerate(chosen):
        print(f"{section}: {name}", file=sys.stderr, flush=True)
        figures = sections[section].measure(name, windows)
        found[section, name] = [{"section": section, "name": name} | x for x in figures]
        save([figure for figures in found.values() for figure in figures])
        if section not in (later for later, _ in chosen[at + 1 :]):
            done = [figure for x in chosen for figure in found[x]]
            print(tables.of_section(sections, section, done), flush=True)


def markdown(sections: Sections, results: Results) -> str:
    """All tables of a file."""
    machine, commit = results["machine"], results["commit"]
    figures = results["figures"]
    parts = [
        f"{machine['cores']} cores, {machine['processor']}, {machine['device']}; jax"
        f" {results['versions']['jax']}; commit {short(commit)}\n"
    ]
    commits = {figure.get("commit", commit) for figure in figures}
    if others := sorted(map(short, commits - {commit})):
        parts.append(f"Some figures are of another commit: {', '.join(others)}\n")
    there = {figure["section"] for figure in figures}
    parts += [tables.of_section(sections, x, figures) for x in sections if x in there]
    return "\n".join(parts)


def short(commit: str) -> str:
    """Ten characters, and whether files differed from it."""
    return commit[:10] + "-dirty" * commit.endswith("-dirty")


def main(
    benchmark: str,
    sections: Sections,
    arguments: Sequence[str] | None = None,
    windows: int = 5,
    finish: Callable[[Results, Path], None] = lambda results, path: None,
) -> int:
    """Exit status: 0 done, 2 bad input.

    Args:
        windows: by default.
        finish: is given the results and their file, when all is measured.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}")
    add = parser.add_argument
    add("--only", default="", metavar="SECTION,NAME,SECTION/NAME")
    add("--windows", type=int, default=windows, help="timed, in turn")
    add("--out", type=Path, help=f"by default results/{benchmark}-DEVICE.json")
    add("--markdown", type=Path, metavar="FILE", help="print its tables")
    options = parser.parse_args(arguments)
    try:
        if options.markdown:
            print(markdown(sections, record.read(options.markdown)))
            return 0
        if options.windows < 1:
            raise UserError(f"--windows is {options.windows}; it must be at least 1")
        chosen = choose(sections, options.only)
        path = options.out or record.default_path(benchmark)
        results = record.surroundings()
        kept = keep(path, sections, chosen, results)
        results["command"] = " ".join([f"python -m benchmarks.{benchmark}", *arguments])

        def save(figures: list[Figure]) -> None:
            write_json(path, results | {"figures": figures})

        measure(sections, chosen, options.windows, kept, save)
        finish(record.read(path), path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path}")
    return 0
