"""What a run leaves at its end: `summary.json`, `curves.png` and the table."""

from typing import Any

import numpy as np

from o2ojax import report
from o2ojax.data.files import write_json
from o2ojax.parallel import processes
from o2ojax.report import statistics
from o2ojax.run import readiness, workdir
from o2ojax.run.job import Job, Record, curves
from o2ojax.run.progress import Progress


def finish(job: Job, record: Record, progress: Progress) -> dict[str, Any]:
    """Writes `summary.json` and `curves.png`, and shows the table."""
    steps = record.step if record.phase == "online" else 0
    learned = max(steps - job.sizes.warmup, 0)
    updates = job.sizes.offline_updates
    rounds = learned // job.sizes.transitions_per_round
    learned_updates = rounds * job.sizes.updates_per_round
    if rounds:
        learned_updates += job.sizes.first_round - job.sizes.updates_per_round
    speeds = {
        "offline": {
            "updates": updates + record.updates_taken,
            "updates_per_second": _rate(job, "offline", updates, record),
        },
        "online": {
            "steps": steps,
            "updates": learned_updates,
            "steps_per_second": _rate(job, "online", learned, record),
        },
    }
    described = job.description()
    adapted = record.points[-1].get("adaptation", {})
    summary = statistics.summarise(described, curves(record), speeds, adapted)
    if "estimates" in record.points[-1]:
        summary["estimates"] = estimates(record)
    if ready := readiness_of(record):
        summary["readiness"] = ready
    if not processes.leads():
        return summary
    workdir.save_returns(job.workdir, curves(record))
    result = report.Result(str(job.workdir), described, curves(record), summary)
    report.draw([result], job.workdir / "curves.png")
    write_json(job.workdir / "summary.json", summary)  # last: marks a finished run
    progress.table(report.table([summary]))
    for name, figure in summary.get("estimates", {}).items():
        progress.headline(f"{name:<15} {report.estimate(figure)}")
    return summary


def readiness_of(record: Record) -> dict[str, Any] | None:
    """What critics said at the end of the offline phase; None without any."""
    offline = [point for point in record.points if point["phase"] == "offline"]
    told = offline[-1].get("readiness") if offline else None
    return told and readiness.summarise(told)


def readiness_lines(record: Record) -> list[str]:
    """The same as lines to be shown."""
    ready = readiness_of(record)
    if ready is None:
        return []
    told = (name for name in readiness.FIGURES if name in ready)
    figures = (f"{name} {report.estimate(ready[name], 2)}" for name in told)
    return [ready["meaning"], "; ".join(figures)]


def estimates(record: Record) -> dict[str, Any]:
    """What the last evaluation has estimated of the policies, without an environment.

    Each has an interval over members; but `value`, by fitted Q evaluation, over the
    held-out episodes.
    """
    point = record.points[-1]
    value = np.array(point["returns"]).mean(axis=0)
    found = {"value": statistics.interval(value)}
    for name, values in point["estimates"].items():
        found[name] = statistics.interval(np.array(values))
    return found


def _rate(job: Job, phase: str, done: int, record: Record) -> float:
    """Steps or updates per second, summed over members, without compilation time."""
    seconds = record.seconds[phase]
    return done * job.num_members / seconds if seconds else 0.0
