"""Statistics of a dataset, and detection of likely errors in it."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from o2ojax.data import antmaze, frames
from o2ojax.data.arrays import matrix
from o2ojax.data.columns import jumps
from o2ojax.data.dataset import (
    ACTION_LIMIT,
    ACTION_SLACK,
    ONE_STREAM,
    Log,
    Recorded,
    episode_returns,
    from_log,
)
from o2ojax.data.reference import has_reference
from o2ojax.types import Transition

LARGE_REWARD = 1e6
LARGE = 1000.0  # observations beyond this should be scaled
MANY_DUPLICATES = 0.02
MANY_SHORT = 0.01  # fraction of episodes; a truncated recording may end in a few
ROUND = 100  # time limits are usually multiples of it
OUTLIER = 1e4  # rewards beyond so many times the median of those that are not 0
FEW = 50_000  # rows that are enough to fit a line to
MANY_SURPRISES = 0.5  # fraction of episodes; 1% of them are expected

# The mazes of ants by their names in D4RL: of environments, and of files.
MAZES = {
    "umaze": "antmaze-umaze",
    "u": "antmaze-umaze",
    "medium": "antmaze-medium",
    "big": "antmaze-medium",
    "large": "antmaze-large",
    "hardest": "antmaze-large",
}


class Inspection(NamedTuple):
    """Statistics of a dataset.

    name:        name of the dataset.
    env:         the environment in its name, if it has reference scores, else "".
    num_rows:    rows in the file; `transitions` has fewer if rows were dropped.
    transitions: as a run reads them, with clipped actions.
    history:     every row's reward, and where episodes end, as `Dataset.history`.
    actions:     [num_rows, A]  float32, as in the file.
    returns:     [episodes]     undiscounted, float64.
    lengths:     [episodes]     steps.
    ended:       [episodes]     True for termination, False for truncation.
    obs:         [N, O]         of the transitions, without pictures: parts joined.
    obs_low:     [O]            minimum of each dimension.
    obs_high:    [O]            maximum of each dimension.
    constant:    [K]            the dimensions with equal minimum and maximum.
    at_limit:    fraction of the numbers in `actions` with magnitude 1 or more.
    beyond:      fraction of rows whose action is outside [-1, 1].
    duplicates:  fraction of transitions that repeat an observation and action.
    findings:    likely errors, a sentence each.
    parameters:  [T, P], parameters of each task of a family, or None.
    frames:      uint8 [F, H, W, C] of each part of the observations that is pictures.
    different:   how many frames of each are different.
    """

    name: str
    env: str
    num_rows: int
    transitions: Transition
    history: Recorded | Transition
    actions: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    ended: np.ndarray
    obs: np.ndarray
    obs_low: np.ndarray
    obs_high: np.ndarray
    constant: np.ndarray
    at_limit: float
    beyond: float
    duplicates: float
    findings: tuple[str, ...]
    parameters: np.ndarray | None = None
    frames: Mapping[str, np.ndarray] = MappingProxyType({})
    different: Mapping[str, int] = MappingProxyType({})


def inspect(log: Log, clip_actions: bool = False) -> Inspection:
    """Computes the statistics of a log. Actions outside [-1, 1] are no error here.

    Args:
        log: as returned by `load`.
        clip_actions: whether the run will clip actions.
    Raises:
        DataError: `from_arrays` refuses the data for another reason.
    """
    made = from_log(log._replace(extras={}), clip_actions=True)
    rows, history = made.transitions, made.history
    actions = matrix(f"{log.source}: actions", log.columns["actions"])
    if clip_actions:
        actions = np.clip(actions, -ACTION_LIMIT, ACTION_LIMIT)
    ends = np.flatnonzero(history.last)
    obs = frames.vectors(rows.obs, made.frames)
    low, high = obs.min(axis=0), obs.max(axis=0)
    first = {part: frames.copies(table) for part, table in made.frames.items()}
    seen = Inspection(
        name=log.name,
        env=environment(log.name) if _fits(log.name, rows) else "",
        num_rows=len(actions),
        transitions=rows,
        history=history,
        actions=actions,
        returns=episode_returns(history),
        lengths=np.diff(ends, prepend=-1),
        ended=history.discount[ends] == 0,
        obs=obs,
        obs_low=low,
        obs_high=high,
        constant=np.flatnonzero(low == high),
        at_limit=np.mean(np.abs(actions) >= np.float32(ACTION_LIMIT)).item(),
        beyond=np.mean(np.abs(actions).max(axis=1) > 1 + ACTION_SLACK).item(),
        duplicates=_duplicates(obs, rows, first),
        findings=(),
        parameters=log.parameters,
        frames=made.frames,
        different={part: len(np.unique(number)) for part, number in first.items()},
    )
    return seen._replace(findings=tuple(_findings(log, seen)))


def environment(name: str) -> str:
    """The environment in a dataset's name, if it has reference scores, else ""."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    if "antmaze" in words or "maze" in words:  # Ant_maze_u-maze is not the task ant
        is_ours = {"ant", "antmaze"} & set(words) and "eval" not in words
        return next((MAZES[word] for word in words if word in MAZES and is_ours), "")
    return next(filter(has_reference, words), "")


