"""Seeds x hyper-parameters: the phases of a run as programs over all members.

A member is a key and a config. Every program maps one member's pure function over the
population; the dataset is the one argument that all members share.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from o2ojax import agents, learning, loop, replay
from o2ojax.agents import base
from o2ojax.meta import adaptation
from o2ojax.parallel import compiled, devices
from o2ojax.types import (
    EMPTY,
    Agent,
    Buffer,
    Env,
    EnvSpec,
    Key,
    Played,
    Run,
    Transition,
)

# streams of a member's key
INIT, OFFLINE, HAND_OVER, ONLINE, EVALUATE_OFFLINE, EVALUATE_ONLINE, FILM = range(7)


class Sizes(NamedTuple):
    """What is compiled into the programs of a run.

    offline_updates:   of each member.
    online_steps:      transitions of each member, all its environments together.
    num_envs:          environments of each member.
    warmup:            transitions gathered before the first online update.
    steps_per_round:   steps of every environment between two rounds of updates.
    updates_per_round: updates in such a round.
    first_round:       updates in the first one.
    batch:             rows of a batch.
    capacity:          rows kept of what is gathered; 0 for all.
    eval_episodes:     of each member, at each evaluation.
    reward_scale, reward_shift: reward = scale * raw + shift, in every batch.
    store:             of the online phase, an entry of the registry.
    options:           its own.
    """

    offline_updates: int
    online_steps: int
    num_envs: int
    warmup: int
    steps_per_round: int
    updates_per_round: int
    first_round: int
    batch: int
    capacity: int
    eval_episodes: int
    reward_scale: float
    reward_shift: float
    store: replay.Store
    options: Any

    @property
    def transitions_per_round(self) -> int:
        """Transitions that a member gathers in a round."""
        return self.steps_per_round * self.num_envs


class Member(NamedTuple):
    """Who is trained: one member, or all of them, leaves [M, ...].

    Of all, settings are outermost and seeds innermost.

    key:    of the seed, shared between settings.
    config: the agent's config, every float an array.
    """

    key: Key
    config: Any


class Phase(NamedTuple):
    """One phase of a run, over all members. Runs are donated: use what comes back.

    learn:    (run, members, dataset, first, size) -> (Run, metrics [M]). Offline,
              `first` counts updates, and `size` is how many there are; online, `first`
              counts rounds, and `size` is how many there are and the updates of each.
    evaluate: (run, members, dataset, step) -> Played [M, episodes].
    """

    learn: Callable
    evaluate: Callable


class Programs(NamedTuple):
    """A run, over all members.

    init:      (members, dataset) -> Run.
    offline, online: the phases.
    hand_over: (run, members, dataset) -> Run, its environments started and the warm-up
               gathered.
    healthy:   (run) -> [M], whether all that a member has learned is finite.
    """

    init: Callable
    offline: Phase
    hand_over: Callable
    online: Phase
    healthy: Callable


def members(
    config: Any, seeds: Sequence[int], population: Mapping[str, Sequence[float]]
) -> Member:
    """All seeds under all settings: the product of the population's values.

    Args:
        config: an agent's config, one member's.
        seeds: one integer per seed.
        population: values to try, by name of a float field of the config.
    """
    settings = [
        config.replace(**dict(zip(population, values, strict=True)))
        for values in itertools.product(*population.values())
    ]
    chosen = [setting for setting in settings for _ in seeds]
    configs = jax.tree.map(lambda *x: jnp.asarray(x, jnp.float32), *chosen)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return Member(jnp.tile(keys, len(settings)), configs)


class Stage(NamedTuple):
    """What one member learns with in a phase."""

    agent: Agent
    buffer: Buffer


class Stages(NamedTuple):
    """Both phases of a member, and `Recipe.hand_over` between them."""

    offline: Stage
    online: Stage
    hand_over: Callable


def stages(
    algorithm: agents.Algorithm, spec: EnvSpec, sizes: Sizes
) -> Callable[[Member, Transition | None], Stages]:
    """What makes a member, and the dataset, its Stages. Called inside the trace.

    The config's floats and the dataset are traced.
    """
    plan = agents.Plan(sizes.offline_updates, sizes.online_steps)
    make, options = sizes.store, sizes.options

    def stages_of(member: Member, dataset: Transition | None) -> Stages:
        inputs = replay.Inputs(
            dataset=dataset,
            like=base.blank_transition(spec),
            batch=sizes.batch,
            steps=sizes.online_steps,
            capacity=sizes.capacity,
            num_envs=sizes.num_envs,
            num_tasks=spec.num_train,
            needs=algorithm.needs(member.config),
        )
        known, offline, online = plan, EMPTY, EMPTY
        if dataset is not None:
            rows = algorithm.batches(member.config) * sizes.batch
            rows = devices.shard_batch_size(rows)
            offline = gate(make.offline(inputs._replace(batch=rows), options))
            known = plan._replace(
                obs_mean=jax.tree.map(lambda x: x.mean(axis=0), dataset.obs),
                obs_std=jax.tree.map(lambda x: x.std(axis=0), dataset.obs),
            )
        if sizes.online_steps:
            online = gate(make.online(inputs, options))
        recipe = algorithm.recipe(spec, member.config, known)
        return Stages(
            Stage(recipe.offline, offline),
            Stage(recipe.online, online),
            recipe.hand_over,
        )

    def gate(buffer: Buffer) -> Buffer:
        shared = replay.divided(buffer)
        return replay.rewarded(shared, sizes.reward_scale, sizes.reward_shift)

    return stages_of


class One(NamedTuple):
    """What a run does with one member: pure functions, as in `Programs`."""

    algorithm: agents.Algorithm
    env: Env
    sizes: Sizes
    stages_of: Callable[[Member, Transition | None], Stages]

    def init(self, member, dataset):
        """An untrained agent, and an offline store."""
        agent, buffer = self.stages_of(member, dataset).offline
        state = agent.init(jax.random.fold_in(member.key, INIT))
        return Run(state, buffer.init(), ())

    def offline(self, run, member, dataset, first, num_updates):
        """Updates number `first` to `first + num_updates`."""
        agent, buffer = self.stages_of(member, dataset).offline
        key = jax.random.fold_in(member.key, OFFLINE)
        return loop.offline(agent, buffer, run, key, first, num_updates)

    def hand_over(self, run, member, dataset):
        """The online agent, store and environments, the warm-up gathered."""
        course, sizes = self.stages_of(member, dataset), self.sizes
        agent, buffer = course.online
        key = jax.random.fold_in(member.key, HAND_OVER)
        key_agent, key_workers, key_warmup = jax.random.split(key, 3)
        state, store = course.hand_over(run.agent, run.replay, buffer.init(), key_agent)
        workers = loop.start_workers(
            self.env, agent.explore, buffer, state, store, key_workers, sizes.num_envs
        )
        if sizes.warmup:
            keys = jax.random.split(key_warmup, sizes.warmup // sizes.num_envs)
            workers, fresh = loop.collect(self.env, agent.explore, state, workers, keys)
            store = buffer.add(store, loop.flat(fresh))
        return Run(state, store, workers)

    def online(self, run, member, dataset, first, size):
        """Rounds number `first` and on: `size` is how many, and the updates of each."""
        agent, buffer = self.stages_of(member, dataset).online
        num_rounds, updates_per_round = size
        trials = self.algorithm.trial(member.config)
        return loop.online(
            agent,
            buffer,
            self.env,
            run,
            jax.random.fold_in(member.key, ONLINE),
            first,
            num_rounds,
            self.sizes.steps_per_round,
            updates_per_round,
            self.sample_tasks if trials else None,
        )

    def sample_tasks(self, key):
        """Tasks to be trained on, different ones as far as there are enough, [W]."""
        num_train, num_envs = self.env.spec.num_train, self.sizes.num_envs
        order = jax.random.permutation(key, num_train).astype(jnp.int32)
        return order[jnp.arange(num_envs) % num_train]

    def evaluate_offline(self, run, member, dataset, step):
        """Plays fresh episodes with the offline agent's judged policy."""
        stage = self.stages_of(member, dataset).offline
        stream = jax.random.fold_in(member.key, EVALUATE_OFFLINE)
        has_rows = dataset is not None
        return self.evaluate(stage, run, member, stream, step, has_rows)

    def evaluate_online(self, run, member, dataset, step):
        """Plays fresh episodes with the online agent's judged policy."""
        stage = self.stages_of(member, dataset).online
        stream = jax.random.fold_in(member.key, EVALUATE_ONLINE)
        return self.evaluate(stage, run, member, stream, step)

    def evaluate(self, stage, run, member, stream, step, has_rows=True) -> Played:
        """Plays fresh trials, and where there are rows, sees how well it adapts."""
        env, num, (agent, buffer) = self.env, self.sizes.eval_episodes, stage
        trial = self.algorithm.trial(member.config)
        key, key_adapt = jax.random.split(jax.random.fold_in(stream, step))
        played = loop.evaluate(env, agent.exploit, buffer, run, key, num, trial or 1)
        if not trial or not has_rows:
            return played
        adapted = adaptation.measure(env, agent, buffer, run, key_adapt, trial)
        return played._replace(metrics=played.metrics | adapted)


def programs(
    algorithm: agents.Algorithm, env: Env, sizes: Sizes, mesh: Mesh | None = None
) -> Programs:
    """Builds and jits the phases of a run, over all members.

    Args:
        mesh: the devices that the members are divided over; None for one.
    """
    one = One(algorithm, env, sizes, stages(algorithm, env.spec, sizes))
    mapped = functools.partial(compiled.over_members, mesh=mesh)
    learnt = functools.partial(compiled.over_learners, mesh=mesh)
    return Programs(
        init=mapped(one.init, (0, None)),
        offline=Phase(
            learn=learnt(one.offline, (0, 0, None, None), sized=True),
            evaluate=mapped(one.evaluate_offline, (0, 0, None, None)),
        ),
        hand_over=mapped(one.hand_over, (0, 0, None), donate=True),
        online=Phase(
            learn=learnt(one.online, (0, 0, None, None), sized=True),
            evaluate=mapped(one.evaluate_online, (0, 0, None, None)),
        ),
        healthy=mapped(lambda run: learning.finite(run.agent), (0,)),
    )
