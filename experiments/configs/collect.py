"""A SAC run from scratch that makes datasets by D4RL's protocol.

It stops at the first policy that reaches a third of D4RL's expert score: what it has
gathered until then is `medium-replay`, and that policy gathers `medium`.
Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020),
arxiv.org/abs/2004.07219, section 5 and appendix.
"""

from o2ojax.run.config import ConfigDict

from . import sac


def get_config(task: str = "halfcheetah") -> ConfigDict:
    """SAC's defaults, one seed, evaluated often enough to stop near the mark."""
    config = sac.get_config(task)
    config.seeds = 1
    config.online.steps = 400_000
    config.online.until = 100 / 3
    config.eval.every = 5_000
    config.checkpoint.every = 20_000
    return config
