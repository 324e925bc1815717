"""Columns of a log, named as in D4RL: converted to arrays, and validated."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from o2ojax.data import frames
from o2ojax.data.arrays import DataError, flags, matrix, vector, whole

JUMP = 1e-6  # above this difference, two observations are not equal


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


def num_rows(obs: Any) -> int:
    """Rows of observations, of all their parts; 0 of what has none."""
    first = jax.tree.leaves(obs)[0]
    return len(first) if np.ndim(first) else 0


def _flat(key: str, values: Any) -> dict[str, np.ndarray]:
    """A column, or those of its parts, by name."""
    if not isinstance(values, Mapping):
        return {key: values}
    return {f"{key}/{part}": values[part] for part in sorted(values)}


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


SIGHTS = ("observations", "next_observations")


_CHECKS = {
    "actions": matrix,
    "rewards": vector,
    "terminals": flags,
    "timeouts": flags,
    "tasks": whole,
}
