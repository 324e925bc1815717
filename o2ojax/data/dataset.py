"""Construction and validation of datasets, in NumPy on the host."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from o2ojax.data import frames
from o2ojax.data.arrays import DataError, extra, flags, matrix, vector, whole
from o2ojax.types import EnvSpec, Transition

ACTION_LIMIT = 1 - 1e-5  # keeps the log-probability of a squashed policy finite
ACTION_SLACK = 1e-6  # a larger excess over 1 is not a rounding error
PARAMETERS = "task_parameters"  # name of the task parameters in a file
EXTRAS = "extras"  # prefix of their names, as in "extras/return_to_go"
JUMP = 1e-6  # above this difference, two observations are not equal


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


def fit(dataset: Dataset, spec: EnvSpec) -> None:
    """Checks that the shapes of a dataset are those of an environment.

    An environment may show stacks of frames, joined along the channels; those of a
    dataset are made by `stacked`, later.

    Raises:
        DataError: the shapes of observations or actions differ.
    """
    rows = dataset.transitions
    seen = _sizes(rows.obs)
    for part, table in dataset.frames.items():
        *size, channels = table.shape[1:]
        shape = *size, channels * spec.stack
        seen[part] = jax.ShapeDtypeStruct(shape, table.dtype)
    sizes = {
        "observations": (_in_words(seen), _in_words(spec.obs)),
        "actions": (f"size {rows.action.shape[-1]}", f"size {spec.action_dim}"),
    }
    for what, (found, wanted) in sizes.items():
        if found != wanted:
            if found.startswith("size "):
                wanted = wanted.removeprefix("size ")
            raise DataError(
                f"dataset {dataset.name!r} has {what} of {found}, but environment"
                f" {spec.name!r} has {wanted}: config.dataset and"
                " config.env must name the same task, and a config file may have set"
                f" the one that you did not{_how_seen(dataset, spec)}"
            )


def _how_seen(dataset: Dataset, spec: EnvSpec) -> str:
    """What to set where both have pictures, at the end of a message."""
    if not dataset.frames or not isinstance(spec.obs, Mapping):
        return ""
    stacks = f", here of {spec.stack} frames each" if spec.stack > 1 else ""
    return f"; config.pixels sets the size of an environment's pictures{stacks}"


def only_seen(dataset: Dataset, spec: EnvSpec) -> Dataset:
    """A dataset without the parts of observations that an environment does not show.

    Frames of the parts that are left are the same ones. What the data do not have is
    told by `fit`.
    """
    rows, shown = dataset.transitions, spec.obs
    if not isinstance(rows.obs, Mapping) or not isinstance(shown, Mapping):
        return dataset

    def seen(parts: Mapping[str, Any]) -> dict[str, Any]:
        return {part: values for part, values in parts.items() if part in shown}

    rows = rows._replace(obs=seen(rows.obs), next_obs=seen(rows.next_obs))
    return dataset._replace(transitions=rows, frames=seen(dataset.frames))


def _sizes(obs: Any) -> Any:
    """Shapes and types of a row's observation."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), obs)


def warn_of_another(dataset: Dataset, seen: Any) -> None:
    """Warns where an environment never shows what its data do. Pictures are not looked
    at.

    Args:
        seen: [N, O], observations of some steps in the environment; or its parts.
    """
    obs = dataset.transitions.obs
    if isinstance(obs, Mapping) != isinstance(seen, Mapping):
        return  # `fit` tells
    obs, seen = (
        frames.vectors(x, dataset.frames) for x in (dataset.transitions.obs, seen)
    )
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
    if len(obs.shape) == 3 and obs.dtype == np.uint8:
        return f"pictures of {frames.in_words(obs.shape)}"
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


