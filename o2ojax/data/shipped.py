"""The datasets inside the package, and the compact file that they are stored in.

Inside an episode the next observation is the next row's, so the file keeps only the
one after each episode's last row, and loses nothing.
"""

import os
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from o2ojax.data.dataset import DataError, from_arrays, matrix
from o2ojax.files import write_whole
from o2ojax.types import Transition


def folder() -> Traversable:
    """Where the shipped datasets lie."""
    return resources.files(__package__) / "shipped"


def shipped_names() -> tuple[str, ...]:
    """The datasets that come with the package, sorted."""
    if not folder().is_dir():
        return ()
    files = (entry.name for entry in folder().iterdir())
    return tuple(sorted(Path(file).stem for file in files if file.endswith(".npz")))


def write(path: str | os.PathLike, transitions: Transition) -> None:
    """Writes a compact npz file, whole or not at all. The final row ends an episode.

    float32 observations [N, O], actions [N, A], rewards [N]; bool terminals [N] and
    timeouts [N]; float32 final_observations [episodes, O].

    Actions are clipped to +-(1 - 1e-5); all else comes back as it was in float32.

    Raises:
        DataError: for a path that does not end in .npz, and for transitions that the
            file cannot hold: discounts other than 0 and 1, tasks other than 0, an
            observation that is not the next one of the row before.
    """
    path = Path(path).expanduser()
    if path.suffix != ".npz":
        raise DataError(f"{path}: the name of a dataset's file must end in .npz")
    columns = _pack(str(path), transitions)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda unfinished: np.savez_compressed(unfinished, **columns))


def _pack(name: str, transitions: Transition) -> dict[str, np.ndarray]:
    terminals = np.asarray(transitions.discount) == 0
    last = np.array(transitions.last, bool)
    last[-1:] = True
    rows = from_arrays(
        observations=transitions.obs,
        actions=transitions.action,
        rewards=transitions.reward,
        terminals=terminals,
        timeouts=last & ~terminals,
        next_observations=transitions.next_obs,
        name=name,
    )
    _check_lossless(name, rows, transitions._replace(last=last))
    return {
        "observations": rows.obs,
        "actions": rows.action,
        "rewards": rows.reward,
        "terminals": terminals,
        "timeouts": last & ~terminals,
        "final_observations": rows.next_obs[last],
    }


def _check_lossless(name: str, rows: Transition, transitions: Transition) -> None:
    wanted = {
        "discount": "0 or 1 in each row",
        "last": "True wherever discount is 0",
        "task": "0 in each row",
    }
    for field, rule in wanted.items():
        if not np.array_equal(getattr(rows, field), getattr(transitions, field)):
            raise DataError(f"{name}: {field} must be {rule} to fit a compact file")
    torn = ~rows.last[:-1] & (rows.obs[1:] != rows.next_obs[:-1]).any(axis=1)
    if torn.any():
        row = torn.argmax()
        raise DataError(
            f"{name}: next_obs of row {row} is not obs of row {row + 1}, though the "
            f"episode goes on there (the first of {torn.sum()}); mark its end by last"
        )


def unpack(
    name: str,
    columns: Mapping[str, np.ndarray],
    final_observations: np.ndarray,
    clip_actions: bool = False,
) -> Transition:
    """Rebuilds the transitions of a compact file.

    Args:
        name: what errors call the file.
        columns: observations, actions, rewards, terminals and timeouts.
        final_observations: [episodes, O].
        clip_actions: as for `from_arrays`.
    Raises:
        DataError: for what `from_arrays` refuses, and where the episodes and their
            final observations do not match.
    """
    if "timeouts" not in columns:
        raise DataError(f"{name}: a file with final_observations needs timeouts too")
    unshifted = dict(columns) | {"next_observations": columns["observations"]}
    rows = from_arrays(**unshifted, name=name, clip_actions=clip_actions)
    final = matrix(f"{name}: final_observations", final_observations)
    wanted = (int(rows.last.sum()), rows.obs.shape[1])
    if final.shape != wanted:
        raise DataError(
            f"{name}: final_observations has shape {final.shape}, but the episodes "
            f"and observations need {wanted}"
        )
    next_obs = np.roll(rows.obs, -1, axis=0)
    next_obs[rows.last] = final
    return rows._replace(next_obs=next_obs)
