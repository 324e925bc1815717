"""Any environment of Gymnasium, as pure functions.

The state of one is the seed of its episode and the log of its actions. It is what a run
carries and saves, so a run that was killed goes on to the same bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.envs.entry import EnvEntry, Options
from o2ojax.envs.host import live, pool, sources
from o2ojax.envs.host.workers import Host
from o2ojax.errors import UserError
from o2ojax.types import Array, Env, EnvSpec, EnvState, Key, Transition, vector


class Episode(NamedTuple):
    """Which episode, up to some step.

    seed:    uint32 [], of its reset.
    actions: [T, A], those of its `EnvState.age` first steps.
    ticket:  uint32 [4], a digest of the two.
    success: [], the largest so far, of the episode that made the newest step.
    """

    seed: Array
    actions: Array
    ticket: Array
    success: Array


def environment(
    source: sources.Source,
    *,
    horizon: int = 0,
    workers: int = 0,
    timeout: float = 60.0,
) -> Env:
    """Builds an environment of Gymnasium's.

    Actions in [-1, 1] are stretched over its action box, and Dict observations joined.

    Args:
        horizon: steps after which an episode is cut; 0 for the registered limit.
        workers: processes that step the environments; 0 for this one.
        timeout: seconds after which such a process is replaced.
    Raises:
        UserError: it cannot be made, fails within some steps, has no step limit, or
            observations or actions that agents cannot take.
    """
    try:
        known = live.probe(source, horizon)
    except live.EpisodeError as error:
        raise UserError(f"{source.name} failed {error}") from error
    except sources.HostError as error:
        raise UserError(str(error)) from error
    if not known.horizon:
        raise UserError(
            f"{source.name} has no step limit of its own: give config.horizon, the"
            " steps after which an episode is cut"
        )
    host = Host(source, known, workers, timeout)
    spec = EnvSpec(
        source.name,
        vector(known.spaces.num_obs),
        len(known.spaces.low),
        known.horizon,
        decision_time=known.decision_time,
        action_bounds=(known.spaces.low, known.spaces.high),
        pure=known.pure,
        obs_keys=known.spaces.keys,
    )
    success = _success if known.has_success else None
    return Env(spec, _reset(host, spec), _step(host, spec), success, check=host.check)


def _success(after: EnvState, transition: Transition) -> Array:
    del transition
    return after.physics.success


def _reset(host: Host, spec: EnvSpec) -> Callable[[Key, Array], EnvState]:
    def reset(key: Key, task: Array) -> EnvState:
        seed = jax.random.bits(key, (), jnp.uint32)
        obs, ticket = _called(host.reset, (spec.obs, _TICKET), seed)
        actions = jnp.zeros((spec.horizon, spec.action_dim))
        episode = Episode(seed, actions, ticket, jnp.float32(0))
        return EnvState(episode, obs, jnp.int32(0), task)

    return reset


def _step(host: Host, spec: EnvSpec) -> Callable:
    width = 2 * spec.obs_dim + pool.EXTRAS
    shapes = jax.ShapeDtypeStruct((width,), jnp.float32), _TICKET

    def step(env: EnvState, action: Array, key: Key) -> tuple[EnvState, Transition]:
        episode, new_seed = env.physics, jax.random.bits(key, (), jnp.uint32)
        # what is not a number must not reach the log
        done = jnp.clip(jnp.where(jnp.isfinite(action), action, 0.0), -1.0, 1.0)
        request = pool.Request(
            episode.ticket, episode.seed, episode.actions, env.age, done, new_seed
        )
        row, ticket = _called(host.step, shapes, *request)
        next_obs, obs, others = jnp.split(row, [spec.obs_dim, 2 * spec.obs_dim])
        reward, ended, stops, success = others
        transition = Transition(
            obs=env.obs,
            action=action,
            reward=reward,
            discount=1.0 - ended,
            next_obs=next_obs,
            last=stops > 0,
            task=env.task,
        )
        episode = Episode(
            jnp.where(transition.last, new_seed, episode.seed),
            episode.actions.at[env.age].set(done),
            ticket,
            success,
        )
        age = jnp.where(transition.last, 0, env.age + 1)
        return EnvState(episode, obs, age, env.task), transition

    return step


_TICKET = jax.ShapeDtypeStruct((live.TICKET,), jnp.uint32)


def _called(function: Callable, shapes: Any, *given: Array) -> Any:
    return jax.pure_callback(function, shapes, *given, vmap_method="broadcast_all")


def build(name: str, options: Options) -> Env:
    """Builds the environment of a registry's entry."""
    return environment(
        sources.Source(name, dict(options.args), options.keys),
        horizon=options.horizon,
        workers=options.host.workers,
        timeout=options.host.timeout,
    )


ENTRY = EnvEntry(build, any_physics=False, takes=("args", "keys", "horizon"))
