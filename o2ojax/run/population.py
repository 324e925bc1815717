"""Compiles the phases of a run for a population of seeds x hyper-parameter settings.

A member is a key and an agent config. Each program is the pure function of one member,
mapped over the population; all members share the dataset.
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
from o2ojax.replay import extras, frames
from o2ojax.replay.frames import Album
from o2ojax.run import estimation, readiness
from o2ojax.run.estimation import HeldOut
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

# `fold_in` data that separate the random streams of a member's key
INIT, OFFLINE, HAND_OVER, ONLINE, EVALUATE_OFFLINE, EVALUATE_ONLINE, FILM = range(7)
RESTART, READINESS = 7, 8
DISCOUNT = 0.99  # of the value of an agent that has no discount of its own


class Sizes(NamedTuple):
    """Static sizes and choices that are compiled into the programs of a run.

    offline_updates:   offline updates per member.
    online_steps:      transitions per member, summed over its environments.
    num_envs:          environments per member.
    warmup:            transitions per member before the first online update.
    steps_per_round:   steps of every environment per round.
    updates_per_round: updates per round.
    first_round:       updates in the first round.
    batch:             rows per batch.
    capacity:          online rows that the store keeps; 0 for all.
    eval_episodes:     episodes per member and evaluation.
    reward_scale, reward_shift: reward = scale * raw + shift, in every batch.
    store:             registry entry of the store.
    options:           options of the store.
    held_out:          rows at the end of the dataset that judge, where there is no
                       environment.
    store_steps:       transitions per member for which its store has room: those of the
                       run before it was extended; 0 for `online_steps`.
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
    store_steps: int = 0
    held_out: HeldOut = HeldOut()

    @property
    def transitions_per_round(self) -> int:
        """Transitions that a member collects per round."""
        return self.steps_per_round * self.num_envs

    @property
    def online_updates(self) -> int:
        """Online updates of each member; one round may have `first_round` of them."""
        rounds = (self.online_steps - self.warmup) // self.transitions_per_round
        extra = self.first_round - self.updates_per_round
        return rounds * self.updates_per_round + extra if rounds > 0 else 0


class Member(NamedTuple):
    """One member, or all members with leaves [M, ...].

    Members are ordered by setting first and by seed within a setting.

    key:    the seed's key, which is the same in all settings.
    config: the agent's config, whose floats are arrays.
    """

    key: Key
    config: Any


class Phase(NamedTuple):
    """One phase of a run, for all members. `learn` donates its Run argument.

    learn:    (run, members, dataset, first, size) -> (Run, metrics [M]). Offline,
              `first` is the first update's number and `size` the number of updates;
              online, `first` is the first round's number and `size` is (number of
              rounds, updates per round).
    evaluate: (run, members, dataset, step) -> Played [M, episodes].
    """

    learn: Callable
    evaluate: Callable


class Programs(NamedTuple):
    """The compiled functions of a run, for all members.

    init:      (members, dataset) -> Run.
    offline, online: the phases.
    hand_over: (run, members, dataset) -> Run, with environments started and warm-up
               transitions collected.
    restart:   (run, members, dataset, step) -> Run, with environments started anew.
    healthy:   (run) -> bool [M], whether a member's agent state is finite.
    readiness: (run, members, dataset) -> `readiness.measure`, [M], of offline agents
               with critics.
    """

    init: Callable
    offline: Phase
    hand_over: Callable
    restart: Callable
    online: Phase
    healthy: Callable
    readiness: Callable


