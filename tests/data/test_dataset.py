import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from o2ojax.data import (
    DataError,
    Dataset,
    DataWarning,
    episode_returns,
    fingerprint,
    fit,
    from_arrays,
    hold_episodes,
    hold_windows,
    return_range,
    subsample,
    warn_of_another,
)
from o2ojax.types import EnvSpec, Transition, vector

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "data"


def columns(num_rows=6, **changes):
    """Row n sees n, does n / 1000, earns n; nothing ends."""
    serial = np.arange(num_rows, dtype=np.float32)
    plain = {
        "observations": serial[:, None],
        "actions": serial[:, None] / 1000,
        "rewards": serial,
        "terminals": np.zeros(num_rows, bool),
    }
    return plain | changes


def flags(num_rows, *rows):
    return np.isin(np.arange(num_rows), rows)


def episodes(*lengths):
    """Transitions of a counter that ends at the given lengths."""
    num_rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    return from_arrays(**columns(num_rows, terminals=flags(num_rows, *ends)))


def test_a_terminal_has_no_future():
    rows = from_arrays(**columns(terminals=flags(6, 2, 5)))
    np.testing.assert_array_equal(rows.discount, [1, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(rows.last, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 2, 4, 5, 5])


def test_a_cut_row_without_a_next_observation_is_dropped():
    rows = from_arrays(**columns(timeouts=flags(6, 2, 5)))
    np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 3, 4])
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 4, 5])
    np.testing.assert_array_equal(rows.reward, [0, 1, 3, 4])
    np.testing.assert_array_equal(rows.last, [0, 1, 0, 1])
    np.testing.assert_array_equal(rows.discount, [1, 1, 1, 1])


def test_the_final_row_is_dropped_unless_it_is_terminal():
    assert len(from_arrays(**columns()).reward) == 5
    assert len(from_arrays(**columns(terminals=flags(6, 5))).reward) == 6


def test_an_episode_of_one_cut_row_vanishes():
    rows = from_arrays(**columns(terminals=flags(6, 2), timeouts=flags(6, 3)))
    np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 2, 4])
    np.testing.assert_array_equal(rows.last, [0, 0, 1, 1])
    np.testing.assert_array_equal(rows.discount, [1, 1, 0, 1])


def test_a_row_both_terminal_and_cut_is_terminal():
    both = flags(6, 5)
    rows = from_arrays(**columns(terminals=both, timeouts=both))
    assert len(rows.reward) == 6
    assert rows.discount[5] == 0


