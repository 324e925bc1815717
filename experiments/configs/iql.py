"""IQL (Kostrikov et al., ICLR 2022): offline as published for locomotion.

1M offline updates, then 1M environment steps with one update each, from one buffer that
starts as the whole dataset. The authors publish fine-tuning for AntMaze alone: its
tasks have their expectile of 0.9, beta of 10, rewards of r - 1, and 100 episodes at
every evaluation. On locomotion, the rhythm online is ours, and rewards are scaled
online as offline, which their script does not do. A run with `online.steps=0` is the
paper's offline setting: the policy's learning rate then falls by a cosine.
"""

from o2ojax.run.config import RETURN_RANGE, ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `IQLConfig`."""
    config = defaults("iql", task)
    config.replay.name = "uniform"
    config.eval.every = 5_000
    if config.env.startswith("antmaze-"):
        config.agent.expectile, config.agent.beta = 0.9, 10.0
        config.reward.shift = -1.0
        config.eval.every, config.eval.episodes = 100_000, 100
    else:
        config.reward.scale = RETURN_RANGE
    return config
