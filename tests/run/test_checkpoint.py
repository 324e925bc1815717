"""Checkpoints come back as they were written, or are refused."""

import json
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest

from o2ojax.errors import UserError
from o2ojax.run.checkpoint import Checkpoints

TREE = {
    "weights": np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32),
    "count": np.int32(7),
    "keys": np.arange(4, dtype=np.uint32).reshape(2, 2),
    "flags": np.array([True, False]),
    "none": np.zeros((0, 3), np.float32),
}
RECORD = {"phase": "offline", "step": 20, "points": [{"returns": [[0.1, 1e-7]]}]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """In a folder with letters that a URL would have to quote."""
    folder = tmp_path_factory.mktemp("a b%20#é")
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(20, TREE, RECORD)
    checkpoints.close()
    return folder / "checkpoints"


def read(folder, like=TREE, part=False):
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        number = max(checkpoints.numbers(), default=None)
        if number is None:
            return None, None
        found = checkpoints.restore(number, like, part, put=np.asarray)
        return found, checkpoints.record(number)
    finally:
        checkpoints.close()


def assert_same(found):
    tree, record = found
    assert record == RECORD
    for name, leaf in TREE.items():
        np.testing.assert_array_equal(tree[name], leaf)
        assert tree[name].dtype == leaf.dtype


def test_what_is_written_comes_back(written):
    assert_same(read(written))


def test_a_part_can_be_read(written):
    some, _ = read(written, {"count": TREE["count"]}, part=True)
    assert some["count"] == 7
    with pytest.raises(UserError, match="it has flags besides"):
        read(written, {"count": TREE["count"]})
    with pytest.raises(UserError, match="more is not there"):
        read(written, TREE | {"more": np.ones(2)})
    with pytest.raises(UserError, match="the shape of count differs"):
        read(written, TREE | {"count": np.ones(2)})


def test_no_changed_byte_is_taken_without_a_word(written, tmp_path, capfd):
    """In any file; what is not read at all may change."""
    noise, refused = np.random.default_rng(1), 0
    files = sorted(path for path in written.rglob("*") if path.is_file())
    for path in files:
        content = path.read_bytes()
        for at in noise.choice(len(content), min(12, len(content)), replace=False):
            shutil.rmtree(tmp_path / "x", ignore_errors=True)
            shutil.copytree(written, tmp_path / "x")
            damaged = bytearray(content)
            damaged[at] ^= 1 << int(noise.integers(8))
            (tmp_path / "x" / path.relative_to(written)).write_bytes(damaged)
            try:
                found = read(tmp_path / "x")
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
            else:
                if found != (None, None):
                    assert_same(found)
    assert refused > 10
    assert "Traceback" not in "".join(capfd.readouterr())


def test_those_of_older_versions_have_no_sums(written, tmp_path):
    shutil.copytree(written, tmp_path / "old")
    path = tmp_path / "old" / "20" / "record" / "metadata"
    told = json.loads(path.read_text())
    assert told["sums"]
    path.write_text(json.dumps(told["record"]))
    assert_same(read(tmp_path / "old"))


def test_what_fails_only_as_the_directory_closes_is_told(tmp_path, monkeypatch):
    """Where several files fail, Orbax raises one at a time."""
    kept = Checkpoints(tmp_path)

    def full(self):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "close", full)
    with pytest.raises(UserError, match="the disk is full; there is none before it"):
        kept.close()
