"""Output that is closed, that knows few letters, or that nobody reads any more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = (
    "--config=experiments/configs/iql.py:hopper-medium-replay",
    "--config.agent.widths=16,16",
    "--config.seeds=1",
    "--config.offline.updates=10",
    "--config.online.steps=0",
    "--config.eval.episodes=1",
)


def called(command, *, shell="", **env):
    """Calls `python -m experiments.COMMAND`, with redirections of the shell."""
    words = (sys.executable, "-m", *command)
    script = f"exec {' '.join(map(repr, words))} {shell}"
    given = {name: x for name, x in os.environ.items() if not name.startswith("LC_")}
    return subprocess.run(
        ["sh", "-c", script],
        cwd=ROOT,
        env=given | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
    )


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_command_works_with_its_output_closed(closed, tmp_path):
    picture = tmp_path / "seen.png"
    told = ("experiments.inspect", "hopper-random", f"--out={picture}")
    done = called(told, shell=closed)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not done.stdout and len(list(tmp_path.iterdir())) == 1


def test_a_run_works_with_its_output_closed(tmp_path):
    command = ("experiments.run", *SHORT, f"--workdir={tmp_path / 'run'}")
    assert called(command, shell="<&- >&- 2>&-").returncode == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "critic_loss" in lines and "warning" not in lines


def test_letters_that_an_output_has_not_are_shown_by_their_numbers(tmp_path):
    command = ("experiments.run", *SHORT, f"--workdir={tmp_path}/\u65e5\u672c")
    done = called(command, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert rb"everything is in" in done.stdout and rb"\u65e5\u672c" in done.stdout
    assert (tmp_path / "\u65e5\u672c" / "summary.json").exists()


def test_a_locale_that_does_not_know_a_folders_letters_is_named(tmp_path):
    command = ("experiments.run", *SHORT, f"--workdir={tmp_path}/\u65e5\u672c")
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = called(command, **plain)
    assert done.returncode == 2, done.stderr
    assert b"this locale (ascii) does not know; set LC_ALL=C.UTF-8" in done.stderr
    assert b"room" not in done.stderr and b"Traceback" not in done.stderr


UNREAD = """
from experiments import entry_point
from o2ojax.run.progress import Progress

@entry_point
def main(arguments):
    for _ in range(1000):
        {said}
    open({path!r}, "w").close()
    return 0

raise SystemExit(main())
"""


@pytest.mark.parametrize(
    "said, status",
    [("Progress().headline('x' * 100)", 0), ("print('x' * 100)", 141)],
)
def test_what_nobody_reads_any_more(said, status, tmp_path):
    """A run goes on to its end; what only prints ends as after SIGPIPE."""
    path = str(tmp_path / "ended")
    code = UNREAD.format(said=said, path=path)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.wait(timeout=60) == status
    assert process.stderr.read() == b""
    assert os.path.exists(path) == (status == 0)


def test_fields_are_shown_and_nothing_is_run(tmp_path):
    command = ("experiments.run", *SHORT, "--show", f"--workdir={tmp_path / 'run'}")
    done = called(command)
    shown = done.stdout.decode().splitlines()
    assert done.returncode == 0 and not (tmp_path / "run").exists(), done.stderr
    assert "--config.agent.widths=(16, 16)" in shown
    assert "--config.eval.every=5000" in shown
