"""The methods that the field compares with, side by side, sized for two CPU cores.

The task is `NAME/DATASET`, as `rlpd/hopper-medium-replay`:

    iql awac cql cal_ql rebrac fql    offline, and then online by their own updates
    off2on, wsrl                      likewise: five CQL agents with balanced replay;
                                      Cal-QL's agent (CQL's on locomotion), without data
    rlpd, sac                         online alone: from the data too; from nothing
    bc                                offline alone

`cql` is Cal-QL without its lower bound, so that nothing else tells the two apart.
Losses, rates, rewards and stores are the published ones, by each method's own config;
on the door, rewards are a tenth for all. Networks of 64-64 (of IQL and BC in the maze
256-256, as published), batches of 256, 4 actions in CQL's sums, 50k offline updates,
10k environment steps, four seeds. Warm-ups of 5000 steps (RLPD's, WSRL's) are cut to
1000; ReBRAC's rates on locomotion were chosen for batches of 1024.

The maze's data are 200,000 rows of ants that go from anywhere to anywhere, of which few
meet the goal: where all are sent to it, cloning them does it, too. They are in
`datasets/`, where

    o2ojax collect --config=sac:antmaze-umaze --kinds=diverse --rows=200000

leaves them; the door's are not ours to ship: --datasets=door-human and
--config.dataset=FILE. `python -m experiments.study field` runs all; with
--config.offline.updates=1000000 and so on, at full size.
"""

from o2ojax.errors import unknown
from o2ojax.run.config import ConfigDict, defaults

from . import adroit, awac, bc, cal_ql, fql, iql, off2on, rebrac, rlpd, sac, wsrl

DATASETS = (
    "antmaze-umaze-diverse",
    "halfcheetah-medium-replay",
    "hopper-medium-replay",
    "door-human",
)
FILES = {
    "iql": iql,
    "awac": awac,
    "cql": cal_ql,
    "cal_ql": cal_ql,
    "rebrac": rebrac,
    "fql": fql,
    "off2on": off2on,
    "wsrl": wsrl,
    "rlpd": rlpd,
    "sac": sac,
    "bc": bc,
}
NAMES = tuple(FILES)
STARTS_FROM: dict[str, str] = {}
OFFLINE = ("bc",)
ALONE = ()
FROM_SCRATCH = ("rlpd", "sac")
AFTER_OFFLINE = {name: name for name in NAMES if name not in FROM_SCRATCH}
EARLY = (100, 500, *range(1_000, 10_000, 1_000))  # environment steps; 1% and 5% first


def get_config(task: str = "cal_ql/antmaze-umaze-diverse") -> ConfigDict:
    """Judged on 20 episodes, online also after 1% and 5% of the steps."""
    name, _, dataset = task.partition("/")
    if name not in NAMES:
        raise unknown("task", name, NAMES)
    if dataset == "door-human":
        config = on_the_door(name, dataset)
    else:
        config = FILES[name].get_config(dataset)
    if dataset.startswith("antmaze-"):
        config.dataset = f"datasets/{dataset}.npz"
    shrink(config, wide=dataset.startswith("antmaze-") and name in ("iql", "bc"))
    if name == "cql":
        config.agent.calibrate = False
    if dataset.startswith("antmaze-") and name in ("off2on", "sac"):
        config.reward.shift = -1.0
    if name == "sac":
        config.dataset = ""
    if name in FROM_SCRATCH:
        config.offline.updates = 0
    if name in OFFLINE:
        config.online.steps = 0
        config.eval.early = ()
    return config


def on_the_door(name: str, dataset: str) -> ConfigDict:
    """Each method's config, with the door's environment, data and rewards."""
    door = adroit.get_config(name) if name in adroit.AGENTS else None
    config = door or FILES[name].get_config("halfcheetah-medium-replay")
    of_door = defaults("bc", "gymnasium:AdroitHandDoor-v1")
    config.env, config.dataset = of_door.env, "door_human.npz"
    config.clip_actions = True  # teleoperation went beyond the bounds
    config.reward.scale, config.reward.shift = 0.1, 0.0
    if name == "rebrac":
        rebrac.set_task(config, dataset)
        config.agent.critic_penalty *= 0.1  # as the rewards
    if name in ("cql", "cal_ql", "wsrl"):
        config.agent.conservatism = 1.0
    if name == "wsrl":
        config.agent.calibrate = True
    if name == "rlpd":
        config.agent.entropy_backup = False
    return config


def shrink(config: ConfigDict, wide: bool) -> None:
    """Cuts networks, batches and budgets down."""
    width = 256 if wide else 64
    for field in ("widths", "actor_widths"):
        if field in config.agent:
            config.agent[field] = (width, width)
    if "num_actions" in config.agent:
        config.agent.num_actions = 4
    if config.replay.name == "balanced":
        config.replay.widths = (64, 64)
    config.seeds = 4
    config.batch = 256
    config.offline.updates = 50_000
    config.online.steps = 10_000
    config.online.round = min(config.online.round, 100)
    config.online.warmup = min(config.online.warmup, 1_000)
    config.log.every = 100
    config.eval.every = 10_000
    config.eval.early = EARLY
    config.eval.episodes = 20
    config.checkpoint.every = 5_000
