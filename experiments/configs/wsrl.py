"""WSRL (Zhou et al., ICLR 2025): offline with data, online without.

On locomotion, as here by default, the offline phase is CQL, 250k updates:
returns-to-go are hard to estimate there. On `antmaze-...` tasks, it is Cal-QL, 1M
updates, and rewards are 10 r - 5. The dataset is left behind; the policy plays 5000
steps as it is, and then every step has four steps of the critics on as many minibatches
of 256, and one of the policy. Twenty episodes are judged every 20k steps, of 500k.

The authors' settings for other tasks: Adroit, 20k updates of Cal-QL, 10 r + 5, no
`lagrange`, `conservatism` 1, widths 512,512,512 and actor_widths 512,512; Kitchen, 250k
updates, r - 4, no `lagrange`, no `importance`, both widths 512,512,512; and neither has
`online_max_backup`.
"""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "halfcheetah-medium-replay") -> ConfigDict:
    """The defaults of `WSRLConfig` in mazes; elsewhere as set below."""
    config = defaults("wsrl", task)
    config.replay.name = "online"
    config.online.steps = 500_000
    config.online.warmup = 5_000
    config.eval.every = config.checkpoint.every = 20_000
    config.eval.episodes = 20
    if config.env.startswith("antmaze-"):
        config.reward.scale, config.reward.shift = 10.0, -5.0
        return config
    config.offline.updates = 250_000
    config.agent.calibrate = config.agent.lagrange = False
    config.agent.online_max_backup = False
    config.agent.widths = (256, 256)
    return config
