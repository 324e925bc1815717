"""FOWM (Feng et al., CoRL 2023) on locomotion and on manipulation.

Half of the budget offline, half online: 500k and 500k decisions on locomotion, 25k and
25k on manipulation; 128 windows of a batch come from the dataset and 128 from what was
gathered. The authors learn when an episode ends, as many updates as it had steps: here
after every 50 decisions on manipulation, where all episodes are so long, and after
every 1000 on locomotion. Of the locomotion tasks, they tuned hopper alone. Actions are
repeated only where pictures are seen, as in `lift-pixels`; else five decisions span
half the time of theirs on an arm.
"""

from o2ojax.envs import pixels
from o2ojax.run.config import RETURN_RANGE, ConfigDict, defaults


def get_config(task: str = "hopper-medium-replay") -> ConfigDict:
    """The defaults of `FOWMConfig`, and the authors' values where tasks differ."""
    config = defaults("fowm", task)
    config.replay.name = "symmetric_windows"
    config.eval.episodes = 20
    task = pixels.TASKS.get(pixels.task_of(config.env))
    if task:
        pictured = config.env.endswith(pixels.SUFFIX)
        # 0.95 where theirs is 0.9 for each two: they repeat every action
        config.agent.gamma = 0.9 if pictured else 0.95
        config.agent.expectile = 0.9
        config.agent.penalty = 1.0
        config.agent.iterations = 6.0
        config.offline.updates = config.online.steps = 25_000
        config.online.round = task.horizon // (2 if pictured else 1)  # an episode
        config.replay.capacity = 10_000
        config.eval.every = config.checkpoint.every = 1_000
    else:
        config.reward.scale = RETURN_RANGE
        config.offline.updates = config.online.steps = 500_000
        config.online.round = 1_000
        config.replay.capacity = 200_000
        config.checkpoint.every = 5_000
    return config
