"""Whether a dataset fits an environment, and what is learned from it.

What does not is told by name, before anything compiles.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from o2ojax.data import frames
from o2ojax.data.arrays import DataError
from o2ojax.data.dataset import Dataset, DataWarning
from o2ojax.types import EnvSpec, Transition


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

    Frames of the parts that are left are the same ones. Where the data lack one that it
    shows, all stay, and `fit` tells: it may be there by another name.
    """
    rows, shown = dataset.transitions, spec.obs
    if not isinstance(rows.obs, Mapping) or not isinstance(shown, Mapping):
        return dataset
    if not shown.keys() <= rows.obs.keys():
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
