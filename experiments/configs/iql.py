"""IQL (Kostrikov et al., ICLR 2022), as published for locomotion.

1M offline updates, then 1M environment steps with one update each, from one buffer that
starts as the whole dataset. A run with `online.steps=0` is the paper's offline setting:
the policy's learning rate then falls by a cosine.
"""

from o2ojax.run.config import RETURN_RANGE, ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `IQLConfig`."""
    config = defaults("iql", task)
    config.reward.scale = RETURN_RANGE
    config.replay.name = "uniform"
    config.eval.every = 5_000
    return config
