"""Datasets of SAC runs and of scripted policies, through the public command."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from experiments import antmaze, collect, demonstrations
from o2ojax import data
from o2ojax.data import shipped
from o2ojax.envs.rendering import find_backend
from o2ojax.envs.scripted import SCRIPTED
from o2ojax.errors import UserError
from o2ojax.types import EnvSpec, vector

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config=experiments/configs/collect.py:hopper",
    "--config.agent.widths=16,16",
    "--config.batch=16",
    "--config.seeds=2",
    "--config.online.envs=2",
    "--config.online.steps=400",
    "--config.online.warmup=100",
    "--config.online.until=-1e9",  # the first evaluation
    "--config.eval.every=200",
    "--config.eval.episodes=2",
    "--config.checkpoint.every=200",
    "--config.log.every=100",
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(folder, *options):
    return collect.main(
        [*SMALL, f"--out={folder / 'data'}", f"--workdir={folder / 'runs'}", *options]
    )


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collect")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        kinds = "random,medium-replay,medium-expert"
        assert run(folder, f"--kinds={kinds}", "--rows=500") == 0
    return folder


def flatten_time(folder, kind):
    return data.read(folder / "data" / f"hopper-{kind}.npz").transitions


def test_each_kind_has_its_rows(collected):
    assert len(flatten_time(collected, "random").reward) == 500
    assert len(flatten_time(collected, "medium-expert").reward) == 2 * 500
    # All that one member gathered until its first evaluation.
    assert len(flatten_time(collected, "medium-replay").reward) == 200


def test_random_actions_are_uniform(collected):
    action = flatten_time(collected, "random").action
    assert np.abs(action.mean()) < 0.06
    np.testing.assert_allclose(action.std(), 1 / np.sqrt(3), rtol=0.05)


def test_a_stream_that_is_cut_goes_on_in_no_other(collected):
    """20 environments one after another: the row after a last row begins anew."""
    rows = flatten_time(collected, "random")
    goes_on = ~rows.last[:-1]
    np.testing.assert_array_equal(rows.next_obs[:-1][goes_on], rows.obs[1:][goes_on])
    assert (rows.last & (rows.discount == 1)).sum() >= 1


def test_where_a_dataset_came_from_lies_beside_it(collected):
    path = collected / "data" / "hopper-medium-expert.json"
    provenance = json.loads(path.read_text())
    assert [run["environment_steps"] for run in provenance["runs"]] == [200, 400]
    assert provenance["physics"] == "mujoco"
    assert provenance["rows"] == 1000
    random = json.loads((collected / "data" / "hopper-random.json").read_text())
    assert random["runs"] == []


# Scripted policies


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """Every kind of `lift`: 80 episodes, as the rows asked for end in the last ones."""
    folder = tmp_path_factory.mktemp("scripted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        options = f"--kinds={','.join(collect.KINDS)}", "--rows=3500", f"--out={folder}"
        lift = "--config=experiments/configs/collect.py:lift"
        assert collect.main([lift, "--config.physics=mujoco", *options]) == 0
    assert not (ROOT / "runs" / "collect" / "lift").exists()
    return folder


def lifts(folder, kind):
    """Rows and provenance of one kind."""
    path = folder / f"lift-{kind}.npz"
    provenance = json.loads(path.with_suffix(".json").read_text())
    return data.read(path).transitions, provenance


@pytest.mark.parametrize("kind", collect.KINDS)
def test_scripted_episodes_are_whole_and_beside_them_lies_how_they_were_made(
    scripted, kind
):
    rows, provenance = lifts(scripted, kind)
    num_episodes = 160 if kind == "medium-expert" else 80
    np.testing.assert_array_equal(
        np.flatnonzero(rows.last), np.arange(1, num_episodes + 1) * 50 - 1
    )
    goes_on = ~rows.last[:-1]
    np.testing.assert_array_equal(rows.next_obs[:-1][goes_on], rows.obs[1:][goes_on])
    assert provenance["rows"] == 50 * num_episodes
    assert provenance["episodes"] == num_episodes
    assert provenance["physics"] == "mujoco"
    assert provenance["runs"] == []
    assert "not D4RL's" in provenance["protocol"]
    ends = rows.next_obs[rows.last]
    lifted = ends[:, 7] >= 1.75 - 1e-6  # the cube's height, dm
    np.testing.assert_allclose(provenance["success"], lifted.mean())


@pytest.mark.parametrize(
    "kind, said",
    [
        ("random", "uniform actions;"),
        ("medium", "deviation 0.5, "),
        ("medium-replay", "deviation 1 falling to 0.5, "),
        ("expert", "deviation 0, "),
        ("medium-expert", "deviation 0.5, clipped to [-1, 1], then as many rows of"),
    ],
)
def test_the_protocol_names_the_noise(scripted, kind, said):
    assert said in lifts(scripted, kind)[1]["protocol"]


def test_less_noise_more_success(scripted):
    success = {kind: lifts(scripted, kind)[1]["success"] for kind in collect.KINDS}
    assert success["random"] == 0
    assert 0.3 < success["medium"] < 0.7
    assert success["expert"] > 0.95
    halves = success["medium"], success["expert"]
    np.testing.assert_allclose(success["medium-expert"], np.mean(halves))


def test_later_episodes_of_a_scripted_replay_succeed_more_often(scripted):
    rows, _ = lifts(scripted, "medium-replay")
    success = demonstrations.successes("lift", rows)
    assert success[:40].mean() == 0
    assert success[-20:].mean() > 0.25  # the last 20 are medium's


def test_a_sparse_task_takes_its_dense_ones_noise(tmp_path):
    config = "--config=experiments/configs/collect.py:push_sparse"
    options = "--kinds=medium", "--rows=1000", f"--out={tmp_path}"
    assert collect.main([config, "--config.physics=mujoco", *options]) == 0
    path = tmp_path / "push_sparse-medium.npz"
    assert set(np.unique(data.read(path).transitions.reward)) == {0.0, 1.0}
    assert "deviation 0.7, " in path.with_suffix(".json").read_text()


@pytest.mark.parametrize("dataset", data.shipped_names())
def test_what_is_shipped_was_made_as_it_would_be_now(dataset):
    kinds = (*collect.KINDS, *antmaze.PLACES, collect.PEARL)
    kind = max((kind for kind in kinds if dataset.endswith(f"-{kind}")), key=len)
    told = json.loads((shipped.folder() / f"{dataset}.json").read_text())
    assert told["protocol"] == collect.protocol(kind, dataset.removesuffix(f"-{kind}"))


def skip_where_nothing_draws():
    try:
        find_backend()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", SCRIPTED)
def test_each_scripted_task_has_a_mediums_noise(name):
    (first, grip_first), (last, grip_last) = demonstrations.noise("medium-replay", name)
    assert 0 < last < first
    assert (grip_first, grip_last) == (first, last)
    twice_first, twice_last = demonstrations.noise("medium-replay", f"{name}-pixels")
    # The hand is moved twice by an action; the gripper goes where it is told.
    assert 0 < twice_last[0] < twice_first[0] < first and twice_last[0] < last
    assert (twice_first[1], twice_last[1]) == (first, last)


def test_a_replay_of_pictures_has_mistakes_carried_through(tmp_path):
    """Closed and raised without the cube: agents that never saw it took it for a lift.

    And closed where the cube is not: agents took closing for success, wherever it was.
    """
    skip_where_nothing_draws()
    config = "--config=experiments/configs/collect.py:lift-pixels"
    options = "--kinds=medium-replay", "--rows=5000", f"--out={tmp_path}"
    assert collect.main([config, "--config.pixels.size=8", *options]) == 0
    path = tmp_path / "lift-pixels-medium-replay.npz"
    rows = data.read(path).transitions
    height, opening = rows.obs["state"][:, 2], rows.obs["state"][:, 3]
    closes = rows.action[(height > 0.9) & (opening > 0.75), 3] > 0.5
    assert closes.mean() > 0.01
    raised = (height > 1.5) & (opening < 0.6)
    without = rows.reward[raised] < 0.1
    assert raised.sum() > 50 and 0.2 < without.mean() < 0.8
    assert "a random action begins" in path.with_suffix(".json").read_text()


def test_pictures_are_drawn_of_what_was_played(tmp_path):
    """Episodes of 20 environments, whose 25 decisions have 26 frames."""
    skip_where_nothing_draws()
    config = "--config=experiments/configs/collect.py:lift_sparse-pixels"
    options = "--kinds=expert", "--rows=500", f"--out={tmp_path}"
    options += "--config.physics=mujoco", "--config.pixels.size=16"
    assert collect.main([config, *options]) == 0
    path = tmp_path / "lift_sparse-pixels-expert.npz"
    read = data.read(path)
    rows, table = read.transitions, read.frames["pixels"]
    assert (table.shape, table.dtype) == ((20 * 26, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(np.flatnonzero(rows.last), np.arange(1, 21) * 25 - 1)
    assert set(np.unique(rows.reward)) == {0.0, 1.0, 2.0}  # an action has two
    assert {part: x.dtype for part, x in rows.obs.items()} == {
        "pixels": np.int32,
        "state": np.float32,
    }
    assert (table[rows.obs["pixels"]] != table[rows.next_obs["pixels"]]).any()
    provenance = json.loads(path.with_suffix(".json").read_text())
    assert provenance["success"] > 0.8
    assert (provenance["rows"], provenance["episodes"]) == (500, 20)


@pytest.mark.parametrize("num_stopped, expected", [(0, 1.0), (1, 0.75), (2, 0.5)])
def test_a_replays_noise_falls_linearly(num_stopped, expected):
    """Told from how often it leaves an action of 0 within [-1, 1]."""
    policy = demonstrations.scripted(
        "medium-replay", EnvSpec("lift", vector(18), 4, 50), 3
    )
    obs = jnp.zeros(18)  # hand and cube in one place: there is no way to go along x, y
    keys = jax.random.split(jax.random.key(0), 4_000)
    action, _ = jax.vmap(lambda key: policy.act((), num_stopped, obs, key))(keys)
    inside = np.mean(np.abs(action[:, :2]) < 1)
    np.testing.assert_allclose(inside, erf(1 / expected / np.sqrt(2)), atol=0.02)


# Bad input


@pytest.mark.parametrize(
    "option, said",
    [
        ("--kinds=medium,exprt", "did you mean 'expert'"),
        ("--rows=0", "--rows=0; it must be at least 1"),
        ("--subsample=-5", "--subsample=-5; it must be at least 0"),
        ("--config.env=hoper", "did you mean 'hopper'"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(option, said, tmp_path, capsys):
    assert run(tmp_path, option) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
