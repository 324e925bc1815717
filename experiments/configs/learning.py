"""Does it learn? BC and IQL on the shipped datasets, sized for two CPU cores.

The task is `ALGORITHM/DATASET`: `iql/hopper-medium-replay`. The published losses and
rates; networks of 128-128, batches of 128, 50k updates, then 50k environment steps.
"""

from experiments.configs import bc, iql
from o2ojax.config import ConfigDict


def get_config(task: str = "iql/hopper-medium-replay") -> ConfigDict:
    """Four seeds, twenty episodes each at every evaluation."""
    algorithm, _, dataset = task.partition("/")
    config = {"bc": bc, "iql": iql}[algorithm].get_config(dataset)
    config.agent.widths = (128, 128)
    config.batch = 128
    config.offline.updates = 50_000
    config.online.steps = min(config.online.steps, 50_000)
    config.eval.every = 5_000
    config.eval.episodes = 20
    config.checkpoint.every = 10_000
    return config
