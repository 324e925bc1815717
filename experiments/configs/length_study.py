r"""How long offline? Off2OnRL's hand-over after more and more updates of CQL.

The task is `NAME/DATASET`, as `balanced-20k/hopper-medium`. `cql` trains ensembles of
five CQL agents, of which checkpoints are kept; what starts from one is named for its
store and for the updates that its agents have had:

    balanced-20k    Off2OnRL with balanced replay
    uniform-20k     dataset and ring as one
    online-20k      the ring alone

The data are `medium` of 200,000 rows, in `datasets/`, where

    o2ojax collect --config=collect:hopper --kinds=medium --rows=200000

leaves them (and `collect:halfcheetah`). The policies that play them ship, so that seeds
run elsewhere have rows of the same ones (`halfcheetah-medium.o2o`, too):

    o2ojax collect --config=collect:hopper --policy=experiments/hopper-medium.o2o \
      --config.online.envs=20 --rows=200000 --file=datasets/hopper-medium.npz

Networks of 64-64, batches of 256, 4 actions in CQL's sums, 10k environment steps in
rounds of 1000, five times as many updates after the first (as published for medium),
three seeds. `python -m experiments.study length` runs all.
"""

from o2ojax.errors import unknown
from o2ojax.run.config import ConfigDict

from . import off2on

DATASETS = ("halfcheetah-medium", "hopper-medium")
STORES = ("balanced", "uniform", "online")
LENGTHS = {"20k": 20_000, "50k": 50_000, "100k": 100_000, "200k": 200_000}
STARTS_FROM = {
    f"{store}-{length}": f"cql@{updates}"
    for length, updates in LENGTHS.items()
    for store in STORES
}
OFFLINE = ("cql",)
ALONE = ()
NAMES = ("cql", *STARTS_FROM)
AFTER_OFFLINE = {f"cql, {length}": f"uniform-{length}" for length in LENGTHS}


def get_config(task: str = "balanced-20k/hopper-medium") -> ConfigDict:
    """Twenty episodes at every evaluation, every 5000 updates and 1000 steps."""
    name, _, dataset = task.partition("/")
    if name not in NAMES:
        raise unknown("task", name, NAMES)
    config = off2on.get_config(dataset)
    config.dataset = f"datasets/{dataset}.npz"
    config.seeds = 3
    config.agent.widths = (64, 64)
    config.agent.num_actions = 4
    config.eval.episodes = 20
    config.online.first_round = 5
    if name == "cql":
        config.replay.name = "uniform"
        config.offline.updates = max(LENGTHS.values())
        config.online.steps = 0
        config.eval.every = config.checkpoint.every = 5_000
        config.checkpoint.keep = tuple(LENGTHS.values())
    else:
        config.replay.name = name.partition("-")[0]
        config.offline.updates = 0
        config.online.steps = 10_000
        config.online.warmup = 0
        config.eval.every = 1_000
        config.checkpoint.every = 5_000
    if config.replay.name == "balanced":
        config.replay.widths = (64, 64)
        config.replay.first_share = 0.75  # the authors', on medium
    return config