def stacked(dataset: Dataset, stack: int) -> Dataset:
    """A dataset whose observations are the last frames of an episode.

    Frames are the same ones: only their numbers are repeated. At the start of an
    episode, its first frame stands for those before it.

    Args:
        dataset: rows in order of time.
        stack: how many frames are seen together.
    Returns:
        the dataset, with numbers int32 [N, stack], oldest first, of each part that is
        pictures: what was seen last stands last. Those of `next_obs` are those of `obs`
        moved on by one.
    Raises:
        DataError: `stack` is less than 1.
    """
    if stack < 1:
        raise DataError(f"a stack must have 1 frame or more, not {stack}")
    if not dataset.frames:
        return dataset
    rows = dataset.transitions
    row = np.arange(len(rows.last))
    begins = np.append(True, rows.last[:-1])
    first = np.maximum.accumulate(np.where(begins, row, 0))
    before = np.maximum(row[:, None] - np.arange(stack - 1, -1, -1), first[:, None])
    obs, after = dict(rows.obs), dict(rows.next_obs)
    for part in dataset.frames:
        obs[part] = rows.obs[part][before]
        newest = rows.next_obs[part][:, None]
        after[part] = np.concatenate([obs[part][:, 1:], newest], axis=1)
    return dataset._replace(transitions=rows._replace(obs=obs, next_obs=after))


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


def jumps(obs: Any, next_obs: Any) -> np.ndarray:
    """Whether `next_obs` of a row differs from `obs` of the next row, bool [N - 1].

    Args:
        obs: [N, O], or parts, [N, K] or numbers [N] of frames.
        next_obs: the same.
    """
    if isinstance(obs, Mapping):
        return np.any([jumps(obs[part], next_obs[part]) for part in obs], axis=0)
    if obs.ndim == 1:
        return obs[1:] != next_obs[:-1]
    with np.errstate(over="ignore"):
        return np.linalg.norm(obs[1:] - next_obs[:-1], axis=1) > JUMP


def checked(
    name: str,
    columns: Mapping[str, Any],
    tables: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Any]:
    """Converts columns, named as in D4RL, to arrays, and validates them.

    Args:
        tables: of the parts of observations that are numbers of frames.
    Raises:
        DataError: as for `from_arrays`, except for the range of actions.
    """
    table = {
        key: sight(f"{name}: {key}", values, tables)
        if key in SIGHTS
        else _CHECKS[key](f"{name}: {key}", values)
        for key, values in columns.items()
    }
    obs = table["observations"]
    wanted, told = num_rows(obs), next(iter(_flat("observations", obs)))
    for key, column in table.items():
        for where, values in _flat(key, column).items():
            if len(values) != wanted:
                raise DataError(
                    f"{name}: {where} has {len(values)} rows but {told} has {wanted};"
                    " every array must have one row per step"
                )
    after = table.get("next_observations", obs)
    others = _flat("next_observations", after).items()
    for (where, values), (here, known) in zip(
        others, _flat("observations", obs).items(), strict=True
    ):
        if values.shape[1:] != known.shape[1:]:
            raise DataError(
                f"{name}: {where} has {values.shape[1]} columns but {here} has "
                f"{known.shape[1]}; they must agree"
            )
    return table


def num_rows(obs: Any) -> int:
    """Rows of observations, of all their parts; 0 of what has none."""
    first = jax.tree.leaves(obs)[0]
    return len(first) if np.ndim(first) else 0


def _flat(key: str, values: Any) -> dict[str, np.ndarray]:
    """A column, or those of its parts, by name."""
    if not isinstance(values, Mapping):
        return {key: values}
    return {f"{key}/{part}": values[part] for part in sorted(values)}


def sight(where: str, values: Any, tables: Mapping[str, np.ndarray]) -> Any:
    """Converts observations: to float32 [N, O]; or each of their parts, to float32
    [N, K] or numbers int32 [N] of frames. `where` begins the message of a DataError.

    Args:
        tables: of the parts that are numbers of frames.
    """
    if not isinstance(values, Mapping):
        return matrix(where, values)
    found = {}
    for part, column in values.items():
        at = f"{where}/{part}"
        if part in tables:
            found[part] = frames.numbers(at, column, len(tables[part]))
        elif np.ndim(column) == 1:
            raise DataError(
                f"{at} has shape {np.shape(column)}; it must be [rows, numbers per"
                f" row], or have a table frames/{part} that it numbers"
            )
        else:
            found[part] = matrix(at, column)
    return found


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


SIGHTS = ("observations", "next_observations")
_CHECKS = {
    "actions": matrix,
    "rewards": vector,
    "terminals": flags,
    "timeouts": flags,
    "tasks": whole,
}
