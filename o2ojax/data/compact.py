"""A compact, lossless format of episodes that stores each observation once.

Within an episode, the next observation is the observation of the next row, so only the
final observation of each episode is stored in addition.
"""

from collections.abc import Mapping

import numpy as np

from o2ojax.data.dataset import EXTRAS, DataError, checked, from_arrays, matrix
from o2ojax.types import Transition


def pack(name: str, transitions: Transition) -> dict[str, np.ndarray]:
    """Converts transitions to columns. The final row ends an episode.

    Returns:
        float32 observations [N, O], actions [N, A] clipped to +-(1 - 1e-5), rewards
        [N]; bool terminals [N] and timeouts [N]; float32 final_observations
        [episodes, O]; int32 tasks [N] if any is not 0; and each extra [N, ...] as
        "extras/NAME".
    Raises:
        DataError: `from_arrays` refuses the data, a discount is neither 0 nor 1, or
            within an episode, an observation is not the previous row's next one.
    """
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
        tasks=transitions.task,
        extras=transitions.extras,
        name=name,
    )
    _check_lossless(name, rows, transitions._replace(last=last))
    tasks = {"tasks": rows.task} if rows.task.any() else {}
    return tasks | {
        "observations": rows.obs,
        "actions": rows.action,
        "rewards": rows.reward,
        "terminals": terminals,
        "timeouts": last & ~terminals,
        "final_observations": rows.next_obs[last],
        **{f"{EXTRAS}/{key}": values for key, values in rows.extras.items()},
    }


def _check_lossless(name: str, rows: Transition, transitions: Transition) -> None:
    wanted = {
        "discount": "0 or 1 in each row",
        "last": "True wherever discount is 0",
    }
    for field, rule in wanted.items():
        if not np.array_equal(getattr(rows, field), getattr(transitions, field)):
            raise DataError(f"{name}: {field} must be {rule} to be written")
    torn = ~rows.last[:-1] & (rows.obs[1:] != rows.next_obs[:-1]).any(axis=1)
    if torn.any():
        row = torn.argmax()
        raise DataError(
            f"{name}: next_obs of row {row} is not obs of row {row + 1}, though the "
            f"episode goes on there (the first of {torn.sum()}); mark its end by last"
        )


def unpack(name: str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces final_observations by next_observations [N, O].

    Args:
        name: name of the data in error messages.
        columns: as returned by `pack`.
    Raises:
        DataError: columns disagree, or the number of final observations is not that of
            the episodes.
    """
    if "timeouts" not in columns:
        raise DataError(f"{name}: a file with final_observations needs timeouts too")
    extras = {key: columns[key] for key in columns if key.startswith(f"{EXTRAS}/")}
    apart = {"final_observations", *extras}
    table = checked(name, {key: columns[key] for key in columns if key not in apart})
    last = table["terminals"] | table["timeouts"]
    last[-1] = True
    obs = table["observations"]
    final = matrix(f"{name}: final_observations", columns["final_observations"])
    wanted = (int(last.sum()), obs.shape[1])
    if final.shape != wanted:
        raise DataError(
            f"{name}: final_observations has shape {final.shape}, but the episodes "
            f"and observations need {wanted}"
        )
    next_obs = np.roll(obs, -1, axis=0)
    next_obs[last] = final
    return table | extras | {"next_observations": next_obs}
