"""A compact, lossless format of episodes that stores each observation once.

Within an episode, the next observation is the observation of the next row, so only the
final observation of each episode is stored in addition. Of pictures, rows have numbers
of frames, and the frames are in a table of their own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from o2ojax.data import frames
from o2ojax.data.arrays import DataError
from o2ojax.data.columns import SIGHTS, checked, sight
from o2ojax.data.dataset import EXTRAS, Log, from_log
from o2ojax.types import Transition

FRAMES = "frames"  # prefix of the tables' names, as in "frames/pixels"
FINAL = "final_observations"
NESTED = (*SIGHTS, FINAL, FRAMES, EXTRAS)  # columns that may be in parts


def pack(
    name: str,
    transitions: Transition,
    tables: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Any]:
    """Converts transitions to columns. The final row ends an episode.

    Args:
        name: name of the data in error messages.
        transitions: leaves [N, ...]; parts of the observations may be pictures, uint8
            [N, H, W, C].
        tables: frames of the parts that are numbers already, as in `Dataset.frames`.
    Returns:
        float32 observations [N, O], actions [N, A] clipped to +-(1 - 1e-5), rewards
        [N]; bool terminals [N] and timeouts [N]; float32 final_observations
        [episodes, O]; int32 tasks [N] if any is not 0; extras, [N, ...] each, by name;
        and frames, uint8 [F, H, W, C] each, by the name of the part of the observations
        that is int32 numbers of them. The others are float32 [N, K].
    Raises:
        DataError: `from_arrays` refuses the data, a discount is neither 0 nor 1, or
            within an episode, an observation is not the previous row's next one.
    """
    terminals = np.asarray(transitions.discount) == 0
    last = np.array(transitions.last, bool)
    last[-1:] = True
    columns = {
        "observations": transitions.obs,
        "actions": transitions.action,
        "rewards": transitions.reward,
        "terminals": terminals,
        "timeouts": last & ~terminals,
        "next_observations": transitions.next_obs,
        "tasks": transitions.task,
    }
    log = Log(name, name, columns, extras=transitions.extras, frames=tables)
    made = from_log(log)
    _check_lossless(name, made.transitions, transitions._replace(last=last))
    rows, tables = frames.used(made.transitions, made.frames)
    columns = {
        "observations": rows.obs,
        "actions": rows.action,
        "rewards": rows.reward,
        "terminals": terminals,
        "timeouts": last & ~terminals,
        FINAL: jax.tree.map(lambda x: x[last], rows.next_obs),
        EXTRAS: rows.extras,
        FRAMES: tables,
    }
    return columns | ({"tasks": rows.task} if rows.task.any() else {})


def flat(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of columns, those of a dict under names as "frames/pixels"."""
    found = {}
    for key, values in columns.items():
        parts = values if isinstance(values, Mapping) else {"": values}
        found |= {f"{key}/{part}".rstrip("/"): parts[part] for part in parts}
    return found


def nested(name: str, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The opposite of `flat`.

    Args:
        name: name of the data in error messages.
    Raises:
        DataError: a column is there both whole and in parts.
    """
    found: dict[str, Any] = {}
    for key, values in columns.items():
        whole, _, part = key.partition("/")
        if whole not in NESTED or not part:
            found[key] = values
        else:
            parts = found.setdefault(whole, {})
            if whole in columns:
                raise DataError(f"{name}: has both {whole} and {key}; give one of them")
            parts[part] = values
    return found


def _check_lossless(name: str, rows: Transition, transitions: Transition) -> None:
    wanted = {
        "discount": "0 or 1 in each row",
        "last": "True wherever discount is 0",
    }
    for field, rule in wanted.items():
        if not np.array_equal(getattr(rows, field), getattr(transitions, field)):
            raise DataError(f"{name}: {field} must be {rule} to be written")
    differ = [
        (obs[1:] != after[:-1]).reshape(len(obs) - 1, -1).any(axis=1)
        for obs, after in zip(
            jax.tree.leaves(rows.obs), jax.tree.leaves(rows.next_obs), strict=True
        )
    ]
    torn = ~rows.last[:-1] & np.any(differ, axis=0)
    if torn.any():
        row = torn.argmax()
        raise DataError(
            f"{name}: next_obs of row {row} is not obs of row {row + 1}, though the "
            f"episode goes on there (the first of {torn.sum()}); mark its end by last"
        )


def unpack(
    name: str,
    columns: Mapping[str, Any],
    tables: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Any]:
    """Replaces final_observations by next_observations [N, O].

    Args:
        name: name of the data in error messages.
        columns: as of a `Log`, and final_observations.
        tables: frames of the parts that are numbers.
    Raises:
        DataError: columns disagree, or the number of final observations is not that of
            the episodes.
    """
    if "timeouts" not in columns:
        raise DataError(f"{name}: a file with final_observations needs timeouts too")
    known = {key: columns[key] for key in columns if key != FINAL}
    table = checked(name, known, tables)
    last = table["terminals"] | table["timeouts"]
    last[-1] = True
    where = f"{name}: {FINAL}"
    final = sight(where, columns[FINAL], tables)
    obs = table["observations"]
    if jax.tree.structure(final) != jax.tree.structure(obs):
        raise DataError(f"{where} are not of the same parts as observations")

    def following(obs: np.ndarray, final: np.ndarray) -> np.ndarray:
        wanted = (int(last.sum()), *obs.shape[1:])
        if final.shape != wanted:
            raise DataError(
                f"{where} has shape {final.shape}, but the episodes and observations"
                f" need {wanted}"
            )
        found = np.roll(obs, -1, axis=0)
        found[last] = final
        return found

    return table | {"next_observations": jax.tree.map(following, obs, final)}
