"""Offline datasets: readers, writers, checks, reference scores, shipped datasets."""

from o2ojax.data.antmaze import hold_ant
from o2ojax.data.arrays import DataError
from o2ojax.data.dataset import (
    Dataset,
    DataWarning,
    Log,
    episode_returns,
    fingerprint,
    from_arrays,
    from_log,
    from_transitions,
    return_range,
    subsample,
)
from o2ojax.data.derived import stacked, with_extras
from o2ojax.data.fitting import (
    fit,
    hold_episodes,
    hold_tasks,
    hold_windows,
    only_seen,
    warn_of_another,
)
from o2ojax.data.inspection import Inspection, inspect
from o2ojax.data.readers import load, read, read_hdf5, read_npz, rescale
from o2ojax.data.reference import REFERENCE, has_reference, score
from o2ojax.data.shipped import shipped_names
from o2ojax.data.writers import write

__all__ = [
    "REFERENCE",
    "DataError",
    "DataWarning",
    "Dataset",
    "Inspection",
    "Log",
    "episode_returns",
    "fingerprint",
    "fit",
    "from_arrays",
    "from_log",
    "from_transitions",
    "has_reference",
    "hold_ant",
    "hold_episodes",
    "hold_tasks",
    "hold_windows",
    "inspect",
    "load",
    "only_seen",
    "read",
    "read_hdf5",
    "read_npz",
    "rescale",
    "return_range",
    "score",
    "shipped_names",
    "stacked",
    "subsample",
    "warn_of_another",
    "with_extras",
    "write",
]
