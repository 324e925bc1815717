"""Does it learn? BC and IQL on the shipped datasets, sized for two CPU cores.

The task is `NAME/DATASET`, as `iql/hopper-medium-replay`. `iql` goes on online;
`iql-offline` is the paper's offline setting, whose policy's learning rate falls by a
cosine. The published losses and rates; networks of 128-128, batches of 128, 50k
updates, then 50k environment steps.
"""

from o2ojax.errors import unknown
from o2ojax.run.config import ConfigDict

from . import bc, iql

NAMES = {"bc": bc, "iql": iql, "iql-offline": iql}


def get_config(task: str = "iql/hopper-medium-replay") -> ConfigDict:
    """Four seeds online, eight offline; twenty episodes each at every evaluation."""
    name, _, dataset = task.partition("/")
    if name not in NAMES:
        raise unknown("task", name, NAMES)
    config = NAMES[name].get_config(dataset)
    goes_online = name == "iql"
    config.seeds = 4 if goes_online else 8
    config.agent.widths = (128, 128)
    config.batch = 128
    config.offline.updates = 50_000
    config.online.steps = 50_000 if goes_online else 0
    config.eval.every = 5_000
    config.eval.episodes = 20
    config.checkpoint.every = 10_000
    return config
