"""What is computed of a dataset: returns-to-go, next actions, stacks of frames."""

from collections.abc import Sequence

import numpy as np

from o2ojax.data.arrays import DataError
from o2ojax.data.dataset import Dataset


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
