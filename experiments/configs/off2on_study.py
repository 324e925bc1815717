"""Off2OnRL against its ablations and the field, sized for two CPU cores.

The task is `NAME/DATASET`, as `off2on/hopper-random`. `cql` trains five CQL agents for
every seed, offline; what starts from them names its run by `--config.offline.from=`:

    off2on          the ensemble with balanced replay
    off2on-uniform  without balanced replay: dataset and ring as one
    off2on-1        without the ensemble: N = 1
    sac-ft          SAC from the first agent, dataset and ring as one
    sac-ft-online   SAC from the first agent, the ring alone

`awac` and `bcq` train themselves offline and go on online; `sac` begins with nothing;
`bc`, `iql` and `td3_bc` stay offline. `python -m experiments.study off2on` runs all.
Published losses and rates; networks of 64-64 (BCQ's 128-128), batches of 256, 4 actions
in CQL's sums, 10 candidates where BCQ acts; 200k offline updates on medium data (CQL of
20k was not pessimistic yet), 50k on random data and for BCQ; 25k environment steps,
three seeds. All methods go online in the rhythm of Off2OnRL, five times as many updates
after the first round, as published for medium, so that none has more than another.

The medium data are those of `length_study.py`, which has the same CQL agents: a link to
its `cql` (as `runs/off2on_study/hopper-medium/cql`) spares training them anew.
"""

from o2ojax.errors import unknown
from o2ojax.run.config import ConfigDict

from . import awac, bc, bcq, iql, off2on, sac, td3_bc

DATASETS = tuple(
    f"{env}-{kind}"
    for env in ("halfcheetah", "hopper")
    for kind in ("random", "medium")
)
STARTS_FROM = dict.fromkeys(
    ("off2on", "off2on-uniform", "off2on-1", "sac-ft", "sac-ft-online"), "cql"
)
OFFLINE = ("cql", "bc", "iql", "td3_bc")
ALONE = ()
NAMES = ("cql", *STARTS_FROM, "awac", "bcq", "sac", "bc", "iql", "td3_bc")
# What an agent is called that has been offline, and the run that says how it fared.
AFTER_OFFLINE = {
    "bc": "bc",
    "iql": "iql",
    "td3_bc": "td3_bc",
    "awac": "awac",
    "bcq": "bcq",
    "cql": "sac-ft",
    "five cql agents as one": "cql",
}
FILES = {"awac": awac, "bc": bc, "bcq": bcq, "iql": iql, "sac": sac, "td3_bc": td3_bc}


def get_config(task: str = "off2on/hopper-medium") -> ConfigDict:
    """Twenty episodes at every evaluation, every 5000 updates and 1000 steps."""
    name, _, dataset = task.partition("/")
    if name not in NAMES:
        raise unknown("task", name, NAMES)
    config = FILES.get(name.split("-")[0], off2on).get_config(dataset)
    shrink(config)
    on_medium = dataset.endswith("-medium")
    if on_medium:  # it does not ship
        config.dataset = f"datasets/{dataset}.npz"
    config.offline.updates = 200_000 if on_medium and name != "bcq" else 50_000
    config.eval.every = 5_000
    config.eval.early = tuple(range(1_000, config.online.steps, 1_000))
    if name in OFFLINE:
        config.eval.early, config.online.steps = (), 0
    if name in (*STARTS_FROM, "sac"):
        config.offline.updates = 0
    if name == "sac":
        config.dataset = ""
    if name == "off2on-1":
        config.agent.num_agents = 1
    if name in ("cql", "off2on-uniform", "sac-ft"):
        config.replay.name = "uniform"
    if name in ("sac-ft-online", "sac"):
        config.replay.name = "online"
    if config.replay.name == "balanced":
        config.replay.widths = (64, 64)
        if on_medium:
            config.replay.first_share = 0.75  # the authors'
    return config


def shrink(config: ConfigDict) -> None:
    """Cuts networks, batches and budgets down; all methods go online alike."""
    config.seeds = 3
    config.batch = 256
    for field, small in (
        ("widths", (64, 64)),
        ("actor_widths", (64, 64)),
        ("num_actions", 4),
        ("num_candidates_act", 10),
    ):
        if field in config.agent:
            config.agent[field] = small
    if config.algorithm == "bcq":
        config.agent.widths = config.agent.vae_widths = (128, 128)
    config.online.steps = 25_000
    config.online.round = 1_000
    config.online.first_round = 5
    config.online.warmup = 0
    config.eval.episodes = 20
    config.checkpoint.every = 5_000
