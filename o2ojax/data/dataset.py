"""Logged experience, checked at the door. All of it is NumPy, on the host."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from o2ojax.errors import UserError
from o2ojax.types import EnvSpec, Transition

ACTION_LIMIT = 1 - 1e-5  # keeps the log-probability of a squashed policy finite
ACTION_SLACK = 1e-6  # beyond 1 by more than this is not a matter of rounding
PARAMETERS = "task_parameters"  # in a file, beside its columns
EXTRAS = "extras"  # their names begin so, as "extras/return_to_go"
JUMP = 1e-6  # farther apart, two observations are not the same


class DataError(UserError):
    """A dataset that cannot be used. The message names the array and the row."""


class DataWarning(UserWarning):
    """A dataset that can be used, but may not mean what it is taken for."""


class Dataset(NamedTuple):
    """Logged experience with a name.

    transitions: leaves [N, ...], in the order of time.
    parameters:  [T, P] what sets each task of a family apart; None for one task.
    """

    name: str
    transitions: Transition
    parameters: np.ndarray | None = None


class Log(NamedTuple):
    """What lies in a file, before it is checked.

    name:    of the dataset.
    source:  what errors call it.
    columns: arguments of `from_arrays`, by name.
    parameters: [T, P] of a family's tasks, or None.
    extras:  further numbers of each row, by name.
    """

    name: str
    source: str
    columns: dict[str, np.ndarray]
    parameters: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = MappingProxyType({})


# What a log means that has neither `timeouts` nor `next_observations`.
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
    `timeouts`, also where an observation is not the `next_observations` of the
    row before. Without `next_observations` the row after is looked at: a row that
    was cut has none, so it is dropped and the row before it becomes `last`; a
    terminal row keeps its own observation there, which nothing should read.

    Actions are clipped to +-(1 - 1e-5).

    Args:
        observations: [N, O].
        actions: [N, A], in [-1, 1].
        rewards: [N] or [N, 1].
        terminals: [N] or [N, 1], 0 or 1: the task ended, there is no future.
        timeouts: [N] or [N, 1], 0 or 1: the episode was cut, the task goes on.
        next_observations: [N, O], before any restart.
        tasks: [N] or [N, 1], which task of a family, counted from 0, none left out;
            0 by default. An agent that infers tasks wants as many rows of each.
        extras: further numbers of each row, [N, ...], by name.
        name: what errors call the data.
        clip_actions: accept actions beyond [-1, 1], and clip them.
    Returns:
        Leaves [N', ...], N' <= N: float32, `last` bool, `task` int32. They may share
        memory with the arguments.
    Raises:
        DataError: for arrays that are empty, ragged, not numbers, not finite in
            float32, of the wrong rank or of different lengths; for actions out of
            range; for a task without rows; where no next observation is known.
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
    table = checked(name, columns)
    obs, terminal = table["observations"], table["terminals"]
    rows = Transition(
        obs=obs,
        action=_bounded(f"{name}: actions", table["actions"], clip_actions),
        reward=table["rewards"],
        discount=np.where(terminal, np.float32(0), np.float32(1)),
        next_obs=table.get("next_observations", obs),
        last=terminal | _cuts(table),
        task=table.get("tasks", np.zeros(len(obs), np.int32)),
        extras={
            key: _extra(f"{name}: extras/{key}", values, len(obs))
            for key, values in extras.items()
        },
    )
    return rows if "next_observations" in table else _look_ahead(name, rows)


def from_transitions(
    transitions: Transition, name: str, clip_actions: bool = False
) -> Transition:
    """Transitions of a stranger's own making, checked as `from_arrays` checks.

    Args:
        transitions: leaves [N, ...], of whatever arrays. Observations may be dicts of
            parts, which keep their shapes and types.
        name: what errors call the data.
    Raises:
        DataError: as for `from_arrays`.
    """
    ended = flags(f"{name}: 1 - discount", 1 - np.asarray(transitions.discount))
    parts = isinstance(transitions.obs, Mapping)
    number = np.arange(len(ended), dtype=np.float32)[:, None]
    rows = from_arrays(
        observations=number if parts else transitions.obs,
        actions=transitions.action,
        rewards=transitions.reward,
        terminals=ended,
        timeouts=np.asarray(transitions.last, bool) & ~ended,
        next_observations=number if parts else transitions.next_obs,
        tasks=transitions.task,
        extras=transitions.extras,
        name=name,
        clip_actions=clip_actions,
    )
    if not parts:
        return rows
    seen = {
        which: {
            key: _extra(f"{name}: {which}[{key!r}]", values, len(ended))
            for key, values in getattr(transitions, which).items()
        }
        for which in ("obs", "next_obs")
    }
    return rows._replace(**seen)


def episode_returns(transitions: Transition) -> np.ndarray:
    """Undiscounted returns, float64 [episodes].

    An episode without an end, after the others, is left out; alone, it counts.
    """
    ends = np.flatnonzero(transitions.last)
    if not ends.size:
        return np.sum(transitions.reward, dtype=np.float64, keepdims=True)
    rewards = np.asarray(transitions.reward[: ends[-1] + 1], np.float64)
    return np.add.reduceat(rewards, np.append(0, ends[:-1] + 1))


def return_range(transitions: Transition) -> float:
    """The best episode's return less the worst one's.

    Raises:
        DataError: where there are fewer than two episodes, or all earn the same.
    """
    returns = episode_returns(transitions)
    spread = float(returns.max() - returns.min())
    if spread == 0:
        raise DataError(
            f"the range of returns is 0 over {returns.size} episode(s): rewards can "
            "be scaled by it only where two episodes differ"
        )
    return spread


def fit(dataset: Dataset, spec: EnvSpec) -> None:
    """Checks that a dataset may come from an environment.

    Raises:
        DataError: where the sizes of observations or of actions differ.
    """
    rows = dataset.transitions
    seen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows.obs)
    sizes = {
        "observations": (_in_words(seen), _in_words(spec.obs)),
        "actions": (f"size {rows.action.shape[-1]}", f"size {spec.action_dim}"),
    }
    for what, (found, wanted) in sizes.items():
        if found != wanted:
            raise DataError(
                f"dataset {dataset.name!r} has {what} of {found}, but environment"
                f" {spec.name!r} has {wanted.removeprefix('size ')}: choose a dataset"
                " that was recorded there"
            )


def _in_words(obs: Any) -> str:
    """The shape of an observation, or of its parts."""
    if isinstance(obs, Mapping):
        parts = (f"{key}: {_in_words(obs[key])}" for key in sorted(obs))
        return f"parts {{{', '.join(parts)}}}"
    if len(obs.shape) == 1 and obs.dtype == np.float32:
        return f"size {obs.shape[0]}"
    return f"shape {obs.shape} of {obs.dtype}"


def with_extras(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The dataset with those extras alone that are asked for.

    Raises:
        DataError: one is not there.
    """
    found = dataset.transitions.extras
    for name in names:
        if name not in found:
            raise DataError(
                f"dataset {dataset.name!r} has no {name}, which the agent learns from;"
                f" write it as extras/{name}, one row for each step"
            )
    kept = {name: found[name] for name in names}
    return dataset._replace(transitions=dataset.transitions._replace(extras=kept))


