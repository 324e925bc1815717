"""Starts an online phase from the agents of another run's offline phase."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax import agents, fields
from o2ojax.errors import UserError
from o2ojax.parallel import compiled, devices
from o2ojax.run import population
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.config import differences
from o2ojax.run.job import Job, Record, shape, sizes_of
from o2ojax.run.progress import Progress
from o2ojax.run.resolve import from_json
from o2ojax.run.workdir import (
    hold_agents,
    read_description,
    refuse_another_format,
)
from o2ojax.types import Run

AT_END = "@online"  # after a run's directory: its agents at the end, not offline ones


def warm_start(job: Job, given: str, progress: Progress) -> tuple[Run, Record]:
    """Loads the agents of another run, matched by member or by seed.

    The other run's algorithm must be this run's, or one of its `warm_starts`.

    Args:
        given: `RUN`, for the agents of its offline phase; `RUN@UPDATES`, for those
            after so many updates of it; or `RUN@online`, for those with which its
            online phase ended.
    Raises:
        UserError: there is no such run, or its agents do not fit.
    """
    source, phase, updates = _parts(given)
    described = read_description(source)
    if described is None:
        raise UserError(f"config.offline.from={source}: there is no run there")
    refuse_another_format(described, source)
    hold_agents(described, source)
    adopt = _adoption(job, described, source)
    if phase == "online" and described["algorithm"] != job.config.algorithm:
        raise UserError(
            f"config.offline.from={given} is a run of {described['algorithm']!r}, of"
            f" which {job.config.algorithm!r} can take the offline agents alone: leave"
            f" {AT_END} out"
        )
    checkpoints = Checkpoints(source / "checkpoints", read_only=True)
    if updates is None:
        number = _checkpoint_of(phase, described, checkpoints, source)
    else:
        number = _kept(updates, described, checkpoints, source)
    _tell_differences(job, described, source, progress)
    num_taken = len(described["seeds"]) * int(
        np.prod([len(values) for values in described["population"].values()])
    )
    index = np.array(_sources(job, described, num_taken, source))
    taken = checkpoints.restore(
        number,
        _shape(job, described, phase),
        part=True,
        put=lambda leaf: devices.shard(job.layout, leaf[index]),
    )
    rise = _rise(checkpoints.record(number)) if phase == "offline" else []
    checkpoints.close()
    adopt = compiled.over_members(adopt, (0, 0), mesh=job.layout.mesh)
    state = adopt(taken.agent, job.members.config)
    _check_shape(job, state, source)
    state = jax.tree.map(jnp.copy, state)  # donation needs distinct arrays
    store = job.programs.init(job.members, job.dataset).replay  # always new
    return Run(state, store, ()), Record(
        updates_taken=updates or described["offline"]["updates"],
        rise_taken=[rise[member] for member in index] if rise else [],
    )


def _rise(record: dict[str, Any]) -> list[float]:
    """How Q rose at last, by member, if that run looked at its critics there."""
    *_, last = record["points"] or [{}]
    return last.get("readiness", {}).get("rise", [])


def _parts(given: str) -> tuple[Path, str, int | None]:
    """The run, the phase whose agents are taken, and after how many updates."""
    run, _, updates = given.rpartition("@")
    if run and updates.isdecimal() and not os.path.isdir(given):
        return Path(run), "offline", int(updates)
    phase = "online" if given.endswith(AT_END) else "offline"
    return Path(given.removesuffix(AT_END)), phase, None


def _kept(updates: int, described: dict, checkpoints: Checkpoints, source: Path) -> int:
    """The number of the checkpoint after so many offline updates."""
    kept = [x for x in checkpoints.numbers() if x <= described["offline"]["updates"]]
    if updates not in kept:
        others = ", ".join(map(str, kept)) or "none"
        raise UserError(
            f"config.offline.from={source}@{updates}: that run has no checkpoint after"
            f" {updates} offline updates (it has: {others}); config.checkpoint.keep"
            " keeps those that it names"
        )
    return updates


def _checkpoint_of(
    phase: str, described: dict, checkpoints: Checkpoints, source: Path
) -> int:
    """The number of the checkpoint at the end of a run's phase."""
    updates, steps = described["offline"]["updates"], described["online"]["steps"]
    if phase == "online" and not (source / "summary.json").exists():
        raise UserError(
            f"config.offline.from={source}{AT_END}: its online phase has not come to an"
            " end"
        )
    if phase == "online" and steps == 0:
        raise UserError(
            f"config.offline.from={source}{AT_END}: that run had no online phase; leave"
            f" {AT_END} out"
        )
    if phase == "online":
        return checkpoints.numbers()[-1]
    if updates == 0:
        raise UserError(
            f"config.offline.from={source} had no offline phase of its own; name the"
            f" run that its agents came from, or {source}{AT_END}"
        )
    if updates not in checkpoints.numbers():
        raise UserError(
            f"config.offline.from={source}: its offline phase has not come to an end"
        )
    return updates


