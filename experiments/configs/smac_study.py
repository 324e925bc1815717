"""SMAC against its ablations and PEARL, sized for two CPU cores.

The task is `NAME/DATASET`, as `smac/cheetah-vel-pearl`:

    offline      learns from the meta-dataset alone; the next three start from there
    smac         then explores without rewards
    smac-shared  likewise; its contexts are of all rows, as the authors' for ant
    oracle       then explores with true rewards, and goes on learning to infer its task
    pearl        explores with true rewards from the start, and has no dataset

Contexts are of all rows offline; online, but for smac-shared's, of what the prior
explored, the first two of three episodes, as in the authors' script for cheetah. (With
20 tasks of four such episodes each, an encoder learns them by heart.)

Networks of 64-64-64, 20 training and 8 test tasks, four tasks of 64 rows a batch, 50k
offline updates, as the authors' (after 5k, the policy has hardly learned to move); then
ten rounds of five tasks, 600 steps of each, the first 400 with latents from the prior,
and 1000 updates after them. Eight seeds on point-robot and four on cheetah-vel, each
judged in four trials of every test task.
"""

from o2ojax.errors import unknown
from o2ojax.run.config import ConfigDict

from . import pearl, smac

DATASETS = ("point-robot-pearl", "cheetah-vel-pearl")
STARTS_FROM = dict.fromkeys(("smac", "smac-shared", "oracle"), "offline")
OFFLINE = ()  # what is left out of figures and of the tables of online results
ALONE = ("pearl",)  # what has a figure of its own: its budget is another one
NAMES = ("offline", *STARTS_FROM, "pearl")
AFTER_OFFLINE = {"offline": "offline"}
SEEDS = {"point-robot": 8, "cheetah-vel": 4}


def get_config(task: str = "smac/cheetah-vel-pearl") -> ConfigDict:
    """Online, an evaluation after each round."""
    name, _, dataset = task.partition("/")
    if name not in NAMES:
        raise unknown("task", name, NAMES)
    if name == "pearl":
        return scratch(dataset)
    config = smac.get_config(dataset)
    shrink(config)
    config.agent.prior_explore = 2  # of three
    config.batch = 64
    config.offline.updates = 50_000
    config.online.steps = 30_000
    config.online.round = config.log.every = config.eval.every = 3_000
    config.online.updates_per_step = 1 / 3
    config.checkpoint.every = 15_000
    if name == "offline":
        config.online.steps = 0
        config.eval.every = 12_000
    else:
        config.offline.updates = 0
    if name in ("smac", "oracle"):
        config.agent.trial_rows, config.agent.explored_rows = 600, 400
    if name == "oracle":
        config.agent.labels = "true"
    return config


def scratch(dataset: str) -> ConfigDict:
    """A run as those that the datasets are made of, of 240k steps a seed.

    That of cheetah-vel-pearl took 480k.
    """
    config = pearl.get_config(dataset.removesuffix("-pearl"))
    shrink(config)
    config.online.steps = 240_000
    config.online.updates_per_step = 0.25
    return config


def shrink(config: ConfigDict) -> None:
    """Cuts networks and batches down."""
    config.seeds = SEEDS[config.env]
    config.agent.widths = config.agent.encoder_widths = (64, 64, 64)
    config.agent.online_batch = 64