def hold_windows(dataset: Dataset, spec: EnvSpec, horizon: int) -> None:
    """Checks that windows of `horizon` transitions can be read from a dataset.

    Raises:
        DataError: where no episode ends, or one is shorter than a window.
    """
    ends = np.flatnonzero(dataset.transitions.last)
    lengths = np.diff(ends, prepend=-1)
    if len(ends) == 1 and lengths[0] > spec.horizon:
        raise DataError(
            f"dataset {dataset.name!r} has {lengths[0]:,} rows in which no episode"
            f" ends, but those of {spec.name} end after {spec.horizon} steps: windows"
            " would run from one into the next; give its timeouts or terminals"
        )
    if lengths.min() < horizon:
        raise DataError(
            f"dataset {dataset.name!r} has an episode of {lengths.min()} steps, shorter"
            f" than the windows of {horizon} that are learned from: set"
            f" config.agent.horizon to {lengths.min()} or less, or leave it out"
        )


def hold_tasks(
    dataset: Dataset, spec: EnvSpec, parameters: np.ndarray, context: int
) -> Transition:
    """The transitions of a meta-dataset, task by task, as many of each.

    Args:
        parameters: [T, P] of the family's training tasks.
        context: rows that a task is inferred from.
    Raises:
        DataError: it is no meta-dataset, its tasks are others, or one has fewer rows
            than another or than a context.
    """
    name, rows = f"dataset {dataset.name!r}", dataset.transitions
    known = dataset.parameters
    if known is None:
        raise DataError(
            f"{name} does not say what its tasks are (task_parameters): it is no"
            f" meta-dataset of {spec.name}. Give them when it is written:"
            " data.write(path, transitions, parameters); or have python -m"
            " experiments.collect make one"
        )
    if len(known) != spec.num_train:
        raise DataError(
            f"{name} has {len(known)} tasks, but {spec.num_train} of {spec.name} are to"
            f" be trained on; set config.tasks.train={len(known)}"
        )
    if known.shape != parameters.shape or not np.allclose(known, parameters):
        raise DataError(
            f"{name} has tasks that are not the first {len(known)} of {spec.name}: it"
            " was recorded in another family, or another version of it"
        )
    each = rows_of_each(name, rows.task, len(known))
    if each < context:
        raise DataError(
            f"{name} has {each} rows of each task, fewer than the {context} that a"
            " context has; set config.agent.context lower, or record more"
        )
    order = np.argsort(rows.task, kind="stable")
    return jax.tree.map(lambda leaf: leaf[order], rows)


