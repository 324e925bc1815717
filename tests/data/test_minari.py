"""Minari's datasets made by Minari's own means, and ours as Minari sees them."""

import json
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
from gymnasium import spaces

from o2ojax.data import DataError, from_arrays, read, shipped_names, write
from o2ojax.run.config import defaults
from o2ojax.run.resolve import override, resolve

minari = pytest.importorskip("minari")
SEEN = spaces.Box(-np.inf, np.inf, (2,), np.float32)
DONE = spaces.Box(-1.0, 1.0, (1,), np.float32)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty store of Minari's."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    return tmp_path / "store"


def episode(start, actions, /, terminated=False, truncated=False, **changes):
    """A counter from `start`, in pairs (n, -n)."""
    length = len(actions)
    serial = np.arange(start, start + length + 1, dtype=np.float32)
    flags = np.arange(length) == length - 1
    fields = {
        "observations": np.stack([serial, -serial], axis=1),
        "actions": np.array(actions, np.float32)[:, None],
        "rewards": serial[:-1] / 7,
        "terminations": flags & terminated,
        "truncations": flags & truncated,
        "infos": {},
    }
    return minari.data_collector.EpisodeBuffer(**fields | changes)


def create(name, buffers, seen=SEEN, done=DONE, **options):
    with warnings.catch_warnings():  # that nobody is named as the author
        warnings.simplefilter("ignore")
        return minari.create_dataset_from_buffers(
            name, buffers, observation_space=seen, action_space=done, **options
        )


