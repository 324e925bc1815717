"""Behaviour cloning, offline: the policy of IQL, without what IQL learns."""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """1M updates, and no online phase."""
    config = defaults("bc", task)
    config.online.steps = 0
    return config