def _fits(name: str, rows: Transition) -> bool:
    """Whether an ant in a maze, by its name, is D4RL's: Minari's has the same name."""
    is_ant = environment(name) in MAZES.values()
    return not is_ant or antmaze.recognised(rows.obs, rows.action)


def _duplicates(
    obs: np.ndarray, rows: Transition, first: Mapping[str, np.ndarray]
) -> float:
    """Fraction of the rows that see and do what another one does.

    Args:
        obs: [N, O], without pictures.
        first: int32 [F] of each part that is pictures, as of `frames.copies`.
    """
    numbers = np.concatenate([obs, rows.action], axis=1) + np.float32(0)  # no -0
    seen = [first[part][rows.obs[part]][:, None] for part in first]
    numbers = np.concatenate([numbers, *(x.view(np.float32) for x in seen)], axis=1)
    whole_rows = numbers.view(f"V{numbers.itemsize * numbers.shape[1]}")
    return 1 - len(np.unique(whole_rows)) / len(numbers)


def _findings(log: Log, seen: Inspection) -> Iterator[str]:
    rows = seen.transitions
    if "timeouts" not in log.columns and "next_observations" not in log.columns:
        yield f"As to the ends of episodes: {ONE_STREAM}."
    if seen.beyond:
        yield (
            f"{seen.beyond:.1%} of the rows have actions beyond [-1, 1], from "
            f"{seen.actions.min():g} to {seen.actions.max():g}: a run refuses them; "
            "give their bounds, --config.action_bounds=LOW,HIGH, or let it clip them: "
            "--config.clip_actions=True."
        )
    if time_limits(seen.lengths, seen.ended):
        yield (
            f"{_of(seen.ended & (seen.lengths == seen.lengths.max()), seen.ended)} "
            f"terminals lie at step {seen.lengths.max()}, where the longest episode "
            "ends: they look like a time limit. As they are, no value is bootstrapped "
            "through them, as if the task had ended; if only time had run out, mark "
            "these rows in timeouts, and not in terminals."
        )
    torn = ~rows.last[:-1] & jumps(rows.obs, rows.next_obs)
    if torn.any():
        yield (
            f"In {torn.sum()} rows inside an episode, first in row {torn.argmax()}, "
            "the next observation is not the observation of the row after: rows are "
            "missing or mixed up there, or timeouts do not mark all the ends."
        )
    rewards = seen.history.reward
    if np.ptp(rewards) == 0:
        yield f"Every reward is {rewards[0]:g}: no action earns more than another."
    size = np.abs(rewards)
    usual = np.median(size[size > 0]) if size.any() else 0
    if size.max() > OUTLIER * usual or size.max() > LARGE_REWARD:
        yield (
            f"The reward of row {size.argmax()} is {rewards[size.argmax()]:g}, and the"
            f" median size of rewards that are not 0 is {usual:g}: critics learn little"
            " but the largest; if it is right, scale rewards, --config.reward.scale."
        )
    if "next_observations" not in log.columns:
        yield from _shifted_ends(seen)
    for part, number in seen.different.items():
        if number == 1:
            yield (f"Every frame of {part} is the same: does the camera see anything?")
    short = np.sum(seen.lengths == 1)
    if short > MANY_SHORT * len(seen.lengths):
        yield (
            f"{short} of {len(seen.lengths)} episodes have one step: see that "
            "terminals and timeouts are 1 at ends only."
        )
    if seen.duplicates > MANY_DUPLICATES:
        yield (
            f"{seen.duplicates:.1%} of the rows repeat the observation and the action "
            "of another row: the same log may be in there twice."
        )
    size = np.maximum(np.abs(seen.obs_low), np.abs(seen.obs_high))
    if size.max(initial=0) > LARGE:
        yield (
            f"Observations reach {size.max():g} in size, in dimension {size.argmax()} "
            f"(beyond {LARGE:g} in {np.sum(size > LARGE)} of {len(size)}): networks "
            "learn badly from such numbers; scale them before, in the environment too."
        )


