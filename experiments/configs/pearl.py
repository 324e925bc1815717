"""PEARL on a family of tasks, online, from scratch: `pearl.py:cheetah-vel`.

Every training task is played in every round, 400 steps with latents from the prior and
200 after them, with an update for every six steps. SMAC's authors take five tasks a
round, 400 steps and 600 of each, and 3.2 updates for a step.
"""

from o2ojax.meta import families
from o2ojax.run import config


def get_config(task: str = "cheetah-vel") -> config.ConfigDict:
    """For 20 training tasks, as many as SMAC's shipped data have."""
    result = config.defaults("pearl", task)
    if result.env in families.FAMILIES:
        result.agent.sees_next = families.FAMILIES[result.env].dynamics_vary
    result.tasks.train = 20
    result.tasks.test = 8
    result.replay.name = "tasks"
    # of each task, twenty trials; with two, it forgets: what it earns falls again
    result.replay.capacity = 12_000
    result.offline.updates = 0
    result.online.envs = 20
    result.online.warmup = 12_000
    result.online.round = 12_000
    result.online.updates_per_step = 1 / 6
    result.online.steps = 600_000
    result.eval.every = 60_000
    result.eval.episodes = 4 * 8
    result.log.every = 12_000
    result.checkpoint.every = 120_000
    return result
