"""Pictures: each is kept once, bit for bit, through every door; and what is refused."""

import tracemalloc
import warnings

import h5py
import jax
import numpy as np
import pytest
from gymnasium import spaces

from experiments import inspect as command
from o2ojax import data
from o2ojax.data import DataError, Log, files, frames, from_log, read, stacked, write
from o2ojax.types import EnvSpec, Transition, vector

LENGTHS = (3, 4, 1)  # of three episodes: the first one ends at a terminal
NUM_ROWS, SIZE = sum(LENGTHS), (5, 6, 3)
ENDS = np.cumsum(LENGTHS) - 1
RNG = np.random.default_rng(7)
FILM = [RNG.integers(256, size=(n + 1, *SIZE), dtype=np.uint8) for n in LENGTHS]
PLACE = [RNG.normal(size=(n + 1, 2)).astype(np.float32) for n in LENGTHS]
BEFORE = {
    "pixels": np.concatenate([x[:-1] for x in FILM]),
    "state": np.concatenate([x[:-1] for x in PLACE]),
}
AFTER = {
    "pixels": np.concatenate([x[1:] for x in FILM]),
    "state": np.concatenate([x[1:] for x in PLACE]),
}
STEPS = {
    "actions": np.linspace(-0.9, 0.9, NUM_ROWS, dtype=np.float32)[:, None],
    "rewards": np.arange(NUM_ROWS, dtype=np.float32) / 7,
    "terminals": np.arange(NUM_ROWS) == ENDS[0],
    "timeouts": np.isin(np.arange(NUM_ROWS), ENDS[1:]),
}


def log(parts=("pixels", "state"), **changes):
    """All that was recorded, of some parts of the observations."""
    seen = {part: BEFORE[part] for part in parts}
    after = {part: AFTER[part] for part in parts}
    columns = STEPS | {"observations": seen, "next_observations": after} | changes
    return Log("log", "log", {k: v for k, v in columns.items() if v is not None})


def stored(tmp_path, columns, ending="npz"):
    """A user's file, with columns of parts under names as "observations/pixels"."""
    path, arrays = tmp_path / f"log.{ending}", {}
    for key, values in columns.items():
        parts = values if isinstance(values, dict) else {"": values}
        arrays |= {f"{key}/{part}".rstrip("/"): parts[part] for part in parts}
    if ending == "npz":
        np.savez(path, **arrays)
        return path
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return path


def assert_recorded(dataset, parts=("pixels", "state")):
    """Every row of a dataset is what was recorded, bit for bit."""
    rows = dataset.transitions
    assert rows.obs.keys() == rows.next_obs.keys() == set(parts)
    for found, wanted in ((rows.obs, BEFORE), (rows.next_obs, AFTER)):
        assert found["pixels"].dtype == np.int32
        assert found["pixels"].shape == (NUM_ROWS,)
        seen = dataset.frames["pixels"][found["pixels"]]
        assert seen.dtype == np.uint8
        np.testing.assert_array_equal(seen, wanted["pixels"])
        if "state" in parts:
            assert found["state"].tobytes() == wanted["state"].tobytes()
    np.testing.assert_array_equal(rows.action, STEPS["actions"])
    np.testing.assert_array_equal(rows.reward, STEPS["rewards"])
    np.testing.assert_array_equal(rows.discount, ~STEPS["terminals"])
    np.testing.assert_array_equal(rows.last, np.isin(np.arange(NUM_ROWS), ENDS))


def assert_kept_once(dataset):
    """A row that goes on sees next what the next row sees: the same frame."""
    rows, table = dataset.transitions, dataset.frames["pixels"]
    assert len(table) == NUM_ROWS + len(LENGTHS)
    goes_on = ~rows.last[:-1]
    after, seen = rows.next_obs["pixels"][:-1], rows.obs["pixels"][1:]
    np.testing.assert_array_equal(after[goes_on], seen[goes_on])
    assert len(np.unique(np.append(rows.obs["pixels"], rows.next_obs["pixels"]))) == (
        len(table)
    )


@pytest.mark.parametrize("parts", [("pixels", "state"), ("pixels",)])
def test_a_frame_that_is_seen_next_and_then_again_is_kept_once(parts):
    dataset = from_log(log(parts))
    assert_recorded(dataset, parts)
    assert_kept_once(dataset)


