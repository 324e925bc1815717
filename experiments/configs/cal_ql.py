"""Cal-QL (Nakamoto et al., NeurIPS 2023), for AntMaze as published, and elsewhere.

AntMaze: 1M offline updates, then 1M environment steps; rewards are 10 r - 5, four
layers of critics, the Lagrange multiplier. The authors gather a whole episode and then
update as often as it had steps; here it is in rounds of a thousand steps.

Other tasks have no published settings but Adroit's binary tasks and Kitchen: here they
keep their rewards, have two layers, and a fixed weight of the gap, as CQL has it there.
Where rewards are dense, returns are counted up to the time limit alone. If they can be
negative, that is no lower bound: set `calibrate=False`.
"""

from o2ojax.run.config import ConfigDict, defaults


def get_config(task: str = "antmaze-umaze-fixed") -> ConfigDict:
    """Hyper-parameters are the defaults of `CalQLConfig`, which are AntMaze's."""
    config = defaults("cal_ql", task)
    config.replay.name = "symmetric"
    config.online.round = 1_000
    if config.env.startswith("antmaze-"):
        config.reward.scale, config.reward.shift = 10.0, -5.0
        config.eval.episodes = 20
    else:
        config.agent.widths = (256, 256)
        config.agent.lagrange = False
        config.online.steps = 250_000
    return config