def rows_of_each(name: str, task: np.ndarray, num_tasks: int) -> int:
    """How many rows each task has: of all, the same number.

    Args:
        name: what errors call the data.
        task: [N], counted from 0.
        num_tasks: of which the parameters are known.
    Raises:
        DataError: there are rows of other tasks, or of one fewer than of another.
    """
    counts = np.bincount(task, minlength=num_tasks)
    if len(counts) > num_tasks:
        raise DataError(
            f"{name} has rows of task {task.max()}, but says what its tasks are"
            f" (task_parameters) up to {num_tasks - 1}; tasks are counted from 0"
        )
    if (counts != counts[0]).any():
        odd = int((counts != counts[0]).argmax())
        raise DataError(
            f"{name} has {counts[0]} rows of task 0 and {counts[odd]} of task {odd};"
            f" give as many of each of its {num_tasks} tasks (task_parameters)"
        )
    return int(counts[0])


def fingerprint(transitions: Transition) -> str:
    """16 hexadecimal digits that differ where any number of the data differs."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(transitions):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(leaf.data)
    return digest.hexdigest()[:16]


def subsample(transitions: Transition, num_rows: int) -> Transition:
    """Whole episodes, evenly spread over time: `num_rows` and less than one more.

    So a replay buffer keeps its mixture of early and late behaviour. All of the
    data comes back where it has no more rows than that.

    Raises:
        DataError: where `num_rows` is less than 1.
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
        # Take an episode whenever what was taken is behind its share so far.
        chosen[episode] = taken * total < num_rows * (end + 1)
        taken += length * bool(chosen[episode])
    return _rows(transitions, np.repeat(chosen, lengths))


