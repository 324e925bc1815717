"""Off2OnRL (Lee et al., CoRL 2021), in the rhythm of its code.

1M offline updates of five CQL agents, then 250k environment steps in rounds of 1000,
each followed by 1000 updates; after the first round ten times as many. Unlike theirs,
episodes go on from round to round, and ten are judged every 5000 steps.
"""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `Off2OnConfig` and of the balanced store."""
    config = defaults("off2on", task)
    config.replay.name = "balanced"
    config.online.steps = 250_000
    config.online.round = 1_000
    config.online.first_round = 10
    config.eval.every = config.checkpoint.every = 5_000
    return config
