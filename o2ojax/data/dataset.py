"""Construction and validation of datasets, in NumPy on the host."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from o2ojax.errors import UserError
from o2ojax.types import EnvSpec, Transition

ACTION_LIMIT = 1 - 1e-5  # keeps the log-probability of a squashed policy finite
ACTION_SLACK = 1e-6  # a larger excess over 1 is not a rounding error
PARAMETERS = "task_parameters"  # name of the task parameters in a file
EXTRAS = "extras"  # prefix of their names, as in "extras/return_to_go"
JUMP = 1e-6  # above this difference, two observations are not equal


class DataError(UserError):
    """A dataset that cannot be used. The message names the array and the row."""


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
    """

    name: str
    transitions: Transition
    parameters: np.ndarray | None = None
    action_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    recorded: Recorded | None = None

    @property
    def history(self) -> Recorded | Transition:
        """What returns are computed of: every row that was recorded."""
        return self.recorded or self.transitions


class Log(NamedTuple):
    """The content of a file before validation.

    name:    name of the dataset.
    source:  name of the data in error messages.
    columns: arguments of `from_arrays`, by name.
    parameters: [T, P], parameters of each task of a family, or None.
    extras:  further arrays with N rows, by name.
    """

    name: str
    source: str
    columns: dict[str, np.ndarray]
    parameters: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = MappingProxyType({})


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
    return from_columns(columns, extras, name, clip_actions)[0]


def from_columns(
    columns: Mapping[str, ArrayLike],
    extras: Mapping[str, ArrayLike],
    name: str,
    clip_actions: bool,
) -> tuple[Transition, Recorded | None]:
    """Builds transitions as `from_arrays`, from its arguments by name.

    Returns:
        them, and all rows that were recorded, None where none is left out.
    """
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
    if "next_observations" in table:
        return rows, None
    return _look_ahead(name, rows)


def from_transitions(
    transitions: Transition, name: str, clip_actions: bool = False
) -> Transition:
    """Validates transitions from a user's function, as `from_arrays` does.

    Args:
        transitions: leaves [N, ...], any array types. Observations may be dicts of
            parts, which keep their shapes and dtypes.
        name: name of the data in error messages.
        clip_actions: accepts and clips actions outside [-1, 1].
    Raises:
        DataError: as for `from_arrays`.
    """
    going_on = vector(f"{name}: discount", transitions.discount)
    ended = flags(f"{name}: 1 - discount", 1 - going_on)
    last = flags(f"{name}: last", transitions.last)
    if len(last) != len(ended):
        raise DataError(
            f"{name}: last has {len(last)} rows but discount has {len(ended)}; every"
            " array must have one row per step"
        )
    parts = isinstance(transitions.obs, Mapping)
    number = np.arange(len(ended), dtype=np.float32)[:, None]
    rows = from_arrays(
        observations=number if parts else transitions.obs,
        actions=transitions.action,
        rewards=transitions.reward,
        terminals=ended,
        timeouts=last & ~ended,
        next_observations=number if parts else transitions.next_obs,
        tasks=transitions.task,
        extras=transitions.extras,
        name=name,
        clip_actions=clip_actions,
    )
    if not parts:
        return rows
    obs, after = transitions.obs, transitions.next_obs
    if not isinstance(after, Mapping) or obs.keys() != after.keys():
        raise DataError(f"{name}: obs and next_obs must be dicts of the same parts")
    seen = {
        which: {
            key: _extra(f"{name}: {which}[{key!r}]", values, len(ended))
            for key, values in getattr(transitions, which).items()
        }
        for which in ("obs", "next_obs")
    }
    return rows._replace(**seen)


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