def test_a_time_out_keeps_its_row_where_the_next_observation_is_given():
    given = np.arange(1.0, 7.0)[:, None]
    rows = from_arrays(**columns(timeouts=flags(6, 2), next_observations=given))
    np.testing.assert_array_equal(rows.next_obs, given)
    np.testing.assert_array_equal(rows.last, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(rows.discount, np.ones(6))


def test_a_jump_between_observations_ends_an_episode_where_time_outs_are_unknown():
    given = np.array([1, 2, 3.00001, 4 + 5e-7, 5, 6])[:, None]
    rows = from_arrays(**columns(next_observations=given))
    np.testing.assert_array_equal(rows.last, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(rows.discount, np.ones(6))


def test_time_outs_that_are_given_overrule_jumps():
    given = np.array([1, 2, 9, 4, 5, 6])[:, None]
    rows = from_arrays(**columns(timeouts=flags(6), next_observations=given))
    np.testing.assert_array_equal(rows.last, [0, 0, 0, 0, 0, 1])


def test_types_do_not_depend_on_those_of_the_source():
    source = {
        "observations": np.arange(6)[:, None],
        "actions": np.zeros((6, 1), np.float64),
        "rewards": np.zeros((6, 1), np.int8),
        "terminals": flags(6, 5).astype(np.float64)[:, None],
    }
    rows = from_arrays(**source, extras={"return_to_go": np.arange(6)})
    kinds = jax.tree.map(lambda leaf: str(leaf.dtype), rows)
    floats = "float32"
    extras = {"return_to_go": floats}
    assert kinds == (floats, floats, floats, floats, floats, "bool", "int32", extras)
    assert rows.reward.shape == rows.last.shape == rows.task.shape == (6,)


def test_actions_stay_inside_the_open_interval():
    actions = np.array([-1, 1, 0.5, 1 + 5e-7, 0, 0])[:, None]
    rows = from_arrays(**columns(actions=actions))
    limit = np.float32(1 - 1e-5)
    np.testing.assert_array_equal(rows.action[:4, 0], [-limit, limit, 0.5, limit])


def test_actions_out_of_range_are_refused_unless_clipping_is_asked_for():
    loud = columns(actions=np.array([0, 0, 3, -2, 0, 0])[:, None])
    message = r"in 2 of 6 rows, first in row 2; they range from -2 to 3: give the"
    with pytest.raises(DataError, match=message):
        from_arrays(**loud)
    clipped = from_arrays(**loud, clip_actions=True).action[:4, 0]
    np.testing.assert_allclose(clipped, [0, 0, 1, -1], atol=1.1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rewards": np.zeros(5)}, "rewards has 5 rows but observations has 6"),
        ({"observations": np.zeros(6)}, r"observations has shape \(6,\)"),
        ({"actions": np.zeros((6, 1, 1))}, r"actions has shape \(6, 1, 1\)"),
        ({"rewards": np.zeros((6, 2))}, r"rewards has shape \(6, 2\)"),
        ({"terminals": True}, r"terminals has shape \(\)"),
        ({"actions": [[0.0], [0.0, 1.0]]}, "actions is ragged"),
        ({"actions": None}, "actions has dtype object"),
        ({"rewards": ["one"] * 6}, "rewards has dtype <U3"),
        ({"actions": np.zeros((6, 0))}, r"actions is empty, of shape \(6, 0\)"),
        ({"terminals": [0, 0, 0, 2, 0, 1]}, "terminals: row 3 is 2.0; give 0 or 1"),
        ({"next_observations": np.zeros((6, 2))}, "next_observations has 2 columns"),
        ({"timeouts": np.ones(6)}, "no row has a next observation"),
    ],
)
def test_malformed_columns_are_refused_by_name(changes, message):
    with pytest.raises(DataError, match=message):
        from_arrays(**columns(**changes))


def test_the_error_names_the_data():
    with pytest.raises(DataError, match="^log.npz: rewards has 5 rows"):
        from_arrays(**columns(rewards=np.zeros(5)), name="log.npz")


@pytest.mark.parametrize(
    "value, shown", [(np.nan, "nan"), (-np.inf, "-inf"), (1e39, r"1e\+39")]
)
def test_numbers_that_are_not_finite_are_located(value, shown):
    observations = np.zeros((6, 3))
    observations[4, 1] = observations[5, 0] = value
    message = f"observations: row 4, column 1 is {shown}, the first of 2"
    with pytest.raises(DataError, match=message):
        from_arrays(**columns(observations=observations))
    rewards = np.array([0, value, 0, 0, 0, 0])
    with pytest.raises(DataError, match=f"rewards: row 1 is {shown}, the first of 1"):
        from_arrays(**columns(rewards=rewards))


def test_returns_are_summed_over_episodes():
    np.testing.assert_array_equal(episode_returns(episodes(2, 1, 3)), [1, 2, 12])


def test_an_unfinished_episode_counts_only_when_it_is_alone():
    rows = episodes(2, 1, 3)
    unfinished = rows._replace(last=flags(6, 1, 2))
    np.testing.assert_array_equal(episode_returns(unfinished), [1, 2])
    alone = rows._replace(last=flags(6))
    np.testing.assert_array_equal(episode_returns(alone), [15])


def test_the_return_range_is_best_less_worst():
    assert return_range(episodes(2, 1, 3)) == 11  # 12 - 1


def test_a_return_range_of_zero_is_refused():
    with pytest.raises(DataError, match="over 1 episode"):
        return_range(episodes(6))
    same = episodes(2, 2)._replace(reward=np.ones(4, np.float32))
    with pytest.raises(DataError, match="over 2 episode"):
        return_range(same)


def test_a_dataset_fits_only_environments_of_its_sizes():
    dataset = Dataset("log", episodes(3))
    fit(dataset, EnvSpec("cart", obs=vector(1), action_dim=1, horizon=9))
    message = "dataset 'log' has observations of size 1, but environment 'cart' has 4"
    with pytest.raises(DataError, match=message):
        fit(dataset, EnvSpec("cart", obs=vector(4), action_dim=1, horizon=9))
    with pytest.raises(DataError, match="actions of size 1, .* has 2"):
        fit(dataset, EnvSpec("cart", obs=vector(1), action_dim=2, horizon=9))


def test_observations_in_another_order_are_told():
    """A goal far from where the agent is: the two cannot be taken for each other."""
    rng = np.random.default_rng(0)
    at, goal = rng.normal(size=(2, 50, 1)) + np.array([[[0]], [[20]]])
    obs = np.concatenate([at, goal], axis=1).astype(np.float32)
    dataset = Dataset(
        "walk",
        from_arrays(obs, np.zeros((50, 1)), np.zeros(50), np.zeros(50, bool)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_another(dataset, obs[10:15])
        warn_of_another(dataset, np.where(np.arange(5)[:, None], 1e3, obs[:5]))
    with pytest.warns(DataWarning, match="walk: 2 of 2 observed numbers"):
        warn_of_another(dataset, obs[10:15, ::-1])


def test_windows_need_episodes_that_end_and_are_long_enough():
    spec = EnvSpec("counter", vector(1), 1, horizon=8)
    hold_windows(Dataset("three", episodes(4, 3, 5)), spec, 3)
    with pytest.raises(DataError, match="an episode of 3 steps, shorter than"):
        hold_windows(Dataset("three", episodes(4, 3, 5)), spec, 4)
    hold_windows(Dataset("one", episodes(8)), spec, 4)
    with pytest.raises(DataError, match="9 rows in which no episode ends"):
        hold_windows(Dataset("one", episodes(9)), spec, 4)
    hold_episodes(Dataset("some", episodes(1, 1, 2)), spec, "")
    with pytest.raises(DataError, match="3 episodes of one row among 5 rows: were"):
        hold_episodes(Dataset("shuffled", episodes(1, 1, 1, 2)), spec, "")


@pytest.mark.parametrize("field", Transition._fields)
def test_a_fingerprint_sees_every_number(field):
    extras = {"return_to_go": np.arange(6, dtype=np.float32)}
    rows = episodes(3, 3)._replace(extras=extras)
    assert fingerprint(rows) == fingerprint(episodes(3, 3)._replace(extras=extras))

    def changed(leaf):
        leaf = leaf.copy()
        leaf[4] = 1 - leaf[4]
        return leaf

    part = jax.tree.map(changed, getattr(rows, field))
    assert fingerprint(rows._replace(**{field: part})) != fingerprint(rows)


def test_a_subsample_is_whole_episodes_spread_over_time():
    rows = episodes(*[10] * 100)
    some = subsample(rows, 200)
    assert len(some.reward) == 200
    starts = some.obs[::10, 0]
    np.testing.assert_array_equal(starts, np.arange(0, 1000, 50))
    for offset in range(10):
        np.testing.assert_array_equal(some.obs[offset::10, 0], starts + offset)


@pytest.mark.parametrize("num_rows", [1, 7, 50, 123, 499])
def test_a_subsample_exceeds_its_size_by_less_than_an_episode(num_rows):
    lengths = np.random.default_rng(0).integers(1, 20, size=60)
    rows = episodes(*lengths)
    assert len(rows.reward) > num_rows
    some = subsample(rows, num_rows)
    assert num_rows <= len(some.reward) < num_rows + lengths.max()
    assert some.last[-1]


def test_a_subsample_of_few_rows_is_everything():
    rows = episodes(2, 3)
    assert fingerprint(subsample(rows, 5)) == fingerprint(rows)
    with pytest.raises(DataError, match="at least 1, not 0"):
        subsample(rows, 0)


def recorded(path):
    path = RECORDINGS / path
    if not path.exists():
        pytest.skip(f"no recording {path.name}")
    return dict(np.load(path, allow_pickle=False))


def test_recorded_experts_keep_every_row_and_their_two_returns():
    log = recorded("mujoco_expert/HalfCheetah-v4.npz")
    rows = from_arrays(
        log["observations"],
        log["actions"],
        log["rewards"],
        np.zeros(2000),
        timeouts=log["terminals"],
        next_observations=log["next_observations"],
        clip_actions=True,
    )
    assert rows.obs.shape == (2000, 17)
    assert rows.discount.all()
    np.testing.assert_array_equal(np.flatnonzero(rows.last), [999, 1999])
    expected = log["rewards"].reshape(2, 1000).sum(axis=1)
    np.testing.assert_allclose(episode_returns(rows), expected, rtol=1e-6)


def test_jumps_find_the_episodes_that_a_recording_marks():
    log = recorded("mujoco_expert/HalfCheetah-v4.npz")
    rows = from_arrays(
        log["observations"],
        log["actions"],
        log["rewards"],
        np.zeros(2000),
        next_observations=log["next_observations"],
        clip_actions=True,
    )
    np.testing.assert_array_equal(rows.last, log["terminals"])


def test_demonstrations_without_next_observations_lose_one_row_each():
    log = recorded("adroit_door_human/door_human.npz")
    ends = log["episode_starts"] + log["episode_lengths"] - 1
    rows = from_arrays(
        log["observations"],
        log["actions"],
        log["rewards"],
        np.zeros(6729),
        timeouts=flags(6729, *ends),
        clip_actions=True,
    )
    assert rows.obs.shape == (6729 - 25, 39)
    assert rows.last.sum() == 25
    second = log["episode_starts"][1]
    start = np.flatnonzero(rows.last)[0] + 1
    np.testing.assert_allclose(rows.obs[start], log["observations"][second], rtol=1e-6)
    np.testing.assert_allclose(
        rows.next_obs[start - 1], log["observations"][second - 1], rtol=1e-6
    )
