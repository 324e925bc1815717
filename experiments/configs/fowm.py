"""FOWM (Feng et al., CoRL 2023) on locomotion and on manipulation.

Half of the budget offline, half online: 500k and 500k decisions on locomotion, 25k and
25k on manipulation; 128 windows of a batch from the dataset and 128 from what was
gathered. The authors take as many updates as an episode had steps when it ends; here,
rounds are of one length.
"""

from o2ojax.config import RETURN_RANGE, ConfigDict, defaults

MANIPULATION = ("reach", "push", "lift")


def get_config(task: str = "hopper-medium-replay") -> ConfigDict:
    """The defaults of `FOWMConfig`, and the authors' values where tasks differ."""
    config = defaults("fowm", task)
    config.replay.name = "symmetric"
    config.eval.episodes = 20
    if config.env in MANIPULATION:
        config.agent.gamma = 0.9
        config.agent.expectile = 0.9
        config.agent.penalty = 1.0
        config.agent.iterations = 6.0
        config.offline.updates = config.online.steps = 25_000
        config.online.round = config.online.warmup = 25
        config.eval.every = config.checkpoint.every = 1_000
    else:
        config.reward.scale = RETURN_RANGE
        config.offline.updates = config.online.steps = 500_000
        config.online.round = config.online.warmup = 1_000
        config.eval.every = 10_000
    return config
