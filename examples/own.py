"""A config that puts the three examples together: `--config=examples/own.py`."""

from pathlib import Path

from o2ojax.run.config import ConfigDict, defaults

HERE = Path(__file__).parent


def get_config() -> ConfigDict:
    """Small enough for a laptop: some minutes."""
    config = defaults(
        f"{HERE}/layernorm_iql.py:ALGORITHM", f"{HERE}/pendulum.py:pendulum"
    )
    config.dataset = f"{HERE}/pendulum.py:random_play"
    config.replay.name = f"{HERE}/recent_store.py:STORE"
    config.agent.widths = (64, 64)
    config.offline.updates = 5_000
    config.online.steps = 5_000
    config.online.envs = 5
    config.log.every = config.eval.every = 500
    config.checkpoint.every = 2_500
    return config
