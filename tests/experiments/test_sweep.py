"""Sweeps: what their files mean, what is refused, and trials that outlive a worker."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from experiments import live, on_ray, sweep, trials, worker
from o2ojax.errors import OTHER_FAILED, UserError
from o2ojax.run.workdir import newest_checkpoint
from tests.report.test_report import curves, is_png, write_run

ROOT = Path(__file__).parents[2]
BC = "experiments/configs/bc.py:hopper-random"
IQL = "experiments/configs/iql.py:hopper-random"
GRID = {"config": (IQL, BC), "batch": (16, 32)}
BALANCED = {"replay.name": ("balanced",)}
TEMPER = "--config.replay.temper=2"
SMALL = (
    "--config.agent.widths=16,16",
    "--config.seeds=2",
    "--config.offline.updates=40",
    "--config.eval.every=20",
    "--config.eval.episodes=2",
    "--config.checkpoint.every=20",
    "--config.log.every=10",
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def write(tmp_path):
    """Writes a sweep's file; returns the arguments that name it and a workdir."""

    def arguments(grid, rest=""):
        path = tmp_path / "grid.py"
        path.write_text(f"def get_sweep():\n    return {grid!r}\n{rest}")
        return [f"--sweep={path}", f"--workdir={tmp_path / 'sweep'}"]

    return arguments


def planned(arguments, config=None, overrides=(), **resources):
    path, workdir = (Path(argument.partition("=")[2]) for argument in arguments)
    return trials.plan(path, config, overrides, workdir, resources)


def test_a_grid_is_a_product_and_names_say_what_varies(write, tmp_path):
    grid = GRID | {"agent.widths": ((16,), (16, 16)), "eval.episodes": (3,)}
    listed = planned(write(grid))
    assert [trial.name for trial in listed] == [
        f"{algorithm}-hopper-random,batch={batch},widths={widths}"
        for algorithm in ("iql", "bc")
        for batch in (16, 32)
        for widths in ("16", "16x16")
    ]
    sixth = listed[5]
    assert sixth.directory == tmp_path / "sweep" / sixth.name
    assert (sixth.config.algorithm, sixth.config.batch) == ("bc", 16)
    assert sixth.config.agent.widths == (16, 16)
    assert {trial.config.eval.episodes for trial in listed} == {3}


def test_a_sweep_may_be_several_grids(write):
    several = [
        {"config": (IQL,), "population.expectile": ((0.7, 0.9), (0.5,))},
        {"config": (BC,), "offline.updates": (5, 7), "online.updates_per_step": (1,)},
    ]
    listed = planned(write(several))
    assert [trial.name for trial in listed] == [
        "iql-hopper-random,expectile=0.7x0.9",
        "iql-hopper-random,expectile=0.5",
        "bc-hopper-random,updates=5",
        "bc-hopper-random,updates=7",
    ]
    assert listed[0].config.population == {"expectile": (0.7, 0.9)}


def test_a_name_too_long_for_a_folder_is_cut_and_stays_its_own(write, tmp_path):
    """14 fields that vary, as many as a study of everything may have."""
    numbers = "expectile beta max_weight gamma target_rate lr".split()
    fields = [f"agent.{name}" for name in numbers]
    fields += [
        "reward.scale",
        "reward.shift",
        "online.updates_per_step",
        "online.until",
    ]
    fields += ["eval.episodes", "batch", "offline.held_out", "simulator.iterations"]
    values = (0.123456789, 0.987654321)
    whole = {
        "eval.episodes",
        "batch",
        "simulator.iterations",
        "online.updates_per_step",
    }
    grids = [
        {name: (2 + at,) if name in whole else (values[at],) for name in fields}
        for at in (0, 1)
    ]
    listed = planned(write(grids), IQL)
    assert len(fields) == 14 and len({trial.name for trial in listed}) == 2
    for trial in listed:
        assert 190 < len(trial.name.encode()) <= trials.LONGEST
        trial.directory.mkdir(parents=True)
    cut = {name: trials.fitting(name) for name in ("x" * 201, "x" * 200, "\u65e5" * 67)}
    assert all(len(name.encode()) <= trials.LONGEST for name in cut.values())
    assert cut["x" * 200] == "x" * 200 and cut["x" * 201].startswith("x" * 191 + "-")
    assert trials.fitting("x" * 300) != trials.fitting("x" * 301)


