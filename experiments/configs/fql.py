"""FQL (Park, Li and Levine, ICML 2025), on the protocol of its fine-tuning.

1M offline updates, then 1M environment steps with one update each, from one buffer that
starts as the whole dataset, evaluated every 100k with 50 episodes; batches of 256. A
judged policy draws noise, as it does when it explores.

The weight of the distance to the flow, `alpha`, decides, and depends on the task.
`TASKS` has what the authors fine-tuned with; the task is that of OGBench, as
`gymnasium:cube-double-singletask-v0`, or a dataset's name in D4RL without a version. Of
OGBench's other tasks, their offline runs had antmaze-large and antmaze-giant 10 with
backup=min, humanoidmaze 30, antsoccer 10, cube and scene 300, puzzle 1000; gamma is
0.995 in antmaze-giant, humanoidmaze and antsoccer. Rewards of D4RL's AntMaze are -1
until the goal, then 0.

Other data of D4RL's mazes get what the play data of their maze do. A task that is not
there gets values that are divided by their mean size, for which the authors advise to
try alpha = 0.03, 0.1, 0.3, 1, 3 and 10:
--config.population.alpha=0.03,0.1,0.3,1,3,10
"""

from typing import Any

from o2ojax.run.config import ConfigDict, defaults

FAR = {"gamma": 0.995}
LOWER = {"backup": "min"}
TASKS: dict[str, dict[str, Any]] = {
    "humanoidmaze-medium": {"alpha": 100.0, **FAR},
    "antsoccer-arena": {"alpha": 30.0, **FAR},
    "cube-double": {"alpha": 300.0},
    "scene": {"alpha": 300.0},
    "puzzle-4x4": {"alpha": 1000.0},
    "antmaze-umaze": {"alpha": 10.0},
    "antmaze-umaze-diverse": {"alpha": 10.0},
    "antmaze-medium-play": {"alpha": 10.0},
    "antmaze-medium-diverse": {"alpha": 10.0},
    "antmaze-large-play": {"alpha": 3.0},
    "antmaze-large-diverse": {"alpha": 3.0},
    "pen-cloned": {"alpha": 1000.0, **LOWER},
    "door-cloned": {"alpha": 1000.0, **LOWER},
    "hammer-cloned": {"alpha": 1000.0, **LOWER},
    "relocate-cloned": {"alpha": 10_000.0, **LOWER},
}
UNKNOWN = {"alpha": 1.0, "normalise_q": True}


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `FQLConfig`, but for those above."""
    config = defaults("fql", task)
    config.replay.name = "uniform"
    config.eval.every = config.checkpoint.every = 100_000
    config.eval.episodes = 50
    config.agent.update(TASKS.get(published_as(task), UNKNOWN))
    if is_antmaze_of_d4rl(task):
        config.reward.shift = -1.0
    return config


MAZES = {
    "antmaze-umaze": "antmaze-umaze",
    "antmaze-medium": "antmaze-medium-play",
    "antmaze-large": "antmaze-large-play",
}
DIVERSE = ("antmaze-umaze-diverse", "antmaze-medium-diverse", "antmaze-large-diverse")


def published_as(task: str) -> str:
    """A task of OGBench's without its number; the name of D4RL's data that are nearest.

    Other names stay as they are.
    """
    if "-singletask" in task:
        return task.removeprefix("gymnasium:").partition("-singletask")[0]
    if not is_antmaze_of_d4rl(task) or task in DIVERSE:
        return task
    return next((MAZES[maze] for maze in MAZES if task.startswith(maze)), task)


def is_antmaze_of_d4rl(task: str) -> bool:
    """Whether it is D4RL's, whose rewards are 0 and 1; those of OGBench's are -1 and 0.

    OGBench's datasets have kinds of their own.
    """
    kinds = ("navigate", "stitch", "explore")
    return task.startswith("antmaze-") and not any(kind in task for kind in kinds)
