import json
from pathlib import Path

import numpy as np
import pytest

from o2ojax.data import (
    DataError,
    DataWarning,
    Log,
    inspect,
    load,
    score,
    shipped,
    shipped_names,
)
from o2ojax.data.inspection import environment, time_limits

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "data"


def log(num_rows=12, name="log", **changes):
    """Row n sees n, does n / 1000, earns n; episodes are cut after four rows."""
    serial = np.arange(num_rows, dtype=np.float32)
    columns = {
        "observations": np.stack([serial, np.ones(num_rows)], axis=1),
        "actions": serial[:, None] / 1000,
        "rewards": serial,
        "terminals": np.zeros(num_rows),
        "timeouts": serial % 4 == 3,
        "next_observations": np.stack([serial + 1, np.ones(num_rows)], axis=1),
    }
    columns |= changes
    return Log(name, name, {k: v for k, v in columns.items() if v is not None})


def flags(*rows, num_rows=12):
    return np.isin(np.arange(num_rows), rows)


def findings(**changes):
    return inspect(log(**changes)).findings


def test_a_dataset_in_numbers_by_hand():
    seen = inspect(log(terminals=flags(7), rewards=np.arange(12) - 1.0))
    assert (seen.name, seen.env, seen.num_rows) == ("log", "", 12)
    np.testing.assert_array_equal(seen.returns, [2, 18, 34])
    np.testing.assert_array_equal(seen.lengths, [4, 4, 4])
    np.testing.assert_array_equal(seen.ended, [False, True, False])
    np.testing.assert_array_equal(seen.obs_low, [0, 1])
    np.testing.assert_array_equal(seen.obs_high, [11, 1])
    np.testing.assert_array_equal(seen.constant, [1])
    np.testing.assert_array_equal(seen.actions, log().columns["actions"])
    assert seen.at_limit == seen.beyond == seen.duplicates == 0
    assert len(seen.transitions.reward) == 12


def test_nothing_looks_wrong_with_a_tidy_log():
    assert findings() == ()


@pytest.mark.parametrize("name", shipped_names())
def test_nothing_looks_wrong_with_what_is_shipped(name):
    seen = inspect(load(name))
    recorded = json.loads((shipped.folder() / f"{name}.json").read_text())
    assert seen.findings == ()
    assert seen.num_rows == recorded["rows"]
    assert len(seen.lengths) == recorded["episodes"]
    assert seen.ended.sum() == recorded["terminals"]
    found = score(seen.env, seen.returns).mean()
    np.testing.assert_allclose(found, recorded["mean_score"], rtol=1e-6)


def test_rows_that_had_to_be_dropped_are_told_from_those_in_the_file():
    seen = inspect(log(next_observations=None))
    assert seen.num_rows == 12
    assert len(seen.transitions.reward) == 9
    np.testing.assert_array_equal(seen.lengths, [4, 4, 4])


def test_what_the_last_row_earns_is_counted_though_it_is_left_out():
    """Four episodes of ten steps, of which two earn 1, in their last one."""
    rows = np.arange(40, dtype=np.float32)
    seen = inspect(
        log(
            num_rows=40,
            timeouts=rows % 10 == 9,
            rewards=np.isin(rows, [9, 29]),
            next_observations=None,
        )
    )
    np.testing.assert_array_equal(seen.returns, [1, 0, 1, 0])
    assert not any("Every reward" in finding for finding in seen.findings)
    assert seen.history.reward.sum() == 2 and seen.transitions.reward.sum() == 0


@pytest.mark.parametrize(
    "value, told", [(1e30, True), (-1e30, True), (1e5, True), (100.0, False)]
)
def test_a_reward_beyond_all_others_is_told(value, told):
    rewards = np.where(np.arange(12) == 5, value, 1.0)
    found = [x for x in findings(rewards=rewards) if "The reward of row 5" in x]
    assert bool(found) == told


def test_a_sparse_reward_is_no_outlier():
    assert findings(rewards=np.arange(12) == 5) == ()


