"""A small offline-to-online run of IQL: four seeds, minutes on a laptop's CPU."""

from o2ojax.run.config import ConfigDict

from . import iql


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """The published losses, with networks and budgets cut down."""
    config = iql.get_config(task)
    config.agent.widths = (64, 64)
    config.agent.lr = 1e-3
    config.batch = 128
    config.offline.updates = 20_000
    config.online.steps = 20_000
    config.eval.every = 2_000
    config.eval.episodes = 5
    config.checkpoint.every = 2_000
    return config