def test_fields_that_end_alike_are_named_in_full(write):
    grid = {"config": (BC,), "eval.every": (1000, 2000), "log.every": (500, 1000)}
    assert planned(write(grid))[0].name == "bc-hopper-random,eval.every=1000," + (
        "log.every=500"
    )


def test_a_names_numbers_keep_their_signs(write):
    shifts = planned(write({"config": (BC,), "reward.shift": (-1.0, 0.0, 1.0)}))
    ends = [trial.name.rpartition("=")[2] for trial in shifts]
    assert ends == ["-1.0", "0.0", "1.0"]


def test_one_config_and_overrides_serve_all_trials(write):
    listed = planned(write({"batch": (16, 32)}), BC, ["--config.seeds=7"])
    assert [trial.name for trial in listed] == [
        "bc-hopper-random,batch=16",
        "bc-hopper-random,batch=32",
    ]
    assert {trial.config.seeds for trial in listed} == {tuple(range(7))}


def test_seeds_may_be_swept_and_what_brings_fields_may_come_last(write):
    grid = {"config": (BC,), "seeds": (2, (5, 7)), "replay.temper": (2.0,)} | BALANCED
    seeds = [trial.config.seeds for trial in planned(write(grid))]
    assert seeds == [(0, 1), (5, 7)]
    [trial] = planned(write({"config": (BC,)} | BALANCED), None, [TEMPER])
    assert trial.config.replay.options.temper == 2


def test_a_trial_may_ask_for_more_than_another(write):
    rest = (
        "def get_resources(config):\n"
        "    return {'cpus': 4, 'gpus': 0.5} if config.algorithm == 'iql' else {}\n"
    )
    arguments = write(GRID, rest)
    asked = [(trial.cpus, trial.gpus) for trial in planned(arguments)]
    assert asked == [(4, 0.5), (4, 0.5), (1, 0), (1, 0)]
    asked = [(trial.cpus, trial.gpus) for trial in planned(arguments, cpus=2)]
    assert asked == [(2, 0.5), (2, 0.5), (2, 0), (2, 0)]


