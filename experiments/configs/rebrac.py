"""ReBRAC (Tarasov et al., NeurIPS 2023): the authors' choices for each dataset of D4RL.

Offline, 1M updates. Online, 1M environment steps with one update each, half of every
batch from the dataset, as the authors' fine-tuning in CORL; that was published for
AntMaze and for Adroit's cloned data, so its rhythm on locomotion is ours. Nothing is
normalised but rewards of AntMaze, which are multiplied by 100 in either phase.

Locomotion: batches of 1024, learning rates of 1e-3. Adroit: 256 and 3e-4. AntMaze: 256,
3e-4 for the policy and 5e-5 for the critics, and a discount of 0.999. `PENALTIES` has
the weights that were chosen for each dataset, by its name in D4RL without a version. A
dataset that is not there gets 0.01 and 0.01, and what is right for locomotion; in
D4RL's mazes, what the play data of the maze do. The paper chooses from 0.001, 0.01,
0.05, 0.1 and from 0, 0.001, 0.01, 0.1, 0.5.
"""

from o2ojax.run.config import ConfigDict, defaults

from .fql import is_antmaze_of_d4rl, published_as

# (actor_penalty, critic_penalty)
PENALTIES = {
    "halfcheetah-random": (0.001, 0.1),
    "halfcheetah-medium": (0.001, 0.01),
    "halfcheetah-expert": (0.01, 0.01),
    "halfcheetah-medium-expert": (0.01, 0.1),
    "halfcheetah-medium-replay": (0.01, 0.001),
    "halfcheetah-full-replay": (0.001, 0.1),
    "hopper-random": (0.001, 0.01),
    "hopper-medium": (0.01, 0.01),
    "hopper-expert": (0.1, 0.1),
    "hopper-medium-expert": (0.1, 0.01),
    "hopper-medium-replay": (0.05, 0.5),
    "hopper-full-replay": (0.01, 0.01),
    "walker2d-random": (0.01, 0.0),
    "walker2d-medium": (0.05, 0.1),
    "walker2d-expert": (0.01, 0.5),
    "walker2d-medium-expert": (0.01, 0.01),
    "walker2d-medium-replay": (0.05, 0.01),
    "walker2d-full-replay": (0.01, 0.01),
    "antmaze-umaze": (0.003, 0.002),
    "antmaze-umaze-diverse": (0.003, 0.001),
    "antmaze-medium-play": (0.001, 0.0005),
    "antmaze-medium-diverse": (0.001, 0.0),
    "antmaze-large-play": (0.002, 0.001),
    "antmaze-large-diverse": (0.002, 0.002),
    "pen-human": (0.1, 0.5),
    "pen-cloned": (0.05, 0.5),
    "pen-expert": (0.01, 0.01),
    "door-human": (0.1, 0.1),
    "door-cloned": (0.01, 0.1),
    "door-expert": (0.05, 0.01),
    "hammer-human": (0.01, 0.5),
    "hammer-cloned": (0.1, 0.5),
    "hammer-expert": (0.01, 0.01),
    "relocate-human": (0.1, 0.01),
    "relocate-cloned": (0.1, 0.01),
    "relocate-expert": (0.05, 0.01),
}
ADROIT = ("pen-", "door-", "hammer-", "relocate-")


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """Hyper-parameters are the defaults of `ReBRACConfig`, but for those above."""
    config = defaults("rebrac", task)
    config.replay.name = "symmetric"
    config.eval.every = 5_000
    config.batch = 1024
    set_task(config, task)
    return config


def set_task(config: ConfigDict, dataset: str) -> None:
    """Sets what the authors chose for a dataset, by its name in D4RL."""
    agent = config.agent
    known = published_as(dataset)
    if known in PENALTIES:
        agent.actor_penalty, agent.critic_penalty = PENALTIES[known]
    if is_antmaze_of_d4rl(dataset):
        config.batch = 256
        config.reward.scale = 100.0
        agent.gamma, agent.lr, agent.actor_lr = 0.999, 5e-5, 3e-4
    if dataset.startswith(ADROIT):
        config.batch = 256
        agent.lr = agent.actor_lr = 3e-4
