"""SAC (Haarnoja et al., 2018) from scratch."""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah") -> ConfigDict:
    """1M environment steps, one update each, after 1000 steps without."""
    config = defaults("sac", task)
    config.replay.name = "online"
    config.offline.updates = 0
    config.online.warmup = 1_000
    return config
