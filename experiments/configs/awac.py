"""AWAC (Nair et al., 2020), as published for locomotion.

50k offline updates, then 500k environment steps, a thousand and then as many updates,
after 1000 steps without; all from one buffer that starts as the whole dataset. The
authors' data are 15 noisy demonstrations and 100 other trajectories, and their offline
batches have 128 rows; here, all have the 1024 of their online phase.
"""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `AWACConfig`."""
    config = defaults("awac", task)
    config.batch = 1024
    config.replay.name = "uniform"
    config.offline.updates = 50_000
    config.online.steps = 500_000
    config.online.round = 1_000
    config.online.warmup = 1_000
    config.eval.every = 5_000
    if config.env.startswith("antmaze-"):
        config.reward.shift = -1.0
    return config
