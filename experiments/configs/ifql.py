"""IFQL, a baseline of FQL's (Park, Li and Levine, ICML 2025), on FQL's protocol.

1M offline updates, then 1M environment steps with one update each, from one buffer that
starts as the whole dataset; batches of 256. The authors' runs have gamma 0.995 in
humanoidmaze and antsoccer. Rewards of D4RL's AntMaze are -1 until the goal, then 0.
"""

from o2ojax.run.config import ConfigDict, defaults

from .fql import is_antmaze_of_d4rl


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `IFQLConfig`."""
    config = defaults("ifql", task)
    config.replay.name = "uniform"
    config.eval.every = config.checkpoint.every = 100_000
    config.eval.episodes = 50
    if is_antmaze_of_d4rl(task):
        config.reward.shift = -1.0
    return config
