"""TD3+BC (Fujimoto and Gu, NeurIPS 2021), as published for locomotion.

1M offline updates, evaluated every 5000; observations are normalised by the dataset,
rewards are raw. The paper ends there: then follow 1M environment steps with one update
each, from one buffer that starts as the whole dataset.
"""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `TD3BCConfig`."""
    config = defaults("td3_bc", task)
    config.replay.name = "uniform"
    config.eval.every = 5_000
    return config
