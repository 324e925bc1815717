"""The training loop: collect, add, sample, update, evaluate.

Every function is pure, is written for one population member and is meant to be vmapped
over the population. The key of step t is `fold_in(key, t)`, so results do not depend on
how a phase is split into chunks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from o2ojax.parallel import devices
from o2ojax.types import (
    Agent,
    AgentState,
    Array,
    Buffer,
    Env,
    Key,
    Metrics,
    Played,
    Policy,
    Replay,
    Run,
    Transition,
    Workers,
)


def keys_from(key: Key, first: Array, num: int) -> Key:
    """Returns the keys [num] of steps `first`, ..., `first + num - 1`."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(num))


def learn(
    agent: Agent, buffer: Buffer, state: AgentState, replay: Replay, keys: Key
) -> tuple[AgentState, Replay, Metrics]:
    """Does one update per key of `keys` [num]. Metrics are means over the updates."""

    def one(carry, key):
        state, replay = carry
        key_sample, key_update = jax.random.split(key)
        replay, batch = buffer.sample(replay, key_sample)
        state, info = agent.update(state, batch, devices.shard_key(key_update))
        metrics = info.metrics | dict(batch.metrics)
        return (state, buffer.update_priorities(replay, batch, info)), metrics

    (state, replay), metrics = jax.lax.scan(one, (state, replay), keys)
    return state, replay, devices.average(jax.tree.map(jnp.mean, metrics))


def offline(
    agent: Agent, buffer: Buffer, run: Run, key: Key, first: Array, num_updates: int
) -> tuple[Run, Metrics]:
    """Does updates `first`, ..., `first + num_updates - 1` of an offline phase."""
    keys = keys_from(key, first, num_updates)
    state, replay, metrics = learn(agent, buffer, run.agent, run.replay, keys)
    return run._replace(agent=state, replay=replay), metrics


def start_workers(
    env: Env,
    policy: Policy,
    buffer: Buffer,
    state: AgentState,
    replay: Replay,
    key: Key,
    num_envs: int,
    tasks: Array | None = None,
) -> Workers:
    """Resets W = `num_envs` environments, each at the start of a trial.

    Args:
        tasks: [W], the task of each environment; by default the training tasks, cycled.
    Returns:
        the workers, whose leaves are [W, ...].
    """

    def one(key, task):
        key_env, key_opening, key_start = jax.random.split(key, 3)
        trial_context = buffer.trial_context(replay, task, key_opening)
        return Workers(
            env.reset(key_env, task), policy.start(state, trial_context, key_start)
        )

    if tasks is None:
        tasks = jnp.arange(num_envs, dtype=jnp.int32) % env.spec.num_train
    return jax.vmap(one)(jax.random.split(key, num_envs), tasks)


def act(
    env: Env, policy: Policy, state: AgentState, worker: Workers, key: Key
) -> tuple[Workers, Transition]:
    """Steps one environment. Returns the transition to store."""
    key_act, key_env = jax.random.split(key)
    action, memory = policy.act(state, worker.memory, worker.env.obs, key_act)
    env_state, transition = env.step(worker.env, action, key_env)
    memory, transition = policy.observe(state, memory, transition)
    return Workers(env_state, memory), transition


def collect(
    env: Env, policy: Policy, state: AgentState, workers: Workers, keys: Key
) -> tuple[Workers, Transition]:
    """Steps all W environments once per key of `keys` [T]. Transitions are [T, W]."""
    num_envs = workers.env.age.shape[0]

    def one(workers, key):
        keys = jax.random.split(key, num_envs)
        return jax.vmap(lambda worker, key: act(env, policy, state, worker, key))(
            workers, keys
        )

    return jax.lax.scan(one, workers, keys)