def test_every_kind_of_end_is_read_as_what_it_is():
    create(
        "counter/three-v0",
        [
            episode(0, [0.1, 0.2, 0.3], terminated=True),
            episode(10, [0.4, 0.5]),
            episode(20, [0.6, 0.7], truncated=True),
        ],
    )
    dataset = read("minari:counter/three-v0")
    rows = dataset.transitions
    assert dataset.name == "counter/three-v0"
    np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 2, 10, 11, 20, 21])
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 3, 11, 12, 21, 22])
    np.testing.assert_array_equal(rows.next_obs[:, 1], -rows.next_obs[:, 0])
    np.testing.assert_array_equal(rows.discount, [1, 1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(rows.last, [0, 0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(rows.reward, rows.obs[:, 0] / np.float32(7))
    tenths = np.arange(1, 8, dtype=np.float32) / np.float32(10)
    np.testing.assert_allclose(rows.action[:, 0], tenths, rtol=1e-7)


def test_actions_are_rescaled_from_the_bounds_of_their_space():
    done = spaces.Box(np.float32([-2, 0, -1]), np.float32([2, 10, 1]))
    actions = np.float32([[-2, 0, 0.3], [1, 5, -0.7], [2, 7.5, 1]])
    create("counter/wide-v0", [episode(0, [0] * 3, actions=actions)], done=done)
    rows = read("minari:counter/wide-v0").transitions
    limit = 1 - 1e-5
    expected = [[-limit, -limit, 0.3], [0.5, 0, -0.7], [limit, 0.5, limit]]
    np.testing.assert_allclose(rows.action, expected, rtol=1e-6)


def test_actions_beyond_their_own_space_are_refused_unless_clipped():
    done = spaces.Box(-2.0, 2.0, (1,), np.float32)
    create("counter/loud-v0", [episode(0, [1, 3])], done=done)
    with pytest.raises(DataError, match="range from 0.5 to 1.5"):
        read("minari:counter/loud-v0")
    clipped = read("minari:counter/loud-v0", clip_actions=True).transitions.action
    np.testing.assert_allclose(clipped[:, 0], [0.5, 1], atol=1.1e-5)


DICT = spaces.Dict({"hand": SEEN, "goal": spaces.Box(-9.0, 9.0, (2, 2)), "id": DONE})


def create_dict():
    seen = {
        "hand": np.float32([[1, 2], [3, 4], [5, 6]]),
        "goal": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
        "id": np.zeros((3, 1), np.float32),
    }
    create("robot/dict-v0", [episode(0, [0, 0], observations=seen)], seen=DICT)


def test_named_entries_are_flattened_and_joined_in_that_order():
    create_dict()
    rows = read("minari:robot/dict-v0:goal,hand").transitions
    np.testing.assert_array_equal(rows.obs, [[0, 1, 2, 3, 1, 2], [4, 5, 6, 7, 3, 4]])
    np.testing.assert_array_equal(rows.next_obs[1], [8, 9, 10, 11, 5, 6])
    assert read("minari:robot/dict-v0:hand").transitions.obs.shape == (2, 2)
    everything = read("minari:robot/dict-v0").transitions.obs
    np.testing.assert_array_equal(
        everything, [[0, 1, 2, 3, 1, 2, 0], [4, 5, 6, 7, 3, 4, 0]]
    )
    some = read("minari:robot/dict-v0", keys=("goal", "hand")).transitions.obs
    np.testing.assert_array_equal(some, rows.obs)


def test_a_dataset_names_its_environment():
    seen = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    done = spaces.Box(-2.0, 2.0, (1,), np.float32)
    obs = np.zeros((3, 3), np.float32)
    rows = episode(0, [[0.0], [1.0]], observations=obs)
    create("pendulum/log-v0", [rows], seen=seen, done=done, env="Pendulum-v1")
    config = defaults("iql", "hopper-medium-replay")
    override(config, ["--config.dataset=minari:pendulum/log-v0"])
    run = resolve(config)
    assert (run.env, run.horizon) == ("gymnasium:Pendulum-v1", 200)
    override(config, ["--config.dataset=minari:pendulum/log-v0", "--config.env=hopper"])
    assert resolve(config).env == "hopper"


def test_a_dataset_that_names_none_says_so():
    create("pendulum/other-v0", [episode(0, [0, 0])])
    config = defaults("iql", "hopper-medium-replay")
    override(config, ["--config.dataset=minari:pendulum/other-v0"])
    with pytest.raises(DataError, match="does not tell its environment; give"):
        resolve(config)


@pytest.mark.parametrize(
    "source, message",
    [
        ("dict-v0:hnad", "'hnad'; did you mean 'hand'. Known: goal, hand, id"),
        ("flat-v0:hand", "are Box.*, which has no entries; leave out ':hand'"),
    ],
)
def test_entries_that_cannot_be_taken_are_named(source, message):
    create_dict()
    create("robot/flat-v0", [episode(0, [0])])
    with pytest.raises(DataError, match=message):
        read(f"minari:robot/{source}")


def images(side, dtype=np.uint8):
    return {"observations": np.zeros((2, side, side, 3), dtype)}


@pytest.mark.parametrize(
    "changes, seen, options, message",
    [
        (
            images(32),
            spaces.Box(0, 255, (32, 32, 3), np.uint8),
            {},
            "observations are pictures stored as JPEG, .* again with jpeg_encoding=Fa",
        ),
        (
            images(32, np.float32),
            spaces.Box(0, 1, (32, 32, 3), np.float32),
            {},
            "observations are pictures of float32; frames must be uint8",
        ),
        (
            {"observations": np.zeros((2, 3, 32, 32), np.uint8)},
            spaces.Box(0, 255, (3, 32, 32), np.uint8),
            {"jpeg_encoding": False},
            r"shape \(3, 32, 32\), channels first; .*moveaxis",
        ),
        (
            {"observations": np.zeros((2, 32, 32), np.uint8)},
            spaces.Box(0, 255, (32, 32), np.uint8),
            {"jpeg_encoding": False},
            r"shape \(1, 32, 32\); frames must be",
        ),
        (
            {"observations": np.zeros(2, np.int64)},
            spaces.Discrete(5),
            {},
            r"observations are Discrete\(5\); they must be a Box",
        ),
    ],
)
def test_observations_that_cannot_be_kept_are_refused(changes, seen, options, message):
    create("robot/seen-v0", [episode(0, [0], **changes)], seen=seen, **options)
    with pytest.raises(DataError, match=f"minari:robot/seen-v0: .*{message}"):
        read("minari:robot/seen-v0")


def test_a_lossy_picture_among_the_entries_is_refused_by_its_key():
    camera = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    seen = {"hand": np.zeros((2, 2), np.float32)} | {
        "camera": images(32)["observations"]
    }
    space = spaces.Dict({"hand": SEEN, "camera": camera})
    create("robot/both-v0", [episode(0, [0], observations=seen)], seen=space)
    with pytest.raises(DataError, match="observations 'camera' are pictures st"):
        read("minari:robot/both-v0:hand,camera")
    assert read("minari:robot/both-v0:hand").transitions.obs.shape == (1, 2)


@pytest.mark.parametrize(
    "done, actions, shown",
    [
        (spaces.Discrete(3), np.zeros(1, np.int64), r"Discrete\(3\)"),
        (SEEN, np.zeros((1, 2), np.float32), r"Box\(-inf, inf, \(2,\), float32\)"),
        (spaces.Box(1.0, 1.0, (1,)), np.ones((1, 1), np.float32), r"Box\(1.0, 1.0"),
        (
            spaces.Dict({"arm": DONE}),
            {"arm": np.zeros((1, 1), np.float32)},
            r"Dict\('arm'",
        ),
    ],
)
def test_actions_without_bounds_are_refused_by_their_space(done, actions, shown):
    create("robot/free-v0", [episode(0, [0], actions=actions)], done=done)
    with pytest.raises(DataError, match=f"the action space is {shown}.*finite bounds"):
        read("minari:robot/free-v0")


def test_a_dataset_that_is_not_here_is_answered_with_the_command():
    message = "no such dataset here; get it with: minari download mujoco/hopper/none-v0"
    with pytest.raises(DataError, match=message):
        read("minari:mujoco/hopper/none-v0")


def test_a_missing_package_is_answered_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(DataError, match=r'install it with: pip install "minari\[hdf5'):
        read("minari:counter/any-v0")
    with pytest.raises(DataError, match="minari:counter/any-v0: the package minari"):
        write("minari:counter/any-v0", transitions())


def test_without_the_package_all_else_is_read():
    program = """
import sys
sys.modules["minari"] = None
from o2ojax import data
data.read("hopper-medium-replay")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def cut_short(store):
    path = store / "counter" / "bad-v0" / "data" / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[:-500])


def change_metadata(store, **changes):
    path = store / "counter" / "bad-v0" / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def of_a_later_minari(store):
    change_metadata(store, minari_version="9.0.0")


def without_metadata(store):
    (store / "counter" / "bad-v0" / "data" / "metadata.json").unlink()


def of_more_episodes(store):
    change_metadata(store, total_episodes=2)


def of_another_format(store):
    change_metadata(store, data_format="arrow")


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        of_a_later_minari,
        without_metadata,
        of_more_episodes,
        of_another_format,
    ],
)
def test_a_damaged_dataset_is_refused(store, damage):
    create("counter/bad-v0", [episode(0, [0, 0])])
    damage(store)
    with pytest.raises(DataError, match="minari:counter/bad-v0: Minari cannot read it"):
        read("minari:counter/bad-v0")


def test_an_episode_without_its_final_observation_is_refused():
    short = np.zeros((2, 2), np.float32)
    create("counter/short-v0", [episode(0, [0, 0], observations=short)])
    with pytest.raises(DataError, match="episode 0 has 2 rewards, .* one observation"):
        read("minari:counter/short-v0")


def test_a_dataset_without_a_step_is_refused():
    create("counter/empty-v0", [])
    with pytest.raises(DataError, match="minari:counter/empty-v0: holds no step"):
        read("minari:counter/empty-v0")


def transitions():
    """Three episodes: of two steps and ended, of three and cut, of one that goes on."""
    obs = np.array([[0, 0], [1, 0], [10, 0], [11, 0], [12, 0], [20, 0]], np.float32)
    rows = from_arrays(
        observations=obs,
        actions=np.linspace(-0.9, 0.9, 6)[:, None],
        rewards=np.arange(6) / 7,
        terminals=[0, 1, 0, 0, 0, 0],
        timeouts=[0, 0, 0, 0, 1, 0],
        next_observations=obs + [1, 0],
    )
    return rows._replace(last=rows.last & (np.arange(6) < 5))


def test_minari_reads_what_we_write():
    write("minari:counter/ours-v0", transitions())
    assert list(minari.list_local_datasets()) == ["counter/ours-v0"]
    dataset = minari.load_dataset("counter/ours-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 6)
    assert dataset.observation_space == SEEN
    assert dataset.action_space == DONE
    first, second, third = dataset.iterate_episodes()
    np.testing.assert_array_equal(first.observations[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(second.observations[:, 0], [10, 11, 12, 13])
    np.testing.assert_array_equal(third.observations[:, 0], [20, 21])
    np.testing.assert_array_equal(second.actions, transitions().action[2:5])
    np.testing.assert_array_equal(second.rewards, transitions().reward[2:5])
    np.testing.assert_array_equal(first.terminations, [False, True])
    np.testing.assert_array_equal(first.truncations, [False, False])
    np.testing.assert_array_equal(second.terminations, [False] * 3)
    np.testing.assert_array_equal(second.truncations, [False, False, True])
    np.testing.assert_array_equal(third.truncations, [True])
    assert "total_steps=1" in repr(third)


def test_minari_filters_splits_and_joins_what_we_write():
    write("minari:counter/ours-v0", transitions())
    write("minari:counter/again-v0", transitions())
    dataset = minari.load_dataset("counter/ours-v0")
    ended = dataset.filter_episodes(lambda episode: episode.terminations[-1])
    assert [len(episode) for episode in ended] == [2]
    parts = minari.split_dataset(dataset, [1, 2], seed=0)
    assert [part.total_episodes for part in parts] == [1, 2]
    lengths = [len(episode) for part in parts for episode in part]
    assert sorted(lengths) == [1, 2, 3]
    both = [dataset, minari.load_dataset("counter/again-v0")]
    assert minari.combine_datasets(both, "counter/both-v0").total_episodes == 6


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    leaves, wanted_leaves = jax.tree.leaves(found), jax.tree.leaves(expected)
    for leaf, wanted in zip(leaves, wanted_leaves, strict=True):
        assert leaf.dtype == wanted.dtype
        assert leaf.shape == wanted.shape
        assert leaf.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "name", [name for name in shipped_names() if not name.endswith("-pearl")]
)
def test_a_shipped_dataset_survives_minaris_store(name):
    shipped = read(name)
    write(f"minari:shipped/{name}-v0", shipped.transitions, tables=shipped.frames)
    found = read(f"minari:shipped/{name}-v0")
    assert_same_bits(found.transitions, shipped.transitions)
    assert found.frames.keys() == shipped.frames.keys()
    for part, table in shipped.frames.items():
        np.testing.assert_array_equal(found.frames[part], table)


def test_a_name_needs_no_namespace(store):
    write("minari:ours-v0", transitions())
    assert len(read("minari:ours-v0").transitions.reward) == 6
    assert [path.name for path in store.iterdir()] == ["ours-v0"]


def test_a_dataset_is_not_overwritten(store):
    write("minari:counter/ours-v0", transitions())
    before = (store / "counter" / "ours-v0" / "data" / "main_data.hdf5").read_bytes()
    message = "is there already; .* minari delete counter/ours-v0"
    with pytest.raises(DataError, match=message):
        write("minari:counter/ours-v0", transitions())
    after = (store / "counter" / "ours-v0" / "data" / "main_data.hdf5").read_bytes()
    assert after == before


def test_a_failed_write_leaves_nothing(store, monkeypatch):
    storage = type(create("other/any-v0", []).storage)

    def fail(self, episodes):
        raise OSError("disk full")

    monkeypatch.setattr(storage, "update_episodes", fail)
    with pytest.raises(DataError, match=r"ours-v0: cannot be written \(disk full\)"):
        write("minari:counter/ours-v0", transitions())
    assert [path.name for path in store.iterdir()] == ["other"]


def test_nothing_has_the_final_name_before_it_is_whole(store, monkeypatch):
    storage = minari.dataset.minari_storage.MinariStorage
    seen, real = [], storage.update_metadata

    def look(self, metadata):
        seen.append((store / "counter" / "ours-v0").exists())
        real(self, metadata)

    monkeypatch.setattr(storage, "update_metadata", look)
    write("minari:counter/ours-v0", transitions())
    assert seen
    assert not any(seen)


@pytest.mark.parametrize(
    "name", ["ours", "", "/ours-v0", "../ours-v0", "a b-v0", "x-v0:key"]
)
def test_a_name_that_minari_would_not_take_is_refused(store, name):
    with pytest.raises(DataError, match="as in minari:hopper/mine-v0"):
        write(f"minari:{name}", transitions())
    assert not list(store.rglob("*.hdf5"))


def test_torn_episodes_are_refused(store):
    rows = transitions()
    torn = rows._replace(next_obs=rows.next_obs + np.float32(1))
    with pytest.raises(DataError, match="minari:counter/ours-v0: next_obs of row 0"):
        write("minari:counter/ours-v0", torn)
    assert not store.exists()


def test_a_store_that_cannot_be_written_is_told(store):
    store.write_text("a file, where the store's folder should be")
    with pytest.raises(DataError, match=r"minari:x-v0: cannot be written \(.*exists\)"):
        write("minari:x-v0", transitions())
