"""CQL (Kumar et al., NeurIPS 2020) on locomotion, and the same online: CQL-ft.

1M offline updates, as many as Off2OnRL gives it; the authors' script goes on to 3M.
The paper ends there: then follow 250k environment steps, in Off2OnRL's rounds of a
thousand steps and as many updates but without its longer first one, from one buffer
that starts as the whole dataset. Rewards are raw.
"""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `CQLConfig`."""
    config = defaults("cql", task)
    config.replay.name = "uniform"
    config.online.steps = 250_000
    config.online.round = 1_000
    config.eval.every = config.checkpoint.every = 5_000
    return config
