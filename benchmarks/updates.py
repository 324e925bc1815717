"""Updates per second of every agent, all members together, and the operations in them.

The networks are the papers', and so are SMAC's and PEARL's batches; those of all others
are of 256, to be compared. A compiled call draws and learns as a run's does.
"""

import functools

from benchmarks import flop, timing, workloads
from benchmarks.record import MATRIX, Figure, Section, figure
from benchmarks.workloads import Case
from o2ojax.meta import smac

META = dict(env="cheetah-vel", rows=120_000)  # 100 tasks of as many rows
OF_TASKS = dict(replay="tasks", capacity=1_200)  # rows of each task's ring
ENSEMBLE = dict(phase="online", rows=1_000_000)
ONLINE_BATCH = smac.SMACConfig().online_batch

CASES = {
    "bc": Case("bc", flop.bc),
    "sac": Case("sac", flop.sac),
    "iql": Case("iql", flop.iql),
    "awac": Case("awac", flop.awac),
    "td3_bc": Case("td3_bc", flop.td3_bc),
    "o2ac": Case("o2ac", flop.td3_bc),
    "cql": Case("cql", flop.cql),
    "bcq": Case("bcq", flop.bcq),
    "off2on offline": Case("off2on", flop.off2on_offline),
    "off2on online": Case(
        "off2on", flop.off2on_online, **ENSEMBLE, sizes=dict(capacity=250_000)
    ),
    "off2on online balanced": Case(
        "off2on",
        flop.off2on_online,
        **ENSEMBLE,
        sizes=dict(capacity=250_000, replay="balanced"),
    ),
    "fowm": Case("fowm", flop.fowm),
    "smac offline": Case(
        "smac",
        functools.partial(flop.smac, online=False),
        batch=128,
        sizes=OF_TASKS,
        **META,
    ),
    "smac online": Case(
        "smac",
        functools.partial(flop.smac, online=True),
        phase="online",
        batch=ONLINE_BATCH,
        sizes=OF_TASKS,
        **META,
    ),
    "pearl": Case(
        "pearl",
        flop.pearl,
        phase="online",
        batch=ONLINE_BATCH,
        sizes=OF_TASKS,
        **META,
    ),
}


def measure(name: str, case: Case, windows: int) -> list[Figure]:
    """Updates per second of one member and of several, and their shares of the limit.

    All are timed in turn, so that what several gain or lose is a ratio.
    """
    works = {num: workloads.learner(case, num) for num in members()}
    rates = timing.rates(works | {"limit": timing.matrix_limit()}, windows)
    flop, found = workloads.flop(case), []
    for num in works:
        share = MATRIX, rates[num] * flop / rates["limit"]
        one = rates[1] if num > 1 else None
        told = dict(limit=share, flop=flop, one=one)
        sizes = {"members": num}
        found.append(figure("updates", name, sizes, "updates/s", rates[num], **told))
    return found


def members() -> tuple[int, ...]:
    """How many are trained side by side."""
    return (1, 8, 64) if workloads.on_accelerator() else (1, 8)


def cases():
    """A case for every agent, and for every phase that differs."""
    return {
        name: functools.partial(measure, name, case) for name, case in CASES.items()
    }


SECTION = Section(
    "updates, all members together: the papers' networks, batches of 256; of 4 tasks x"
    " 128 rows for smac offline, of 4 x 256 online and for pearl",
    cases,
    across="members",
)
