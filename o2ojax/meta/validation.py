"""What configs of SMAC and PEARL must satisfy besides the ranges of their fields."""

from typing import Any

from o2ojax.errors import UserError
from o2ojax.types import EnvSpec


def check(run: Any) -> None:
    """Rewards must be as they are; and there must be what labels are learned from.

    Raises:
        UserError: names the field, what is wrong with it, and what would be right.
    """
    config = run.agent
    if (run.reward.scale, run.reward.shift) != (1.0, 0.0):
        raise UserError(
            f"config.reward is {run.reward.scale} and {run.reward.shift}, but"
            f" {run.algorithm} infers tasks from rewards as they are; leave scale 1"
            " and shift 0, and set config.agent.reward_scale"
        )
    if getattr(config, "labels", "true") == "decoder" and not run.dataset:
        raise UserError(
            "config.agent.labels is 'decoder', which learns from a dataset's rewards,"
            " and config.dataset names none; name one, or set config.agent.labels=true"
        )
    if config.trial <= config.prior_exploit:
        raise UserError(
            f"config.agent.trial is {config.trial} episodes, and the first"
            f" {config.prior_exploit} explore (config.agent.prior_exploit): none would"
            f" show what was inferred; give at least {config.prior_exploit + 1}"
        )
    usual = type(config)().explored_rows
    if not config.trial_rows and config.explored_rows not in (0, usual):
        raise UserError(
            f"config.agent.explored_rows is {config.explored_rows}, which is of no use"
            " without config.agent.trial_rows, the rows of a whole trial: set that, or"
            " leave explored_rows out"
        )


def check_task(run: Any, spec: EnvSpec) -> None:
    """Trials are whole episodes, of all tasks that there are.

    Raises:
        UserError: names the field, what is wrong with it, and what would be right.
    """
    if spec.num_train < 2:
        raise UserError(
            f"config.tasks.train is {run.tasks.train}; {run.algorithm} learns to tell"
            " tasks apart, so give at least 2"
        )
    if run.online.steps:
        _check_rounds(run, spec)
    if run.agent.trial_rows:
        _check_contexts(run, spec)


def _check_rounds(run: Any, spec: EnvSpec) -> None:
    """A round is of whole episodes, some of which show what was inferred."""
    num_envs, round_, explored = (
        run.online.envs,
        run.online.round,
        run.agent.prior_explore,
    )
    episode = num_envs * spec.horizon
    if not round_ or round_ % episode:
        raise UserError(
            f"config.online.round is {round_}; {run.algorithm} begins new trials in"
            f" every round, of whole episodes: give a multiple of {episode}, which is"
            f" {spec.horizon} steps in each of config.online.envs={num_envs}"
        )
    if round_ // episode <= explored:
        raise UserError(
            f"config.online.round is {round_}, {round_ // episode} episode(s) of each"
            f" task, and in the first {explored} of them {run.algorithm} explores by"
            " the prior (config.agent.prior_explore); give at least"
            f" {(explored + 1) * episode}"
        )
    warmed = run.online.warmup and num_envs >= spec.num_train
    if not run.dataset and not warmed:
        raise UserError(
            f"without a dataset, every one of the {spec.num_train} training tasks needs"
            f" rows before the first update: set config.online.envs={spec.num_train} or"
            f" more (it is {num_envs}), and config.online.warmup above 0"
        )


def _check_contexts(run: Any, spec: EnvSpec) -> None:
    """Where contexts are of exploration alone, trials must be where they are sought."""
    config, trial = run.agent, run.agent.trial_rows
    if run.online.steps:
        _check_contexts_online(run, spec)
    if trial % spec.horizon:
        raise UserError(
            f"config.agent.trial_rows is {trial}; trials are whole episodes: give a"
            f" multiple of {spec.horizon}"
        )
    if not 1 <= config.explored_rows <= trial:
        raise UserError(
            f"config.agent.explored_rows is {config.explored_rows}; contexts are drawn"
            " from so many rows of a trial (config.agent.trial_rows): give 1 to"
            f" {trial}"
        )
    rows = {"replay.capacity": run.replay.capacity, "agent.recent": config.recent}
    for name, value in rows.items():
        if value % trial:
            raise UserError(
                f"config.{name} is {value}; it must be a multiple of {trial}, whole"
                f" trials of config.agent.trial_rows={trial}"
            )


def _check_contexts_online(run: Any, spec: EnvSpec) -> None:
    """A round is one trial in each environment, and so is the warm-up."""
    online, config = run.online, run.agent
    explored, steps = config.prior_explore * spec.horizon, online.round // online.envs
    for name, right in {"trial_rows": steps, "explored_rows": explored}.items():
        value = getattr(config, name)
        if value != right:
            raise UserError(
                f"config.agent.{name} is {value}, but a trial has {steps}"
                " steps (config.online.round over config.online.envs), the first"
                f" {explored} of exploration (config.agent.prior_explore): give"
                f" {right}; or change config.online.round or config.agent.prior_explore"
                " to suit; or give trial_rows=0 for contexts of all rows"
            )
    if online.warmup not in (0, online.round):
        raise UserError(
            f"config.online.warmup is {online.warmup}, which is"
            f" {online.warmup / online.round:g} rounds of {online.round}, but it is one"
            f" trial in each environment: give one round, {online.round}, or 0"
        )
    if online.envs > spec.num_train:
        raise UserError(
            f"config.online.envs is {online.envs}, more than the {spec.num_train}"
            " training tasks: two trials of a task would be mixed; give fewer, or"
            " config.agent.trial_rows=0"
        )
