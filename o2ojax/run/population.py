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

from o2ojax import learning, loop, replay
from o2ojax.agents import base
from o2ojax.meta import adaptation
from o2ojax.parallel import compiled, devices
from o2ojax.types import Env, EnvSpec, Key, Played, Recipe, Run, Transition

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
    first_round:       so many times as many in the first one.
    batch:             rows of a batch.
    replay:            name of the online store.
    balanced:          its options, where it is the balanced one.
    windows:           of the stores that hand out windows.
    capacity:          rows of the online ring.
    eval_episodes:     of each member, at each evaluation.
    reward_scale, reward_shift: reward = scale * raw + shift, in every batch.
    """

    offline_updates: int
    online_steps: int
    num_envs: int
    warmup: int
    steps_per_round: int
    updates_per_round: int
    batch: int
    replay: str
    capacity: int
    eval_episodes: int
    reward_scale: float
    reward_shift: float
    first_round: int = 1
    balanced: replay.balanced.Options = replay.balanced.Options()
    windows: replay.windows.Options = replay.windows.Options()

    @property
    def transitions_per_round(self) -> int:
        """Transitions that a member gathers in a round."""
        return self.steps_per_round * self.num_envs


class Members(NamedTuple):
    """Who is trained. Leaves [M, ...]: settings outermost, seeds innermost.

    keys:    [M]  one key per seed, shared between settings.
    configs: the agent's config, every float [M].
    """

    keys: Key
    configs: Any


class Programs(NamedTuple):
    """The phases, over all members. Runs are donated: use what comes back.

    begin:     (members, dataset) -> Run.
    offline:   (run, members, dataset, first, num_updates) -> (Run, metrics [M]).
    hand_over: (run, members, dataset) -> Run, its environments started and the warm-up
               gathered.
    online:    (run, members, dataset, first, num_rounds) -> (Run, metrics [M]).
    first_round: (run, members, dataset, first) -> (Run, metrics [M]): the round with
               which the online phase begins.
    evaluate_offline, evaluate_online:
               (run, members, dataset, step) -> Played [M, episodes].
    healthy:   (run) -> [M], whether all that a member has learned is finite.
    """

    init: Callable
    offline: Callable
    hand_over: Callable
    online: Callable
    first_round: Callable
    evaluate_offline: Callable
    evaluate_online: Callable
    healthy: Callable


def members(
    config: Any, seeds: Sequence[int], population: Mapping[str, Sequence[float]]
) -> Members:
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
    return Members(jnp.tile(keys, len(settings)), configs)


def recipes(
    algorithm: base.Algorithm, spec: EnvSpec, sizes: Sizes
) -> Callable[[Members, Transition | None], Recipe]:
    """What makes a member, and the dataset, a Recipe. Called inside the trace.

    The config's floats and the dataset are traced.
    """
    plan = base.Plan(sizes.offline_updates, sizes.online_steps)
    like = base.blank_transition(spec)

    def recipe_of(member: Members, dataset: Transition | None) -> Recipe:
        horizon = algorithm.horizon(member.configs)
        context_sampling = algorithm.context_sampling(member.configs)
        known, offline_buffer = plan, replay.uniform.nothing()
        if dataset is not None:
            rows = devices.shard_batch_size(sizes.batch) * algorithm.batches(
                member.configs
            )
            offline_buffer = replay.offline(
                dataset, rows, horizon, sizes.windows, context_sampling, spec.num_train
            )
            known = plan._replace(
                obs_mean=dataset.obs.mean(axis=0), obs_std=dataset.obs.std(axis=0)
            )
        online_buffer = replay.make(
            sizes.replay,
            dataset,
            like,
            sizes.capacity,
            sizes.batch,
            sizes.balanced,
            horizon,
            sizes.num_envs,
            sizes.windows,
            context_sampling,
            spec.num_train,
        )
        stores = (
            replay.rewarded(
                replay.divided(store), sizes.reward_scale, sizes.reward_shift
            )
            for store in (offline_buffer, online_buffer)
        )
        return algorithm.recipe(spec, member.configs, known, *stores)

    return recipe_of


class Phases(NamedTuple):
    """What a run does with one member: pure functions, as in `Programs`."""

    algorithm: base.Algorithm
    env: Env
    sizes: Sizes
    recipe_of: Callable[[Members, Transition | None], Recipe]

    def init(self, member, dataset):
        """An untrained agent, and an offline store."""
        recipe = self.recipe_of(member, dataset)
        agent = recipe.offline.init(jax.random.fold_in(member.keys, INIT))
        return Run(agent, recipe.offline_buffer.init(), ())

    def offline(self, run, member, dataset, first, num_updates):
        """Updates number `first` to `first + num_updates`."""
        recipe = self.recipe_of(member, dataset)
        key = jax.random.fold_in(member.keys, OFFLINE)
        return loop.offline(
            recipe.offline, recipe.offline_buffer, run, key, first, num_updates
        )

    def hand_over(self, run, member, dataset):
        """The online agent, store and environments, the warm-up gathered."""
        recipe, sizes = self.recipe_of(member, dataset), self.sizes
        policy, buffer = recipe.online.explore, recipe.online_buffer
        key = jax.random.fold_in(member.keys, HAND_OVER)
        key_agent, key_workers, key_warmup = jax.random.split(key, 3)
        agent, store = recipe.hand_over(run.agent, run.replay, key_agent)
        workers = loop.start_workers(
            self.env, policy, buffer, agent, store, key_workers, sizes.num_envs
        )
        if sizes.warmup:
            keys = jax.random.split(key_warmup, sizes.warmup // sizes.num_envs)
            workers, fresh = loop.collect(self.env, policy, agent, workers, keys)
            store = buffer.add(store, loop.flat(fresh))
        return Run(agent, store, workers)

    def online(self, run, member, dataset, first, num_rounds, times=1):
        """Rounds number `first` to `first + num_rounds`, of `times` the updates."""
        recipe, sizes = self.recipe_of(member, dataset), self.sizes
        return loop.online(
            recipe.online,
            recipe.online_buffer,
            self.env,
            run,
            jax.random.fold_in(member.keys, ONLINE),
            first,
            num_rounds,
            sizes.steps_per_round,
            times * sizes.updates_per_round,
            self.sample_tasks if self.algorithm.trial(member.configs) else None,
        )

    def first_round(self, run, member, dataset, first):
        """The round with which the online phase begins."""
        return self.online(run, member, dataset, first, 1, self.sizes.first_round)

    def sample_tasks(self, key):
        """Tasks to be trained on, different ones as far as there are enough, [W]."""
        num_train, num_envs = self.env.spec.num_train, self.sizes.num_envs
        order = jax.random.permutation(key, num_train).astype(jnp.int32)
        return order[jnp.arange(num_envs) % num_train]

    def evaluate_offline(self, run, member, dataset, step):
        """Plays fresh episodes with the offline agent's judged policy."""
        recipe = self.recipe_of(member, dataset)
        stream = jax.random.fold_in(member.keys, EVALUATE_OFFLINE)
        key, buffer = jax.random.fold_in(stream, step), recipe.offline_buffer
        has_rows = dataset is not None
        return self.evaluate(recipe.offline, buffer, run, member, key, has_rows)

    def evaluate_online(self, run, member, dataset, step):
        """Plays fresh episodes with the online agent's judged policy."""
        recipe = self.recipe_of(member, dataset)
        stream = jax.random.fold_in(member.keys, EVALUATE_ONLINE)
        key = jax.random.fold_in(stream, step)
        return self.evaluate(recipe.online, recipe.online_buffer, run, member, key)

    def evaluate(self, agent, buffer, run, member, key, has_rows=True) -> Played:
        """Plays fresh trials, and where there are rows, sees how well it adapts."""
        env, num = self.env, self.sizes.eval_episodes
        trial = self.algorithm.trial(member.configs)
        key, key_adapt = jax.random.split(key)
        played = loop.evaluate(env, agent.exploit, buffer, run, key, num, trial or 1)
        if not trial or not has_rows:
            return played
        return played._replace(
            adaptation=adaptation.measure(env, agent, buffer, run, key_adapt, trial)
        )


def programs(
    algorithm: base.Algorithm, env: Env, sizes: Sizes, mesh: Mesh | None = None
) -> Programs:
    """Builds and jits the phases of a run, over all members.

    Args:
        mesh: the devices that the members are divided over; None for one.
    """
    one = Phases(algorithm, env, sizes, recipes(algorithm, env.spec, sizes))
    mapped = functools.partial(compiled.over_members, mesh=mesh)
    learnt = functools.partial(compiled.over_learners, mesh=mesh)
    return Programs(
        init=mapped(one.init, (0, None)),
        offline=learnt(one.offline, (0, 0, None, None), sized=True),
        hand_over=mapped(one.hand_over, (0, 0, None), donate=True),
        online=learnt(one.online, (0, 0, None, None), sized=True),
        first_round=learnt(one.first_round, (0, 0, None, None)),
        evaluate_offline=mapped(one.evaluate_offline, (0, 0, None, None)),
        evaluate_online=mapped(one.evaluate_online, (0, 0, None, None)),
        healthy=mapped(lambda run: learning.finite(run.agent), (0,)),
    )