@pytest.mark.parametrize("name", ["hopper-medium-replay", "halfcheetah-random"])
@pytest.mark.parametrize("by, told", [(0, ""), (1, "one row too late"), (-1, "early")])
def test_ends_that_are_marked_beside_where_they_are(name, by, told):
    """Without next observations, each episode then has a step into another one."""
    found = load(name)
    columns = {
        key: np.roll(np.ravel(values), by)
        if key in ("timeouts", "terminals")
        else values
        for key, values in found.columns.items()
        if key != "next_observations"
    }
    said = inspect(found._replace(columns=columns)).findings
    unlike = [finding for finding in said if "unlike all others" in finding]
    assert len(unlike) == bool(told)
    assert told in "".join(unlike)


def test_actions_beyond_the_limits_are_counted_not_refused():
    actions = np.zeros((12, 2))
    actions[:3] = [[1, 0], [-1.5, 0.9], [2, -1]]
    seen = inspect(log(actions=actions))
    assert seen.beyond == 2 / 12
    assert seen.at_limit == 4 / 24
    [finding] = seen.findings
    assert "16.7% of the rows have actions beyond [-1, 1], from -1.5 to 2:" in finding
    assert "--config.clip_actions=True" in finding


def test_actions_may_be_looked_at_as_they_are_clipped():
    seen = inspect(log(actions=np.full((12, 1), 3.0)), clip_actions=True)
    np.testing.assert_array_equal(seen.actions, seen.transitions.action)
    assert (seen.beyond, seen.at_limit, seen.findings) == (0, 1, ())


@pytest.mark.parametrize(
    "lengths, ended, expected",
    [
        ([7, 7, 7], [1, 1, 1], True),  # each as long as the longest
        ([7, 7, 5], [1, 1, 0], True),
        ([7, 7, 5], [1, 1, 1], False),  # the task may end early
        ([7, 9, 7], [1, 0, 1], False),  # cuts come later: these are ends
        ([7], [1], False),  # alone, it tells nothing,
        ([300], [1], True),  # unless its length is a round number
        ([1000, 37, 52], [1, 1, 1], True),
        ([1000, 37, 52], [0, 1, 1], False),
        ([1, 1, 1], [1, 1, 1], False),
        ([5, 5], [0, 0], False),
    ],
)
def test_terminals_that_look_like_a_time_limit(lengths, ended, expected):
    assert time_limits(np.array(lengths), np.array(ended, bool)) is expected


def test_time_limits_are_told_with_the_way_to_mend_them():
    [finding] = findings(terminals=flags(3, 7, 11))
    assert finding.startswith("All 3 terminals lie at step 4, where the longest")
    assert "no value is bootstrapped through them" in finding
    assert "mark these rows in timeouts" in finding
    early = flags(3, 103, 203, num_rows=204)
    [finding] = findings(
        num_rows=204, terminals=early, timeouts=None, next_observations=None
    )[1:]
    assert finding.startswith("2 of 3 terminals lie at step 100")


def test_a_log_without_cuts_is_told():
    [finding] = findings(timeouts=None, next_observations=None)
    assert "it has neither timeouts nor next_observations" in finding
    assert findings(timeouts=None) == ()
    assert findings(next_observations=None) == ()


def test_jumps_inside_an_episode_are_located():
    seen = log().columns["next_observations"]
    seen[[1, 3, 6], 0] = 50  # row 3 is the last of its episode
    [finding] = findings(next_observations=seen)
    assert finding.startswith("In 2 rows inside an episode, first in row 1,")


def test_a_constant_reward_is_told():
    [finding] = findings(rewards=np.full(12, -1))
    assert finding.startswith("Every reward is -1:")


def test_episodes_of_one_step_are_counted():
    [finding] = findings(timeouts=flags(0, 1, 5, 6))
    assert finding.startswith("3 of 5 episodes have one step")


def test_one_episode_of_one_step_among_a_hundred_is_no_finding():
    """As where a recording of several environments was cut."""
    ends = range(3, 408, 4)
    for short, told in (([0], 0), ([0, 4], 1)):
        timeouts = flags(*short, *ends, num_rows=408)
        assert len(findings(num_rows=408, timeouts=timeouts)) == told


