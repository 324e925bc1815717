"""Families of tasks through the public commands: PEARL collects, SMAC learns."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import collect
from experiments import run as command
from experiments.configs import smac_study
from o2ojax import data, envs
from o2ojax.errors import UserError
from o2ojax.meta import families
from o2ojax.replay.ring import Ring
from o2ojax.run import job, population
from o2ojax.run.resolve import load, override, resolve
from o2ojax.types import Transition

ROOT = Path(__file__).parents[2]
SMAC = "experiments/configs/smac.py:point-robot-pearl"
PEARL = "experiments/configs/pearl.py:point-robot"
TINY = (
    "--config.agent.widths=8,8",
    "--config.agent.encoder_widths=8,8",
    "--config.agent.online_batch=8",
    "--config.tasks.train=3",
    "--config.tasks.test=2",
    "--config.eval.episodes=2",
    "--config.seeds=2",
)


TRIALS = {"trial": "400", "explored": "200"}
TRIALS_OFFLINE = {
    "online.steps": 0,
    "agent.trial_rows": 600,
    "agent.explored_rows": 400,
}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A meta-dataset of three tasks, 400 rows of each."""
    folder = tmp_path_factory.mktemp("meta")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        arguments = [f"--config={PEARL}", *TINY, f"--out={folder}"]
        arguments += [f"--workdir={folder / 'runs'}", "--last=400"]
        arguments += [
            f"--config.online.{name}={value}"
            for name, value in dict(
                envs=3, warmup=1200, round=1200, steps=3600, updates_per_step=0.01
            ).items()
        ]
        arguments += [
            f"--config.{name}.every=1200" for name in ("eval", "log", "checkpoint")
        ]
        arguments += ["--config.agent.prior_explore=1", "--config.agent.recent=0"]
        arguments += [f"--config.agent.{k}_rows=" + v for k, v in TRIALS.items()]
        assert collect.main(arguments) == 0
    return folder


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_meta_dataset_has_the_last_rows_of_each_task(collected):
    found = data.read(collected / "point-robot-pearl.npz")
    rows = found.transitions
    np.testing.assert_array_equal(rows.task, np.repeat([0, 1, 2], 400))
    np.testing.assert_array_equal(
        found.parameters, families.split("point-robot", 3, 2)[:3]
    )
    away = np.linalg.norm(rows.next_obs - found.parameters[rows.task], axis=1)
    np.testing.assert_allclose(rows.reward, -away, rtol=1e-4, atol=1e-5)
    assert (np.flatnonzero(rows.last) % 200 == 199).all()  # whole episodes
    told = json.loads((collected / "point-robot-pearl.json").read_text())
    assert told["rows"] == 1200 and "PEARL" in told["protocol"]


def test_smac_runs_offline_and_online_and_says_how_it_adapts(collected, tmp_path):
    arguments = [
        f"--config={SMAC}",
        *TINY,
        f"--config.dataset={collected / 'point-robot-pearl.npz'}",
        "--config.agent.decoder_widths=8",
        "--config.batch=8",
        "--config.offline.updates=20",
        "--config.online.envs=2",
        "--config.online.steps=1600",
        "--config.online.round=800",
        "--config.agent.prior_explore=1",
        "--config.online.updates_per_step=0.01",
        "--config.eval.every=800",
        "--config.log.every=800",
        "--config.checkpoint.every=800",
        f"--workdir={tmp_path}",
    ]
    assert command.main(arguments) == 0
    told = [line for line in lines(tmp_path) if "z_shift" in line]
    assert [(line["phase"], line["step"]) for line in told] == [
        ("offline", 20),
        ("online", 800),
        ("online", 1600),
    ]
    for line in told:
        names = "episode_1", "episode_2", "explored", "oracle", "z_shift", "score"
        for name in names:
            assert len(line[name]) == 2 and np.isfinite(line[name]).all()
        assert np.shape(line["returns"]) == (2, 2)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["adaptation"]) == ["explored", "oracle", "z_shift"]
    for name, mean in summary["adaptation"].items():
        np.testing.assert_allclose(mean, np.mean(told[-1][name]), rtol=1e-5)
    assert command.main(arguments) == 0  # it says that it is finished