def fit(dataset: Dataset, spec: EnvSpec) -> None:
    """Checks that the shapes of a dataset are those of an environment.

    Raises:
        DataError: the shapes of observations or actions differ.
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
                f" {spec.name!r} has {wanted.removeprefix('size ')}: config.dataset and"
                " config.env must name the same task, and a config file may have set"
                " the one that you did not"
            )


def warn_of_another(dataset: Dataset, seen: np.ndarray) -> None:
    """Warns where an environment never shows what its data do.

    Args:
        seen: [N, O], observations of some steps in the environment.
    """
    obs = np.asarray(dataset.transitions.obs)
    low, high = obs.min(axis=0), obs.max(axis=0)
    reach = (high - low) + 1e-3 * np.maximum(abs(low), abs(high)) + 1e-6
    foreign = ((seen < low - reach) | (seen > high + reach)).all(axis=0)
    if not foreign.any():
        return
    told = [
        f"{at} is in [{low[at]:.3g}, {high[at]:.3g}] in the data, and in"
        f" [{seen[:, at].min():.3g}, {seen[:, at].max():.3g}] here"
        for at in np.flatnonzero(foreign)[:3]
    ]
    warnings.warn(
        f"{dataset.name}: {foreign.sum()} of {len(foreign)} observed numbers are far"
        f" from the data's in all of the {len(seen)} steps that were tried in the"
        f" environment ({'; '.join(told)}): is it the same task, in the same units, and"
        " are its parts in the same order?",
        DataWarning,
        stacklevel=2,
    )


def _in_words(obs: Any) -> str:
    """Text of the shape of an observation, or of its parts."""
    if isinstance(obs, Mapping):
        parts = (f"{key}: {_in_words(obs[key])}" for key in sorted(obs))
        return f"parts {{{', '.join(parts)}}}"
    if len(obs.shape) == 1 and obs.dtype == np.float32:
        return f"size {obs.shape[0]}"
    return f"shape {obs.shape} of {obs.dtype}"


def with_extras(
    dataset: Dataset,
    names: Sequence[str],
    gamma: float = 1.0,
    reward: tuple[float, float] = (1.0, 0.0),
) -> Dataset:
    """Selects the extras `names` of a dataset; computes those that it can and lacks.

    Args:
        gamma: discount of "return_to_go".
        reward: scale and shift of its rewards.
    Raises:
        DataError: an extra is missing, or cannot be computed.
    """
    found = dict(dataset.transitions.extras)
    for name in names:
        if name not in found and name not in DERIVED:
            raise DataError(
                f"dataset {dataset.name!r} has no {name}, which the agent learns from;"
                f" write it as extras/{name}, one row for each step"
            )
        if name not in found:
            found[name] = DERIVED[name](dataset, gamma, reward)
    kept = {name: found[name] for name in names}
    return dataset._replace(transitions=dataset.transitions._replace(extras=kept))


def return_to_go(
    dataset: Dataset, gamma: float, reward: tuple[float, float]
) -> np.ndarray:
    """What every row and those after it earned in its episode, discounted, [N].

    G_t = r_t + gamma G_{t + 1}, and 0 beyond the episode, in `scale * reward + shift`.
    Where an episode of several rows was cut and all their rewards are the same, r, they
    are taken to go on for ever: G = r / (1 - gamma). So it is in a sparse task that was
    not done.

    Nakamoto et al., "Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online
    Fine-Tuning" (2023), arxiv.org/abs/2303.05479. The authors' code has the rule of
    equal rewards for sparse tasks alone, and for the reward of failure; it has no rule
    for dense tasks, and leaves out an episode's last row where it was cut.
    """
    rows = dataset.history
    scale, shift = reward
    earned = scale * np.float64(rows.reward) + shift
    found = np.empty(len(earned))
    after = 0.0
    for at in range(len(earned) - 1, -1, -1):
        after = earned[at] + gamma * (0.0 if rows.last[at] else after)
        found[at] = after
    ends = np.flatnonzero(rows.last)
    starts = np.append(0, ends[:-1] + 1)
    for start, end in zip(starts, ends, strict=True):
        whole = slice(start, end + 1)
        cut = rows.discount[end] == 1
        same = end > start and np.ptp(rows.reward[whole]) == 0
        if cut and gamma < 1 and same:
            found[whole] = earned[end] / (1 - gamma)
    return _kept(dataset, found.astype(np.float32))


def next_action(
    dataset: Dataset, gamma: float, reward: tuple[float, float]
) -> np.ndarray:
    """The action that followed in the same episode, [N, A]; 0 where there is none."""
    del gamma, reward
    rows = dataset.history
    after = np.concatenate([rows.action[1:], np.zeros_like(rows.action[:1])])
    return _kept(dataset, np.where(rows.last[:, None], np.float32(0), after))


def _kept(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """Of values of all rows that were recorded, those of the transitions."""
    return values if dataset.recorded is None else values[dataset.recorded.kept]


DERIVED = {"return_to_go": return_to_go, "next_action": next_action}


def hold_episodes(dataset: Dataset, spec: EnvSpec, why: str) -> None:
    """Checks that a dataset tells where its episodes end.

    Args:
        why: what would be wrong otherwise.
    Raises:
        DataError: it is one stream, longer than an episode can be; or most of its rows
            are episodes of their own, as in rows that were shuffled.
    """
    ends = np.flatnonzero(dataset.transitions.last)
    alone = int((np.diff(ends, prepend=-1) == 1).sum())
    if spec.horizon > 1 and alone > len(dataset.transitions.last) / 2:
        raise DataError(
            f"dataset {dataset.name!r} has {alone:,} episodes of one row among"
            f" {len(dataset.transitions.last):,} rows: were they shuffled? What follows"
            " a row in its episode is learned from; give the rows in order of time"
        )
    if len(ends) == 1 and ends[0] >= spec.horizon:
        raise DataError(
            f"dataset {dataset.name!r} has {ends[0] + 1:,} rows in which no episode"
            f" ends, but those of {spec.name} end after {spec.horizon} steps: {why};"
            " give its timeouts or terminals"
        )


def hold_windows(dataset: Dataset, spec: EnvSpec, horizon: int) -> None:
    """Checks that windows of `horizon` transitions can be read from a dataset.

    Raises:
        DataError: no episode ends, or one is shorter than a window.
    """
    hold_episodes(dataset, spec, "windows would run from one into the next")
    lengths = np.diff(np.flatnonzero(dataset.transitions.last), prepend=-1)
    if lengths.min() < horizon:
        raise DataError(
            f"dataset {dataset.name!r} has an episode of {lengths.min()} steps, shorter"
            f" than the windows of {horizon} that are learned from: set"
            f" config.agent.horizon to {lengths.min()} or less, or leave it out"
        )


def hold_tasks(
    dataset: Dataset, spec: EnvSpec, parameters: np.ndarray, context: int
) -> Transition:
    """Validates a meta-dataset and sorts its transitions by task.

    Args:
        parameters: [T, P], parameters of the family's training tasks.
        context: rows of a context.
    Raises:
        DataError: the dataset is no meta-dataset, has other tasks or unequal numbers of
            rows per task, or has fewer rows per task than a context.
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
    """Number of rows of each task, which must be equal.

    Args:
        name: name of the data in error messages.
        task: [N], task numbers from 0.
        num_tasks: number of tasks whose parameters are known.
    Raises:
        DataError: there are rows of other tasks, or numbers of rows differ.
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
    """Hash of the data, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(transitions):
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