def _adoption(job: Job, described: dict, source: Path) -> Callable:
    """Returns a function (source agent, config) -> agent of this run."""
    theirs, ours = described["algorithm"], job.config.algorithm
    if described["env"] != job.config.env:
        raise UserError(
            f"config.offline.from={source} is a run of env {described['env']!r},"
            f" not of {job.config.env!r}"
        )
    warm_starts = agents.AGENTS.find(ours).warm_starts
    if theirs in warm_starts:
        return warm_starts[theirs]
    if theirs == ours:
        return lambda taken, config: taken
    able = ", ".join(sorted({ours, *warm_starts}))
    raise UserError(
        f"config.offline.from={source} is a run of algorithm {theirs!r}, from whose"
        f" agents {ours!r} cannot go on; it can from those of: {able}"
    )


def _tell_differences(
    job: Job, described: dict, source: Path, progress: Progress
) -> None:
    compared = {"reward", "data_fingerprint", "agent"}
    theirs, ours = (
        {name: told[name] for name in compared}
        for told in (described, job.description())
    )
    if described["algorithm"] != job.config.algorithm:  # then, what both compile in
        shared = theirs["agent"].keys() & {
            fields.known_as(field)
            for field in dataclasses.fields(job.config.agent)
            if not fields.is_traced(field)
        }
        for told in (theirs, ours):
            told["agent"] = {name: told["agent"][name] for name in shared}
    changed = differences(theirs, ours)
    if changed:
        progress.warn(f"{source} was trained otherwise: {'; '.join(changed)}")
    note = agents.AGENTS.find(described["algorithm"]).offline_only
    if described["online"]["steps"] == 0 and note:
        progress.warn(f"{source} is an offline-only run: {note}")


def _shape(job: Job, described: dict, phase: str) -> Run:
    """The shapes of the source's Run after a phase; of its agents alone."""
    config = from_json(described)
    everyone = population.members(config.agent, config.seeds, config.population)
    sizes = sizes_of(config, 1.0, described["store_steps"])
    return Run(
        population.agent_shape(config.entry, job.spec, sizes, phase, everyone), (), ()
    )


def _check_shape(job: Job, state: Any, source: Path) -> None:
    wanted = shape(job, "offline").agent
    same = jax.tree.structure(state) == jax.tree.structure(wanted) and all(
        leaf.shape[1:] == like.shape[1:]
        for leaf, like in zip(
            jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True
        )
    )
    if not same:
        raise UserError(
            f"config.offline.from={source}: its agents are of another phase, or have"
            " other networks than this"
            " config describes; give config.agent.widths, and all that sizes a network,"
            f" as in {source / 'config.json'}"
        )


def _sources(job: Job, described: dict, num_taken: int, source: Path) -> list[int]:
    """The index of the source member for each member of this run."""
    theirs, ours = list(described["seeds"]), list(job.config.seeds)
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
