"""Data of a stranger's own making, and what an algorithm asks of its data besides."""

import numpy as np
import pytest

from o2ojax import data
from o2ojax.errors import UserError
from o2ojax.types import EnvSpec, Transition, vector

FILE = """
import numpy as np
from o2ojax.types import Transition

def rows(**changed):
    given = dict(
        obs=np.arange(12.0).reshape(6, 2),
        action=np.full((6, 1), 0.5),
        reward=np.arange(6),
        discount=np.array([1, 1, 0, 1, 1, 1]),
        next_obs=np.arange(12.0).reshape(6, 2) + 2,
        last=np.array([0, 0, 1, 0, 0, 1], bool),
        task=np.zeros(6, np.int32),
        extras={"return_to_go": np.arange(6.0)[::-1]},
    )
    return Transition(**given | changed)

SEEN = {"state": np.ones((6, 2)), "pixels": np.zeros((6, 4, 4, 3), np.uint8)}

def parts(): return rows(obs=SEEN, next_obs=SEEN)
def far(): return rows(action=np.full((6, 1), 2.0))
def half(): return rows(discount=np.full(6, 0.5))
def short(): return rows(extras={"x": np.arange(5.0)})
def nothing(): return None
def broken(): raise KeyError("no such robot")
"""


@pytest.fixture
def door(tmp_path):
    path = tmp_path / "robot.py"
    path.write_text(FILE)
    return lambda name: f"{path}:{name}"


def test_a_function_gives_transitions(door):
    rows = data.read(door("rows")).transitions
    assert rows.obs.dtype == rows.reward.dtype == rows.extras["return_to_go"].dtype
    assert rows.obs.dtype == np.float32
    np.testing.assert_array_equal(rows.discount, [1, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(rows.last, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(rows.extras["return_to_go"], [5, 4, 3, 2, 1, 0])


def test_observations_may_have_named_parts_of_types_of_their_own(door):
    dataset = data.read(door("parts"))
    rows = dataset.transitions
    assert rows.obs["pixels"].dtype == np.int32
    assert dataset.frames["pixels"].dtype == np.uint8
    assert rows.next_obs["state"].shape == (6, 2)
    spec = EnvSpec("robot", vector(2), 1, 9)
    with pytest.raises(data.DataError, match="parts {pixels: pictures of 4 x 4 x 3"):
        data.fit(dataset, spec)
    seen = {name: vector(2) for name in ("state",)}
    seen["pixels"] = type(vector(2))((4, 4, 3), np.uint8)
    data.fit(dataset, spec._replace(obs=seen))
    assert spec._replace(obs=seen).obs_dim == 50


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("far", "actions go beyond"),
        ("half", "1 - discount: row 0 is 0.5; give 0 or 1"),
        ("short", "extras/x has 5 rows; there are 6 steps"),
        ("nothing", "gives a NoneType; it must be a function that returns"),
        ("broken", "fails with KeyError: 'no such robot'"),
        ("absent", "defines no absent"),
    ],
)
def test_what_cannot_be_data_is_refused(door, name, sentence):
    with pytest.raises(UserError, match=sentence):
        data.read(door(name))


@pytest.mark.parametrize("ending", ["npz", "hdf5"])
def test_extras_come_back_from_a_file(door, tmp_path, ending):
    rows = data.read(door("rows")).transitions
    path = tmp_path / f"rows.{ending}"
    rows = rows._replace(obs=rows.next_obs - 2)
    data.write(path, rows)
    again = data.read(path).transitions
    assert list(again.extras) == ["return_to_go"]
    for before, after in zip(rows, again, strict=True):
        np.testing.assert_equal(after, before)


def test_only_the_extras_that_are_asked_for_are_kept(door):
    dataset = data.read(door("rows"))
    assert data.with_extras(dataset, ()).transitions.extras == {}
    kept = data.with_extras(dataset, ("return_to_go",)).transitions
    assert isinstance(kept, Transition) and list(kept.extras) == ["return_to_go"]
    with pytest.raises(data.DataError, match="has no human_label"):
        data.with_extras(dataset, ("human_label",))
