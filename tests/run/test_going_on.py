"""A finished run that becomes longer, and one that begins where another ended."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import o2ojax
from benchmarks.same_bits import compare
from experiments import run as command
from o2ojax.errors import GO_ON
from o2ojax.run import training

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config=experiments/configs/iql.py:hopper-medium-replay",
    "--config.agent.widths=8,8",
    "--config.batch=8",
    "--config.seeds=2",
    "--config.online.envs=2",
    "--config.eval.every=20",
    "--config.eval.episodes=1",
    "--config.checkpoint.every=20",
    "--config.log.every=20",
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(workdir, updates, steps, *others):
    return command.main(
        [
            *SMALL,
            f"--config.offline.updates={updates}",
            f"--config.online.steps={steps}",
            f"--workdir={workdir}",
            *others,
        ]
    )


def curves(workdir):
    with np.load(workdir / "returns.npz") as file:
        return file["returns"], list(file["phase"]), list(file["step"])


def rises(workdir):
    """Step of an offline evaluation -> how Q rose before it, by member."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    name = "readiness_rise"
    return {line["step"]: line[name] for line in lines if name in line}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert run(workdir, 20, 20, "--config.checkpoint.best=True") == 0
    return workdir


def test_a_run_becomes_longer(finished, tmp_path, capsys):
    best = "--config.checkpoint.best=True"
    assert run(tmp_path, 20, 20, best) == 0
    before, _, _ = curves(tmp_path)
    np.testing.assert_array_equal(before, curves(finished)[0])
    assert run(tmp_path, 20, 60, best) == 2
    assert "or --extend to make it longer" in capsys.readouterr().err
    assert run(tmp_path, 20, 60, best, "--extend") == 0
    after, phase, step = curves(tmp_path)
    assert phase == ["offline"] + ["online"] * 3 and step == [20, 20, 40, 60]
    np.testing.assert_array_equal(after[:2], before)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["online"]["steps"] == 60
    # what is longer now is a run of its own: the same command says that it is finished
    for others in ((best,), (best, "--extend")):
        capsys.readouterr()
        assert run(tmp_path, 20, 60, *others) == 0
        assert "is finished; nothing to do" in capsys.readouterr().out


def test_an_offline_run_becomes_longer_and_goes_online(tmp_path):
    assert run(tmp_path, 20, 0) == 0
    assert run(tmp_path, 40, 0, "--extend") == 0
    assert curves(tmp_path)[2] == [20, 40]
    assert run(tmp_path, 40, 20, "--extend") == 0
    assert curves(tmp_path)[1:] == (["offline"] * 2 + ["online"], [20, 40, 20])


@pytest.mark.parametrize(
    "updates, steps, others, said",
    [
        (20, 0, (), "holds a run of another config (online.steps: 20 -> 0)"),
        (40, 20, (), "has an online phase, so its offline phase cannot become longer"),
        (
            20,
            40,
            ("--config.batch=16",),
            "holds a run of another config (batch: 8 -> 1",
        ),
    ],
)
def test_what_is_not_longer_is_refused_and_nothing_lost(
    updates, steps, others, said, finished, capsys
):
    others = ("--config.checkpoint.best=True", "--extend", *others)
    assert run(finished, updates, steps, *others) == 2
    assert said in capsys.readouterr().err
    assert (finished / "summary.json").exists()


def test_the_best_checkpoint_is_kept_besides(finished):
    score, _, step = curves(finished)
    numbers = {0: 20, 1: 41}
    best = int(score.mean(axis=(1, 2)).argmax())
    assert [path.name for path in (finished / "best").iterdir()] == [str(numbers[best])]
    del step


def test_a_run_begins_where_another_ended(finished, tmp_path):
    given = ("--config.offline.from=" + f"{finished}@online",)
    assert run(tmp_path, 0, 20, *given) == 0
    phase, step = curves(tmp_path)[1:]
    assert (phase, step) == (["offline", "online"], [0, 20])


def test_where_no_online_phase_ended_none_begins(finished, tmp_path, capsys):
    assert run(tmp_path / "a", 20, 0) == 0
    given = ("--config.offline.from=" + f"{tmp_path / 'a'}@online",)
    assert run(tmp_path / "b", 0, 20, *given) == 2
    assert "that run had no online phase" in capsys.readouterr().err


