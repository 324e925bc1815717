"""In the manner of O2AC, on the protocol of TD3+BC: see `o2ojax/agents/o2ac.py`."""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `O2ACConfig`."""
    config = defaults("o2ac", task)
    config.replay.name = "uniform"
    config.eval.every = 5_000
    return config
