"""Kills runs at random moments, and compares what becomes of them: `make torture`.

    python -m tests.torture [--kills=200] [--seed=0] [--only=iql,smac]

A run is started by the public command, and killed at a moment that the seed draws: by
SIGKILL, by SIGTERM, by a disk that is full from some moment on, by a directory that
becomes read-only, by a second run in the same directory. The same command is given
again, killed again, and so on; at some point it is left alone. Its metrics, returns and
all arrays of its last checkpoint must then be, bit for bit, those of a run that nothing
disturbed. A run that is terminated must end by itself in at most TO_END seconds, with
the exit status that says that it can go on, and without a traceback.

The last line has the figures. Exit status: 0 all is well, 1 something is not.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.same_bits import CASES, TINY, compare
from o2ojax.errors import GO_ON

ROOT = Path(__file__).parents[1]
ALGORITHMS = ("iql", "off2on", "fowm", "smac")
# how a run is killed -> how often
HOWS = {"SIGKILL": 8, "SIGTERM": 8, "full disk": 2, "read-only": 2, "two at once": 2}
COLD = 0.15  # chance that a run that is killed compiles anew
CACHE = ROOT / ".cache" / "torture"
DISK = "200m"
TO_END = 10.0  # seconds from SIGTERM to the end
PATIENCE = 600.0  # seconds after which a run is taken for one that hangs
LEFT_ALONE = 0.15  # chance that a start is not killed
INTERRUPTED = 130  # exit status: nothing had been begun
OUT_OF_ROOM = 2
TRACEBACK = "Traceback (most recent call last)"

# What a run has just done, by what it leaves in its directory: the moments that kills
# are spread over. Each is (its name, the share of kills, a pattern of paths).
MOMENTS = (
    ("start-up", None),
    ("compiling", "config.json"),
    ("offline", "metrics.jsonl:offline"),
    ("checkpoint", "checkpoints/*tmp*"),
    ("hand-over", "checkpoints/{offline}"),
    ("online", "metrics.jsonl:online"),
    ("end", "returns.npz"),
)


class Kill(NamedTuple):
    """What is done to a run.

    how:    one of HOWS.
    moment: one of the names of MOMENTS.
    after:  seconds after this moment.
    cold:   whether the run compiles anew.
    """

    how: str
    moment: str
    after: float
    cold: bool


class Run(NamedTuple):
    """A process that runs, and the file that it writes to."""

    process: subprocess.Popen
    output: Path


def command(name: str, directory: Path) -> list[str]:
    """The public command of a tiny run."""
    case = CASES[name]
    fields = TINY | case.fields
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    config = f"--config=experiments/configs/{case.config}"
    program = [sys.executable, "-m", "experiments.run", config]
    return [*program, *given, f"--workdir={directory}"]


class Torture:
    """Runs of one algorithm, undisturbed and disturbed.

    Args:
        name: a case of benchmarks/same_bits.py.
        folder: where the runs are.
        disk: a small disk for what is killed, or None.
        hows: those of HOWS that can be done here.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        disk: Path | None,
        hows: Sequence[str],
        chance: random.Random,
    ):
        self.name, self.folder, self.disk, self.chance = name, folder, disk, chance
        self.hows, self.runs = hows, 0
        self.kills: Counter = Counter()
        self.moments: Counter = Counter()
        self.wrong: list[str] = []
        self.equal, self.slowest = 0, 0.0
        self.whole = folder / f"{name}-whole"
        self.environment = dict(os.environ, PYTHONPATH=str(ROOT))
        for flag in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
            self.environment.pop(flag, None)
        for directory in (folder / f"{name}-first", self.whole):  # the first compiles
            started = time.monotonic()
            self.ended(self.start(directory), "undisturbed", (0,))
        self.seconds = time.monotonic() - started
        self.offline = CASES[name].fields.get(
            "offline.updates", TINY["offline.updates"]
        )

    def start(self, directory: Path, number: int = 1, cold: bool = False) -> Run:
        """Starts a run.

        Args:
            number: of those that run at once.
            cold: whether all is compiled anew.
        """
        output = self.folder / f"{self.name}-{number}.output"
        cache = self.folder / "cold" if cold else CACHE
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        with output.open("w") as file:
            process = subprocess.Popen(
                command(self.name, directory),
                cwd=ROOT,
                env=self.environment | {"XDG_CACHE_HOME": str(cache)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return Run(process, output)

    def ended(self, run: Run, what: str, wanted: Sequence[int]) -> int:
        """Waits for the end of a run, which must be as wanted. Returns its status."""
        try:
            status = run.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            run.process.kill()
            status = run.process.wait()
            self.say(what, f"hangs for {PATIENCE:.0f} s", run)
        said = run.output.read_text(errors="replace")
        if status not in wanted:
            self.say(what, f"ended with status {status}, not {wanted}", run)
        elif TRACEBACK in said and status not in (-signal.SIGKILL, -signal.SIGTERM):
            self.say(what, "has shown a traceback", run)
        return status

    def say(self, what: str, wrong: str, run: Run | None = None) -> None:
        said = run.output.read_text(errors="replace")[-3000:] if run else ""
        self.wrong.append(f"{self.name}, {what}: {wrong}")
        print(f"WRONG: {self.wrong[-1]}\n{said}", flush=True)

    def one(self, most: int) -> int:
        """Kills one run, again and again, and compares its end. Returns the kills."""
        directory = (self.disk or self.folder) / f"{self.name}-killed"
        shutil.rmtree(directory, ignore_errors=True)
        done: list[Kill] = []
        while len(done) < most:
            if done and self.chance.random() < LEFT_ALONE:
                break
            kill = self.drawn()
            if not self.killed(directory, kill):
                break  # it had come to its end before
            done.append(kill)
        told = "; ".join(f"{x.how} at {x.moment} + {x.after:.2f} s" for x in done)
        self.ended(self.start(directory), f"resumed after {told}", (0,))
        self.runs += 1
        _, apart = compare(self.whole, directory)
        if apart:
            self.say(f"resumed after {told}", f"differs: {apart[:6]}")
        else:
            self.equal += 1
        print(f"{self.name}: {'the same' if not apart else 'DIFFERS'} after {told}")
        sys.stdout.flush()
        return len(done)

    def drawn(self) -> Kill:
        how = self.chance.choices(self.hows, [HOWS[x] for x in self.hows])[0]
        moment = self.chance.choice(MOMENTS)[0]
        longest = 0.6 * self.seconds if moment in ("start-up", "compiling") else 1.0
        cold = self.chance.random() < COLD
        return Kill(how, moment, self.chance.uniform(0, longest), cold)

    def killed(self, directory: Path, kill: Kill) -> bool:
        """Starts a run and kills it. Returns whether it was killed before its end."""
        run = self.start(directory, cold=kill.cold)
        if not self.wait_for(run, directory, kill):
            self.ended(run, "left alone", (0,))
            return False
        what = f"{kill.how} at {kill.moment} + {kill.after:.2f} s"
        {
            "SIGKILL": self.by_sigkill,
            "SIGTERM": self.by_sigterm,
            "full disk": self.by_full_disk,
            "read-only": self.by_read_only,
            "two at once": self.by_another,
        }[kill.how](run, directory, what)
        self.kills[kill.how] += 1
        self.moments[kill.moment] += 1
        return True

    def wait_for(self, run: Run, directory: Path, kill: Kill) -> bool:
        """Waits for a moment, unless it has come before. Whether the run still runs."""
        pattern = dict(MOMENTS)[kill.moment]
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not self.has_come(directory, pattern):
            if run.process.poll() is not None:
                return False
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(kill.after)
            return False
        return True

    def has_come(self, directory: Path, pattern: str | None) -> bool:
        if pattern is None:
            return True
        if ":" in pattern:
            file, _, phase = pattern.partition(":")
            path = directory / file
            return path.exists() and f'"phase": "{phase}"' in path.read_text()
        return any(directory.glob(pattern.format(offline=self.offline)))

    def by_sigkill(self, run: Run, directory: Path, what: str) -> None:
        run.process.send_signal(signal.SIGKILL)
        self.ended(run, what, (-signal.SIGKILL, 0))

    def by_sigterm(self, run: Run, directory: Path, what: str) -> None:
        """Python itself ends by the signal, as long as nothing of ours is loaded; what
        a library has started meanwhile (glfw asks for its version so) may complain.
        """
        sent = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        self.ended(run, what, (GO_ON, INTERRUPTED, -signal.SIGTERM, 0))
        seconds = time.monotonic() - sent
        self.slowest = max(self.slowest, seconds)
        if seconds > TO_END:
            self.say(what, f"ended {seconds:.1f} s after SIGTERM", run)

    def by_full_disk(self, run: Run, directory: Path, what: str) -> None:
        """Fills the disk, waits for the end, makes room again."""
        filler = self.disk / "filler"
        try:
            _fill(filler)
            self.ended(run, what, (OUT_OF_ROOM, 0))
        finally:
            filler.unlink(missing_ok=True)

    def by_read_only(self, run: Run, directory: Path, what: str) -> None:
        """Makes every folder of it read-only, and waits for the end."""
        run.process.send_signal(signal.SIGSTOP)
        directory.mkdir(parents=True, exist_ok=True)
        with _read_only(directory):
            run.process.send_signal(signal.SIGCONT)
            self.ended(run, what, (OUT_OF_ROOM, 0))

    def by_another(self, run: Run, directory: Path, what: str) -> None:
        """Of two runs of the same command, one is refused; the other is killed."""
        second = self.start(directory, 2)
        status = self.ended(second, f"the second of {what}", (OUT_OF_ROOM, 0))
        run.process.send_signal(signal.SIGKILL)
        first = self.ended(run, what, (-signal.SIGKILL, OUT_OF_ROOM, 0))
        for one, other in ((run, first), (second, status)):
            said = one.output.read_text(errors="replace")
            if other == OUT_OF_ROOM and "another process is running" not in said:
                self.say(what, "was not told that another one runs", one)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


@contextlib.contextmanager
def _read_only(directory: Path) -> Iterator[None]:
    """Nobody can write into the folders: root is kept out by an attribute of theirs."""
    folders = [directory, *(x for x in directory.rglob("*") if x.is_dir())]
    ways = (
        (("chattr", "+i"), ("chattr", "-i"))
        if _is_root()
        else (
            ("chmod", "a-w"),
            ("chmod", "u+w"),
        )
    )
    subprocess.run([*ways[0], *folders], capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*ways[1], *folders], capture_output=True)


def _is_root() -> bool:
    return os.geteuid() == 0


def can_be_read_only(folder: Path) -> bool:
    """Whether this machine can make a directory read-only for us."""
    if _is_root() and not shutil.which("chattr"):
        return False
    place = folder / "read-only"
    place.mkdir(exist_ok=True)
    with _read_only(place):
        try:
            (place / "x").touch()
        except OSError:
            return True
    return False


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A small disk, if this user may mount one."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    given = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    try:
        mounted = _is_root() and not subprocess.run(given).returncode
    except OSError:
        mounted = False
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(ALGORITHMS), metavar="CASE,CASE")
    options = parser.parse_args(arguments)
    names, started = options.only.split(","), time.monotonic()
    with contextlib.ExitStack() as opened:
        made = tempfile.TemporaryDirectory(prefix="torture", ignore_cleanup_errors=True)
        folder = Path(opened.enter_context(made))
        disk = opened.enter_context(small_disk(folder))
        hows = [
            how
            for how in HOWS
            if (how != "full disk" or disk)
            and (how != "read-only" or can_be_read_only(disk or folder))
        ]
        for how in set(HOWS) - set(hows):
            print(f"left out, as this user cannot make one here: {how}")
        runs = []
        for at, name in enumerate(names):
            chance = random.Random(f"{options.seed} {name}")
            share = (options.kills + at) // len(names)  # they sum to all
            runs.append(Torture(name, folder, disk, hows, chance))
            while sum(runs[-1].kills.values()) < share:
                runs[-1].one(min(8, share - sum(runs[-1].kills.values())))
        kills = sum((run.kills for run in runs), Counter())
        moments = sum((run.moments for run in runs), Counter())
        wrong = [line for run in runs for line in run.wrong]
        resumed, equal = (sum(getattr(x, y) for x in runs) for y in ("runs", "equal"))
        slowest = max(run.slowest for run in runs)
    print(
        f"torture of {', '.join(names)}: {kills.total()} kills"
        f" ({_listed(kills)}; {_listed(moments)}) of {resumed} runs in"
        f" {time.monotonic() - started:.0f} s: {equal} of them ended with the same"
        f" bits, at most {slowest:.1f} s from SIGTERM to the end, {len(wrong)} faults"
    )
    return int(bool(wrong))


def _listed(counts: Counter) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


if __name__ == "__main__":
    sys.exit(main())
