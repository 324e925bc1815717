"""RLPD (Ball et al., ICML 2023) on locomotion: 250k steps online, from the first one.

Nothing is learned offline. The first 5000 actions are random; then, after every step,
twenty steps of the critics on as many minibatches of 256, and one of the policy. Half
of each minibatch is the dataset's. Rewards are raw, and ten episodes are judged every
5000 steps.

AntMaze has the authors' own settings: 300k steps, rewards of -1 and 0, three layers, no
`entropy_backup`, and one target critic. Theirs for Adroit: 1M steps, widths of
256,256,256, and no `entropy_backup`. From pixels, they are theirs for V-D4RL but for
the frames: theirs are of 64 x 64, in stacks of 3 (`pixels.size`, `pixels.stack`).
"""

from o2ojax.envs import PICTURED
from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `RLPDConfig`."""
    config = defaults("rlpd", task)
    config.replay.name = "symmetric"
    config.offline.updates = 0
    config.online.steps = 250_000
    config.online.warmup = 5_000
    config.eval.every = config.checkpoint.every = 5_000
    if config.env.startswith("antmaze-"):
        config.online.steps = 300_000
        config.reward.shift = -1.0
        config.agent.widths = (256, 256, 256)
        config.agent.entropy_backup = False
        config.agent.num_target_critics = 1
    if config.env in PICTURED:
        config.online.warmup = 1_000
        config.agent.init_temperature = 0.1
        config.agent.entropy_backup = False
        config.agent.num_target_critics = 1
        config.agent.critic_steps = 1
    return config
