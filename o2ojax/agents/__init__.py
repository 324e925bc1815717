"""The algorithms, by name."""

from o2ojax.agents import awac, bc, bcq, cql, fowm, iql, o2ac, off2on, sac, td3_bc
from o2ojax.agents.base import Algorithm, Plan
from o2ojax.errors import unknown
from o2ojax.meta import pearl, smac

AGENTS = {
    "awac": awac.ALGORITHM,
    "bc": bc.ALGORITHM,
    "bcq": bcq.ALGORITHM,
    "cql": cql.ALGORITHM,
    "fowm": fowm.ALGORITHM,
    "iql": iql.ALGORITHM,
    "o2ac": o2ac.ALGORITHM,
    "off2on": off2on.ALGORITHM,
    "pearl": pearl.ALGORITHM,
    "sac": sac.ALGORITHM,
    "smac": smac.ALGORITHM,
    "td3_bc": td3_bc.ALGORITHM,
}

__all__ = ["AGENTS", "Algorithm", "Plan", "find"]


def find(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises:
        UserError: for an unknown name, with the list.
    """
    if name not in AGENTS:
        raise unknown("algorithm", name, AGENTS)
    return AGENTS[name]
