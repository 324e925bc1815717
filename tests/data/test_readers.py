import io
import warnings
import zipfile

import h5py
import jax
import numpy as np
import pytest

from o2ojax.data import (
    DataError,
    DataWarning,
    episode_returns,
    files,
    from_arrays,
    read,
    read_hdf5,
    read_npz,
    return_range,
    shipped,
    shipped_names,
    with_extras,
    write,
)

COLUMNS = {
    "observations": np.arange(12, dtype=np.float64).reshape(6, 2),
    "actions": np.linspace(-0.9, 0.9, 6)[:, None],
    "rewards": np.arange(6) / 7,
    "terminals": np.array([0, 0, 1, 0, 0, 0], bool),
    "timeouts": np.array([0, 0, 0, 0, 0, 1], bool),
}


def next_observations():
    """What a recorder that looks beyond the end of an episode would have seen."""
    following = np.roll(COLUMNS["observations"], -1, axis=0)
    following[[2, 5]] = [[30, 31], [50, 51]]
    return following


def transitions():
    return from_arrays(**COLUMNS, next_observations=next_observations())


def write_hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for key, values in columns.items():
            file[key] = values
    return path


def write_npz(path, columns):
    np.savez(path, **columns)
    return path


WRITERS = {"log.hdf5": write_hdf5, "log.npz": write_npz}


