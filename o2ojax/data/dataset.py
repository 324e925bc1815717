"""Construction and validation of datasets, in NumPy on the host."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from o2ojax.data import frames
from o2ojax.data.arrays import DataError, extra, flags, vector
from o2ojax.data.columns import checked, jumps, num_rows
from o2ojax.types import Transition

ACTION_LIMIT = 1 - 1e-5  # keeps the log-probability of a squashed policy finite
ACTION_SLACK = 1e-6  # a larger excess over 1 is not a rounding error
PARAMETERS = "task_parameters"  # name of the task parameters in a file
EXTRAS = "extras"  # prefix of their names, as in "extras/return_to_go"


class DataWarning(UserWarning):
    """A warning of a dataset that can be used, but may be misinterpreted."""


class Recorded(NamedTuple):
    """All R rows of a log, also those without a next observation, which are left out.

    kept: bool [R], whether a row is among the transitions; the others as in Transition.
    """

    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    last: np.ndarray
    kept: np.ndarray


class Dataset(NamedTuple):
    """A validated dataset.

    transitions: leaves [N, ...], in order of time.
    parameters:  [T, P], parameters of each task of a family; None for a single task.
    action_bounds: lowest and highest action, [A] each, in the data's own units; None
                 where these are -1 and 1.
    recorded:    what was earned, with the rows that are left out; None if none is.
    frames:      uint8 [F, H, W, C] of each part of the observations that is pictures;
                 in `transitions`, it is then int32 [N], numbers of frames. {} for data
                 without pictures.
    """

    name: str
    transitions: Transition
    parameters: np.ndarray | None = None
    action_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    recorded: Recorded | None = None
    frames: Mapping[str, np.ndarray] = MappingProxyType({})

    @property
    def history(self) -> Recorded | Transition:
        """What returns are computed of: every row that was recorded."""
        return self.recorded or self.transitions


class Log(NamedTuple):
    """The content of a file before validation.

    name:    name of the dataset.
    source:  name of the data in error messages.
    columns: arguments of `from_arrays`, by name. Observations may also be pictures,
             uint8 [N, H, W, C], or a dict of parts: numbers [N, K], pictures, or
             numbers [N] of frames.
    parameters: [T, P], parameters of each task of a family, or None.
    extras:  further arrays with N rows, by name.
    frames:  uint8 [F, H, W, C] of each part that is numbers of frames.
    """

    name: str
    source: str
    columns: dict[str, Any]
    parameters: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = MappingProxyType({})
    frames: Mapping[str, np.ndarray] = MappingProxyType({})


# Warning for a log that has neither `timeouts` nor `next_observations`.
ONE_STREAM = (
    "it has neither timeouts nor next_observations, so its rows are taken for one "
    "stream, in which an episode goes on until a terminal; give timeouts, 1 in the "
    "last row of each episode that was cut"
)


def from_arrays(
    observations: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    terminals: ArrayLike,
    timeouts: ArrayLike | None = None,
    next_observations: ArrayLike | None = None,
    tasks: ArrayLike | None = None,
    *,
    extras: Mapping[str, ArrayLike] = MappingProxyType({}),
    name: str = "arrays",
    clip_actions: bool = False,
) -> Transition:
    """Builds transitions from columns named as in D4RL.

    Episodes end at terminals, at time-outs and at the final row; without
    `timeouts`, also where an observation differs from the `next_observations` of
    the previous row. Without `next_observations`, they are taken from the next row:
    a truncated row has none, so it is dropped and the previous row becomes `last`;
    a terminal row gets its own observation, which must not be used.

    Actions are clipped to +-(1 - 1e-5).

    Args:
        observations: [N, O].
        actions: [N, A], in [-1, 1].
        rewards: [N] or [N, 1].
        terminals: [N] or [N, 1], 0 or 1: termination, the value of the next state
            is 0.
        timeouts: [N] or [N, 1], 0 or 1: truncation, the next state still has a
            value.
        next_observations: [N, O], before any reset.
        tasks: [N] or [N, 1], task numbers from 0, all of which occur; 0 by default. An
            agent that infers tasks needs equally many rows of each.
        extras: further arrays [N, ...], by name.
        name: name of the data in error messages.
        clip_actions: accepts and clips actions outside [-1, 1].
    Returns:
        Leaves [N', ...], N' <= N: float32, `last` bool, `task` int32. They may share
        memory with the arguments.
    Raises:
        DataError: arrays are empty, ragged, not numeric, not finite in float32, of a
            wrong rank or of different lengths; actions are out of range; a task has no
            rows; or no next observation is known.
    """
    columns = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminals": terminals,
    }
    optional = {
        "timeouts": timeouts,
        "next_observations": next_observations,
        "tasks": tasks,
    }
    columns |= {key: values for key, values in optional.items() if values is not None}
    made = from_log(Log(name, name, columns, extras=extras), clip_actions)
    if made.frames:
        raise DataError(
            f"{name}: observations are pictures, which a dataset keeps once, apart from"
            " its transitions: data.from_log(data.Log(NAME, SOURCE, columns))"
        )
    return made.transitions


def from_log(log: Log, clip_actions: bool = False) -> Dataset:
    """Builds a dataset as `from_arrays` does transitions; pictures are kept once.

    Raises:
        DataError: as for `from_arrays`; or pictures are not uint8 [N, H, W, C].
    """
    columns, tables = frames.once(log.source, log.columns, log.frames)
    rows, recorded = _rows_of(log.source, columns, log.extras, tables, clip_actions)
    return Dataset(log.name, rows, log.parameters, recorded=recorded, frames=tables)


def _rows_of(
    name: str,
    columns: Mapping[str, Any],
    extras: Mapping[str, ArrayLike],
    tables: Mapping[str, np.ndarray],
    clip_actions: bool,
) -> tuple[Transition, Recorded | None]:
    """Transitions, and all rows that were recorded, None where none is left out."""
    table = checked(name, columns, tables)
    obs, terminal = table["observations"], table["terminals"]
    rows = Transition(
        obs=obs,
        action=_bounded(f"{name}: actions", table["actions"], clip_actions),
        reward=table["rewards"],
        discount=np.where(terminal, np.float32(0), np.float32(1)),
        next_obs=table.get("next_observations", obs),
        last=terminal | _cuts(table),
        task=table.get("tasks", np.zeros(len(terminal), np.int32)),
        extras={
            key: extra(f"{name}: extras/{key}", values, len(terminal))
            for key, values in extras.items()
        },
    )
    if "next_observations" in table:
        return rows, None
    return _look_ahead(name, rows)


def from_transitions(
    transitions: Transition,
    name: str,
    clip_actions: bool = False,
    tables: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Dataset:
    """Builds a dataset of transitions, validated as by `from_arrays`.

    Args:
        transitions: leaves [N, ...], any array types. Observations may be pictures, or
            dicts of parts, as in `Log`.
        name: name of the data, also in error messages.
        clip_actions: accepts and clips actions outside [-1, 1].
        tables: uint8 [F, H, W, C] of each part that is numbers of frames.
    Raises:
        DataError: as for `from_log`.
    """
    going_on = vector(f"{name}: discount", transitions.discount)
    ended = flags(f"{name}: 1 - discount", 1 - going_on)
    last = flags(f"{name}: last", transitions.last)
    if len(last) != len(ended):
        raise DataError(
            f"{name}: last has {len(last)} rows but discount has {len(ended)}; every"
            " array must have one row per step"
        )
    columns = {
        "observations": transitions.obs,
        "actions": transitions.action,
        "rewards": transitions.reward,
        "terminals": ended,
        "timeouts": last & ~ended,
        "next_observations": transitions.next_obs,
        "tasks": transitions.task,
    }
    log = Log(name, name, columns, extras=transitions.extras, frames=tables)
    return from_log(log, clip_actions)


def episode_returns(transitions: Recorded | Transition) -> np.ndarray:
    """Undiscounted returns, float64 [episodes].

    Of a dataset, they are those of its `history`: the last row of an episode that was
    cut may have earned something, though learning leaves it out.

    An unfinished final episode is left out, unless it is the only one.
    """
    ends = np.flatnonzero(transitions.last)
    if not ends.size:
        return np.sum(transitions.reward, dtype=np.float64, keepdims=True)
    rewards = np.asarray(transitions.reward[: ends[-1] + 1], np.float64)
    return np.add.reduceat(rewards, np.append(0, ends[:-1] + 1))


def return_range(transitions: Recorded | Transition) -> float:
    """Difference between the highest and the lowest episode return.

    Raises:
        DataError: there are fewer than two episodes, or all returns are equal.
    """
    returns = episode_returns(transitions)
    spread = float(returns.max() - returns.min())
    if spread == 0:
        raise DataError(
            f"the range of returns is 0 over {returns.size} episode(s): rewards can "
            "be scaled by it only where two episodes differ"
        )
    return spread


def fingerprint(
    transitions: Transition, tables: Mapping[str, np.ndarray] = MappingProxyType({})
) -> str:
    """Hash of the data, 16 hexadecimal digits.

    Args:
        tables: their frames, as in `Dataset.frames`.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((transitions, dict(tables))):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(leaf.data)
    return digest.hexdigest()[:16]


def subsample(transitions: Transition, num_rows: int) -> Transition:
    """Selects whole episodes, evenly spread over time, with `num_rows` rows or more.

    The excess is less than one episode. A replay dataset thus keeps its mixture of
    early and late behaviour. Data of at most `num_rows` rows are returned unchanged.

    Raises:
        DataError: `num_rows` is less than 1.
    """
    if num_rows < 1:
        raise DataError(f"num_rows must be at least 1, not {num_rows}")
    total = len(transitions.last)
    if total <= num_rows:
        return transitions
    ends = np.flatnonzero(np.append(transitions.last[:-1], True))
    taken, lengths = 0, np.diff(ends, prepend=-1)
    chosen = np.zeros(len(ends), bool)
    for episode, (end, length) in enumerate(
        zip(ends.tolist(), lengths.tolist(), strict=True)
    ):
        # Take an episode if fewer rows than their share so far are taken.
        chosen[episode] = taken * total < num_rows * (end + 1)
        taken += length * bool(chosen[episode])
    return _rows(transitions, np.repeat(chosen, lengths))


def _bounded(where: str, action: np.ndarray, clip_actions: bool) -> np.ndarray:
    beyond = np.abs(action).max(axis=1) > 1 + ACTION_SLACK
    if beyond.any() and not clip_actions:
        raise DataError(
            f"{where} go beyond [-1, 1] in {beyond.sum()} of {len(action)} rows, "
            f"first in row {beyond.argmax()}; they range from {action.min():g} to "
            f"{action.max():g}: give the bounds of their units (a run: "
            "--config.action_bounds=LOW,HIGH), or pass clip_actions=True (a run: "
            "--config.clip_actions=True)"
        )
    return np.clip(action, -ACTION_LIMIT, ACTION_LIMIT)


def _cuts(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether an episode is truncated after a row, as far as known, bool [N]."""
    obs = table["observations"]
    cut = table.get("timeouts", np.zeros(num_rows(obs), bool)).copy()
    if "next_observations" in table and "timeouts" not in table:
        cut[:-1] = jumps(obs, table["next_observations"])
    cut[-1] = True
    return cut


def _look_ahead(name: str, rows: Transition) -> tuple[Transition, Recorded]:
    """Takes next observations from the next row; leaves out rows that have none."""
    terminal = rows.discount == 0
    known = terminal | ~rows.last
    if not known.any():
        raise DataError(
            f"{name}: no row has a next observation, as every episode is one step "
            "that was cut; give next_observations"
        )
    recorded = Recorded(rows.action, rows.reward, rows.discount, rows.last, known)
    last = terminal.copy()
    last[:-1] |= ~known[1:]
    number = np.arange(len(last))
    following = np.where(terminal, number, np.roll(number, -1))
    next_obs = jax.tree.map(lambda x: x[following], rows.obs)
    return _rows(rows._replace(next_obs=next_obs, last=last), known), recorded


def _rows(transitions: Transition, mask: np.ndarray) -> Transition:
    return jax.tree.map(lambda leaf: leaf[mask], transitions)
