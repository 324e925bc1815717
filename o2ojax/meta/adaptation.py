"""Measures of adaptation to training tasks, and of distribution shift in z-space.

An agent's own exploration data may differ from the logged data on which its encoder was
trained, so that it infers the wrong task: a shift of the latent variable. Pong et al.,
"Offline Meta-Reinforcement Learning with Online Self-Supervision" (2022),
arxiv.org/abs/2107.03974, measure this shift by the KL divergence of the two posteriors.
"""

import jax
import jax.numpy as jnp

from o2ojax import loop
from o2ojax.meta import belief
from o2ojax.meta.belief import Belief
from o2ojax.types import Agent, Array, Buffer, Env, Key, Metrics, Run

METRICS = ("explored", "oracle", "z_shift")  # the keys of the result of `measure`


def measure(
    env: Env, agent: Agent, buffer: Buffer, run: Run, key: Key, trial: int
) -> Metrics:
    """Plays every training task twice: after exploration, and with an oracle belief.

    The oracle infers the task from logged rows, or without a dataset, from online rows.

    Args:
        trial: episodes per trial, which begins with exploration.
    Returns:
        `explored` and `oracle`, the mean returns [] of both, and `z_shift`, [].
    """
    key_explored, key_oracle, key_again = jax.random.split(key, 3)
    tasks = jnp.arange(env.spec.num_train)
    explored, after = loop.play(
        env, agent.exploit, buffer, run, key_explored, tasks, trial
    )
    oracle, informed = loop.play(env, agent.oracle, buffer, run, key_oracle, tasks)
    again = loop.start_workers(
        env, agent.oracle, buffer, run.agent, run.replay, key_again, len(tasks), tasks
    )
    return {
        "explored": explored.returns.mean(),
        "oracle": oracle.returns.mean(),
        "z_shift": shift(
            after.memory.belief, informed.memory.belief, again.memory.belief
        ),
    }


def shift(own: Belief, logged: Belief, again: Belief) -> Array:
    """Normalised shift of beliefs from explored data to logged data, []; NaN for T = 1.

    (KL(own || logged) - KL(again || logged)) / (KL(other || logged) - KL(again ||
    logged)), each as a mean over tasks. It is 0 if explored rows give the belief of
    logged rows, and 1 if they are as far from it as rows of another task.

    The ratio is that of Pong et al. Departures: `least` is measured with a second
    sample of logged rows, and explored beliefs are rescaled to as many rows.

    Args:
        own: beliefs from the explored rows of each task, leaves [G, ...].
        logged: beliefs from logged rows of each task, leaves [G, ...].
        again: beliefs from a second sample of logged rows, leaves [G, ...].
    """
    own = belief.as_if(own, logged.count[0])
    least = belief.distance(again, logged).mean()
    one = jax.tree.map(lambda x: x[None], logged)
    other = jax.tree.map(lambda x: x[:, None], logged)
    between = belief.distance(other, one)  # [T, T], 0 on the diagonal
    num = len(between)
    between = jnp.where(num > 1, between.sum() / max(num * (num - 1), 1), jnp.nan)
    return (belief.distance(own, logged).mean() - least) / (between - least)