def test_rows_that_repeat_are_counted():
    columns = log(num_rows=100).columns
    twice = {key: np.concatenate([values] * 2) for key, values in columns.items()}
    assert inspect(Log("log", "log", twice)).duplicates == 0.5
    [finding] = findings(**twice)
    assert finding.startswith("50.0% of the rows repeat the observation and the action")
    once = log(num_rows=100)
    once.columns["actions"][1] = once.columns["actions"][0]
    once.columns["observations"][1, 0] = -0.0  # which is 0
    assert inspect(once).duplicates == pytest.approx(0.01)
    assert inspect(once).findings[1:] == ()  # a jump, and too few to mention


def test_the_same_sight_with_another_action_is_no_repetition():
    same = np.ones((12, 2))
    assert inspect(log(observations=same, next_observations=same)).duplicates == 0


def test_large_observations_are_located():
    seen = log().columns["observations"]
    seen[:, 1] = 2e5
    [finding] = findings(observations=seen, next_observations=None)
    assert finding.startswith("Observations reach 200000 in size, in dimension 1 (")
    assert "in 1 of 2" in finding


def test_what_cannot_be_read_is_refused_as_by_the_reader():
    rewards = np.where(flags(5), np.nan, 0.0)
    with pytest.raises(DataError, match="log: rewards: row 5 is nan"):
        inspect(log(rewards=rewards))


@pytest.mark.parametrize(
    "name, env",
    [
        ("hopper-medium-replay", "hopper"),
        ("HalfCheetah-v4", "halfcheetah"),
        ("mujoco/walker2d/expert-v0", "walker2d"),
        ("antmaze-umaze-v2", "antmaze-umaze"),
        ("antmaze-medium-play", "antmaze-medium"),
        ("Ant_maze_u-maze_noisy_multistart_True", "antmaze-umaze"),
        ("Ant_maze_hardest-maze_noisy_multistart_False", "antmaze-large"),
        ("Ant_maze_big-maze_noisy", "antmaze-medium"),
        ("Ant_maze_large_eval_noisy", ""),  # walls of its own
        ("maze2d-medium-v1", ""),
        ("robot", ""),
    ],
)
def test_the_environment_is_found_in_the_name(name, env):
    assert environment(name) == env


def recorded(path):
    path = RECORDINGS / path
    if not path.exists():
        pytest.skip(f"no recording {path.name}")
    return path


@pytest.mark.parametrize("name", ["HalfCheetah-v4", "Hopper-v4"])
def test_both_traps_of_the_recorded_experts_are_found(name):
    path = recorded(f"mujoco_expert/{name}.npz")
    seen = inspect(load(path))
    actions = np.load(path)["actions"]
    assert seen.env == name.partition("-")[0].lower()
    assert seen.beyond == np.mean((np.abs(actions) > 1.000001).any(axis=1))
    assert np.abs(seen.actions).max() > 1.8
    loud, limits = seen.findings
    assert "of the rows have actions beyond [-1, 1]" in loud
    assert limits.startswith("All 2 terminals lie at step 1000,")


def test_demonstrations_that_tell_nothing_of_their_ends():
    with np.load(recorded("adroit_door_human/door_human.npz")) as file:
        columns = {key: file[key] for key in ("observations", "actions", "rewards")}
    columns["terminals"] = np.zeros(6729)
    seen = inspect(Log("door-human", "door-human", columns))
    assert len(seen.lengths) == 1
    stream, loud = seen.findings
    low, high = columns["actions"].min(), columns["actions"].max()
    assert "taken for one stream" in stream
    assert f"from {low:g} to {high:g}:" in loud


def test_demonstrations_are_cut_by_the_lengths_of_their_episodes():
    with pytest.warns(DataWarning, match="init_door_body_pos, .*: not read"):
        log = load(recorded("adroit_door_human/door_human.npz"))
    seen = inspect(log)
    assert len(seen.lengths) == 25 and sum(seen.lengths) == seen.num_rows == 6729
    assert len(seen.transitions.reward) == 6729 - 25