@pytest.mark.parametrize(
    "config, changes, words",
    [
        (SMAC, {"replay.name": "uniform"}, "set config.replay.name to tasks"),
        (SMAC, {"reward.scale": 2.0}, "set config.agent.reward_scale"),
        (SMAC, {"eval.episodes": 9}, "give a multiple of 8"),
        (SMAC, {"online.round": 2500, "log.every": 2500}, "a multiple of 1000"),
        (SMAC, {"online.round": 3000, "log.every": 3000}, "give at least 4000"),
        (SMAC, {"tasks.train": 19}, "set config.tasks.train=20"),
        (SMAC, {"tasks.train": 1}, "learns to tell tasks apart, so give at least 2"),
        (SMAC, {"tasks.train": 81}, "point-robot has 80 such tasks"),
        (SMAC, {"agent.context": 2000}, "fewer than the 2000 that a context has"),
        (SMAC, {"agent.labels": "mine"}, "decoder or true"),
        (SMAC, {"agent.trial_rows": 600}, "give 1000; or change .*round or .*explore"),
        (SMAC, {"agent.explored_rows": 400}, "of no use without config.agent.trial_ro"),
        (SMAC, TRIALS_OFFLINE | {"agent.trial_rows": 300}, "give a multiple of 200"),
        (SMAC, TRIALS_OFFLINE | {"agent.explored_rows": 0}, "give 1 to 600"),
        (SMAC, TRIALS_OFFLINE | {"agent.explored_rows": 601}, "give 1 to 600"),
        (PEARL, {"agent.explored_rows": 200}, "explored_rows is 200.*give 400"),
        (PEARL, {"agent.recent": 700}, "recent is 700; it must be a multiple of 600"),
        (PEARL, {"online.warmup": 24000}, "2 rounds of 12000, .* one round, 12000"),
        (PEARL, {"tasks.train": 10}, "two trials of a task would be mixed"),
        (PEARL, {"agent.trial": 2}, "give at least 3"),
        (SMAC, {"dataset": "", "offline.updates": 0}, "learns from a dataset's reward"),
        (SMAC, {"dataset": "cheetah-vel-pearl"}, "observations of size 20"),
        (SMAC, {"dataset": "hopper-random", "env": "hopper"}, "smac learns families"),
        (SMAC, {"env": "cheetah-vell"}, "did you mean 'cheetah-vel'"),
        (PEARL, {"online.envs": 5}, "every one of the 20 training tasks"),
        (PEARL, {"online.warmup": 0}, "config.online.warmup above 0"),
    ],
)
def test_what_cannot_work_is_refused(config, changes, words, tmp_path):
    found = load(config)
    if changes.get("online.round"):
        found.eval.every = found.checkpoint.every = found.online.steps = 30_000
    with pytest.raises(UserError, match=words):
        override(found, [f"--config.{k}={v}" for k, v in changes.items()])
        job.prepare(resolve(found), tmp_path)


def test_single_tasks_are_no_families():
    found = load(SMAC)
    found.env, found.dataset = "hopper", "hopper-medium-replay"
    found.tasks.train = found.tasks.test = 0
    with pytest.raises(UserError, match="learns families of tasks"):
        resolve(found)


@pytest.mark.parametrize(
    "config, changes",
    [
        (SMAC, TRIALS_OFFLINE),
        (PEARL, {"agent.trial_rows": 0, "agent.recent": 0}),  # explored_rows stays 400
    ],
)
def test_what_can_work_is_not_refused(config, changes, tmp_path):
    found = load(config)
    override(found, [f"--config.{k}={v}" for k, v in changes.items()])
    assert job.prepare(resolve(found), tmp_path).spec.num_train == 20


