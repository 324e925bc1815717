"""The algorithms, by name."""

from o2ojax.agents.base import Algorithm, Plan, adopt
from o2ojax.registry import Registry

AGENTS = Registry(
    "algorithm",
    {
        "awac": "o2ojax.agents.awac:ALGORITHM",
        "bc": "o2ojax.agents.bc:ALGORITHM",
        "bcq": "o2ojax.agents.bcq:ALGORITHM",
        "cal_ql": "o2ojax.agents.cal_ql:ALGORITHM",
        "cql": "o2ojax.agents.cql:ALGORITHM",
        "fowm": "o2ojax.agents.fowm:ALGORITHM",
        "fql": "o2ojax.agents.fql:ALGORITHM",
        "ifql": "o2ojax.agents.ifql:ALGORITHM",
        "iql": "o2ojax.agents.iql:ALGORITHM",
        "o2ac": "o2ojax.agents.o2ac:ALGORITHM",
        "off2on": "o2ojax.agents.off2on:ALGORITHM",
        "pearl": "o2ojax.meta.pearl:ALGORITHM",
        "rebrac": "o2ojax.agents.rebrac:ALGORITHM",
        "rlpd": "o2ojax.agents.rlpd:ALGORITHM",
        "sac": "o2ojax.agents.sac:ALGORITHM",
        "smac": "o2ojax.meta.smac:ALGORITHM",
        "td3_bc": "o2ojax.agents.td3_bc:ALGORITHM",
        "wsrl": "o2ojax.agents.wsrl:ALGORITHM",
    },
    adopt,
)

__all__ = ["AGENTS", "Algorithm", "Plan"]
