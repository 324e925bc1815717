"""BCQ (Fujimoto et al., ICML 2019), and the same online: BCQ-ft.

1M offline updates on batches of 100, as in the authors' code, then 1M environment steps
with one update each, from one buffer that starts as the whole dataset. Rewards are raw.
"""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `BCQConfig`."""
    config = defaults("bcq", task)
    config.batch = 100
    config.replay.name = "uniform"
    config.eval.every = 5_000
    return config