def action_of(folder, checkpoint):
    policy = o2ojax.load(folder).policy(member=1, checkpoint=checkpoint)
    return policy.act(np.ones(11), policy.start(seed=0))[0]


def test_a_run_is_judged_soon_after_the_hand_over(tmp_path, capsys):
    every, early = "--config.log.every=4", "--config.eval.early=4,8"
    assert run(tmp_path / "soon", 20, 40, every, early) == 0
    _, phase, step = curves(tmp_path / "soon")
    assert phase == ["offline", *["online"] * 4] and step == [20, 4, 8, 20, 40]
    for wrong in ("6", "44"):
        given = every, f"--config.eval.early={wrong}"
        assert run(tmp_path / "wrong", 20, 40, *given) == 2
        said = f"config.eval.early has {wrong}; each must be a multiple of"
        assert said in capsys.readouterr().err


def test_a_run_begins_from_a_kept_checkpoint(tmp_path, capsys):
    series, then = tmp_path / "series", tmp_path / "then"
    keep = "--config.checkpoint.keep=20,40"
    assert run(series, 120, 0, keep) == 0
    numbers = {path.name for path in (series / "checkpoints").iterdir()}
    assert numbers == {"20", "40", "100", "120"}
    start = f"--config.offline.from={series}@"
    assert run(then, 0, 20, f"{start}40") == 0
    kept, last, begun = (
        action_of(*place) for place in ((series, 40), (series, 120), (then, 0))
    )
    np.testing.assert_array_equal(kept, begun)
    assert (kept != last).any()
    assert json.loads((then / "summary.json").read_text())["offline"]["updates"] == 40
    risen, begun = rises(series), rises(then)
    assert [*risen] == [40, 120]  # since 20 and 100
    assert begun == {0: risen[40]}
    one = tmp_path / "one"
    assert run(one, 0, 20, f"{start}40", "--config.seeds=1,") == 0
    assert rises(one) == {0: risen[40][1:]}
    assert run(tmp_path / "none", 0, 20, f"{start}60") == 2
    assert (
        "it has: 20, 40, 100, 120); config.checkpoint.keep" in capsys.readouterr().err
    )
    for wrong in ("30", "140"):
        assert run(tmp_path / "wrong", 120, 0, f"--config.checkpoint.keep={wrong}") == 2
        said = f"config.checkpoint.keep has {wrong}; each must be a multiple of"
        assert said in capsys.readouterr().err


def test_what_is_newer_than_a_run_does_not_make_it_another(finished, tmp_path):
    """Fields that it knows nothing of, and how a machine rounds the data's means."""
    there = tmp_path / "older"
    shutil.copytree(finished, there)
    described = json.loads((there / "config.json").read_text())
    del described["offline"]["held_out"], described["host"], described["agent"]["beta"]
    described["observations"]["mean"][0] += 1e-6
    (there / "config.json").write_text(json.dumps(described))
    best = "--config.checkpoint.best=True"
    assert run(there, 20, 20, best) == 0
    assert run(there, 20, 20, best, "--config.agent.beta=2") == 2
    assert run(there, 20, 20, best, "--config.horizon=9") == 2


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_a_stop_amid_an_evaluation_keeps_what_was_learned_before_it(
    finished, phase, tmp_path, monkeypatch
):
    asked, plain = [], training.Session.evaluate

    def evaluate(session, run):
        if session.record.phase == phase and not asked:
            asked.append(session.record.step)
            session.save_kept()  # as `Session.work` does where it takes too long
            raise training.Interrupted
        plain(session, run)

    best = "--config.checkpoint.best=True"
    monkeypatch.setattr(training.Session, "evaluate", evaluate)
    assert run(tmp_path, 20, 20, best) == GO_ON
    newest = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert asked == [20] and newest == {"offline": 20, "online": 41}[phase]
    assert run(tmp_path, 20, 20, best) == 0
    compared, apart = compare(finished, tmp_path)
    assert compared and not apart
