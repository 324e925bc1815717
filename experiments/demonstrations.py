"""The gripper's tasks, played by scripts: who plays a dataset's episodes, and how well.

`python -m experiments.collect --config=collect:lift` makes datasets by them.
"""

import functools

import numpy as np

from o2ojax import envs, policies
from o2ojax.envs import manipulation, pixels
from o2ojax.envs.scripted import SCRIPTED
from o2ojax.types import EnvSpec, Policy, Transition

# Standard deviations of the noise on a scripted policy's actions. Medium's leaves about
# half of the episodes a success (in pictures, a third of lift's); reach bears more, and
# keeps nine in ten. A replay's first episodes have START's, with which all but reach
# seldom succeed. Where an action is applied twice, as where pictures are seen, the hand
# is moved twice, and its noise is TWICE's. The gripper goes where it is told, once or
# twice, and keeps its noise: with less of it, it never closed but at the cube, and
# agents took closing for success.
START = {"reach": 2.0, "push": 1.0, "lift": 1.0, "tray": 0.8, "drawer": 0.6}
MEDIUM = {"reach": 1.5, "push": 0.7, "lift": 0.5, "tray": 0.5, "drawer": 0.42}
START_TWICE = {"reach": 1.5, "push": 0.6, "lift": 0.5, "tray": 0.4, "drawer": 0.3}
MEDIUM_TWICE = {"reach": 1.0, "push": 0.35, "lift": 0.3, "tray": 0.25, "drawer": 0.2}

# A replay of a gripper in pictures also has a learner's mistakes, carried through: a
# random action, for so many decisions, begun with a chance that falls from the first of
# these to the second. Where none closed the gripper beside the cube and raised it,
# FOWM, which sees the cube in pictures alone, imagined that this lifts it.
WANDER, WANDER_STEPS = (0.08, 0.02), 6


def is_scripted(name: str) -> bool:
    """Whether a scripted policy plays an environment."""
    return pixels.task_of(name) in SCRIPTED


def scripted(kind: str, spec: EnvSpec, num_rounds: int) -> Policy:
    """Who plays one kind of a scripted task's datasets, `num_rounds` episodes."""
    if kind == "random":
        return policies.uniform(spec.action_dim)
    first, last = (
        np.float32([hand] * 3 + [gripper])[: spec.action_dim]
        for hand, gripper in noise(kind, spec.name)
    )

    def between(first, last, num_stopped):
        return first + (last - first) * num_stopped / max(num_rounds - 1, 1)

    policy = policies.noisy(
        SCRIPTED[pixels.task_of(spec.name)], functools.partial(between, first, last)
    )
    if not wanders(kind, spec.name):
        return policy
    chance = functools.partial(between, *WANDER)
    return policies.wandering(policy, spec.action_dim, chance, WANDER_STEPS)


def wanders(kind: str, name: str) -> bool:
    """Whether actions are repeated at random, too: where a gripper can miss."""
    if kind != "medium-replay" or name not in envs.PICTURED:
        return False
    return pixels.TASKS[pixels.task_of(name)].action_dim == 4


def noise(kind: str, name: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Its standard deviations in the first episodes and in the last.

    Each is a pair: of the three numbers that move the hand, and of the gripper's.
    """
    twice, task = name in envs.PICTURED, pixels.task_of(name).removesuffix("_sparse")
    medium = (MEDIUM_TWICE if twice else MEDIUM)[task], MEDIUM[task]
    start = (START_TWICE if twice else START)[task], START[task]
    return {
        "medium-replay": (start, medium),
        "medium": (medium, medium),
        "expert": ((0.0, 0.0), (0.0, 0.0)),
    }[kind]


def player(kind: str, name: str) -> str:
    """Who played one kind of a scripted task's datasets, in words."""
    if kind == "random":
        return "uniform actions"
    hand, gripper = (
        f"{first:g}" if first == last else f"{first:g} falling to {last:g}"
        for first, last in zip(*noise(kind, name), strict=True)
    )
    begun, ended = WANDER
    strays = (
        f"; at a decision, with a chance of {begun:g} falling to {ended:g}, a random"
        f" action begins that lasts {WANDER_STEPS}"
        if wanders(kind, name)
        else ""
    )
    apart = "" if hand == gripper else f", of {gripper} on the gripper's"
    return (
        f"scripted policy (o2ojax/envs/scripted.py), Gaussian noise on its actions of"
        f" standard deviation {hand}{apart}, clipped to [-1, 1]{strays}"
    )


def successes(name: str, transitions: Transition) -> np.ndarray:
    """Whether each episode of a manipulation task ends in success, bool [episodes]."""
    seen = manipulation.see(transitions.next_obs[transitions.last])
    return np.asarray(pixels.TASKS[pixels.task_of(name)].success(seen))
