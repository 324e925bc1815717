"""Logs of an ant in a maze: D4RL's files are mended, and other ants' data refused.

D4RL's files were written by other programs than its environment, and do not always
say as it does when an episode ends; `mend` corrects that. In all versions, an ant that
stays at the goal earns a reward of 1, and ends an episode, in each row (D4RL's issue
199). The episodes of one step that come of it are kept, as published results were
learned from them. `infos/goal` is not read: the ant was sent there when the data were
gathered, but the rewards are for the goal of the environment.
"""

import warnings
from collections.abc import Mapping

import numpy as np

from o2ojax.data.arrays import DataError
from o2ojax.data.dataset import Dataset, DataWarning
from o2ojax.types import EnvSpec

OBS_DIM, ACTION_DIM = 29, 8
PLACE, TURN, SPEED = slice(0, 2), slice(3, 7), slice(15, 17)  # of an observation
DECISION_TIME = 0.1  # seconds, of D4RL's ant
LEAP = 1.0  # m, farther than an ant gets in one decision
MOVING = 0.3  # m/s, from which on a displacement tells the time
FEW = 10  # rows that move, too few to tell it
TOLERANCE = 0.25  # relative, of a decision time

# Sizes of what gymnasium-robotics' ant sees, without and with 78 contact forces, where
# it is and where it should go.
OTHER_SIZES = tuple(27 + forces + goals for forces in (0, 78) for goals in (0, 2, 4))
OTHER_ANT = (
    "it looks like gymnasium-robotics' AntMaze, whose data Minari has, and which is"
    " another ant: it decides each 0.05 s instead of each 0.1 s, with 150 Nm instead of"
    " 30 Nm, and its step from the same state by the same action typically ends 2.7 cm"
    " off, where ours covers 5.4 cm, and with joint speeds 1.3 rad/s off"
)


def recognised(obs: np.ndarray, actions: np.ndarray) -> bool:
    """Whether rows can be those of an ant that sees x and y first, then how it lies.

    Args:
        obs: [N, O].
        actions: [N, A].
    """
    sizes = np.shape(obs)[1:], np.shape(actions)[1:]
    if sizes != ((OBS_DIM,), (ACTION_DIM,)) or len(obs) != len(actions):
        return False
    length = np.linalg.norm(obs[:, TURN], axis=1)  # of a quaternion
    return bool(abs(np.median(length) - 1.0) < 1e-3)


def decision_time(obs: np.ndarray, next_obs: np.ndarray) -> float:
    """Seconds in which an ant covers its displacements; NaN if it hardly moves.

    Args:
        obs, next_obs: [N, 29].
    """
    speed = (obs[:, SPEED] + next_obs[:, SPEED]) / 2
    moving = np.linalg.norm(speed, axis=1) > MOVING
    if moving.sum() < FEW:
        return np.nan
    covered, speed = (next_obs - obs)[moving, PLACE], speed[moving]
    return float(
        np.median((covered * speed).sum(axis=1) / np.square(speed).sum(axis=1))
    )


def _is(seconds: float, expected: float) -> bool:
    return abs(seconds / expected - 1.0) < TOLERANCE


def mend(source: str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Corrects the ends of episodes of D4RL's ant, in columns as of `from_arrays`.

    Where rewards are 0 and 1, an episode ends at a row with 1, and nowhere else:
    terminals without reward, as D4RL's generator writes at its time limit, become
    timeouts, and rewards without a terminal become terminals. Where the ant leaps from
    one row to the next, as in version 0, whose timeouts lie beside the ends (D4RL's
    issue 77), it is cut. Columns of anything else are returned as they are. Emits a
    DataWarning for each of the three.

    Args:
        source: name of the data in warnings.
    """
    columns = dict(columns)
    if isinstance(columns["observations"], Mapping):
        return columns
    obs, rewards, terminals = (
        np.asarray(columns[key]) for key in ("observations", "rewards", "terminals")
    )
    if not recognised(obs, columns["actions"]):
        return columns
    num_rows, following = len(obs), columns.get("next_observations")
    if {rewards.size, terminals.size} != {num_rows}:
        return columns
    before, after = (obs[:-1], obs[1:]) if following is None else (obs, following)
    if not _is(decision_time(before, np.asarray(after)), DECISION_TIME):
        return columns
    terminals = terminals.reshape(-1).astype(bool)
    timeouts = np.ravel(columns.get("timeouts", np.zeros(num_rows))).astype(bool)
    earned = rewards.reshape(-1) == 1
    if np.isin(rewards, (0, 1)).all():
        _tell(source, terminals & ~earned, _NO_REWARD)
        _tell(source, earned & ~terminals, _NO_END)
        timeouts, terminals = timeouts | (terminals & ~earned), earned
    if following is None:
        leaps = np.zeros(num_rows, bool)
        leaps[:-1] = np.linalg.norm(np.diff(obs[:, PLACE], axis=0), axis=1) > LEAP
        leaps &= ~(terminals | timeouts)
        _tell(source, leaps, _LEAPS)
        timeouts |= leaps
    columns["terminals"] = terminals
    if timeouts.any():
        columns["timeouts"] = timeouts
    return columns


_NO_REWARD = (
    "rows end an episode (terminals) without the reward of 1 that alone ends one here:"
    " they are read as time limits (timeouts)"
)
_NO_END = (
    "rows have the goal's reward of 1, but do not end the episode: they are read as its"
    " end (terminals), which they are in the environment"
)
_LEAPS = (
    f"rows are more than {LEAP:g} m from the next, in which another episode must have"
    " begun: they are read as cut (timeouts)"
)


def _tell(source: str, rows: np.ndarray, what: str) -> None:
    if rows.any():
        text = f"{source}: {rows.sum()} {what}; first in row {rows.argmax()}"
        warnings.warn(text, DataWarning, stacklevel=5)


def hold_ant(dataset: Dataset, spec: EnvSpec) -> None:
    """Checks that a dataset for an `antmaze-` environment is of the same ant.

    Raises:
        DataError: the sizes, the order or the pace of observations are another ant's.
    """
    rows, name = dataset.transitions, f"dataset {dataset.name!r}"
    if not spec.name.startswith("antmaze-") or isinstance(rows.obs, Mapping):
        return
    size, action_dim = rows.obs.shape[1], rows.action.shape[1]
    if action_dim != ACTION_DIM or size not in (OBS_DIM, *OTHER_SIZES):
        return  # `fit` tells
    if size != OBS_DIM:
        raise DataError(
            f"{name} has observations of size {size}, but {spec.name} of {OBS_DIM}:"
            f" {OTHER_ANT}"
        )
    if not recognised(rows.obs, rows.action):
        raise DataError(
            f"{name} has other observations than {spec.name}: numbers 3 to 6 are no"
            " quaternion of length 1; the 15 positions of the ant come first, from x"
            " and y on, and then its 14 velocities"
        )
    goes_on = rows.discount > 0  # elsewhere, next_obs may be unknown
    seconds = decision_time(rows.obs[goes_on], rows.next_obs[goes_on])
    if not np.isnan(seconds) and not _is(seconds, spec.decision_time):
        raise DataError(
            f"{name} has steps of {seconds:.2g} s, by the way that the ant covers, but"
            f" {spec.name} of {spec.decision_time:g} s: {OTHER_ANT}"
        )
