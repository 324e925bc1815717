"""Off2OnRL from pictures alone against SAC and BC, sized for two CPU cores.

A sparse task, as the authors' three are: the cube has to be pushed to a goal, and what
is seen is a picture, without the arm's own state. (Their released code has nothing of
these, so a comparison with their figures is not possible. A tray to put the cube into
is said to be nearer to them, and too hard at this size: after 2,750 updates, BC had not
once succeeded.) The task is `NAME/DATASET`, whose dataset is a file in `datasets/`, as
`off2on/push_sparse-pixels-medium-replay`; it is made by

    python -m experiments.collect --kinds=medium-replay --rows=20000 \
        --config=experiments/configs/collect.py:push_sparse-pixels \
        --config.pixels.size=48 --config.pixels.state=False

`cql` trains five CQL agents for every seed, offline; what starts from them names its
run by `--config.offline.from=`:

    off2on   the ensemble with balanced replay
    sac-ft   SAC from the first agent, dataset and ring as one

`bc` stays offline. `python -m experiments.study off2on-pixels` runs all. Frames of 48 x
48, RLPD's convolutions, batches of 64, networks of 64-64, 4 actions in CQL's sums, 5k
offline updates, 2.5k decisions online in rounds of 250 with an update each and five
times as many after the first, three seeds, 20 episodes at every evaluation.
"""

from o2ojax.errors import unknown
from o2ojax.run.config import ConfigDict

from . import bc, off2on, off2on_study, sac

DATASETS = ("push_sparse-pixels-medium-replay",)
STARTS_FROM = {"off2on": "cql", "sac-ft": "cql"}
OFFLINE = ("cql", "bc")
ALONE = ()
NAMES = ("cql", *STARTS_FROM, "bc")
AFTER_OFFLINE = {"bc": "bc", "cql": "sac-ft", "five cql agents as one": "cql"}
FILES = {"bc": bc, "sac-ft": sac}
SIZE = 48  # pixels of a side


def get_config(task: str = "off2on/push_sparse-pixels-medium-replay") -> ConfigDict:
    """Ten evaluations online, of 20 episodes."""
    name, _, dataset = task.partition("/")
    if name not in NAMES:
        raise unknown("task", name, NAMES)
    config = FILES.get(name, off2on).get_config(dataset)
    off2on_study.shrink(config)
    config.dataset = f"datasets/{dataset}.npz"
    config.pixels.size, config.pixels.state = SIZE, False
    config.seeds, config.batch = 3, 64
    config.offline.updates, config.online.steps = 5_000, 2_500
    config.online.round, config.online.first_round = 250, 5
    config.eval.every = config.log.every = 250
    config.checkpoint.every = 2_500
    if name in OFFLINE:
        config.online.steps = 0
    if name in STARTS_FROM:
        config.offline.updates = 0
    if name in ("cql", "sac-ft"):
        config.replay.name = "uniform"
    if config.replay.name == "balanced":
        config.replay.widths = (64, 64)
    return config
