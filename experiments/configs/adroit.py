"""A hand that opens a door, from 25 human demonstrations: `adroit.py:ALGORITHM`.

The data are door-human of Rajeswaran et al. (2018), which D4RL took over; they are not
ours to ship: --config.dataset=FILE. The environment is gymnasium-robotics', whose dense
rewards are not D4RL's, so it is success that counts. ALGORITHM is iql, awac or bc.
"""

from ml_collections import ConfigDict

from o2ojax.run.config import defaults

# The authors' settings for Adroit, where they differ from those for locomotion.
AGENTS = {
    "iql": {"beta": 0.5, "dropout": 0.1},
    "awac": {
        "temperature": 0.5,
        "value_at_mean": True,
        "actor_widths": (256, 256),
    },
    "bc": {},
}


def get_config(algorithm: str = "iql") -> ConfigDict:
    """As much as a laptop's CPU does in half an hour."""
    config = defaults(algorithm, "gymnasium:AdroitHandDoor-v1")
    config.dataset = "door_human.npz"
    config.clip_actions = True  # teleoperation went beyond the bounds
    for name, value in AGENTS[algorithm].items():
        config.agent[name] = value
    config.reward.scale = 0.1  # a success earns some 10 a step
    config.seeds = 4
    config.offline.updates = 20_000
    config.online.steps = 10_000
    config.eval.every = 5_000
    config.eval.episodes = 25
    config.log.every = config.checkpoint.every = 1_000
    return config