@pytest.mark.parametrize(
    "grid, said",
    [
        ({"batch": 16}, "'batch' should have a tuple of values"),
        ({"batch": ()}, "'batch' should have a tuple of values"),
        ([], "should return a dict from fields to tuples"),
        (GRID | {"batsh": (1,)}, "trial 0, iql-hopper-random,batch=16: unknown con"),
        (GRID | {"seeds": (2, 0)}, "trial 1, iql-hopper-random,batch=16,seeds=0: con"),
        (GRID | {"agent.widths": (16, 32)}, "config.agent.widths holds a tuple, so"),
        (GRID | {"agent.widths": (16, 16)}, "trials 0 and 1 would both be called"),
        (GRID | {"replay.widths": (16, 32)}, "unknown config field 'replay.widths'"),
        (GRID | BALANCED | {"replay.widths": (16, 32)}, "replay.widths holds a tuple"),
        (
            GRID | {"config": ("nowhere.py",)},
            "nowhere.py: there is no such Python file",
        ),
        ({"batch": (16, 32)}, "there is no config: give --config=FILE.py:TASK"),
        (GRID | {"log.every": (10,)}, "--config.log.every is given, but"),
        (GRID | {"agent.expectile": (0.7,)}, "unknown config field 'agent.expectile'"),
    ],
)
def test_bad_grids_are_refused_before_anything_starts(
    write, tmp_path, capsys, grid, said
):
    assert sweep.main([*write(grid), "--config.log.every=10"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    "given, said",
    [
        (["--config=" + BC], "names configs, too"),
        (["--trial=4"], "--trial=4: the sweep has trials 0 to 3"),
        (["--cpus=0"], "cpus is 0; it must be a whole number"),
        (["--gpus=1.5"], "gpus is 1.5; it must be a whole number, or a share"),
        (["--retrys=4"], "there is no option '--retrys=4'"),
        (["--retries=-1"], "--retries=-1; it must be at least 0"),
        (["--report"], "no trial has ended"),
    ],
)
def test_bad_options_are_refused(write, capsys, given, said):
    assert sweep.main([*write(GRID), *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "text, said",
    [
        ("def get_sweep():\n    return 1 / 0\n", "fails with ZeroDivisionError"),
        ("get_sweep = (\n", "fails with SyntaxError"),
        ("", "the file defines no get_sweep()"),
    ],
)
def test_a_sweep_file_that_fails_is_named(tmp_path, text, said):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        trials.read(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_resources_of_another_name_are_refused(write):
    rest = "def get_resources(config):\n    return {'cpu': 4}\n"
    with pytest.raises(UserError, match="did you mean 'cpus'"):
        planned(write(GRID, rest))


def test_resources_that_cannot_be_told(write):
    rest = "def get_resources(config):\n    return {}['cpus']\n"
    with pytest.raises(UserError, match="trial 0, .*get_resources fails with KeyError"):
        planned(write(GRID, rest))


def test_a_dry_run_lists_the_trials_and_leaves_accelerators_alone(write, tmp_path):
    """JAX in the sweep's own process would take memory of a GPU meant for trials."""
    code = (
        "import sys; from experiments import sweep; from jax._src import xla_bridge;"
        "assert sweep.main(sys.argv[1:]) == 0;"
        "assert not xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *write(GRID), "--dry-run"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["number", "trial", "cpus", "gpus"]
    assert lines[3] == ["2", "bc-hopper-random,batch=16", "1", "0"]
    assert not (tmp_path / "sweep").exists()


def test_a_dry_run_finds_a_dataset_that_is_missing(write, tmp_path, capsys):
    grid = {"config": (BC,), "dataset": ("hopper-random", str(tmp_path / "no.npz"))}
    assert sweep.main([*write(grid), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert "trial 1" in told and "no.npz" in told


def test_one_trial_runs_here_by_its_number(write, tmp_path, capsys):
    """What a SLURM array does: trials by number, then a report over what has ended."""
    arguments = [*write({"config": (BC,), "batch": (16, 32)}), *SMALL]
    directory = tmp_path / "sweep" / "bc-hopper-random,batch=32"
    assert sweep.main([*arguments, "--trial=1"]) == 0
    assert json.loads((directory / "config.json").read_text())["batch"] == 32
    assert (directory / "summary.json").exists()

    assert sweep.main([*arguments, "--trial=1"]) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out
    assert sweep.main([*arguments, "--dry-run"]) == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert second.split()[-1] == "done" and first.split()[-1] != "done"
    assert sweep.main([*arguments, "--report"]) == 0
    text = (tmp_path / "sweep" / "report.md").read_text()
    assert "| bc, batch=32 | hopper-random | 2 |" in text
    assert "* bc-hopper-random,batch=16" in text

    # with another config the directory is refused before Ray is so much as looked for
    assert sweep.main([*arguments, "--config.reward.shift=1"]) == 2
    assert "reward.shift: 0.0 -> 1.0" in capsys.readouterr().err


def test_a_missing_ray_is_named(write, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert sweep.main(write(GRID)) == 2
    assert "pip install 'o2ojax[sweep]'" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_an_address_where_nobody_listens_is_named_at_once(write, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(shutdown=lambda: None))
    assert sweep.main([*write(GRID), "--address=127.0.0.1:9"]) == 2
    assert "127.0.0.1:9: no Ray cluster that can be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, said",
    [
        ((), "error: Ray does not start here: Version mismatch: Ray: 1 and 2"),
        (("--address=a",), "--address=a: no Ray cluster that can be used: Version mis"),
    ],
)
def test_a_ray_that_does_not_begin_says_all(write, capsys, monkeypatch, given, said):
    def begin(**given):
        raise RuntimeError("Version mismatch:\n   Ray: 1\n and 2")

    ray = SimpleNamespace(init=begin, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert sweep.main([*write(GRID), *given]) == 2
    assert said in capsys.readouterr().err


def finish(trial, score):
    """Writes the run of a trial that has ended with that score."""
    trial.directory.parent.mkdir(exist_ok=True)
    found = trial.config.described()
    if score is not None:
        write_run(trial.directory, found, curves([[score, score]], [[score + 5] * 2]))


def test_the_report_has_a_figure_for_each_dataset_and_says_what_is_missing(
    write, tmp_path
):
    datasets = ("hopper-random", "halfcheetah-random")
    files = tuple(f"experiments/configs/iql.py:{data}" for data in datasets)
    grid = {"config": files, "batch": (16, 32)}
    listed = planned(write(grid), overrides=["--config.seeds=2"])
    for trial, score in zip(listed, (10, 20, 30, None), strict=True):
        finish(trial, score)
    sweep.conclude(listed, tmp_path / "sweep", {listed[3].name: "no such file"})
    text = (tmp_path / "sweep" / "report.md").read_text()
    assert text.startswith("# sweep: 3 of 4 trials")
    for data, rows in zip(datasets, (2, 1), strict=True):
        section = text.split(f"## {data}\n")[1].split("\n## ")[0]
        assert f"![curves]({data}.png)" in section
        assert section.count("| iql, batch=") == rows
        assert is_png(tmp_path / "sweep" / f"{data}.png")
    assert text.endswith("* iql-halfcheetah-random,batch=32: no such file\n")


def test_a_trials_files_tell_where_it_stands(write):
    [trial] = planned(write({"config": (IQL,)}))
    assert live.look(trial, "waiting") == live.State("waiting")
    trial.directory.mkdir(parents=True)
    lines = [
        {"phase": "offline", "step": 10, "score": [1.0, 2.0, 3.0, 40.0]},
        {"phase": "online", "step": 7, "score": [4.0, None]},
        {"phase": "online", "step": 9, "loss": [0.0, 0.0]},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"phase": "online", "st'
    (trial.directory / "metrics.jsonl").write_text(text)
    (trial.directory / "worker.json").write_text('{"resumed": 2}')
    state = live.look(trial, "running")
    assert state == live.State("running", 2, "online 9 of 1,000,000", 4.0)
    assert state.words == "running, resumed 2"
    (trial.directory / "log.txt").write_text("begins\nerror: no such file\n\n")
    assert live.last_words(trial.directory) == "no such file"


def test_off_a_terminal_changes_are_told_in_lines(capsys):
    board = live.Board(Console(highlight=False, width=80))
    with board.opened():
        for word in ("waiting", "running", "running", "done"):
            board.show({"a": live.State(word, score=1.0), "b": live.State("waiting")})
    assert capsys.readouterr().out == "a: running, score 1.00\na: done, score 1.00\n"


def test_on_a_terminal_the_table_puts_first_what_runs():
    console = Console(width=80, force_terminal=True, record=True)
    board = live.Board(console)
    with board.opened():
        board.show({"a": live.State("done"), "b": live.State("running", 1, "here")})
    shown = console.export_text()
    assert "1 running, 1 done" in shown
    assert shown.index("running, resumed 1") < shown.rindex("done")


class FakeRay:
    """Ray as far as `Jobs` knows it: every task ends at once, as a script says."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            cause = ImportError("no module named experiments")

    def __init__(self, script):
        self.script, self.sent = script, []

    def remote(self, **options):
        def send(config, directory, *rest):
            self.sent.append(Path(directory).name)
            return len(self.sent)

        task = SimpleNamespace(options=lambda **asked: SimpleNamespace(remote=send))
        return lambda function: task

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        name = self.sent[reference - 1]
        outcome = self.script[name].pop(0)
        if isinstance(outcome, int):
            return outcome
        raise getattr(self.exceptions, outcome)


def test_lost_workers_are_replaced_and_failures_are_not(write):
    listed = planned(write({"config": (BC,), "batch": (16, 32, 64, 128, 256)}))
    lost, stopped, refused, broken = "RayError", 1, 2, "RayTaskError"
    outcomes = [[0], [lost, stopped, 0], [lost] * 3, [refused], [broken]]
    names = [trial.name for trial in listed]
    ray, said = FakeRay(dict(zip(names, outcomes, strict=True))), []
    listed[3].directory.mkdir(parents=True)
    (listed[3].directory / "log.txt").write_text("error: no such file\n")
    jobs = on_ray.Jobs(ray, listed, 2, said.append)
    assert jobs.word(listed[0]) == "waiting"
    while jobs.pending:
        jobs.wait(1.0)
    assert [ray.sent.count(name) for name in names] == [1, 3, 3, 1, 1]
    assert jobs.failed == {
        names[2]: "has lost its worker (RayError), after 2 retries",
        names[3]: "no such file",
        names[4]: "ImportError: no module named experiments",
    }
    assert [jobs.word(trial) for trial in listed] == ["done"] * 2 + ["failed"] * 3
    assert said[0] == f"{names[1]} has lost its worker (RayError): retry 1 of 2"


def test_trials_on_one_machine_share_no_core(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.tempfile, "tempdir", str(tmp_path))
    before = os.sched_getaffinity(0)
    try:
        first = worker.claim_cores(1)
        ours = os.sched_getaffinity(0)
        assert len(ours) == len(first) == 1 and ours < before or len(before) == 1
        os.sched_setaffinity(0, before)
        second = worker.claim_cores(len(before))  # one too many
        assert second == [] and os.sched_getaffinity(0) == before
        for file in first:
            file.close()
        assert len(worker.claim_cores(len(before))) == len(before)
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    "status, restarts, requeued",
    [(0, 0, 0), (75, 0, 1), (1, 0, 0), (2, 0, 0), (75, 10, 0)],
)
def test_a_slurm_task_that_was_stopped_queues_again(
    tmp_path, status, restarts, requeued
):
    """With stand-ins for SLURM's two commands."""
    for name, line in (("srun", f"exit {status}"), ("scontrol", "")):
        command = tmp_path / name
        command.write_text(f'#!/bin/bash\necho "{name} $*"\n{line}\n')
        command.chmod(0o755)
    told = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "77"}
    told |= {"SLURM_RESTART_COUNT": str(restarts)}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "experiments/slurm.sh", "--sweep=grid.py"],
        env=os.environ | told | path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    lines = done.stdout.splitlines()
    python = "python -m experiments.sweep --sweep=grid.py --trial=3"
    assert lines[0] == f"srun --cpus-per-task=1 {python}"
    assert lines[1:] == ["scontrol requeue 77_3"] * requeued


def kill_once_saved(directory, killed):
    """Kills the worker of a trial as soon as it has a checkpoint."""
    while not killed:
        saved = newest_checkpoint(directory)
        if saved is not None:
            os.kill(live.note(directory)["pid"], signal.SIGKILL)
            killed.append(saved)
        time.sleep(0.01)


@pytest.mark.slow
def test_a_sweep_survives_the_killing_of_a_worker(write, tmp_path, capsys, monkeypatch):
    """It resumes from its checkpoint, to the end of a trial that nothing disturbed."""
    pytest.importorskip("ray")
    # as users compile: with the tests' flags, a program's last bit may be another one
    # when it comes from the compilation cache
    monkeypatch.setenv("XLA_FLAGS", "")
    grid = [
        {"config": (IQL,), "online.steps": (40,), "batch": (16,)},
        {"config": (BC,), "batch": (16,), "dataset": ("hopper-random", "nowhere.npz")},
    ]
    arguments, killed = [*write(grid), *SMALL], []
    listed = planned(arguments[:2], overrides=SMALL)
    names = [trial.name for trial in listed]
    victim = listed[0].directory
    killer = threading.Thread(
        target=kill_once_saved, args=(victim, killed), daemon=True
    )
    killer.start()
    assert sweep.main(arguments) == OTHER_FAILED  # the dataset that is nowhere
    assert killed and live.note(victim)["checkpoint"] >= killed[0] > 0
    said = capsys.readouterr().out
    assert f"{listed[0].name} has lost its worker" in said
    assert f"{names[0]}: done, resumed 1" in said
    assert "nowhere.npz: no such file" in said

    text = (tmp_path / "sweep" / "report.md").read_text()
    assert "| iql | hopper-random | 2 | 40, 40 (40) |" in text
    assert "| bc, dataset=hopper-random | hopper-random | 2 | 40 |" in text
    assert f"* {names[2]}: nowhere.npz: no such file" in text

    alone = tmp_path / "alone"
    command = [sys.executable, "-m", "experiments.sweep", *arguments]
    subprocess.run([*command, "--trial=0", f"--workdir={alone}"], check=True, cwd=ROOT)
    with (
        np.load(victim / "returns.npz") as a,
        np.load(alone / names[0] / "returns.npz") as b,
    ):
        np.testing.assert_array_equal(a["returns"], b["returns"])
    metrics = [
        (folder / "metrics.jsonl").read_text() for folder in (victim, alone / names[0])
    ]
    assert metrics[0] == metrics[1]