def _shifted_ends(seen: Inspection) -> Iterator[str]:
    """Finds ends that are marked a row late or early, where next observations are
    taken from the next row: then one step of each episode leads into another episode.
    Pictures are not looked at.
    """
    rows, history = seen.transitions, seen.history
    place = np.flatnonzero(history.kept)
    inside = rows.discount == 1  # a terminal's next observation is not known
    late = inside & history.last[np.minimum(place + 1, len(history.last) - 1)]
    early = inside & np.append(False, history.last[:-1])[place]
    after = frames.vectors(rows.next_obs, seen.frames)
    surprise = surprises(seen.obs, rows.action, after, inside & ~late & ~early)
    for at, what, wrong in ((late, "last", "late"), (early, "first", "early")):
        if at.sum() > 2 and np.mean(surprise[at] > 1) > MANY_SURPRISES:
            yield (
                f"The {what} step of most episodes is unlike all others: what is seen"
                " after it does not follow from what is seen before it. Timeouts or"
                f" terminals look as if they were marked one row too {wrong}."
            )


def surprises(
    obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray, usual: np.ndarray
) -> np.ndarray:
    """How badly a linear model foretells the next observation of each row, [N].

    It is the size of its error, in units of the 99th percentile of that of usual rows,
    to some of which the model is fitted; 0 where there are too few.

    Args:
        usual: bool [N].
    """
    moves = np.ptp(obs, axis=0) > 0
    given = np.concatenate([obs, action, np.ones((len(obs), 1))], axis=1, dtype=float)
    change = np.float64(next_obs[:, moves]) - obs[:, moves]
    some = np.flatnonzero(usual)
    some = some[:: max(1, len(some) // FEW)]
    if len(some) < 4 * given.shape[1] or not moves.any():
        return np.zeros(len(obs))
    try:
        weights = np.linalg.lstsq(given[some], change[some], rcond=None)[0]
    except np.linalg.LinAlgError:  # of numbers too large or too different
        return np.zeros(len(obs))
    error = change - given @ weights
    spread = error[some].std(axis=0)
    size = np.linalg.norm(error / np.where(spread > 0, spread, 1), axis=1)
    return size / (np.quantile(size[some], 0.99) or 1)


def time_limits(lengths: np.ndarray, ended: np.ndarray) -> bool:
    """Whether terminals look like time limits.

    They do if there are several and all are at the end of episodes of maximal length,
    or if one is and this length is a round number.

    Args:
        lengths: [episodes], steps.
        ended: [episodes], whether the episode's last step is a terminal.
    """
    longest = lengths.max()
    at_longest = ended & (lengths == longest)
    if longest == 1 or not at_longest.any():
        return False
    every = at_longest.sum() == ended.sum() > 1
    return bool(every or longest % ROUND == 0)


def _of(part: np.ndarray, whole: np.ndarray) -> str:
    part, whole = part.sum(), whole.sum()
    return f"All {whole}" if part == whole else f"{part} of {whole}"
