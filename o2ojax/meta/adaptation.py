"""How well an agent adapts to tasks that it was trained in, and what stands in its way.

What it gathers for itself may look unlike the logged data that its encoder learned
from, so that it infers the task wrongly: a shift of the latent variable. Pong et al.,
"Offline Meta-Reinforcement Learning with Online Self-Supervision" (2022),
arxiv.org/abs/2107.03974, measure it by the distance of the two posteriors.
"""

import jax
import jax.numpy as jnp

from o2ojax import loop
from o2ojax.meta import belief
from o2ojax.meta.belief import Belief
from o2ojax.types import Agent, Array, Buffer, Env, Key, Metrics, Run

METRICS = ("explored", "oracle", "z_shift")  # of what `measure` returns


def measure(
    env: Env, agent: Agent, buffer: Buffer, run: Run, key: Key, trial: int
) -> Metrics:
    """Plays every training task twice: exploring first, and told by logged rows.

    Where there is no dataset, by what the agent gathered itself.

    Args:
        trial: episodes of a trial that begins with exploration.
    Returns:
        `explored` and `oracle`, mean returns [] after the one and the other; and
        `z_shift`, [].
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
    """How far what was explored leads from what was logged, []; NaN for one task.

    (KL(own || logged) - KL(again || logged)) / (KL(other || logged) - KL(again ||
    logged)), each as a mean over tasks: 0 where one's own rows say what logged ones of
    the task say, 1 where they might as well be of another task.

    The ratio is the authors'. That `least` is by a second draw of logged rows, and that
    one's own rows count as many as those, is ours.

    Args:
        own: by what was explored in each task, leaves [T, ...]; counted as if it were
            as many rows as were logged.
        logged: by logged rows of each.
        again: by others of its logged rows.
    """
    own = belief.as_if(own, logged.count[0])
    least = belief.distance(again, logged).mean()
    one = jax.tree.map(lambda x: x[None], logged)
    other = jax.tree.map(lambda x: x[:, None], logged)
    between = belief.distance(other, one)  # [T, T], 0 on the diagonal
    num = len(between)
    between = jnp.where(num > 1, between.sum() / max(num * (num - 1), 1), jnp.nan)
    return (belief.distance(own, logged).mean() - least) / (between - least)
