"""SAC teaches an ant to walk where it is told, for AntMaze's datasets."""

from o2ojax.run.config import ConfigDict

from . import sac

GROUND = f"{__package__.rpartition('.')[0]}.antmaze:walk"


def get_config() -> ConfigDict:
    """400k decisions of eight ants, an update for every fourth."""
    config = sac.get_config(GROUND)
    config.seeds = 1
    config.agent.widths = (128, 128)
    config.online.steps = 400_000
    config.online.envs = 8
    config.online.updates_per_step = 0.25
    config.online.warmup = 8_000
    config.eval.every = 40_000
    config.eval.episodes = 20
    config.checkpoint.every = 40_000
    config.log.every = 8_000
    return config