@pytest.fixture(params=WRITERS)
def stored(request, tmp_path):
    """A function that stores columns as one of the formats, and its path."""
    return lambda columns: WRITERS[request.param](tmp_path / request.param, columns)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder in the place of the shipped datasets."""
    folder = tmp_path / "shipped"
    monkeypatch.setattr(shipped, "folder", lambda: folder)
    return folder


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    leaves, wanted_leaves = jax.tree.leaves(found), jax.tree.leaves(expected)
    for leaf, wanted in zip(leaves, wanted_leaves, strict=True):
        assert leaf.dtype == wanted.dtype
        assert leaf.shape == wanted.shape
        assert leaf.tobytes() == wanted.tobytes()


def test_a_file_holds_what_its_arrays_hold(stored):
    dataset = read(stored(COLUMNS))
    assert dataset.name == "log"
    assert_same_bits(dataset.transitions, from_arrays(**COLUMNS))


def test_next_observations_of_a_file_are_used(stored):
    extra = {"next_observations": next_observations()}
    dataset = read(stored(COLUMNS | extra))
    assert_same_bits(dataset.transitions, from_arrays(**COLUMNS, **extra))
    assert len(dataset.transitions.reward) == 6


def test_time_outs_are_optional(stored):
    columns = {key: COLUMNS[key] for key in COLUMNS if key != "timeouts"}
    with pytest.warns(DataWarning, match="log.*: it has neither timeouts nor next_obs"):
        dataset = read(stored(columns))
    assert len(dataset.transitions.reward) == 5


@pytest.mark.parametrize("kept", ["timeouts", "next_observations"])
def test_a_log_that_tells_its_cuts_is_read_without_a_warning(stored, kept):
    columns = COLUMNS | {"next_observations": next_observations()}
    dropped = {"timeouts", "next_observations"} - {kept}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(stored({key: columns[key] for key in columns if key not in dropped}))


def test_other_contents_of_a_d4rl_file_are_left_alone(tmp_path):
    extra = {"infos/qpos": np.zeros((3, 3)), "metadata/algorithm": "SAC"}
    path = write_hdf5(tmp_path / "log.h5", COLUMNS | extra)
    assert_same_bits(read(path).transitions, from_arrays(**COLUMNS))


def test_clipping_reaches_the_reader(stored):
    path = stored(COLUMNS | {"actions": np.full((6, 1), 2.0)})
    with pytest.raises(DataError, match="actions go beyond"):
        read(path)
    assert (read(path, clip_actions=True).transitions.action < 1).all()


def test_missing_columns_are_named_with_those_found(stored):
    path = stored({"observations": np.zeros((2, 1)), "rewards": np.zeros(2)})
    message = "has no actions, terminals; found observations, rewards"
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_file_cut_short_is_refused(stored):
    path = stored(COLUMNS)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match="log.*: cannot be read"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"these are words, not arrays"])
def test_a_foreign_file_is_refused(stored, content):
    path = stored(COLUMNS)
    path.write_bytes(content)
    with pytest.raises(DataError, match="log.*: cannot be read"):
        read(path)


def test_a_bare_array_under_the_name_of_an_archive_is_refused(tmp_path):
    with (tmp_path / "log.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="cannot be read .no zip archive"):
        read(tmp_path / "log.npz")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="none.npz: no such file"):
        read(tmp_path / "none.npz")
    with pytest.raises(DataError, match="none.hdf5: no such file"):
        read_hdf5(tmp_path / "none.hdf5")


def test_a_group_in_the_place_of_an_array_is_refused(tmp_path):
    columns = {key: COLUMNS[key] for key in COLUMNS if key != "rewards"}
    columns["rewards/camera"] = np.zeros((6, 2))
    with pytest.raises(DataError, match="cannot be read"):
        read_hdf5(write_hdf5(tmp_path / "log.hdf5", columns))


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    link = {"rewards": h5py.SoftLink("/gone")}
    with pytest.raises(DataError, match="cannot be read"):
        read_hdf5(write_hdf5(tmp_path / "log.hdf5", COLUMNS | link))


def test_an_encrypted_archive_is_refused(tmp_path):
    path = write_npz(tmp_path / "log.npz", COLUMNS)
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # of each kind, the first
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read .*encrypted"):
        read_npz(path)


def test_pickled_objects_are_never_read(tmp_path):
    loud = np.array([{"a": 1}] * 6, object)
    path = write_npz(tmp_path / "log.npz", COLUMNS | {"rewards": loud})
    with pytest.raises(DataError, match="pickled objects are never read"):
        read_npz(path)


@pytest.fixture(params=["log.npz", "log.hdf5", "log.h5"])
def target(request, tmp_path):
    """A path of each kind that is written."""
    return tmp_path / "new" / request.param


def test_what_is_written_is_read_bit_for_bit(target):
    rows = transitions()
    write(target, rows)
    assert_same_bits(read(target).transitions, rows)


def test_a_written_file_leaves_nothing_beside_it(target):
    write(target, transitions())
    assert list(target.parent.iterdir()) == [target]


def test_a_written_hdf5_file_has_d4rls_columns(tmp_path):
    write(tmp_path / "log.hdf5", transitions())
    with h5py.File(tmp_path / "log.hdf5") as file:
        found = {key: file[key][()] for key in file}
    assert {key: str(values.dtype) for key, values in found.items()} == {
        "observations": "float32",
        "actions": "float32",
        "rewards": "float32",
        "terminals": "bool",
        "timeouts": "bool",
        "next_observations": "float32",
    }
    expected = COLUMNS | {"next_observations": next_observations()}
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], np.asarray(values, found[key].dtype))


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_dataset_survives_d4rls_format(tmp_path, name):
    shipped = read(name)
    write(tmp_path / "copy.hdf5", shipped.transitions, tables=shipped.frames)
    found = read(tmp_path / "copy.hdf5")
    assert_same_bits(found.transitions, shipped.transitions)
    for part, table in shipped.frames.items():
        np.testing.assert_array_equal(found.frames[part], table)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "log.npz"
    write(path, transitions())
    before = path.read_bytes()

    def fail(file, **columns):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(DataError, match=r"log.npz: cannot be written \(disk full\)"):
        write(path, transitions())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_final_row_of_a_written_file_ends_an_episode(target):
    rows = transitions()
    running = rows._replace(last=rows.last & (np.arange(6) < 5))
    write(target, running)
    assert_same_bits(read(target).transitions, rows)


@pytest.mark.parametrize(
    "field, row, value, message",
    [
        ("last", 2, False, "last must be True wherever discount is 0"),
        ("discount", 1, 0.5, "discount must be 0 or 1"),
        ("next_obs", 0, 9.0, "next_obs of row 0 is not obs of row 1"),
        ("action", 0, 2.0, "actions go beyond"),
        ("reward", 3, np.nan, "rewards: row 3 is nan"),
    ],
)
def test_what_would_not_come_back_is_not_written(target, field, row, value, message):
    leaf = getattr(transitions(), field).copy()
    leaf[row] = value
    with pytest.raises(DataError, match=message):
        write(target, transitions()._replace(**{field: leaf}))
    assert not target.parent.exists()


def test_a_file_is_not_written_under_a_name_that_is_not_read(tmp_path):
    message = "must end in .npz, .hdf5, .h5, or begin with minari:"
    with pytest.raises(DataError, match=message):
        write(tmp_path / "log", transitions())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"timeouts": [0, 1, 0, 0, 0, 1]}, r"shape \(2, 2\), but .* need \(3, 2\)"),
        ({"final_observations": np.zeros((2, 3))}, r"shape \(2, 3\)"),
        ({"final_observations": [[0, 0], [0, np.nan]]}, "row 1, column 1 is nan"),
    ],
)
def test_final_observations_must_match_the_episodes(tmp_path, changes, message):
    columns = COLUMNS | {"final_observations": np.zeros((2, 2))} | changes
    path = write_npz(tmp_path / "log.npz", columns)
    with pytest.raises(DataError, match=message):
        read(path)


def test_final_observations_need_time_outs(tmp_path):
    columns = {key: COLUMNS[key] for key in COLUMNS if key != "timeouts"}
    columns["final_observations"] = np.zeros((2, 2))
    with pytest.raises(DataError, match="needs timeouts too"):
        read(write_npz(tmp_path / "log.npz", columns))


def test_next_observations_of_all_rows_outdo_the_final_ones(tmp_path):
    extra = {
        "next_observations": next_observations(),
        "final_observations": np.zeros((2, 2)),
    }
    path = write_npz(tmp_path / "log.npz", COLUMNS | extra)
    assert_same_bits(read(path).transitions, transitions())


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("~/log.npz", transitions())
    assert (tmp_path / "log.npz").exists()
    assert_same_bits(read("~/log.npz").transitions, transitions())


def test_shipped_datasets_are_read_by_name(shelf):
    assert shipped_names() == ()
    write(shelf / "hopper-medium.npz", transitions())
    write(shelf / "ant-medium.npz", transitions())
    assert shipped_names() == ("ant-medium", "hopper-medium")
    dataset = read("hopper-medium")
    assert dataset.name == "hopper-medium"
    assert_same_bits(dataset.transitions, transitions())


def test_an_unknown_name_is_answered_with_the_nearest_and_the_forms(shelf):
    with pytest.raises(DataError, match="or a path ending in .* .npz"):
        read("hopper-medum")
    write(shelf / "hopper-medium.npz", transitions())
    with pytest.raises(DataError, match="did you mean 'hopper-medium'"):
        read("hopper-medum")


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_dataset_can_be_read(name):
    rows = read(name).transitions
    assert rows.last[-1]
    assert len(rows.reward) > 0


def test_returns_count_what_was_earned_in_rows_that_are_left_out(stored):
    """An episode of three rows that ends at a terminal, and one that is cut."""
    dataset = read(stored(COLUMNS | {"rewards": [0, 0, 1, 2, 4, 8]}))
    assert len(dataset.transitions.reward) == 5  # learning leaves out the last one
    np.testing.assert_array_equal(episode_returns(dataset.history), [1, 14])
    assert return_range(dataset.history) == 13
    extras = with_extras(dataset, ("return_to_go", "next_action"), gamma=0.5)
    found = extras.transitions.extras
    np.testing.assert_array_equal(found["return_to_go"], [0.25, 0.5, 1, 6, 8])
    actions = np.float32(COLUMNS["actions"])
    wanted = actions[[1, 2, 2, 4, 5]] * [[1], [1], [0], [1], [1]]
    np.testing.assert_array_equal(found["next_action"], wanted)


def test_a_log_that_keeps_all_its_rows_is_its_own_history(stored):
    dataset = read(stored(COLUMNS | {"next_observations": next_observations()}))
    assert dataset.recorded is None and dataset.history is dataset.transitions


def forged(path, change):
    """A log whose observations have had their header changed, 128 bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, values in COLUMNS.items():
            array = io.BytesIO()
            np.save(array, values)
            content = array.getvalue()
            if key == "observations":
                content = change(content[:128]) + content[128:]
            archive.writestr(f"{key}.npy", content)
    return path


