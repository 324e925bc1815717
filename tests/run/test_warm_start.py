"""Going on from the agents of another run, of the same algorithm or of another."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import run as command
from o2ojax.run import job, training
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.config import FORMAT
from o2ojax.run.resolve import load, override, resolve

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.env=hopper",
    "--config.agent.widths=8,8",
    "--config.batch=8",
    "--config.seeds=2",
    "--config.eval.every=20",
    "--config.eval.episodes=1",
    "--config.checkpoint.every=20",
    "--config.log.every=10",
)
OFFLINE = (
    "--config=experiments/configs/off2on.py:hopper-medium-replay",
    "--config.agent.num_actions=2",
    "--config.agent.num_agents=2",
    "--config.offline.updates=20",
    "--config.online.steps=0",
    "--config.online.round=0",
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert command.main([*OFFLINE, *SMALL, f"--workdir={workdir}"]) == 0
    return workdir


def go_on(source, workdir, algorithm, *overrides):
    return command.main(
        [
            f"--config=experiments/configs/{algorithm}.py:hopper-medium-replay",
            *SMALL,
            f"--config.offline.from={source}",
            "--config.offline.updates=0",
            "--config.online.steps=20",
            "--config.online.warmup=0",
            "--config.online.round=0",
            *overrides,
            f"--workdir={workdir}",
        ]
    )


def last_agent(workdir, arguments):
    config = load(arguments[0].partition("=")[2])
    override(config, arguments[1:])
    prepared = job.prepare(resolve(config), workdir)
    run, _ = training.restore(prepared, Checkpoints(workdir / "checkpoints", keep=[20]))
    return run.agent


def test_an_ensemble_of_one_goes_on_with_balanced_replay(source, tmp_path):
    fewer = (
        "--config.agent.num_agents=1",
        "--config.agent.num_actions=2",
        "--config.replay.widths=8,8",
    )
    assert go_on(source, tmp_path, "off2on", *fewer) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["offline"]["updates"] == 20
    told = [
        json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    online = [line for line in told if "ratio_offline" in line]
    assert [line["step"] for line in online] == [1, 10, 20]  # the first round apart
    assert all(0 <= x <= 1 for line in online for x in line["online_share"])


def test_sac_goes_on_from_each_members_first_agent(source, tmp_path, capsys):
    from_data = (
        "--config.dataset=hopper-medium-replay",
        "--config.replay.name=uniform",
    )
    changed = ("--config.agent.lr=1e-12", "--config.agent.activation=elu")
    assert go_on(source, tmp_path, "sac", *from_data, *changed) == 0
    # What shapes do not tell is told; rates of two algorithms are not compared.
    told = " ".join(capsys.readouterr().out.split())
    assert "trained otherwise: agent.activation: 'relu' -> 'elu'" in told
    assert "agent.lr" not in told
    theirs = last_agent(source, [*OFFLINE, *SMALL])
    run = json.loads((tmp_path / "config.json").read_text())
    assert run["offline"]["from"] == str(source)
    ours = last_agent(
        tmp_path,
        [
            "--config=experiments/configs/sac.py:hopper-medium-replay",
            *SMALL,
            *from_data,
            "--config.offline.updates=0",
            "--config.online.steps=20",
            "--config.online.warmup=0",
        ],
    )
    jax.tree.map(  # two seeds; hardly moved, at a learning rate of nothing
        lambda a, b: np.testing.assert_allclose(a, b[:, 0], rtol=1e-5, atol=1e-8),
        ours.actor.params,
        theirs.actor.params,
    )


@pytest.mark.parametrize(
    "algorithm, override, said",
    [
        ("off2on", "--config.agent.num_agents=3", "has 2 CQL agent(s) for each"),
        ("off2on", "--config.agent.num_agents=0", "config.agent.num_agents is 0"),
        ("off2on", "--config.agent.widths=16,8", "other networks than this config"),
        ("iql", "--config.batch=8", "from whose agents 'iql' cannot go on; it can"),
        ("off2on", "--config.seeds=3", "all of these seeds"),
        ("off2on", "--config.dataset=", "which draws from a dataset"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_what_can(
    source, tmp_path, capsys, algorithm, override, said
):
    two = ["--config.agent.num_agents=2"] if algorithm == "off2on" else []
    assert go_on(source, tmp_path, algorithm, *two, override) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


WSRL = (
    "--config.dataset=",
    "--config.agent.num_actions=2",
    "--config.agent.actor_widths=8,8",
    "--config.agent.layer_norm=False",
    "--config.agent.actor_layer_norm=False",
)


@pytest.mark.parametrize(
    "algorithm", ["cal_ql", pytest.param("cql", marks=pytest.mark.slow), "bc"]
)
def test_wsrl_goes_on_from_conservative_agents_and_from_no_others(
    algorithm, tmp_path, capsys
):
    """Without a dataset. They have two critics, where its own offline phase has ten."""
    begun = [f"--config=experiments/configs/{algorithm}.py:hopper-medium-replay"]
    begun += SMALL if algorithm != "bc" else SMALL[:1] + SMALL[2:]
    begun += ["--config.agent.num_actions=2"] * (algorithm != "bc")
    begun += ["--config.agent.actor_widths=8,8"] * (algorithm == "cal_ql")
    begun += ["--config.offline.updates=20", "--config.online.steps=0"]
    source = tmp_path / "source"
    assert command.main([*begun, "--config.online.round=0", f"--workdir={source}"]) == 0
    if algorithm == "bc":
        assert go_on(source, tmp_path / "bc", "wsrl", *WSRL) == 2
        told = "from whose agents 'wsrl' cannot go on; it can from those of: cal_ql"
        assert told in capsys.readouterr().err
        return
    assert go_on(source, tmp_path / "ten", "wsrl", *WSRL) == 2
    assert "and all that sizes a network" in capsys.readouterr().err
    two = ("--config.agent.num_critics=2", "--config.online.warmup=10")
    assert go_on(source, tmp_path / "two", "wsrl", *WSRL, *two) == 0
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["offline"]["updates"] == 20
    assert summary["online"]["updates"] == 10


def test_a_run_of_another_format_is_refused_in_one_sentence(source, tmp_path, capsys):
    """A directory from before `config.json` told its format."""
    old = tmp_path / "old"
    shutil.copytree(source, old)
    described = json.loads((old / "config.json").read_text())
    assert described.pop("format") == FORMAT
    (old / "config.json").write_text(json.dumps(described))
    (old / "summary.json").unlink()
    assert go_on(old, tmp_path / "new", "off2on", "--config.agent.num_agents=2") == 2
    refused = capsys.readouterr().err
    assert command.main([*OFFLINE, *SMALL, f"--workdir={old}"]) == 2
    for error in (refused, capsys.readouterr().err):
        assert f"{old} holds a run of format 1" in error
        assert f"goes on with those of format {FORMAT} alone" in error
        assert error.count("\n") == 1 and "Traceback" not in error
