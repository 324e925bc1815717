"""Rounds how often a run logs, evaluates and saves to what its rounds allow."""

import dataclasses
import warnings

from o2ojax.envs import NONE
from o2ojax.fields import MAX_INT
from o2ojax.run.config import RunConfig

FEW = 5  # evaluations of a run without an environment


class RhythmWarning(UserWarning):
    """A number of a config was rounded."""


def fitted(run: RunConfig) -> RunConfig:
    """The config with numbers of steps that fit together.

    Chunks of work are `log.every` long, so evaluations and checkpoints come after whole
    ones; online, a chunk has whole rounds. What does not fit is rounded up, but for
    `log.every`, which is no longer than what comes between two evaluations or
    checkpoints. Emits a RhythmWarning that tells what was changed.
    """
    every = {name: getattr(run, name).every for name in ("log", "eval", "checkpoint")}
    if run.env == NONE:  # each evaluation is a training of its own
        every["eval"] = max(every["eval"], -(-run.offline.updates // FEW))
    log, steps = min(every.values()), run.online.steps
    if not steps or run.online.round not in (0, run.transitions_per_round):
        round_of = 1  # the second is refused
    else:
        round_of = run.transitions_per_round
    log = _up(log, round_of)
    new = {
        "log.every": log,
        "eval.every": _up(every["eval"], log),
        "checkpoint.every": _up(every["checkpoint"], log),
        "online.steps": _up(steps, round_of),
        "online.warmup": _up(run.online.warmup, round_of),
    }
    told = []
    for name, value in new.items():
        section, field = name.split(".")
        old = getattr(getattr(run, section), field)
        if value != old and value <= MAX_INT:
            told.append(f"{name} from {old:,} to {value:,}")
            part = dataclasses.replace(getattr(run, section), **{field: value})
            run = dataclasses.replace(run, **{section: part})
    if told:
        rounds = f"rounds of {round_of} steps (config.online.round)"
        why = rounds if round_of > 1 else "each other"
        warnings.warn(
            f"rounded, to fit {why}: {', '.join(told)}", RhythmWarning, stacklevel=2
        )
    return run


def _up(number: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-number // unit) * unit