def stating(shape):
    """A change of a header to another shape, of the same length."""
    text = f"'shape': {shape}, }}".encode()
    return lambda header: header.replace(b"'shape': (6, 2), }".ljust(len(text)), text)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda header: header.replace(b"(6, 2)", b"(6, 2("),
            "observations.npy: a damaged",
        ),
        (lambda header: header.replace(b"(6, 2)", b"(6 \\2)"), "observations.npy"),
        (lambda header: header.replace(b"(6, 2)", b"(6,'2)"), "observations.npy"),
        (lambda header: header.replace(b"(6, 2)", b"(9, 2)"), "144 bytes, and has 96"),
        (stating("(4000000000, 2)"), "64,000,000,000 bytes, and has 96"),
        (
            lambda header: header.replace(b"NUMPY\1", b"NUMPY\7"),
            "no header of an array",
        ),
    ],
)
def test_a_damaged_header_is_refused_before_memory_is_asked_for(tmp_path, change, said):
    with pytest.raises(DataError, match=rf"cannot be read \(.*{said}"):
        read_npz(forged(tmp_path / "log.npz", change))


def test_an_array_that_is_lost_in_a_damaged_directory_is_missed(tmp_path):
    path = write_npz(tmp_path / "log.npz", COLUMNS | {"timeouts": np.zeros(6)})
    content = bytearray(path.read_bytes())
    last = content.rfind(b"PK\1\2")
    before = content.rfind(b"PK\1\2", 0, last)
    size = content.find(b"PK\5\6") - last
    content[before + 32 : before + 34] = size.to_bytes(2, "little")  # of a comment
    path.write_bytes(content)
    with pytest.raises(DataError, match="its end tells of 5 files"):
        read_npz(path)


