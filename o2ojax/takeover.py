"""Going online with the agents that another run's offline phase left behind."""

from pathlib import Path

import jax
import numpy as np

from o2ojax import agents
from o2ojax import config as settings
from o2ojax.checkpoint import Checkpoints
from o2ojax.errors import UserError
from o2ojax.job import Job, Record, shape
from o2ojax.progress import Progress
from o2ojax.types import Run
from o2ojax.workdir import read_description


def take_over(job: Job, source: Path, progress: Progress) -> tuple[Run, Record]:
    """The offline agents of another run, member by member, or seed by seed.

    Raises:
        UserError: no such run, or one whose agents cannot be taken.
    """
    described = read_description(source)
    if described is None:
        raise UserError(f"config.offline.from={source}: there is no run there")
    for name in ("algorithm", "env"):
        if described[name] != job.config[name]:
            raise UserError(
                f"config.offline.from={source} is a run of {name} {described[name]!r},"
                f" not of {job.config[name]!r}"
            )
    number = described["offline"]["updates"]
    if number == 0:
        raise UserError(
            f"config.offline.from={source} had no offline phase of its own; name the"
            " run that its agents came from"
        )
    checkpoints = Checkpoints(source / "checkpoints", read_only=True)
    if number not in checkpoints.numbers():
        raise UserError(
            f"config.offline.from={source}: its offline phase has not come to an end"
        )
    ours = job.description()
    compared = ("reward", "agent", "data_fingerprint")
    changed = settings.differences(
        {name: described[name] for name in compared},
        {name: ours[name] for name in compared},
    )
    if changed:
        progress.warn(f"{source} was trained otherwise: {'; '.join(changed)}")
    note = agents.find(job.config.algorithm).offline_only
    if described["online"]["steps"] == 0 and note:
        progress.warn(f"{source} is an offline-only run: {note}")
    num_taken = len(described["seeds"]) * int(
        np.prod([len(values) for values in described["population"].values()])
    )
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num_taken, *x.shape[1:]), x.dtype),
        shape(job, "offline"),
    )
    taken = checkpoints.restore(number, like)
    checkpoints.close()
    index = np.array(_sources(job, described, num_taken, source))
    return jax.tree.map(lambda leaf: leaf[index], taken), Record(updates_taken=number)


def _sources(job: Job, described: dict, num_taken: int, source: Path) -> list[int]:
    """Which of the taken members each of ours goes on from."""
    theirs, ours = list(described["seeds"]), list(settings.seeds(job.config))
    mine = job.description()
    if (theirs, described["population"]) == (ours, mine["population"]):
        return list(range(num_taken))
    if described["population"] or not set(ours) <= set(theirs):
        raise UserError(
            f"config.offline.from={source} has seeds {theirs} and population"
            f" {described['population']}; this run has seeds {ours} and population"
            f" {mine['population']}. Either both are the same, or the other run has no"
            " population and all of these seeds"
        )
    return [theirs.index(seed) for seed in ours] * (job.num_members // len(ours))