def test_pictures_that_nothing_follows_are_not_copied():
    columns = log(("pixels",), next_observations=None).columns
    dataset = from_log(Log("log", "log", columns))
    assert dataset.frames["pixels"] is BEFORE["pixels"]
    rows = dataset.transitions  # a row that was cut has no next picture, and is dropped
    np.testing.assert_array_equal(rows.obs["pixels"], [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(rows.next_obs["pixels"], [1, 2, 2, 4, 5, 6])
    np.testing.assert_array_equal(rows.last, [0, 0, 1, 0, 0, 1])


def test_pictures_may_lie_in_memory_in_any_order():
    first = np.ascontiguousarray(np.moveaxis(BEFORE["pixels"], -1, 1))
    seen = np.moveaxis(first, 1, -1)  # a view of pictures with channels first
    steps = log(observations=seen, next_observations=None)
    dataset, found = from_log(steps), data.inspect(steps)
    assert np.shares_memory(dataset.frames["pixels"], first)
    assert found.different == {"pixels": NUM_ROWS}


def test_observations_that_are_pictures_are_the_part_pixels():
    named = {"observations": BEFORE["pixels"], "next_observations": AFTER["pixels"]}
    assert_recorded(from_log(log(**named)), ("pixels",))


def test_a_next_picture_that_is_none_of_the_next_row_is_kept_too():
    """Rows are missing inside an episode: nothing is lost, and inspection tells."""
    torn = AFTER["pixels"].copy()
    torn[4] ^= 1
    after = AFTER | {"pixels": torn}
    dataset = from_log(log(next_observations=after))
    number = dataset.transitions.next_obs["pixels"]
    np.testing.assert_array_equal(dataset.frames["pixels"][number], torn)
    assert len(dataset.frames["pixels"]) == NUM_ROWS + len(LENGTHS) + 1
    findings = data.inspect(log(next_observations=after)).findings
    assert any("In 1 rows inside an episode, first in row 4" in x for x in findings)
    with pytest.raises(DataError, match="next_obs of row 4 is not obs of row 5"):
        write("log.npz", dataset.transitions, tables=dataset.frames)


def test_episodes_end_where_pictures_jump_if_nothing_else_tells():
    rows = from_log(log(("pixels",), timeouts=None)).transitions
    np.testing.assert_array_equal(rows.last, np.isin(np.arange(NUM_ROWS), ENDS))


@pytest.mark.parametrize("block", [1, 200, 2**24])
@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_a_users_file_of_pictures_is_read(tmp_path, monkeypatch, ending, block):
    monkeypatch.setattr(frames, "BLOCK", block)  # bytes; a frame has 90
    dataset = read(stored(tmp_path, log().columns, ending))
    assert_recorded(dataset)
    assert_kept_once(dataset)


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_d4rls_columns_may_be_pictures(tmp_path, ending):
    named = {"observations": BEFORE["pixels"], "next_observations": AFTER["pixels"]}
    path = stored(tmp_path, log(**named).columns, ending)
    assert_recorded(read(path), ("pixels",))


def test_pictures_in_the_order_of_fortran_are_the_same(tmp_path):
    """Numpy stores them by columns, and they cannot be read row by row."""
    seen = {key: np.asfortranarray(BEFORE[key]) for key in BEFORE}
    after = {key: np.asfortranarray(AFTER[key]) for key in AFTER}
    named = {"observations": seen, "next_observations": after}
    assert_recorded(read(stored(tmp_path, log(**named).columns)))


def test_episodes_may_be_told_by_their_lengths(tmp_path):
    named = {"episode_lengths": LENGTHS, "timeouts": None}
    assert_recorded(read(stored(tmp_path, log(**named).columns)))


@pytest.mark.parametrize("ending", ["npz", "hdf5", "h5"])
def test_what_is_written_is_read_bit_for_bit(tmp_path, ending):
    dataset, path = from_log(log()), tmp_path / f"log.{ending}"
    write(path, dataset.transitions, tables=dataset.frames)
    again = read(path)
    assert_recorded(again)
    assert_kept_once(again)
    assert again.frames["pixels"].tobytes() == dataset.frames["pixels"].tobytes()
    prints = [data.fingerprint(x.transitions, x.frames) for x in (again, dataset)]
    assert prints[0] == prints[1]


def test_a_file_keeps_each_frame_once_in_few_bytes(tmp_path):
    """Of a dark room, so that the frames can be packed."""
    rows = from_log(log())
    rows = rows._replace(frames={"pixels": 0 * rows.frames["pixels"]})
    for ending in ("npz", "h5"):
        write(tmp_path / f"log.{ending}", rows.transitions, tables=rows.frames)
    with np.load(tmp_path / "log.npz") as file:
        assert file["frames/pixels"].shape == (NUM_ROWS + len(LENGTHS), *SIZE)
        assert file["observations/pixels"].dtype == np.int32
        assert file["final_observations/pixels"].shape == (len(LENGTHS),)
        packed = {x.filename: x.compress_size for x in file.zip.infolist()}
    assert packed["frames/pixels.npy"] < rows.frames["pixels"].nbytes / 2
    with h5py.File(tmp_path / "log.h5") as file:
        table = file["frames/pixels"]
        assert table.shape == (NUM_ROWS + len(LENGTHS), *SIZE)
        assert table.id.get_storage_size() < table.nbytes / 2
        assert file["next_observations/pixels"].dtype == np.int32


def test_a_users_transitions_may_have_pictures_themselves(tmp_path):
    rows = from_log(log()).transitions._replace(obs=BEFORE, next_obs=AFTER)
    write(tmp_path / "log.npz", rows)
    assert_recorded(read(tmp_path / "log.npz"))
    assert_kept_once(read(tmp_path / "log.npz"))


def test_frames_that_no_row_has_are_not_written(tmp_path):
    dataset = from_log(log())
    some = data.subsample(dataset.transitions, 4)
    write(tmp_path / "some.npz", some, tables=dataset.frames)
    again = read(tmp_path / "some.npz")
    number, known = again.transitions.next_obs["pixels"], some.next_obs["pixels"]
    assert len(again.transitions.reward) == len(some.reward) < NUM_ROWS
    assert len(again.frames["pixels"]) < len(dataset.frames["pixels"])
    np.testing.assert_array_equal(
        again.frames["pixels"][number], dataset.frames["pixels"][known]
    )


def test_frames_that_are_all_used_are_the_same_table():
    dataset = from_log(log())
    rows, tables = frames.used(dataset.transitions, dataset.frames)
    assert tables["pixels"] is dataset.frames["pixels"]
    np.testing.assert_array_equal(rows.obs["pixels"], dataset.transitions.obs["pixels"])


def test_a_file_without_next_pictures_is_in_memory_once(tmp_path):
    """What is allocated at most is little beyond the frames."""
    many = np.zeros((600, 32, 32, 3), np.uint8)  # 1.8 MB
    steps = {key: np.zeros(600) for key in ("rewards", "terminals", "timeouts")}
    path = stored(
        tmp_path, steps | {"observations": many, "actions": np.zeros((600, 1))}
    )
    read(path)  # all that is imported on the way
    tracemalloc.start()
    dataset = read(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert dataset.frames["pixels"].nbytes == many.nbytes
    assert most < 1.5 * many.nbytes


def test_many_rows_and_one_table_stay_views_on_the_way_to_a_run():
    dataset = from_log(log())
    table = dataset.frames["pixels"]
    for other in (
        stacked(dataset, 3),
        data.with_extras(dataset, ("next_action",)),
        data.from_transitions(dataset.transitions, "log", tables=dataset.frames),
    ):
        assert np.shares_memory(other.frames["pixels"], table)


def test_a_function_may_give_transitions_or_a_dataset(tmp_path):
    path = tmp_path / "robot.py"
    path.write_text(
        "from tests.data.test_frames import *\n"
        "def rows(): return from_log(log()).transitions._replace("
        "obs=BEFORE, next_obs=AFTER)\n"
        "def dataset(): return from_log(log())\n"
    )
    for name in ("rows", "dataset"):
        found = read(f"{path}:{name}")
        assert_recorded(found)
        assert_kept_once(found)


# OGBench's visual tasks: a trajectory has one picture more than steps.
RAW = {
    "observations": np.concatenate(FILM),
    "actions": np.concatenate(
        [np.append(np.full((n, 1), n / 10), [[0.9]], axis=0) for n in LENGTHS]
    ),
    "rewards": np.zeros(NUM_ROWS + 3, np.float32),
    "masks": np.ones(NUM_ROWS + 3, np.float32),
}
IS_FINAL = np.isin(np.arange(NUM_ROWS + 3), np.cumsum(np.add(LENGTHS, 1)) - 1)
COMPACT = RAW | {
    "terminals": np.float32(IS_FINAL | np.append(IS_FINAL[1:], True)),
    "valids": np.float32(~IS_FINAL),
}
REGULAR = {key: values[~IS_FINAL] for key, values in RAW.items()} | {
    "next_observations": AFTER["pixels"],
    "terminals": np.float32(np.isin(np.arange(NUM_ROWS), ENDS)),
}
COMPLETED = RAW | {"terminals": np.float32(IS_FINAL)}


@pytest.mark.parametrize("layout", [COMPACT, REGULAR, COMPLETED])
def test_ogbenchs_visual_files_are_read(tmp_path, layout):
    dataset = read(stored(tmp_path, layout))
    rows, table = dataset.transitions, dataset.frames["pixels"]
    assert list(rows.obs) == ["pixels"]
    np.testing.assert_array_equal(table[rows.obs["pixels"]], BEFORE["pixels"])
    np.testing.assert_array_equal(table[rows.next_obs["pixels"]], AFTER["pixels"])
    np.testing.assert_array_equal(rows.last, np.isin(np.arange(NUM_ROWS), ENDS))
    assert len(table) == NUM_ROWS + len(LENGTHS)
    assert rows.discount.all()


# Stacks.


def by_hand(table, obs, after, last, stack):
    """Stacks of frames, row by row, oldest first, joined along the channels."""
    seen, follows, frames_of_it = [], [], []
    for row in range(len(last)):
        frames_of_it.append(table[obs[row]])
        early = [frames_of_it[0]] * stack
        shown = (early + frames_of_it)[-stack:]
        seen.append(np.concatenate(shown, axis=-1))
        newer = [*shown[1:], table[after[row]]]
        follows.append(np.concatenate(newer, axis=-1))
        if last[row]:
            frames_of_it = []
    return np.stack(seen), np.stack(follows)


def joined(table, numbers):
    """Frames by numbers [N, stack], as an agent sees them: [N, H, W, C * stack]."""
    return np.concatenate(np.moveaxis(table[numbers], 1, 0), axis=-1)


@pytest.mark.parametrize("stack", [1, 2, 3, 9])
def test_a_stack_is_the_frame_and_those_before_it(stack):
    dataset = from_log(log())
    rows, made = dataset.transitions, stacked(dataset, stack).transitions
    assert made.obs["pixels"].shape == (NUM_ROWS, stack)
    assert made.obs["pixels"].dtype == made.next_obs["pixels"].dtype == np.int32
    table = dataset.frames["pixels"]
    obs, after = by_hand(
        table, rows.obs["pixels"], rows.next_obs["pixels"], rows.last, stack
    )
    np.testing.assert_array_equal(joined(table, made.obs["pixels"]), obs)
    np.testing.assert_array_equal(joined(table, made.next_obs["pixels"]), after)
    np.testing.assert_array_equal(made.obs["state"], rows.obs["state"])


def test_a_dataset_without_pictures_has_no_stacks():
    dataset = read("hopper-medium-replay")
    assert dataset.frames == {}
    assert stacked(dataset, 3) is dataset


def test_a_stack_of_nothing_is_refused():
    with pytest.raises(DataError, match="a stack must have 1 frame or more, not 0"):
        stacked(from_log(log()), 0)


# What is asked of a dataset.


def spec(pixels=(5, 6, 3), state=2, dtype=np.uint8):
    seen = {"pixels": jax.ShapeDtypeStruct(pixels, dtype), "state": vector(state)}
    return EnvSpec("arm", seen, 1, 9)


@pytest.mark.parametrize("stack", [1, 2, 3])
def test_an_environment_may_show_a_stack(stack):
    shown = spec((5, 6, 3 * stack))._replace(stack=stack)
    data.fit(from_log(log()), shown)
    sizes = (f"5 x 6 x {3 * n}, .*" for n in (stack + 1, stack))
    told = "of ".join(("", *sizes, f"{stack + 1} frames each"))
    with pytest.raises(DataError, match=told):
        data.fit(from_log(log()), shown._replace(stack=stack + 1))


@pytest.mark.parametrize(
    "wanted, told",
    [
        (spec((5, 6, 4)), "pixels: pictures of 5 x 6 x 3, .* has .* of 5 x 6 x 4,"),
        (spec((6, 5, 3)), "pixels: pictures of 5 x 6 x 3, .* has .* of 6 x 5 x 3,"),
        (spec(state=3), "state: size 2}, .* state: size 3}"),
        (spec(dtype=np.float32), r"has .* shape \(5, 6, 3\) of float32"),
        (spec()._replace(obs=vector(2)), "pixels: .*}, but .* has size 2:"),
        (spec()._replace(obs={"state": vector(2)}), "but .* parts {state: size 2}"),
    ],
)
def test_other_sizes_than_the_environments_are_told(wanted, told):
    with pytest.raises(DataError, match=f"observations of parts {{.*{told}"):
        data.fit(from_log(log()), wanted)


def test_parts_that_an_environment_does_not_show_are_left_out():
    dataset = from_log(log())
    without = spec()._replace(obs={"pixels": spec().obs["pixels"]})
    with pytest.raises(DataError, match="config.pixels sets the size of"):
        data.fit(dataset, without)
    seen = data.only_seen(dataset, without)
    data.fit(seen, without)
    assert_recorded(seen, ("pixels",))
    assert seen.frames["pixels"] is dataset.frames["pixels"]
    blind = data.only_seen(dataset, spec()._replace(obs={"state": vector(2)}))
    assert blind.frames == {} and list(blind.transitions.next_obs) == ["state"]
    plain = spec()._replace(obs=vector(2))  # `fit` tells that these do not go together
    assert data.only_seen(dataset, plain) is dataset


def test_a_part_by_another_name_is_told():
    named = spec()._replace(obs={"image": spec().obs["pixels"], "state": vector(2)})
    told = "parts {pixels: pictures of .*}, but .* has parts {image: pictures of"
    with pytest.raises(DataError, match=told):
        data.fit(data.only_seen(from_log(log()), named), named)


def test_a_dataset_of_states_is_none_of_pictures():
    columns = log(observations=BEFORE["state"], next_observations=AFTER["state"])
    with pytest.raises(DataError, match="of size 2, but .* {pixels: pictures of 5 x"):
        data.fit(from_log(columns), spec())


def test_a_fingerprint_sees_every_bit_of_the_frames():
    dataset = from_log(log())
    prints = {data.fingerprint(dataset.transitions, dataset.frames)}
    for place in ((0, 0, 0, 0), (10, 4, 5, 2)):
        other = dataset.frames["pixels"].copy()
        other[place] ^= 1
        prints.add(data.fingerprint(dataset.transitions, {"pixels": other}))
    assert len(prints) == 3


def test_foreign_numbers_are_told_beside_pictures():
    dataset = from_log(log())
    seen = {"pixels": BEFORE["pixels"], "state": BEFORE["state"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.warn_of_another(dataset, seen)
    with pytest.warns(data.DataWarning, match="1 of 2 observed numbers are far"):
        away = seen["state"] + np.float32([0, 100])
        data.warn_of_another(dataset, seen | {"state": away})


def test_returns_and_windows_are_asked_as_ever():
    dataset = from_log(log())
    rewards = STEPS["rewards"]
    returns = [rewards[:3].sum(), rewards[3:7].sum(), rewards[7]]
    np.testing.assert_allclose(data.episode_returns(dataset.history), returns)
    with pytest.raises(DataError, match="an episode of 1 steps, shorter than"):
        data.hold_windows(dataset, spec(), 2)
    to_go = data.with_extras(dataset, ("return_to_go",)).transitions.extras
    np.testing.assert_allclose(to_go["return_to_go"][[0, 3, 7]], returns, rtol=1e-6)


def test_tasks_are_sorted_with_their_frames():
    tasks = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    known = np.float32([[0.5], [1.5]])
    dataset = from_log(log(tasks=tasks))._replace(parameters=known)
    rows = data.hold_tasks(dataset, spec()._replace(num_tasks=2), known, 1)
    seen = dataset.frames["pixels"][rows.obs["pixels"]]
    order = np.argsort(tasks, kind="stable")
    np.testing.assert_array_equal(seen, BEFORE["pixels"][order])


# Minari.


def create(name, parts, space, **options):
    """A dataset by Minari's own means; observations as `parts` makes them of a film."""
    minari = pytest.importorskip("minari")
    buffers = []
    for n, (film, place) in enumerate(zip(FILM, PLACE, strict=True)):
        rows = slice(ENDS[n] - LENGTHS[n] + 1, ENDS[n] + 1)
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                observations=parts(film, place),
                actions=STEPS["actions"][rows],
                rewards=STEPS["rewards"][rows],
                terminations=STEPS["terminals"][rows],
                truncations=STEPS["timeouts"][rows],
                infos={},
            )
        )
    with warnings.catch_warnings():  # that nobody is named as the author
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=space,
            action_space=spaces.Box(-1.0, 1.0, (1,)),
            **options,
        )


CAMERA = spaces.Box(0, 255, SIZE, np.uint8)
PLACES = spaces.Box(-np.inf, np.inf, (2,), np.float32)
BOTH = spaces.Dict({"pixels": CAMERA, "state": PLACES})


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store of Minari's."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))


def test_minaris_pictures_are_read(store):
    create("arm/both-v0", lambda film, place: {"pixels": film, "state": place}, BOTH)
    dataset = read("minari:arm/both-v0")
    assert_recorded(dataset)
    assert_kept_once(dataset)
    create("arm/seen-v0", lambda film, place: film, CAMERA)
    assert_recorded(read("minari:arm/seen-v0"), ("pixels",))
    assert_recorded(read("minari:arm/both-v0:pixels"), ("pixels",))
    only = read("minari:arm/both-v0:state")
    np.testing.assert_array_equal(only.transitions.obs, BEFORE["state"])


def test_minaris_entries_have_names_of_their_own(store):
    space = spaces.Dict({"arm": PLACES, "eye": CAMERA, "goal": PLACES})
    create(
        "arm/three-v0",
        lambda film, place: {"arm": -place, "eye": film, "goal": place},
        space,
    )
    dataset = read("minari:arm/three-v0:goal,eye,arm")
    seen = dataset.transitions.obs
    wanted = np.concatenate([BEFORE["state"], -BEFORE["state"]], axis=1)
    np.testing.assert_array_equal(seen["state"], wanted)
    np.testing.assert_array_equal(dataset.frames["eye"][seen["eye"]], BEFORE["pixels"])


@pytest.mark.parametrize("parts", [("pixels", "state"), ("pixels",)])
def test_pictures_survive_minaris_store(store, parts):
    minari = pytest.importorskip("minari")
    dataset = from_log(log(parts))
    write("minari:arm/ours-v0", dataset.transitions, tables=dataset.frames)
    again = read("minari:arm/ours-v0")
    assert_recorded(again, parts)
    assert_kept_once(again)
    theirs = minari.load_dataset("arm/ours-v0")
    assert theirs.observation_space["pixels"] == CAMERA
    for episode, film in zip(theirs.iterate_episodes(), FILM, strict=True):
        np.testing.assert_array_equal(episode.observations["pixels"], film)


def test_pictures_that_minari_would_have_encoded_survive_too(store):
    """It encodes those of 32 x 32 and more, unless it is told not to."""
    film = [RNG.integers(256, size=(n + 1, 32, 32, 3), dtype=np.uint8) for n in LENGTHS]
    seen = {"pixels": np.concatenate([x[:-1] for x in film])}
    after = {"pixels": np.concatenate([x[1:] for x in film])}
    dataset = from_log(log(observations=seen, next_observations=after))
    write("minari:arm/large-v0", dataset.transitions, tables=dataset.frames)
    again = read("minari:arm/large-v0")
    number = again.transitions.next_obs["pixels"]
    np.testing.assert_array_equal(again.frames["pixels"][number], after["pixels"])


def test_minaris_pictures_larger_than_memory_are_refused(store, monkeypatch):
    create("arm/seen-v0", lambda film, place: film, CAMERA)
    monkeypatch.setattr(frames, "memory", lambda: 500)
    message = "its frames, 11 of 5 x 6 x 3, have 990 bytes, .* of 500: 5 rows of them"
    with pytest.raises(DataError, match=message):
        read("minari:arm/seen-v0")


def test_two_parts_beside_pictures_have_no_place_in_minari(store):
    seen = BEFORE | {"goal": BEFORE["state"]}
    after = AFTER | {"goal": AFTER["state"]}
    dataset = from_log(log(observations=seen, next_observations=after))
    with pytest.raises(DataError, match="a place for one part here, 'state'; write a"):
        write("minari:arm/ours-v0", dataset.transitions, tables=dataset.frames)


# Bad input.


def swapped(changes):
    """The log with other pictures, and with those that come next of the same kind."""
    seen = BEFORE | {"pixels": changes(BEFORE["pixels"])}
    after = AFTER | {"pixels": changes(AFTER["pixels"])}
    return log(observations=seen, next_observations=after).columns


BAD = {
    "float": (
        lambda x: np.float32(x) / 255,
        r"log.*: observations/pixels are pictures of float32; .* uint8, .*255 \* x",
    ),
    "int64": (np.int64, r"pictures of int64; frames must be uint8, 0 to 255: numpy.ui"),
    "chw": (
        lambda x: np.moveaxis(x, -1, 1),
        r"shape \(3, 5, 6\), channels first; frames .*moveaxis\(x, 1, -1\)",
    ),
    "grey": (lambda x: x[..., 0], r"have shape \(8, 5, 6\); .* the last of 1 where"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("ending", ["npz", "h5", ""])
def test_pictures_of_another_kind_are_refused(tmp_path, kind, ending):
    change, message = BAD[kind]
    columns = swapped(change)
    with pytest.raises(DataError, match=message):
        if ending:
            read(stored(tmp_path, columns, ending))
        from_log(Log("log", "log", columns))


@pytest.mark.parametrize("kind", ["float", "chw"])
def test_pictures_of_another_kind_are_refused_in_d4rls_columns(tmp_path, kind):
    change, message = BAD[kind]
    columns = swapped(change)
    named = {key: columns[key]["pixels"] for key in frames.COLUMNS}
    message = message.replace("observations/pixels", "observations(/pixels)?")
    with pytest.raises(DataError, match=message):
        read(stored(tmp_path, columns | named))


def test_pictures_of_mixed_sizes_are_refused(tmp_path):
    ragged = [np.zeros((4 + n % 2, 6, 3), np.uint8) for n in range(NUM_ROWS)]
    objects = np.empty(NUM_ROWS, object)
    objects[:] = ragged
    message = "observations/pixels hold objects, as pictures of mixed sizes make them"
    path = tmp_path / "log.npz"
    seen = {"observations/pixels": objects}
    np.savez(path, allow_pickle=True, **STEPS, **seen)
    with pytest.raises(DataError, match=message):
        read(path)
    for pictures in (ragged, objects):
        columns = log(("pixels",), next_observations=None).columns
        columns["observations"] = {"pixels": pictures}
        with pytest.raises(DataError, match=f"{message}|pixels is ragged: all rows"):
            from_log(Log("log", "log", columns))


def test_encoded_pictures_are_refused(tmp_path):
    with h5py.File(stored(tmp_path, STEPS, "h5"), "a") as file:
        bytes_of = h5py.vlen_dtype(np.uint8)
        file.create_dataset("observations/pixels", (NUM_ROWS,), dtype=bytes_of)
    with pytest.raises(DataError, match="hold objects, .* or encoded ones"):
        read(tmp_path / "log.h5")


def test_frames_larger_than_memory_are_told_before_they_are_read(tmp_path, monkeypatch):
    with h5py.File(stored(tmp_path, STEPS, "h5"), "a") as file:
        shape = 10**9, 84, 84, 3  # a file may promise more than it holds
        file.create_dataset("observations/pixels", shape, "u1", chunks=(1, 84, 84, 3))
    message = (
        r"log.h5: its frames, 1,000,000,000 of 84 x 84 x 3, have 21,168,000,000,000"
        r" bytes, and this machine has a memory of [0-9,]+: [0-9,]+ rows of them would"
        " fit; keep fewer episodes, or smaller frames$"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path / "log.h5")
    path = stored(tmp_path, log().columns)
    monkeypatch.setattr(frames, "memory", lambda: 500)
    with pytest.raises(DataError, match="8 of 5 x 6 x 3, .* of 500: 5 rows"):
        read(path)
    monkeypatch.undo()
    monkeypatch.setattr(files, "memory", lambda: 800)  # they alone would fit
    with pytest.raises(DataError, match="its arrays have"):
        read(path)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"frames": {"pixels": BEFORE["pixels"][:4]}},
            "observations/pixels has shape .* must be the number of each row's frame",
        ),
        (
            {"next_observations": {"state": AFTER["state"]}},
            "have the parts pixels, state, but next_observations state; they must be",
        ),
        (
            {"next_observations": AFTER["state"]},
            "have the parts pixels, state, but next_observations none; they must be",
        ),
        (
            {"next_observations": AFTER | {"pixels": AFTER["pixels"][:, :4]}},
            "next_observations/pixels are pictures of 4 x 6 x 3, but .* of 5 x 6 x 3",
        ),
        (
            {"next_observations": AFTER | {"pixels": AFTER["pixels"][:5]}},
            "next_observations/pixels has 5 rows but observations/pixels has 8",
        ),
        (
            {"observations": BEFORE | {"state": BEFORE["state"][:5]}},
            "observations/state has 5 rows but observations/pixels has 8",
        ),
        (
            {"observations": {"pixels": np.arange(8)}, "next_observations": None},
            r"have a table frames/pixels that it numbers",
        ),
        (
            {
                "observations": {"pixels": np.arange(8)},
                "next_observations": None,
                "frames": {"pixels": BEFORE["pixels"][:7]},
            },
            "observations/pixels: row 7 is frame 7, and the table has 7 frames",
        ),
        (
            {"frames": {"eye": BEFORE["pixels"]}},
            "has frames/eye, but no observations/eye",
        ),
    ],
)
def test_parts_that_do_not_agree_are_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read(stored(tmp_path, log(**changes).columns))