def test_every_byte_of_a_header_may_be_wrong(tmp_path):
    """The file is refused in one line, or the same numbers are in it."""
    rng = np.random.default_rng(0)
    for at in range(128):
        value = rng.integers(256, dtype=np.uint8).tobytes()
        path = forged(tmp_path / "log.npz", lambda x: x[:at] + value + x[at + 1 :])  # noqa: B023
        try:
            found = read_npz(path)
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert_same_bits(found.transitions, from_arrays(**COLUMNS))


def test_arrays_larger_than_memory_are_refused_with_their_size(tmp_path, monkeypatch):
    """Of HDF5, a file may promise more than it holds."""
    path = tmp_path / "log.h5"
    with h5py.File(write_hdf5(path, COLUMNS), "a") as file:
        del file["rewards"]
        file.create_dataset("rewards", (10**14,), "f4", chunks=(1024,))
    with pytest.raises(DataError, match="its arrays have 400,000,000,000,.* bytes"):
        read(path)
    monkeypatch.setattr(files, "memory", lambda: 200)
    with pytest.raises(DataError, match="204 bytes, and this machine has a memory of"):
        read(write_npz(tmp_path / "log.npz", COLUMNS))


LONG = "x" * 300  # letters; most file systems take 255


@pytest.mark.parametrize("name", [f"{LONG}.npz", f"{LONG}.h5", "~nobody-here/x.npz"])
def test_a_name_that_no_file_can_have_is_a_missing_file(name):
    with pytest.raises(DataError, match=r"(x\.npz|x\.h5): no such file"):
        read(name)


@pytest.mark.parametrize("name", [f"{LONG}.npz", f"{LONG}.h5", "a\0b.npz"])
def test_what_cannot_be_written_under_its_name_is_told(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be written \(.*(too long|null byte)"):
        write(f"{tmp_path}/{name}", transitions())
