"""Runs cases in a process of its own, which may crash or hang, and judges them.

A fuzzer is a module with
    Fuzzer(folder)       makes what is changed, once, in the worker's process;
    .draw(chance)        a case: (what is changed, [change, ...]), of plain values;
    .run(case)           does it. It returns True if the case was taken, and False if it
                         was taken with a warning; UserError refuses it; NOTHING_TOLD
                         and any other exception are findings.
The same seed draws the same cases. A finding's changes are left out one by one, as long
as it stays the same finding.
"""

import contextlib
import faulthandler
import importlib
import itertools
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

FUZZERS = ("files", "configs", "checkpoints", "environments")
PATIENCE = 30.0  # seconds from which on a case hangs
TO_BEGIN = 600.0  # seconds that a worker may take to make what is changed
ROOM = 24 << 30  # bytes of address space of a worker
TRACEBACK = "Traceback (most recent call last)"
ROOT = Path(__file__).parents[2]

Case = tuple[str, list[tuple]]
GOOD = ("accepted", "warned", "refused")
BAD = ("traceback", "unnoticed", "hang", "crash")


class Unnoticed(Exception):
    """Something damaged was taken, and nothing was told."""


class Outcome(NamedTuple):
    """How a case ended.

    kind: one of GOOD or BAD.
    told: the message, or the end of the traceback.
    same: what equal findings have in common.
    """

    kind: str
    told: str = ""
    same: str = ""


def judged(fuzzer: Any, case: Case, output: Any = None) -> Outcome:
    """Runs a case in this process.

    Args:
        output: a file that all output goes to, also that of compiled code.
    """
    from o2ojax.errors import UserError

    start = output.seek(0, os.SEEK_END) if output else 0
    try:
        found = Outcome("accepted" if fuzzer.run(case) else "warned")
    except UserError as error:
        found = Outcome("refused", str(error))
        if not found.told:
            same = f"no sentence: {_place(error)}"
            found = Outcome("traceback", "no sentence", same)
    except Unnoticed as error:
        found = Outcome("unnoticed", str(error), f"unnoticed: {error}")
    except BaseException as error:  # an exit, too, is none of ours
        told = "".join(traceback.format_exception(error)[-6:])
        found = Outcome("traceback", told, f"{type(error).__name__}: {_place(error)}")
    if output and found.kind in GOOD:
        output.seek(start)
        said = output.read()
        if TRACEBACK in said:
            found = Outcome("traceback", said[-3000:], f"printed: {said[-80:]}")
    return found


def _place(error: BaseException) -> str:
    """The last line of ours that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        x for x in frames if "/o2ojax/" in x.filename or "experiments" in x.filename
    ]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).name}:{last.name}"


def make(name: str, folder: Path) -> Any:
    """A fuzzer by its name."""
    return importlib.import_module(f"tests.fuzz.{name}").Fuzzer(folder)


def _serve(name: str, folder: str, connection: Connection) -> None:
    """What a worker does: answers (seed) or a case with the case, and its outcome."""
    os.chdir(ROOT)
    with open(f"{folder}/output", "w+b") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    faulthandler.enable()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    fuzzer = make(name, Path(folder))
    connection.send("ready")
    with open(f"{folder}/output", errors="replace") as output:
        while (asked := connection.recv()) is not None:
            case = asked
            if isinstance(asked, str):
                case = fuzzer.draw(random.Random(asked))
                connection.send(case)
            outcome = judged(fuzzer, case, output)
            sys.stdout.flush()
            os.truncate(f"{folder}/output", 0)
            for stream in (1, 2):
                os.lseek(stream, 0, os.SEEK_SET)
            connection.send(outcome)


class Worker:
    """A process that runs cases. A new one takes the place of one that is lost."""

    def __init__(self, name: str):
        self.name = name
        self._begin()

    def _begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self.name, self._folder.name, theirs), daemon=False
        )
        self._process.start()
        theirs.close()
        try:
            ready = self._connection.poll(TO_BEGIN) and self._connection.recv()
        except EOFError:
            ready = None
        if ready != "ready":
            said = Path(self._folder.name, "output").read_text(errors="replace")
            self.close()
            raise RuntimeError(f"the fuzzer {self.name} cannot begin: {said[-3000:]}")

    def drawn(self, seed: str) -> tuple[Case, Outcome]:
        """A case of this seed, and how it ended."""
        self._connection.send(seed)
        try:
            case = self._connection.recv()
        except EOFError:
            raise RuntimeError(f"seed {seed}: no case can be drawn") from None
        return case, self._answer()

    def run(self, case: Case) -> Outcome:
        """How this case ends."""
        self._connection.send(case)
        return self._answer()

    def _answer(self) -> Outcome:
        try:
            if self._connection.poll(PATIENCE):
                return self._connection.recv()
            lost = Outcome("hang", f"no answer in {PATIENCE:.0f} s", "hang")
        except (EOFError, OSError):
            self._process.join()
            said = Path(self._folder.name, "output").read_text(errors="replace")
            status = f"status {self._process.exitcode}"
            lost = Outcome("crash", f"{status}\n{said[-3000:]}", status)
        self.close()
        self._begin()
        return lost

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._folder.cleanup()


class Found(NamedTuple):
    """A finding: the seed it was drawn by, the shrunk case, how it ends."""

    seed: str
    case: Case
    outcome: Outcome


def shrunk(worker: Worker, case: Case, outcome: Outcome, most: int = 60) -> Case:
    """Leaves out changes one by one, as long as the outcome is the same finding."""
    what, changes = case
    tried, at = 0, 0
    while at < len(changes) and len(changes) > 1 and tried < most:
        fewer = [*changes[:at], *changes[at + 1 :]]
        tried += 1
        now = worker.run((what, fewer))
        if (now.kind, now.same) == (outcome.kind, outcome.same):
            changes = fewer
        else:
            at += 1
    return what, changes


def cases(seed: int) -> Iterator[str]:
    """The seeds of all cases."""
    return (f"{seed}-{number}" for number in itertools.count())


def fuzz(
    worker: Worker,
    seconds: float,
    seed: int = 0,
    most: int | None = None,
    tell: Callable[[str], None] = print,
) -> tuple[Counter, list[Found]]:
    """Runs cases until the time is up, or there were `most`.

    Returns:
        the number of cases of each outcome, and one finding of each sort.
    """
    counts: Counter = Counter()
    found: dict[str, Found] = {}
    end = time.monotonic() + seconds
    for number, one in enumerate(cases(seed)):
        if time.monotonic() > end or number == most:
            break
        case, outcome = worker.drawn(one)
        if outcome.kind == "hang":  # of a busy machine, or of the case
            outcome = worker.run(case)
        counts[outcome.kind] += 1
        if outcome.kind in BAD and outcome.same not in found:
            small = shrunk(worker, case, outcome)
            found[outcome.same] = Found(one, small, outcome)
            tell(f"{outcome.kind}, seed {one}: {small!r}\n{outcome.told}\n")
    return counts, list(found.values())


def line(name: str, counts: Counter, found: list[Found], seconds: float) -> str:
    """The closing line of figures."""
    return (
        f"{name}: {counts.total():,} cases in {seconds:.0f} s:"
        f" {counts['accepted'] + counts['warned']:,} taken ({counts['warned']:,} of"
        f" them with a warning), {counts['refused']:,} refused in a sentence,"
        f" {counts['traceback']} tracebacks, {counts['hang']} hangs,"
        f" {counts['crash']} crashes, {counts['unnoticed']} damaged and taken without"
        f" a word; {len(found)} sorts of findings"
    )
