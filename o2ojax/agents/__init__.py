"""The algorithms, by name."""

from o2ojax.agents import bc, iql, sac
from o2ojax.agents.base import Algorithm, Plan
from o2ojax.errors import unknown

AGENTS = {
    "bc": bc.ALGORITHM,
    "iql": iql.ALGORITHM,
    "sac": sac.ALGORITHM,
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