def jumps(obs: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
    """Whether `next_obs` of a row differs from `obs` of the next row, bool [N - 1].

    Args:
        obs: [N, O].
        next_obs: [N, O].
    """
    with np.errstate(over="ignore"):
        return np.linalg.norm(obs[1:] - next_obs[:-1], axis=1) > JUMP


def checked(name: str, columns: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Converts columns, named as in D4RL, to arrays, and validates them.

    Raises:
        DataError: as for `from_arrays`, except for the range of actions.
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
    """Converts to finite float32 [N, K]. `where` begins the message of a DataError."""
    values = _numbers(where, values)
    if values.ndim != 2:
        raise DataError(
            f"{where} has shape {values.shape}; it must be [rows, numbers per row]"
        )
    return _floats(where, values)


def flags(where: str, values: ArrayLike) -> np.ndarray:
    """Converts 0 and 1 to bool [N]. `where` begins the message of a DataError."""
    values = vector(where, values)
    odd = np.flatnonzero((values != 0) & (values != 1))
    if odd.size:
        raise DataError(f"{where}: row {odd[0]} is {values[odd[0]]}; give 0 or 1")
    return values.astype(bool)


def _whole(where: str, values: ArrayLike) -> np.ndarray:
    """Converts task numbers to int32 [N]; all from 0 to the largest must occur."""
    values = vector(where, values)
    odd = np.flatnonzero((values < 0) | (values != np.floor(values)))
    if odd.size:
        raise DataError(
            f"{where}: row {odd[0]} is {values[odd[0]]}; tasks are counted from 0"
        )
    known = np.unique(values)
    absent = np.flatnonzero(known != np.arange(len(known)))
    if absent.size:
        raise DataError(
            f"{where}: no row is of task {absent[0]}, but some of task"
            f" {known[-1]:.0f}; tasks are counted from 0, and none is left out"
        )
    return values.astype(np.int32)


def _extra(where: str, values: ArrayLike, num_rows: int) -> np.ndarray:
    """Converts an extra to float32, unless it is bool, uint8 or int32."""
    values = _numbers(where, values)
    found = len(values) if values.ndim else 0
    if found != num_rows:
        raise DataError(f"{where} has {found} rows; there are {num_rows} steps")
    if values.dtype in (np.bool_, np.uint8, np.int32):
        return values
    return _floats(where, values)


def vector(where: str, values: ArrayLike) -> np.ndarray:
    """Converts to finite float32 [N]. `where` begins the message of a DataError."""
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
            f"{action.max():g}: give the bounds of their units (a run: "
            "--config.action_bounds=LOW,HIGH), or pass clip_actions=True (a run: "
            "--config.clip_actions=True)"
        )
    return np.clip(action, -ACTION_LIMIT, ACTION_LIMIT)


def _cuts(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether an episode is truncated after a row, as far as known, bool [N]."""
    obs = table["observations"]
    cut = table.get("timeouts", np.zeros(len(obs), bool)).copy()
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
    following = np.roll(rows.obs, -1, axis=0)
    next_obs = np.where(terminal[:, None], rows.obs, following)
    return _rows(rows._replace(next_obs=next_obs, last=last), known), recorded


def _rows(transitions: Transition, mask: np.ndarray) -> Transition:
    return jax.tree.map(lambda leaf: leaf[mask], transitions)


_CHECKS = {
    "observations": matrix,
    "actions": matrix,
    "rewards": vector,
    "terminals": flags,
    "timeouts": flags,
    "tasks": _whole,
    "next_observations": matrix,
}
