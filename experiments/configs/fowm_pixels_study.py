"""FOWM from pictures against its ablations and IQL, sized for two CPU cores.

The task is `NAME/DATASET`, as `fowm/lift-pixels-medium-replay`, whose dataset is a file
in `datasets/`; it is made by

    python -m experiments.collect --config=experiments/configs/collect.py:lift-pixels \
        --kinds=medium-replay --rows=20000 --config.pixels.size=56

`fowm-offline` trains the world models; what starts from them names its run by
`--config.offline.from=`:

    fowm           as published
    fowm-lambda-0  no price for the critics' disagreement: lambda = 0
    fowm-uniform   one pool: dataset and ring as one, not half of each

`iql` sees through RLPD's convolutions, and begins offline from the same data, with the
reward, gamma and expectile of FOWM. `python -m experiments.study fowm-pixels` runs all.

Frames of 56 x 56, of which FOWM's convolutions make 2 x 2 places (of 48 x 48, they make
one, which never sees the last nine rows and columns); batches of 64, networks 128 wide,
64 sampled and 8 proposed plans of which 8 are kept, two iterations, 5k offline updates,
2.5k decisions online with an update each, three seeds, 20 episodes at every evaluation.
"""

from o2ojax.errors import unknown
from o2ojax.run.config import ConfigDict

from . import fowm_study

DATASETS = ("lift-pixels-medium-replay",)
STARTS_FROM = {
    name: "fowm-offline" for name in ("fowm", "fowm-lambda-0", "fowm-uniform")
}
OFFLINE = ()  # what is left out of figures and of the tables of online results
ALONE = ()
NAMES = ("fowm-offline", *STARTS_FROM, "iql")
AFTER_OFFLINE = {"fowm": "fowm", "fowm-lambda-0": "fowm-lambda-0", "iql": "iql"}
SIZE = 56  # pixels of a side


def get_config(task: str = "fowm/lift-pixels-medium-replay") -> ConfigDict:
    """Five evaluations online, of 20 episodes."""
    name, _, dataset = task.partition("/")
    if name not in NAMES:
        raise unknown("task", name, NAMES)
    config = fowm_study.get_config(task)
    config.dataset = f"datasets/{dataset}.npz"
    config.pixels.size = SIZE
    config.agent.shift = SIZE // 21  # the authors' share of a side
    config.seeds, config.batch = 3, 64
    config.offline.updates = min(config.offline.updates, 5_000)
    config.online.steps = min(config.online.steps, 2_500)
    return config
