"""FOWM against its ablations, TD-MPC and IQL, sized for two CPU cores.

The task is `NAME/DATASET`, as `fowm/lift-medium-replay`. `fowm-offline` trains the
world models; what starts from them names its run by `--config.offline.from=`:

    fowm           as published
    fowm-lambda-0  no price for the critics' disagreement: lambda = 0
    fowm-uniform   without balanced sampling: dataset and ring as one
    fowm-lambdas   several values of lambda, as one job

Priorities begin anew online, as the authors' do where they load a model. `tdmpc` learns
its values and its policy as TD-MPC does, with FOWM's networks, and has no price; it
begins offline, too, from the same data and in the same rhythm, as does `iql`, with the
reward, gamma and expectile of FOWM. `python -m experiments.study fowm` runs all.

Networks 128 wide, batches of 128, 64 sampled and 8 proposed plans of which 8 are kept,
two iterations on every task (hopper's published number is 1), 50 updates after every 50
decisions (hopper's: 1000), 15k offline updates, 5k decisions online, four seeds, and
eight on lift. `LARGE` is lift once more with 2.5k decisions beside 250,000 rows: where
fresh ones are so few, balanced sampling has most to bring. Its rows are where

    o2ojax collect --config=collect:lift --kinds=medium-replay --rows=250000

leaves them.
"""

from o2ojax.envs import manipulation, pixels
from o2ojax.errors import unknown
from o2ojax.run.config import ConfigDict

from . import fowm, iql

LARGE = "lift-medium-replay-250k"
DATASETS = ("push-medium-replay", "lift-medium-replay", "hopper-medium-replay", LARGE)
SEEDS = {"lift-medium-replay": 8, LARGE: 8}
STARTS_FROM = {
    name: "fowm-offline"
    for name in ("fowm", "fowm-lambda-0", "fowm-uniform", "fowm-lambdas")
}
OFFLINE = ()  # what is left out of figures and of the tables of online results
ALONE = ("fowm-lambdas",)  # what has a figure of its own
NAMES = ("fowm-offline", *STARTS_FROM, "tdmpc", "iql")
METHODS = {LARGE: ("fowm-offline", "fowm", "fowm-uniform")}  # elsewhere, all
AFTER_OFFLINE = {name: name for name in ("fowm", "fowm-lambda-0", "tdmpc", "iql")}
LAMBDAS = {True: (0.0, 1.0, 10.0), False: (0.0, 20.0, 50.0)}


def get_config(task: str = "fowm/lift-medium-replay") -> ConfigDict:
    """Online, ten evaluations of 20 episodes; on locomotion, five of 3."""
    name, _, dataset = task.partition("/")
    if name not in NAMES:
        raise unknown("task", name, NAMES)
    shipped = dataset.removesuffix("-250k")
    published = fowm.get_config(shipped)
    config = iql.get_config(shipped) if name == "iql" else published
    on_manipulation = pixels.task_of(published.env) in manipulation.TASKS
    shrink(config, on_manipulation)
    config.seeds = SEEDS.get(dataset, 4)
    if dataset == LARGE:
        config.dataset = f"datasets/{shipped}.npz"
        config.online.steps = 2_500
    if name == "iql":
        config.reward.scale = published.reward.scale
        config.agent.gamma = published.agent.gamma
        config.agent.expectile = published.agent.expectile
    if name in STARTS_FROM:
        config.offline.updates = 0
    if name == "fowm-offline":
        config.online.steps = 0
    if name == "fowm-lambda-0":
        config.agent.penalty = 0.0
    if name == "fowm-uniform":
        config.replay.name = "uniform_windows"
    if name == "fowm-lambdas":
        config.population.penalty = LAMBDAS[on_manipulation]
        config.eval.every = 2_500  # three times as many members
    if name == "tdmpc":
        config.agent.in_sample = False
        config.agent.penalty = 0.0
    return config


def shrink(config: ConfigDict, on_manipulation: bool) -> None:
    """Cuts networks, batches and budgets down; all methods go online alike."""
    config.batch = 128
    if config.algorithm == "fowm":
        config.agent.encoder_width = config.agent.width = 128
        config.agent.num_samples = 64
        config.agent.num_proposals = config.agent.num_elites = 8
        config.agent.iterations = 2.0
    else:
        config.agent.widths = (128, 128)
    config.offline.updates = 15_000
    config.online.steps = 5_000
    config.online.round = 50
    config.online.warmup = 0
    config.log.every = 250
    config.eval.every = 500 if on_manipulation else 1_000
    config.eval.episodes = 20 if on_manipulation else 3
    config.checkpoint.every = 2_500
