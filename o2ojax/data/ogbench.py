"""Converts OGBench's npz files to D4RL's columns.

Park et al., "OGBench: Benchmarking Offline Goal-Conditioned RL" (2024),
arxiv.org/abs/2410.20092
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from o2ojax.data.arrays import DataError, flags
from o2ojax.data.columns import checked, num_rows

REQUIRED = ("observations", "actions", "rewards", "terminals", "masks")
OPTIONAL = ("valids", "next_observations")
STATES = ("qpos", "qvel", "button_states")  # simulator states in the original files
HOW = (
    "Save what OGBench itself computes for one task: _, train, _ = "
    "ogbench.make_env_and_datasets('cube-single-play-singletask-v0'); "
    "numpy.savez('cube.npz', **train)"
)


def recognised(found: Collection[str]) -> bool:
    """Whether a file with these columns is in OGBench's format."""
    if "timeouts" in found:
        return False
    if "masks" in found or "valids" in found:
        return True
    return "rewards" not in found and any(key in found for key in STATES)


def convert(
    name: str,
    columns: Mapping[str, Any],
    tables: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Any]:
    """Converts columns of OGBench to the arguments of `from_arrays`.

    In OGBench, `terminals` mark the end of a trajectory, and `masks` of 0 mark
    termination, possibly within a trajectory; both end an episode here. A file has
    either next_observations, or one more observation after each trajectory, in a row
    with a dummy action, where `valids` are 0, or without `valids`, `terminals` are 1.

    Args:
        name: name of the file in error messages.
        columns: the columns of REQUIRED and OPTIONAL that the file has; the pictures of
            visual tasks are numbers by now.
        tables: their frames.
    Raises:
        DataError: rewards or masks are missing, or columns disagree or do not
            determine which rows are steps.
    """
    _check_complete(name, columns)
    known = {key: columns[key] for key in columns if key not in ("masks", "valids")}
    table = checked(name, known, tables)
    length = num_rows(table["observations"])
    ends = table.pop("terminals")
    masks = _flags(name, "masks", columns, length)
    if "next_observations" in table:
        return table | {"terminals": ~masks, "timeouts": ends}
    if "valids" in columns:
        steps = _flags(name, "valids", columns, length)
    else:
        _check_unlike(name, ends, masks)
        steps = ~ends
    steps[-1] = False  # it has no next observation
    if not steps.any():
        raise DataError(f"{name}: no row is a step with a next observation")
    table |= {
        "terminals": ~masks,
        "timeouts": ~np.roll(steps, -1),
        "next_observations": jax.tree.map(
            lambda x: np.roll(x, -1, axis=0), table["observations"]
        ),
    }
    return jax.tree.map(lambda x: x[steps], table)


def _check_complete(name: str, columns: Mapping[str, Any]) -> None:
    missing = [key for key in REQUIRED if key not in columns]
    if missing:
        raise DataError(
            f"{name}: has no {', '.join(missing)}. It looks like a file of OGBench's "
            "for reaching goals, where terminals mark the ends of trajectories: "
            "without masks they would be taken for ends of the task, and what a step "
            f"earns depends on the task. {HOW}"
        )


def _check_unlike(name: str, ends: np.ndarray, masks: np.ndarray) -> None:
    if np.array_equal(masks, ~ends):
        raise DataError(
            f"{name}: masks are 1 - terminals in each row, so terminals may be ends of "
            "the task or rows after the end of a trajectory; give next_observations, "
            "or timeouts (0 in each row, where all terminals are ends of the task)"
        )


def _flags(name: str, key: str, columns: Mapping[str, Any], length: int) -> np.ndarray:
    values = flags(f"{name}: {key}", columns[key])
    if len(values) != length:
        raise DataError(
            f"{name}: {key} has {len(values)} rows but observations has {length}; "
            "every array must have one row per step"
        )
    return values
