"""The public command: runs, resumes, refuses."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import execution
from experiments import run as command
from o2ojax.errors import GO_ON
from o2ojax.run import job, training
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.resolve import load, override, resolve

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config=experiments/configs/iql.py:hopper-medium-replay",
    "--config.agent.widths=16,16",
    "--config.batch=32",
    "--config.seeds=2",
    "--config.offline.updates=60",
    "--config.online.steps=60",
    "--config.online.envs=2",
    "--config.eval.every=20",
    "--config.eval.episodes=2",
    "--config.checkpoint.every=20",
    "--config.log.every=10",
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(workdir, *overrides, base=SMALL):
    return command.main([*base, f"--workdir={workdir}", *overrides])


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def last_run(workdir, *overrides):
    """The Run and the Record of a directory's newest checkpoint."""
    config = load(SMALL[0].partition("=")[2])
    override(config, [*SMALL[1:], *overrides])
    prepared = job.prepare(resolve(config), workdir)
    return training.restore(prepared, Checkpoints(workdir / "checkpoints", keep=[60]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    os.chdir(ROOT)
    assert run(workdir) == 0
    return workdir


# Between runs that each compile their programs. XLA does not make the same machine code
# each time: of Adam's second moments a last bit was seen to differ, once in some 30
# times. With one cache for both, `make torture` and test_own_environment.py hold bits.
ROUNDING = 1e-5


def assert_same_end(workdir, other):
    """Returns, parameters, replay and metrics agree, but for rounding."""
    pairs = [(lines(workdir), lines(other))]
    with np.load(workdir / "returns.npz") as a, np.load(other / "returns.npz") as b:
        pairs += [(a[name], b[name]) for name in ("returns", "phase", "step")]
    (run_a, record_a), (run_b, record_b) = last_run(workdir), last_run(other)
    assert (record_a.phase, record_a.step) == (record_b.phase, record_b.step)
    for a, b in [*pairs, (run_a, run_b)]:
        found = jax.tree.leaves_with_path(jax.tree.map(apart_by, a, b))
        apart = {jax.tree_util.keystr(path): x for path, x in found}
        assert {name: x for name, x in apart.items() if not x <= ROUNDING} == {}


def apart_by(a, b):
    """How far two leaves are apart at most, as a part of what is above 1."""
    if not isinstance(a, float) and np.dtype(getattr(a, "dtype", str)).kind != "f":
        return float(np.any(a != b))
    a, b = np.float64(a), np.float64(b)
    apart = np.where(a == b, 0.0, np.abs(a - b) / np.maximum(np.abs(a), 1.0))
    return np.max(apart, initial=0.0)


def test_a_run_leaves_what_it_promises(whole):
    described = json.loads((whole / "config.json").read_text())
    assert described["algorithm"] == "iql"
    assert described["seeds"] == [0, 1]
    assert {"versions", "commit", "device"} <= described.keys()
    with np.load(whole / "returns.npz") as curves:
        assert curves["returns"].shape == (6, 2, 2)
        assert list(curves["phase"]) == ["offline"] * 3 + ["online"] * 3
        assert list(curves["step"]) == [20, 40, 60] * 2
        assert np.isfinite(curves["returns"]).all()
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["offline"]["updates"] == 60
    assert summary["online"]["steps"] == 60
    assert summary["online"]["updates"] == 60
    assert {"score", "dip", "regret"} <= summary["online"].keys()
    assert (whole / "curves.png").stat().st_size > 10_000
    assert list((whole / "tensorboard").iterdir())
    assert {"60", "121"} <= {path.name for path in (whole / "checkpoints").iterdir()}


def test_members_are_never_averaged_away(whole):
    metrics = [line for line in lines(whole) if "critic_loss" in line]
    assert [line["step"] for line in metrics] == [10, 20, 30, 40, 50, 60] * 2
    assert all(len(line["critic_loss"]) == 2 for line in metrics)


def test_a_finished_run_says_so(whole, capsys):
    before = (whole / "summary.json").stat().st_mtime_ns
    assert run(whole) == 0
    assert "finished" in capsys.readouterr().out
    assert (whole / "summary.json").stat().st_mtime_ns == before


def test_how_often_a_run_logs_and_saves_changes_nothing_it_learns(whole, tmp_path):
    assert run(tmp_path, "--config.log.every=20", "--config.checkpoint.every=40") == 0
    with (
        np.load(whole / "returns.npz") as a,
        np.load(tmp_path / "returns.npz") as b,
    ):
        # chunks of other lengths are other programs, which may round otherwise
        np.testing.assert_allclose(a["returns"], b["returns"], rtol=1e-4)


def test_rounds_may_be_long_and_the_first_may_learn_more(tmp_path):
    """Three rounds of 20 transitions: 3 x 20 updates, then 20, then 20."""
    long = ("--config.online.round=20", "--config.online.first_round=3")
    assert run(tmp_path, *long, "--config.log.every=20") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["online"]["updates"] == 100
    online = [line for line in lines(tmp_path) if line["phase"] == "online"]
    assert [line["step"] for line in online if "critic_loss" in line] == [20, 40, 60]
    ended, _ = last_run(tmp_path, *long, "--config.log.every=20")
    counts = ended.agent.critic.opt_state[0].count
    np.testing.assert_array_equal(counts, 60 + 100)


def test_a_run_on_mjx_goes_offline_and_online(tmp_path, capsys):
    small = [
        *SMALL,
        "--config.physics=mjx",
        "--config.env=examples/pendulum.py:pendulum",  # quick to compile
        "--config.dataset=examples/pendulum.py:random_play",
        "--config.simulator.iterations=4",
        "--config.simulator.ls_iterations=8",
        "--config.online.envs=16",
        "--config.online.steps=64",
        "--config.log.every=32",
        "--config.eval.every=64",
        "--config.checkpoint.every=64",
        "--config.eval.episodes=1",
        "--config.seeds=1",
    ]
    assert run(tmp_path, base=small) == 0
    said = capsys.readouterr().out
    assert "physics 'mjx' on a CPU takes about" in said
    assert "on mjx" in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["physics"] == "mjx"
    assert summary["online"]["steps"] == 64
    with np.load(tmp_path / "returns.npz") as curves:
        assert list(curves["phase"]) == ["offline", "online"]
        assert np.isfinite(curves["returns"]).all()


def wait_for(workdir, phase, step, process):
    """Until the metrics file has a line of that phase at or past that step."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        path = workdir / "metrics.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            if f'"phase": "{phase}", "step": ' in line:
                if int(line.split('"step": ')[1].split(",")[0]) >= step:
                    return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    raise TimeoutError(f"no line of {phase} {step}")


def start(workdir, *others):
    command = [sys.executable, "-m", "experiments.run", *SMALL, *others]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_resumes_to_the_same_end(whole, tmp_path):
    """With MuJoCo called by XLA, and called through Python, in turn."""
    for phase, step, native in (("offline", 30, "auto"), ("online", 30, "never")):
        process = start(tmp_path, f"--config.native={native}")
        wait_for(tmp_path, phase, step, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "summary.json").exists()
    assert run(tmp_path) == 0
    assert_same_end(tmp_path, whole)


def test_a_terminated_run_saves_and_resumes_to_the_same_end(whole, tmp_path):
    process = start(tmp_path)
    wait_for(tmp_path, "offline", 30, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == GO_ON
    assert "saved" in process.stderr.read()
    saved_at = last_run(tmp_path)[1].step
    assert saved_at >= 30 or last_run(tmp_path)[1].phase == "online"
    assert run(tmp_path) == 0
    assert_same_end(tmp_path, whole)


def test_a_run_that_is_told_to_stop_while_it_begins(tmp_path, monkeypatch, capsys):
    """What has a checkpoint is saved, and says where it goes on; else nothing is."""

    @contextmanager
    def at_once():
        yield lambda: True

    assert run(tmp_path / "begun", "--config.online.steps=0") == 0
    (tmp_path / "begun" / "summary.json").unlink()
    monkeypatch.setattr(training, "stop_on_signal", at_once)
    assert run(tmp_path / "fresh", "--config.online.steps=0") == 130
    more = "--config.checkpoint.every=30"  # changes nothing that is learned
    assert run(tmp_path / "begun", "--config.online.steps=0", more) == GO_ON
    assert "goes on from offline" in capsys.readouterr().out


def test_a_stop_amid_long_work_is_answered_and_costs_no_bit(
    whole, tmp_path, monkeypatch, capsys
):
    """Work that would go on for ever: of each program of a run, one after another."""
    for name in (
        "offline phase",
        "offline evaluation",
        "a look at critics",
        "the hand-over",
        "online phase",
        "online evaluation",
    ):
        came, released = threading.Event(), threading.Event()
        compile_one = training.Session.compile

        def stuck(session, named, *given, name=name, came=came, released=released):
            program = compile_one(session, named, *given)  # noqa: B023
            if named != name:
                return program

            def never(*arguments):
                came.set()
                released.wait()
                return program(*arguments)

            return never

        @contextmanager
        def on_arrival(came=came):
            yield came.is_set

        with monkeypatch.context() as patch:
            patch.setattr(training, "stop_on_signal", on_arrival)
            patch.setattr(training.Session, "compile", stuck)
            patch.setattr(training.background, "PATIENCE", 0.1)
            assert run(tmp_path) == GO_ON, name
        released.set()  # and its thread comes to an end, in vain
        assert came.is_set()
        assert "interrupted; saved" in capsys.readouterr().err
    assert run(tmp_path) == 0
    assert_same_end(tmp_path, whole)


def test_a_stop_while_the_first_agents_are_made(tmp_path, monkeypatch, capsys):
    """There is nothing to save yet, and nothing that would have to be waited for."""
    released = threading.Event()

    @contextmanager
    def at_once():
        yield lambda: True

    monkeypatch.setattr(training, "stop_on_signal", at_once)
    monkeypatch.setattr(training, "begin", lambda *given: released.wait())
    monkeypatch.setattr(training.background, "PATIENCE", 0.1)
    assert run(tmp_path) == 130
    assert "before anything new was saved" in capsys.readouterr().err
    released.set()


def test_a_stop_while_the_offline_phase_is_saved_begins_no_other(
    tmp_path, monkeypatch, capsys
):
    saved = []
    save = training.Session.save

    @contextmanager
    def at_the_end():
        yield lambda: saved[-1:] == [60]

    def note(session, run):
        save(session, run)
        saved.append(session.record.step)

    monkeypatch.setattr(training, "stop_on_signal", at_the_end)
    monkeypatch.setattr(training.Session, "save", note)
    monkeypatch.setattr(training.Session, "hand_over", None)
    assert run(tmp_path) == GO_ON
    assert saved[-1] == 60


def test_an_online_run_starts_from_an_offline_one(whole, tmp_path):
    """Fine-tuning the agents that a run left behind is that run's online phase."""
    source = f"--config.offline.from={whole}"
    assert run(tmp_path, "--config.offline.updates=0", source) == 0
    with (
        np.load(whole / "returns.npz") as a,
        np.load(tmp_path / "returns.npz") as b,
    ):
        online = a["returns"][a["phase"] == "online"]
        np.testing.assert_array_equal(b["returns"][b["phase"] == "online"], online)


def test_starting_from_an_offline_only_run_warns(tmp_path, capsys):
    assert run(tmp_path / "offline", "--config.online.steps=0") == 0
    source = f"--config.offline.from={tmp_path / 'offline'}"
    budget = ("--config.offline.updates=0", "--config.online.steps=20")
    assert run(tmp_path / "online", *budget, source) == 0
    assert "learning rate fell to 0" in capsys.readouterr().out


def test_agents_are_not_taken_from_a_run_that_does_not_fit(whole, tmp_path, capsys):
    taking = ("--config.offline.updates=0", f"--config.offline.from={whole}")
    assert run(tmp_path, *taking, "--config.seeds=3") == 2
    assert "seeds [0, 1]" in capsys.readouterr().err
    assert run(tmp_path, *taking, "--config.agent.widths=8,8") == 2
    assert "other networks than this config" in capsys.readouterr().err


def test_a_member_that_dies_of_nan_is_named_and_the_others_go_on(tmp_path, capsys):
    healthy, mixed = tmp_path / "healthy", tmp_path / "mixed"
    short = ("--config.online.steps=0", "--config.seeds=1")
    assert run(healthy, *short, "--config.population.lr=3e-4") == 0
    assert run(mixed, *short, "--config.population.lr=3e-4,1e38") == 0
    assert "member 1 (seed 0, lr 1e+38) has died of NaN" in capsys.readouterr().out
    with np.load(healthy / "returns.npz") as a, np.load(mixed / "returns.npz") as b:
        np.testing.assert_allclose(b["returns"][:, 0], a["returns"][:, 0], rtol=1e-4)
        assert np.isnan(b["returns"][:, 1]).all()


def test_a_run_whose_members_all_die_ends_with_an_error(tmp_path, capsys):
    assert run(tmp_path, "--config.agent.lr=1e38") == 2
    error = capsys.readouterr().err
    assert "all 2 members have died of NaN" in error
    assert "by offline step 10" in error


@pytest.mark.parametrize("seen", [OSError, asyncio.CancelledError])
def test_a_full_disk_is_named_and_the_last_good_checkpoint_kept(
    seen, tmp_path, capsys, monkeypatch
):
    """Also where Orbax would raise that a write was cancelled, and the cause of it."""
    import orbax.checkpoint as ocp

    save = ocp.CheckpointManager.save

    def full_after_the_first(self, number, **kwargs):
        if number <= 20:
            return save(self, number, **kwargs)
        full = OSError(errno.ENOSPC, "No space left on device")
        raise full if seen is OSError else asyncio.CancelledError from full

    monkeypatch.setattr(ocp.CheckpointManager, "save", full_after_the_first)
    assert run(tmp_path) == 2
    error = capsys.readouterr().err
    assert "the disk is full" in error
    assert "checkpoint 20 is the last good one" in error
    monkeypatch.undo()
    os.chdir(ROOT)
    assert run(tmp_path) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("size", ["60k", "330k"])
def test_a_disk_that_is_full_in_truth_is_told_in_one_sentence(size, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        process = start(tmp_path / "run")
        said = process.stderr.read()
        status = process.wait(timeout=300)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert status == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert "the disk is full" in said or "No space left on device" in said


BALANCED = "--config.replay.name=balanced"


@pytest.mark.parametrize(
    "override, said",
    [
        ("--config.agent.expectil=0.9", "did you mean 'agent.expectile'"),
        ("--config.batch=many", "config.batch is 'many'; it must be a whole number"),
        (
            "--config.batch=0",
            "config.batch is 0; it must be a whole number of at",
        ),
        ("--config.env=hoper", "did you mean 'hopper'"),
        ("--config.algorithm=iqll", "did you mean 'iql'"),
        ("--config.dataset=hopper-medium-repla", "hopper-medium-replay"),
        ("--config.dataset=nowhere.hdf5", "nowhere.hdf5"),
        ("--config.env=halfcheetah", "halfcheetah"),
        ("--config.physics=bullet", "unknown physics 'bullet'"),
        ("--config.online.round=7", "config.online.round is 7; it must be 0, or a mul"),
        ("--config.online.first_round=0", "config.online.first_round is 0; it must be"),
        (f"{BALANCED} --config.replay.first_share=1", "first_share is 1; it must"),
        (f"{BALANCED} --config.replay.head=relo", "it must be relu or softplus"),
        (f"{BALANCED} --config.replay.temper=0", "config.replay.temper is 0; it must"),
        ("--config.replay.temper=0", "unknown config field 'replay.temper'"),
        ("--config.simulator.iterations=-1", "config.simulator.iterations is -1"),
        ("--config.simulator.mass=0.2", "several variants need one of them above 0"),
        ("--config.simulator.variants=3", "config.simulator.variants is 3, but mass"),
        ("--config.simulator.friction=-1", "it must be a number of at least 0 and"),
        ("--config.simulator.mass=50", "config.simulator.mass is 50; it must be a num"),
        ("--config.replay.name=fancy", "unknown replay 'fancy'"),
        ("--config.population.widths=1,2", "of the numbers that iql traces"),
        ("--config.population.expectil=0.1", "did you mean 'expectile'"),
        ("--config.seeds=1,1", "config.seeds is (1, 1); it must be a number of seeds"),
        ("--config.seeds=1,1", "or as many different whole numbers"),
        ("--config.seeds=1.5,2", "config.seeds is (1.5, 2)"),
        (
            "--config.algorithm=bc --config.agent.beta=1",
            "unknown config field 'agent.b",
        ),
        ("--config.agent.expectile=1.5", "it must be a number above 0 and below 1"),
        ("--config.population.expectile=0.7,1.9", "config.population.expectile is 1.9"),
        ("--config.agent.lr=-1", "config.agent.lr is -1; it must be a finite number"),
        ("--config.agent.widths=-5", "positive whole numbers"),
        ("--config.agent.num_critics=0", "config.agent.num_critics is 0"),
        ("--config.offline.from=nowhere", "config.offline.updates must be 0"),
        ("expectile=0.9", "overrides look like --config.FIELD=VALUE"),
    ],
)
def test_bad_input_gets_one_clear_message(override, said, tmp_path, capsys):
    assert run(tmp_path / "new", *override.split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "new" / "metrics.jsonl").exists()


def test_a_directory_with_a_run_of_another_config_is_refused(whole, capsys):
    assert run(whole, "--config.agent.expectile=0.8") == 2
    error = capsys.readouterr().err
    assert "agent.expectile: 0.7 -> 0.8" in error
    assert run(whole, "--config.physics=mjx") == 2
    assert "go on, here with --config.physics=mujoco" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "run") == 2
    assert "cannot be written" in capsys.readouterr().err


LONG = "x" * 300  # letters; most file systems take 255


@pytest.mark.parametrize(
    "given, said",
    [
        (f"--config={LONG}.py", "there is no such Python file"),
        (f"--config.algorithm={LONG}.py:X", "there is no such file"),
        (f"--config.dataset={LONG}.npz", "no such file"),
        ("--config.dataset=~nobody-here/x.npz", "no such file"),
        (f"--config.offline.from={LONG} --config.offline.updates=0", "no run there"),
        (f"--workdir={LONG}", "cannot be written: File name too long"),
    ],
)
def test_a_name_that_no_file_can_have_is_told_in_one_sentence(
    given, said, tmp_path, capsys
):
    assert run(tmp_path, *given.split()) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_config_file_that_fails_is_named(tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text("def get_config():\n    return 1 / 0\n")
    assert command.main([f"--config={path}"]) == 2
    assert "fails with ZeroDivisionError" in capsys.readouterr().err


def test_a_misspelt_field_in_a_config_file_is_answered_with_the_nearest(
    tmp_path, capsys
):
    path = tmp_path / "misspelt.py"
    path.write_text(
        "from o2ojax.run.config import defaults\n"
        "def get_config():\n"
        "    config = defaults('iql', 'hopper-medium-replay')\n"
        "    config.online.setps = 3\n"
        "    return config\n"
    )
    assert command.main([f"--config={path}"]) == 2
    error = capsys.readouterr().err
    assert "unknown field of config.online 'setps'; did you mean 'steps'" in error


def test_a_run_says_which_member_is_which(whole):
    described = json.loads((whole / "config.json").read_text())
    assert described["members"] == [{"seed": 0}, {"seed": 1}]


def test_a_missing_config_file_is_named(capsys):
    assert command.main(["--config=nowhere.py"]) == 2
    assert "nowhere.py: there is no such Python file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override, said",
    [
        ("--config.agent.horizon=0", "config.agent.horizon is 0; it must be a whole"),
        (
            "--config.agent.horizon=51 --config.online.warmup=100",
            "has an episode of 50 steps, shorter than the",
        ),
        ("--config.agent.num_elites=20", "config.agent.num_elites is 20, but only 8"),
        ("--config.agent.num_critics=1", "config.agent.num_critics is 1; it must be"),
        ("--config.agent.max_std=0.01", "it must be 0 < min_std <= max_std"),
        ("--config.replay.alpha=-1", "config.replay.alpha is -1; it must be"),
        (
            "--config.agent.penalty=-1",
            "config.agent.penalty is -1; it must be a fin",
        ),
        ("--config.population.penalty=1,-1", "config.population.penalty is -1; it"),
        ("--config.agent.iterations=0.5", "it must be a whole number of at least 1"),
        (
            "--config.agent.termination_weight=-1",
            "config.agent.termination_weight is -1; it must be a finite number",
        ),
        ("--config.replay.name=balanced", "fowm learns from windows: set"),
        ("--config.replay.name=online", "fowm learns from windows: set"),
        ("--config.dataset=hopper-medium-replay", "push"),
    ],
)
def test_bad_input_to_a_planner_gets_one_clear_message(
    override, said, tmp_path, capsys
):
    small = ["num_samples=8", "num_proposals=4", "num_elites=4"]
    arguments = [
        "--config=experiments/configs/fowm.py:push-medium-replay",
        *(f"--config.agent.{size}" for size in small),
        f"--workdir={tmp_path / 'new'}",
        *override.split(),
    ]
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "new" / "metrics.jsonl").exists()


def test_a_planner_learns_offline_and_another_run_takes_it_online(tmp_path):
    """World models whose store has priorities; two prices of disagreement online."""
    tiny = {"encoder_width": 8, "width": 8, "latent_dim": 4, "horizon": 2}
    tiny |= {"num_samples": 6, "num_proposals": 2, "num_elites": 4, "iterations": 1}
    arguments = [
        "--config=experiments/configs/fowm.py:lift-medium-replay",
        *(f"--config.agent.{name}={size}" for name, size in tiny.items()),
        *("--config.batch=8", "--config.seeds=2", "--config.eval.episodes=2"),
        *(f"--config.{name}.every=50" for name in ("eval", "checkpoint", "log")),
    ]
    offline = ["--config.offline.updates=50", "--config.online.steps=0"]
    online = ["--config.offline.updates=0", "--config.online.steps=50"]
    prices = ["--config.population.penalty=0,5"]
    first, then = tmp_path / "offline", tmp_path / "online"
    assert run(first, *offline, base=arguments) == 0
    online.append(f"--config.offline.from={first}")
    assert run(then, *online, *prices, base=arguments) == 0
    summary = json.loads((then / "summary.json").read_text())
    assert summary["members"] == 4 and len(summary["groups"]) == 2
    assert 0 <= summary["online"]["score"]["iqm"] <= 100  # percent that succeed
    assert summary["online"]["return"]["iqm"] != summary["online"]["score"]["iqm"]
    assert summary["offline"]["updates"] == 50
    with np.load(then / "returns.npz") as kept:
        assert set(np.unique(kept["success"])) <= {0.0, 1.0}
        assert kept["success"].shape == kept["returns"].shape == (2, 4, 2)


def test_memory_that_runs_out_is_told_in_one_sentence(tmp_path, capsys, monkeypatch):
    """What updates compute with is not foretold: then XLA has the last word."""
    monkeypatch.setattr(execution, "train", lambda *given: jax.numpy.zeros((10**14,)))
    assert run(tmp_path) == 2
    error = capsys.readouterr().err
    assert "there is not enough memory: RESOURCE_EXHAUSTED" in error