def jumps(obs: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
    """Whether what a row saw next is not what the row after it saw, bool [N - 1].

    Args:
        obs: [N, O].
        next_obs: [N, O].
    """
    with np.errstate(over="ignore"):
        return np.linalg.norm(obs[1:] - next_obs[:-1], axis=1) > JUMP


def checked(name: str, columns: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """The columns, named as in D4RL, as arrays that agree with each other.

    Raises:
        DataError: as for `from_arrays`, all but the range of actions.
    """
    table = {
        key: _CHECKS[key](f"{name}: {key}", values) for key, values in columns.items()
    }
    obs = table["observations"]
    for key, values in table.items():
        if len(values) != len(obs):
            raise DataError(
                f"{name}: {key} has {len(values)} rows but observations has "
                f"{len(obs)}; every array must have one row per step"
            )
    width = table.get("next_observations", obs).shape[1]
    if width != obs.shape[1]:
        raise DataError(
            f"{name}: next_observations has {width} columns but observations has "
            f"{obs.shape[1]}; they must agree"
        )
    return table


def matrix(where: str, values: ArrayLike) -> np.ndarray:
    """Finite numbers, float32 [N, K]. `where` begins the message of a DataError."""
    values = _numbers(where, values)
    if values.ndim != 2:
        raise DataError(
            f"{where} has shape {values.shape}; it must be [rows, numbers per row]"
        )
    return _floats(where, values)


def flags(where: str, values: ArrayLike) -> np.ndarray:
    """Bools [N] out of 0 and 1. `where` begins the message of a DataError."""
    values = _vector(where, values)
    odd = np.flatnonzero((values != 0) & (values != 1))
    if odd.size:
        raise DataError(f"{where}: row {odd[0]} is {values[odd[0]]}; give 0 or 1")
    return values.astype(bool)


def _whole(where: str, values: ArrayLike) -> np.ndarray:
    """Numbers of tasks, int32 [N]: all from 0 to the largest."""
    values = _vector(where, values)
    odd = np.flatnonzero((values < 0) | (values != np.floor(values)))
    if odd.size:
        raise DataError(
            f"{where}: row {odd[0]} is {values[odd[0]]}; tasks are counted from 0"
        )
    numbers = np.unique(values)
    absent = np.flatnonzero(numbers != np.arange(len(numbers)))
    if absent.size:
        raise DataError(
            f"{where}: no row is of task {absent[0]}, but some of task"
            f" {numbers[-1]:.0f}; tasks are counted from 0, and none is left out"
        )
    return values.astype(np.int32)


def _extra(where: str, values: ArrayLike, num_rows: int) -> np.ndarray:
    """Further numbers of each row: float32, or bool, uint8 or int32 as they are."""
    values = _numbers(where, values)
    if len(values) != num_rows:
        raise DataError(f"{where} has {len(values)} rows; there are {num_rows} steps")
    if values.dtype in (np.bool_, np.uint8, np.int32):
        return values
    return _floats(where, values)


def _vector(where: str, values: ArrayLike) -> np.ndarray:
    values = _numbers(where, values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"{where} has shape {values.shape}; it must be [rows]")
    return _floats(where, values)


def _numbers(where: str, values: ArrayLike) -> np.ndarray:
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where} is ragged: all rows must be of one size") from error
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where} has dtype {values.dtype}; it must hold real numbers")
    if not values.size:
        raise DataError(f"{where} is empty, of shape {values.shape}")
    return values


def _floats(where: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        floats = values.astype(np.float32, copy=False)
    if np.isfinite(floats).all():
        return floats
    bad = np.argwhere(~np.isfinite(floats))
    place = ", column ".join(map(str, bad[0]))
    raise DataError(
        f"{where}: row {place} is {values[tuple(bad[0])]}, the first of {len(bad)} "
        "such value(s); all must be finite in float32"
    )


def _bounded(where: str, action: np.ndarray, clip_actions: bool) -> np.ndarray:
    beyond = np.abs(action).max(axis=1) > 1 + ACTION_SLACK
    if beyond.any() and not clip_actions:
        raise DataError(
            f"{where} go beyond [-1, 1] in {beyond.sum()} of {len(action)} rows, "
            f"first in row {beyond.argmax()}; they range from {action.min():g} to "
            f"{action.max():g}: rescale them to [-1, 1], or pass clip_actions=True "
            "(a run: --config.clip_actions=True)"
        )
    return np.clip(action, -ACTION_LIMIT, ACTION_LIMIT)


def _cuts(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether an episode is cut after a row, as far as the data tells, [N]."""
    obs = table["observations"]
    cut = table.get("timeouts", np.zeros(len(obs), bool)).copy()
    if "next_observations" in table and "timeouts" not in table:
        cut[:-1] = jumps(obs, table["next_observations"])
    cut[-1] = True
    return cut


def _look_ahead(name: str, rows: Transition) -> Transition:
    """Takes next observations from the row after; drops the rows that have none."""
    terminal = rows.discount == 0
    known = terminal | ~rows.last
    if not known.any():
        raise DataError(
            f"{name}: no row has a next observation, as every episode is one step "
            "that was cut; give next_observations"
        )
    last = terminal.copy()
    last[:-1] |= ~known[1:]
    following = np.roll(rows.obs, -1, axis=0)
    next_obs = np.where(terminal[:, None], rows.obs, following)
    return _rows(rows._replace(next_obs=next_obs, last=last), known)


def _rows(transitions: Transition, mask: np.ndarray) -> Transition:
    return jax.tree.map(lambda leaf: leaf[mask], transitions)


_CHECKS = {
    "observations": matrix,
    "actions": matrix,
    "rewards": _vector,
    "terminals": flags,
    "timeouts": flags,
    "tasks": _whole,
    "next_observations": matrix,
}