def flat(transitions: Transition) -> Transition:
    """Reshapes leaves [T, W, ...] to [T * W, ...], in order of time."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), transitions)


def online(
    agent: Agent,
    buffer: Buffer,
    env: Env,
    run: Run,
    key: Key,
    first: Array,
    num_rounds: int,
    steps_per_round: int,
    updates_per_round: int,
    sample_tasks: Callable[[Key], Array] | None = None,
) -> tuple[Run, Metrics]:
    """Does rounds `first`, ..., `first + num_rounds - 1` of an online phase.

    A round is `steps_per_round` steps of all W environments, followed by
    `updates_per_round` updates.

    Args:
        sample_tasks: (key) -> tasks [W]. If given, every round starts new trials of
            these tasks; otherwise trials continue from round to round.
    Returns:
        the run, and metrics averaged over the rounds.
    """

    def begin_trials(run, key_deal, key_start):
        return start_workers(
            env,
            agent.explore,
            buffer,
            run.agent,
            run.replay,
            key_start,
            run.workers.env.age.shape[0],
            sample_tasks(key_deal),
        )

    def one(run, key):
        key_collect, key_learn, key_deal, key_start = jax.random.split(key, 4)
        workers, fresh = collect(
            env,
            agent.explore,
            run.agent,
            begin_trials(run, key_deal, key_start) if sample_tasks else run.workers,
            jax.random.split(key_collect, steps_per_round),
        )
        replay = buffer.add(run.replay, flat(fresh))
        keys = jax.random.split(key_learn, updates_per_round)
        state, replay, metrics = learn(agent, buffer, run.agent, replay, keys)
        return Run(state, replay, workers), metrics

    run, metrics = jax.lax.scan(one, run, keys_from(key, first, num_rounds))
    return run, jax.tree.map(jnp.mean, metrics)


def evaluate(
    env: Env,
    policy: Policy,
    buffer: Buffer,
    run: Run,
    key: Key,
    num_episodes: int,
    trial: int = 1,
) -> Played:
    """Evaluates a policy in new trials, in parallel, cycling over the test tasks.

    Without test tasks, it cycles over all tasks.

    Args:
        num_episodes: number of trials. Only the last episode of each trial counts. (The
            authors of SMAC define a trial by a number of steps; where episodes end
            early, their agent explores for more episodes.)
        trial: number of episodes in a trial.
    Returns:
        the results, whose leaves are [num_episodes].
    """
    first = env.spec.num_train if env.spec.num_test else 0
    tasks = first + jnp.arange(num_episodes) % (env.spec.num_tasks - first)
    return play(env, policy, buffer, run, key, tasks, trial)[0]


def play(
    env: Env,
    policy: Policy,
    buffer: Buffer,
    run: Run,
    key: Key,
    tasks: Array,
    trial: int = 1,
) -> tuple[Played, Workers]:
    """Plays one new trial of each task of `tasks` [W] in parallel.

    The loop stops when every trial has finished, so short episodes are cheap.

    Returns:
        the results and the final workers, whose leaves are [W, ...].
    """
    num = len(tasks)
    key_start, key_step = jax.random.split(key)
    workers = start_workers(
        env, policy, buffer, run.agent, run.replay, key_start, num, tasks
    )

    def unfinished(carry):
        _, _, _, stopped, age = carry
        return (stopped < trial).any() & (age < trial * env.spec.horizon)

    def step(carry):
        workers, returns, success, stopped, age = carry
        keys = keys_from(key_step, age, 1)
        workers, transition = collect(env, policy, run.agent, workers, keys)
        transition = flat(transition)
        now = stopped[:, None] == jnp.arange(trial)[None]  # [W, trial], no True if over
        returns = returns + jnp.where(now, transition.reward[:, None], 0.0)
        if env.success:
            done = env.success(workers.env, transition).astype(jnp.float32)
            success = jnp.where(stopped < trial, done, success)
        return workers, returns, success, stopped + transition.last, age + 1

    success = jnp.zeros(num) if env.success else ()
    start = (workers, jnp.zeros((num, trial)), success, jnp.zeros(num, jnp.int32), 0)
    workers, returns, success, _, _ = jax.lax.while_loop(unfinished, step, start)
    metrics = {f"episode_{at + 1}": returns[:, at] for at in range(trial - 1)}
    if env.success:
        metrics["success"] = success
    return Played(returns[:, -1], metrics), workers
