"""OGBench's layouts, as its documents and its loader describe them, by hand."""

import numpy as np
import pytest

from o2ojax.data import DataError, read

# Two trajectories, of three steps and of two: s0 to s3 and t0 to t2. Row n of a raw
# file sees n, and does n / 10; the action of the last row means nothing. The task is
# done in s1, and the robot goes on; and in t1.
RAW = {
    "observations": np.array([[0], [1], [2], [3], [4], [5], [6]], np.float32),
    "actions": np.array([[0], [0.1], [0.2], [0.9], [0.4], [0.5], [0.9]], np.float32),
    "terminals": np.array([0, 0, 0, 1, 0, 0, 1], np.float32),
}
REWARDS = np.array([-1, 0, -1, -1, -1, 0, -1], np.float32)
MASKS = np.array([1, 0, 1, 1, 1, 0, 1], np.float32)
STEPS = [0, 1, 2, 4, 5]

REGULAR = {
    "observations": RAW["observations"][STEPS],
    "actions": RAW["actions"][STEPS],
    "next_observations": np.array([[1], [2], [3], [5], [6]], np.float32),
    "terminals": np.array([0, 0, 1, 0, 1], np.float32),
    "rewards": REWARDS[STEPS],
    "masks": MASKS[STEPS],
}
COMPACT = RAW | {
    "terminals": np.array([0, 0, 1, 1, 0, 1, 1], np.float32),
    "valids": np.array([1, 1, 1, 0, 1, 1, 0], np.float32),
    "rewards": REWARDS,
    "masks": MASKS,
}
COMPLETED = RAW | {"rewards": REWARDS, "masks": MASKS}  # raw, and what it lacks
LAYOUTS = {"regular": REGULAR, "compact": COMPACT, "completed": COMPLETED}


def stored(tmp_path, columns):
    np.savez(tmp_path / "cube.npz", **columns)
    return tmp_path / "cube.npz"


def without(columns, *keys):
    return {key: columns[key] for key in columns if key not in keys}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_steps(tmp_path, layout):
    rows = read(stored(tmp_path, LAYOUTS[layout])).transitions
    np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 3, 5, 6])
    np.testing.assert_allclose(rows.action[:, 0], [0, 0.1, 0.2, 0.4, 0.5])
    np.testing.assert_array_equal(rows.reward, [-1, 0, -1, -1, 0])
    np.testing.assert_array_equal(rows.discount, [1, 0, 1, 1, 0])
    np.testing.assert_array_equal(rows.last, [0, 1, 1, 0, 1])


def test_the_end_of_a_trajectory_leaves_the_future_open(tmp_path):
    always = REGULAR | {"masks": np.ones(5)}
    rows = read(stored(tmp_path, always)).transitions
    assert rows.discount.all()
    np.testing.assert_array_equal(rows.last, [0, 0, 1, 0, 1])


def test_a_final_row_that_is_called_a_step_has_no_next_observation(tmp_path):
    cut = {key: values[:6] for key, values in COMPACT.items()}
    rows = read(stored(tmp_path, cut)).transitions
    np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 2, 4])
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 3, 5])
    np.testing.assert_array_equal(rows.last, [0, 1, 1, 1])


@pytest.mark.parametrize(
    "columns, missing",
    [
        (RAW | {"qpos": np.zeros((7, 2))}, "rewards, masks"),
        (RAW | {"button_states": np.zeros((7, 2))}, "rewards, masks"),
        (without(COMPACT, "rewards", "masks"), "rewards, masks"),
        (without(COMPACT, "masks"), "masks"),
        (without(REGULAR, "rewards"), "rewards"),
    ],
)
def test_a_file_for_reaching_goals_is_refused_with_the_way_out(
    tmp_path, columns, missing
):
    message = f"cube.npz: has no {missing}. It .* ends of trajectories: .*singletask"
    with pytest.raises(DataError, match=message):
        read(stored(tmp_path, columns))


def test_masks_that_repeat_the_terminals_leave_the_layout_open(tmp_path):
    unclear = COMPLETED | {"masks": 1 - COMPLETED["terminals"]}
    with pytest.raises(DataError, match="masks are 1 - terminals .* give next_observ"):
        read(stored(tmp_path, unclear))
    clear = unclear | {"timeouts": np.zeros(7)}
    rows = read(stored(tmp_path, clear)).transitions
    np.testing.assert_array_equal(rows.obs[:, 0], np.arange(7))
    np.testing.assert_array_equal(rows.discount, [1, 1, 1, 0, 1, 1, 0])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"masks": np.ones(5)}, "masks has 5 rows but observations has 7"),
        ({"valids": np.full(7, 0.5)}, "valids: row 0 is 0.5; give 0 or 1"),
        ({"valids": np.zeros(7)}, "no row is a step"),
        ({"observations": np.zeros((7, 4, 4), np.uint8)}, r"shape \(7, 4, 4\)"),
    ],
)
def test_columns_that_do_not_agree_are_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read(stored(tmp_path, COMPACT | changes))


def test_a_file_of_d4rls_may_hold_states_of_the_simulator(tmp_path):
    columns = without(REGULAR, "masks") | {"qpos": np.zeros((5, 2))}
    rows = read(stored(tmp_path, columns)).transitions
    np.testing.assert_array_equal(rows.discount, [1, 1, 0, 1, 0])