def test_a_column_is_there_whole_or_in_parts(tmp_path):
    columns = log(("pixels",)).columns | {"observations": BEFORE["state"]}
    path = stored(tmp_path, columns | {"observations/pixels": BEFORE["pixels"]})
    with pytest.raises(DataError, match="both observations and observations/pixels"):
        read(path)


def test_transitions_alone_have_no_place_for_frames():
    with pytest.raises(
        DataError, match="pictures, which a dataset keeps once, .*from_"
    ):
        data.from_arrays(**log().columns)


# Inspection.


def test_the_table_and_the_picture_have_the_frames(tmp_path, capsys):
    path = stored(tmp_path, log().columns)
    picture = tmp_path / "log.png"
    assert command.main([str(path), f"--out={picture}"]) == 0
    told = capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "parts of observations" in told and "pixels, state" in told
    assert "frames of pixels" in told
    assert "11 of 5 x 6 x 3, 11 of them different; 990 bytes" in told
    assert "observations" in told and "2 numbers; from" in told


def test_pictures_alone_are_inspected(tmp_path, capsys):
    path = stored(tmp_path, log(("pixels",)).columns)
    assert command.main([str(path), f"--out={tmp_path / 'log.png'}"]) == 0
    assert "constant dimensions" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "channels, shown", [(1, [0] * 3), (4, [0, 1, 2]), (6, [3, 4, 5])]
)
def test_a_strip_shows_episodes_from_start_to_end(channels, shown):
    """Frame n is of n and its channel's number, in the two digits of a byte."""
    serial = np.arange(NUM_ROWS, dtype=np.uint8)
    seen = 16 * serial[:, None, None, None] + np.arange(channels, dtype=np.uint8)
    seen = np.broadcast_to(seen, (NUM_ROWS, 2, 2, channels))
    steps = log(observations=seen, next_observations=np.roll(seen, -1, axis=0))
    made = command.strip(data.inspect(steps), "pixels")
    assert made.shape == (3 * 2, 12 * 2, 3)
    places = made[::2, ::2]
    np.testing.assert_array_equal(places[0, 0], shown)
    numbers = places[..., 0] // 16
    np.testing.assert_array_equal(numbers[:, 0], [0, 3, 7])
    np.testing.assert_array_equal(numbers[:, -1], [2, 6, 7])
    assert (np.diff(numbers.astype(int), axis=1) >= 0).all()


def test_a_blind_camera_and_repeated_rows_are_told():
    dark = {"pixels": 0 * BEFORE["pixels"], "state": 0 * BEFORE["state"]}
    found = data.inspect(
        log(observations=dark, next_observations=dark, actions=np.zeros((NUM_ROWS, 1)))
    )
    assert found.different == {"pixels": 1}
    assert found.duplicates == 1 - 1 / NUM_ROWS
    assert any("Every frame of pixels is the same" in x for x in found.findings)
    other = data.inspect(
        log(("pixels",), actions=np.zeros((NUM_ROWS, 1)), rewards=np.arange(NUM_ROWS))
    )
    assert other.duplicates == 0


def test_transitions_of_a_dataset_are_leaves_of_a_tree():
    rows = from_log(log()).transitions
    assert isinstance(rows, Transition)
    assert {x.dtype.name for x in jax.tree.leaves(rows)} == {"float32", "bool", "int32"}