def members(
    config: Any, seeds: Sequence[int], population: Mapping[str, Sequence[float]]
) -> Member:
    """Makes a member for each seed and setting; settings are a Cartesian product.

    Args:
        config: the agent config of one member.
        seeds: integers.
        population: name of a float field of the config -> values to try.
    Returns:
        the members, leaves [M, ...], M = settings * seeds.
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
    """The agent and the store of one member in a phase."""

    agent: Agent
    buffer: Buffer


class Stages(NamedTuple):
    """Both stages of a member, and `Recipe.hand_over` from one to the other."""

    offline: Stage
    online: Stage
    hand_over: Callable


def stages(
    algorithm: agents.Algorithm, spec: EnvSpec, sizes: Sizes
) -> Callable[[Member, Transition | Album | None], Stages]:
    """Returns the function (member, dataset) -> Stages.

    It is called under tracing: the config's floats and the dataset are traced.
    """
    plan = agents.Plan(
        sizes.offline_updates, sizes.online_steps, online_updates=sizes.online_updates
    )
    make, options = sizes.store, sizes.options

    def of_envs(data: Transition | Album | None) -> Transition | Album | None:
        if not isinstance(data, Album):
            return data
        size = sizes.num_envs, spec.horizon, spec.full
        return Album(data.rows, data.frames, *size)

    def stages_of(member: Member, dataset: Transition | Album | None) -> Stages:
        needs = algorithm.needs(member.config)
        blank = base.blank_transition(spec)
        blank = blank._replace(extras=extras.blank(needs, blank, dataset))
        album = dataset.frames if isinstance(dataset, Album) else None
        inputs = replay.Inputs(
            dataset=of_envs(dataset),
            like=of_envs(frames.blank(blank, spec, album)),
            batch=sizes.batch,
            steps=sizes.store_steps or sizes.online_steps,
            capacity=sizes.capacity,
            num_envs=sizes.num_envs,
            num_tasks=spec.num_train,
            needs=needs,
            horizon=spec.horizon,
            reward=(sizes.reward_scale, sizes.reward_shift),
        )
        known, offline, online = plan, EMPTY, EMPTY
        if sizes.held_out.num_rows:
            dataset, _ = estimation.divided(dataset, sizes.held_out)
            inputs = inputs._replace(dataset=dataset)
        if dataset is not None:
            rows = algorithm.batches(member.config) * sizes.batch
            rows = devices.shard_batch_size(rows)
            offline = gate(make.offline(inputs._replace(batch=rows), options))
            if isinstance(dataset, Transition):
                known = plan._replace(
                    obs_mean=jax.tree.map(lambda x: x.mean(axis=0), dataset.obs),
                    obs_std=jax.tree.map(lambda x: x.std(axis=0), dataset.obs),
                )
        if sizes.online_steps:
            rows = algorithm.online_batches(member.config) * sizes.batch
            online = gate(make.online(inputs._replace(batch=rows), options))
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


def has_critics(algorithm: agents.Algorithm, spec: EnvSpec, sizes: Sizes, who) -> bool:
    """Whether the offline agent tells what its critics say of rows.

    Args:
        who: one member.
    """
    stages_of, found = stages(algorithm, spec, sizes), []

    def ask(member):
        rows = _rows_like(spec, algorithm.needs(member.config))
        found.append(stages_of(member, rows).offline.agent.q is not None)
        return 0

    jax.eval_shape(ask, who)
    return found[0]


def _rows_like(spec: EnvSpec, needs: replay.Needs) -> Transition | Album:
    """A dataset of which only the shape is known: of whole trials, where they count."""
    one = frames.blank(base.blank_transition(spec), spec)
    trials = spec.num_train * needs.context.trial if needs.context else 0
    num_rows = trials or NUM_ROWS
    rows = jax.tree.map(
        lambda leaf: jnp.zeros((num_rows, *leaf.shape), leaf.dtype),
        frames.rows_of(one),
    )
    if not isinstance(one, Album):
        return rows
    tables = {
        name: jnp.zeros((1, *table.shape[1:]), table.dtype)
        for name, table in one.frames.items()
    }
    return one._replace(rows=rows, frames=tables)


def agent_shape(
    algorithm: agents.Algorithm, spec: EnvSpec, sizes: Sizes, phase: str, who: Member
) -> Any:
    """The shapes of the agent states of all members in a phase, leaves [M, ...].

    Neither the environment nor the data are needed.
    """
    stages_of = stages(algorithm, spec, sizes)

    def one(member):
        course = stages_of(member, _rows_like(spec, algorithm.needs(member.config)))
        state = course.offline.agent.init(member.key)
        if phase == "offline":
            return state
        stores = (stage.buffer.init() for stage in (course.offline, course.online))
        return course.hand_over(state, *stores, member.key)[0]

    return jax.eval_shape(jax.vmap(one), who)


NUM_ROWS = 4096  # of a dataset of which only its shape is known


class One(NamedTuple):
    """The functions of `Programs`, for one member; all are pure."""

    algorithm: agents.Algorithm
    env: Env
    sizes: Sizes
    stages_of: Callable[[Member, Transition | Album | None], Stages]

    def init(self, member, dataset):
        """Makes an untrained agent and an offline store."""
        agent, buffer = self.stages_of(member, dataset).offline
        state = agent.init(jax.random.fold_in(member.key, INIT))
        return Run(state, buffer.init(), ())

    def offline(self, run, member, dataset, first, num_updates):
        """Does updates `first`, ..., `first + num_updates - 1`."""
        agent, buffer = self.stages_of(member, dataset).offline
        key = jax.random.fold_in(member.key, OFFLINE)
        return loop.offline(agent, buffer, run, key, first, num_updates)

    def hand_over(self, run, member, dataset):
        """Makes the online agent, store and environments, and collects the warm-up."""
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

    def restart(self, run, member, dataset, step):
        """Starts the environments anew, where theirs cannot be played again."""
        agent, buffer = self.stages_of(member, dataset).online
        key = jax.random.fold_in(jax.random.fold_in(member.key, RESTART), step)
        workers = loop.start_workers(
            self.env,
            agent.explore,
            buffer,
            run.agent,
            run.replay,
            key,
            self.sizes.num_envs,
        )
        return run._replace(workers=workers)

    def online(self, run, member, dataset, first, size):
        """Does rounds from `first` on; `size` is (num_rounds, updates_per_round)."""
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
        """Samples training tasks [W], without replacement until all are used."""
        num_train, num_envs = self.env.spec.num_train, self.sizes.num_envs
        order = jax.random.permutation(key, num_train).astype(jnp.int32)
        return order[jnp.arange(num_envs) % num_train]

    def evaluate_offline(self, run, member, dataset, step):
        """Evaluates the offline agent's `exploit` policy."""
        stage = self.stages_of(member, dataset).offline
        stream = jax.random.fold_in(member.key, EVALUATE_OFFLINE)
        if self.sizes.held_out.num_rows:
            return estimation.judge(
                stage.agent,
                run.agent,
                dataset,
                self.sizes.held_out,
                getattr(member.config, "gamma", DISCOUNT),
                (self.sizes.reward_scale, self.sizes.reward_shift),
                jax.random.fold_in(stream, step),
            )
        has_rows = dataset is not None
        return self.evaluate(stage, run, member, stream, step, has_rows)

    def readiness(self, run, member, dataset):
        """Asks the offline agent's critics about the dataset: always the same rows."""
        return readiness.measure(
            self.stages_of(member, dataset).offline.agent,
            run.agent,
            dataset,
            getattr(member.config, "gamma", DISCOUNT),
            (self.sizes.reward_scale, self.sizes.reward_shift),
            jax.random.fold_in(member.key, READINESS),
        )

    def evaluate_online(self, run, member, dataset, step):
        """Evaluates the online agent's `exploit` policy."""
        stage = self.stages_of(member, dataset).online
        stream = jax.random.fold_in(member.key, EVALUATE_ONLINE)
        return self.evaluate(stage, run, member, stream, step)

    def evaluate(self, stage, run, member, stream, step, has_rows=True) -> Played:
        """Plays new trials; also measures adaptation of an agent that infers tasks."""
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
    """Builds and jits the functions of a run, for all members.

    Args:
        mesh: the devices over which members are divided; None for one device.
    """
    one = One(algorithm, env, sizes, stages(algorithm, env.spec, sizes))
    mapped = functools.partial(compiled.over_members, mesh=mesh)
    learnt = functools.partial(compiled.over_learners, mesh=mesh)
    return Programs(
        init=mapped(one.init, (0, None), once=True),
        offline=Phase(
            learn=learnt(one.offline, (0, 0, None, None), sized=True),
            evaluate=mapped(one.evaluate_offline, (0, 0, None, None)),
        ),
        hand_over=mapped(one.hand_over, (0, 0, None), donate=True),
        restart=mapped(one.restart, (0, 0, None, None)),
        online=Phase(
            learn=learnt(one.online, (0, 0, None, None), sized=True),
            evaluate=mapped(one.evaluate_online, (0, 0, None, None)),
        ),
        healthy=mapped(lambda run: learning.finite(run.agent), (0,)),
        readiness=mapped(one.readiness, (0, 0, None)),
    )