def test_who_is_blind_to_tasks_is_told_so():
    def told(path):
        config = load(path)
        config.native = "never"  # nothing is said of what is not asked for
        return resolve(config).caveats()

    blind = told("experiments/configs/iql.py:point-robot-pearl")
    assert len(blind) == 1
    assert "iql is blind to the tasks of point-robot" in blind[0]
    for seeing in (SMAC, PEARL, "experiments/configs/iql.py:hopper-medium-replay"):
        assert not told(seeing)


def test_a_store_of_tasks_is_for_those_that_infer_them():
    found = load("experiments/configs/iql.py:point-robot-pearl")
    found.replay.name = "tasks"
    with pytest.raises(UserError, match="hands out tasks, but iql learns from single"):
        resolve(found)


def test_collecting_a_family_asks_for_pearl(capsys, tmp_path):
    arguments = ["--config=experiments/configs/collect.py:cheetah-vel"]
    assert collect.main([*arguments, f"--out={tmp_path}"]) == 2
    assert "gathered by PEARL" in capsys.readouterr().err
    arguments = [f"--config={PEARL}", "--kinds=medium", f"--out={tmp_path}"]
    assert collect.main(arguments) == 2
    assert "pearl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, words",
    [
        ("--last=1000", "it must be a multiple of 600, the steps of one"),
        ("--rows=1000", "--rows=1000 is for one task"),
        ("--subsample=10", "--subsample=10 is for one task"),
    ],
)
def test_of_a_family_whole_trials_are_kept(option, words, capsys, tmp_path):
    arguments = [f"--config={PEARL}", f"--out={tmp_path}", option]
    assert collect.main([*arguments, f"--workdir={tmp_path / 'runs'}"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_trial_ends_where_the_next_begins():
    """Two tasks, trials of four rows; the ring of eight has been written around."""
    rows = Transition(*[np.zeros((1, 2, 8), bool)] * 7)  # and no extras
    number = np.float32([[8, 9, 10, 11, 4, 5, 6, 7], [8, 9, 10, 11, 4, 5, 6, 7]])[None]
    ring = Ring(rows._replace(reward=number), np.full((1, 2), 12))
    sizes = SimpleNamespace(num_envs=2, steps_per_round=4)
    learner = collect.Learner(
        SimpleNamespace(sizes=sizes), SimpleNamespace(replay=ring), None, 0
    )
    found = collect.last_of_each_task(learner, 8)
    np.testing.assert_array_equal(found.reward, [*range(4, 12)] * 2)
    np.testing.assert_array_equal(np.flatnonzero(found.last), [3, 7, 11, 15])


@pytest.mark.parametrize("dataset", smac_study.DATASETS)
@pytest.mark.parametrize("method", smac_study.NAMES)
def test_every_method_of_the_study_stands(method, dataset, tmp_path):
    found = smac_study.get_config(f"{method}/{dataset}")
    if method in smac_study.STARTS_FROM:
        found.offline["from"] = "runs/some"
    prepared = job.prepare(resolve(found), tmp_path)
    assert prepared.spec.num_train == 20 and prepared.spec.num_test == 8
    assert (found.agent.get("labels") == "true") == (method == "oracle")
    entry, who = prepared.config.entry, prepared.members
    for phase in ("offline", "online"):  # as a warm start and a policy need them
        population.agent_shape(entry, prepared.spec, prepared.sizes, phase, who)


@pytest.mark.parametrize("name", smac_study.DATASETS)
def test_the_shipped_meta_datasets(name):
    found = data.read(name)
    family, _ = envs.split(name)
    expected = families.split(family, 20, 0)[:20]
    np.testing.assert_allclose(found.parameters, expected, rtol=1e-6)
    assert (np.bincount(found.transitions.task) == 1200).all()
