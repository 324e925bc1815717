"""Any environment of Gymnasium, as pure functions.

The state of one is the seed of its episode and the log of its actions. It is what a run
carries and saves, so a run that was killed goes on to the same bits.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.envs.entry import EnvEntry, Options, refuse_pixels
from o2ojax.envs.host import live, pool, sources
from o2ojax.envs.host.spaces import PIXELS, STATE, Spaces, picture_words
from o2ojax.envs.host.workers import Host
from o2ojax.envs.native.calls import host_call
from o2ojax.errors import UserError
from o2ojax.types import Array, Env, EnvSpec, EnvState, Key, Obs, Transition, vector


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
    stack: int = 1,
) -> Env:
    """Builds an environment of Gymnasium's.

    Actions in [-1, 1] are stretched over its action box, and Dict observations joined,
    except for pictures: then they are parts, "state" and each picture by its key, or
    "pixels" where it is all that is seen.

    Args:
        horizon: steps after which an episode is cut; 0 for the registered limit.
        workers: processes that step the environments; 0 for this one, where MuJoCo's
            are stepped by as many threads as there are cores.
        timeout: seconds after which such a process is replaced.
        stack: newest frames of a picture that are seen together, along the channels;
            the first one of an episode stands for those before it.
    Raises:
        UserError: it cannot be made, fails within some steps, has no step limit, or
            observations or actions that agents cannot take; or there is to be a stack
            of pictures, and it shows none.
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
    if stack > 1 and not known.spaces.pictures:
        told = f"config.pixels.stack is {stack}, and {source.name} shows no pictures"
        raise UserError(told)
    host = Host(source, known, workers, timeout, jax.local_device_count())
    spec = EnvSpec(
        source.name,
        _parts(known.spaces, stack),
        len(known.spaces.low),
        known.horizon,
        decision_time=known.decision_time,
        action_bounds=tuple(tuple(x.tolist()) for x in known.spaces[2:4]),
        pure=known.pure,
        obs_keys=known.spaces.keys,
        stack=stack,
    )
    success = _success if known.has_success else None
    step = _step(host, spec, known.spaces)
    reset = _reset(host, spec, known.spaces)
    return Env(spec, reset, step, success, check=host.check, seen=known.seen)


def _parts(spaces: Spaces, stack: int) -> Obs:
    """Shapes and types of what is seen: numbers, or parts with stacks of pictures."""
    if not spaces.pictures:
        return vector(spaces.num_obs)
    parts = {STATE: vector(spaces.num_obs)} if spaces.num_obs else {}
    return parts | {
        key or PIXELS: jax.ShapeDtypeStruct((*size, stack * channels), jnp.uint8)
        for key, (*size, channels) in spaces.pictures.items()
    }


def _seen(spaces: Spaces, words: Array) -> Obs:
    """An observation of its bits, uint32 [num_words], as `Spaces.words` made them."""
    numbers = jax.lax.bitcast_convert_type(words[: spaces.num_obs], jnp.float32)
    if not spaces.pictures:
        return numbers
    parts, at = {STATE: numbers} if spaces.num_obs else {}, spaces.num_obs
    for key, shape in spaces.pictures.items():
        end = at + picture_words(shape)
        content = jax.lax.bitcast_convert_type(words[at:end], jnp.uint8).reshape(-1)
        parts[key or PIXELS] = content[: math.prod(shape)].reshape(shape)
        at = end
    return parts


def _success(after: EnvState, transition: Transition) -> Array:
    del transition
    success = after.physics.success
    return jnp.where(jnp.isnan(success), 0.0, success)  # not told yet: not done


def _begun(spaces: Spaces, obs: Obs, stack: int) -> Obs:
    """What is seen at the start of an episode, each picture as a stack of itself."""
    names = [key or PIXELS for key in spaces.pictures]
    return obs | {x: jnp.tile(obs[x], stack) for x in names} if names else obs


def _moved_on(spaces: Spaces, before: Obs, obs: Obs) -> Obs:
    """What is seen after a step: stacks `before` without their oldest pictures, and the
    new ones.
    """
    for key, (*_, channels) in spaces.pictures.items():
        name = key or PIXELS
        newer = [before[name][..., channels:], obs[name]]
        obs = obs | {name: jnp.concatenate(newer, axis=-1)}
    return obs


def _reset(
    host: Host, spec: EnvSpec, spaces: Spaces
) -> Callable[[Key, Array], EnvState]:
    words = jax.ShapeDtypeStruct((spaces.num_words,), jnp.uint32)
    ask = host_call(host.reset, f"reset {host.name}", [_SEED], [words, _TICKET])

    def reset(key: Key, task: Array) -> EnvState:
        seed = jax.random.bits(key, (), jnp.uint32)
        words, ticket = ask(seed)
        actions = jnp.zeros((spec.horizon, spec.action_dim))
        episode = Episode(seed, actions, ticket, jnp.float32(0))
        obs = _begun(spaces, _seen(spaces, words), spec.stack)
        return EnvState(episode, obs, jnp.int32(0), task)

    return reset


def _step(host: Host, spec: EnvSpec, spaces: Spaces) -> Callable:
    ask = _asker(host, spec, spaces)

    def step(env: EnvState, action: Array, key: Key) -> tuple[EnvState, Transition]:
        episode, new_seed = env.physics, jax.random.bits(key, (), jnp.uint32)
        # what is not a number must not reach the log
        sent = jnp.where(jnp.isfinite(action), action, 0.0).astype(jnp.float32)
        sent = jnp.clip(sent, -1.0, 1.0)
        request = pool.Request(episode.ticket, episode.seed, env.age, new_seed, sent)
        after, shown, others, ticket = ask(request, episode.actions)
        reward, ended, stops, success = others
        next_obs = _moved_on(spaces, env.obs, after)
        obs = _begun(spaces, shown, spec.stack)
        if spaces.pictures:  # their stacks go on from there, and `shown` has none
            choose = functools.partial(jnp.where, stops > 0)
            obs = jax.tree.map(choose, obs, next_obs)
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
            episode.actions.at[env.age].set(sent),
            ticket,
            success,
        )
        age = jnp.where(transition.last, 0, env.age + 1)
        return EnvState(episode, obs, age, env.task), transition

    return step


_SEED = jax.ShapeDtypeStruct((), jnp.uint32)
_TICKET = jax.ShapeDtypeStruct((live.TICKET,), jnp.uint32)


def _asker(host: Host, spec: EnvSpec, spaces: Spaces) -> Callable:
    """(request, actions [T, A] so far) -> what the host answers, in its parts.

    The actions go to the host only where an episode has to be played again.
    """
    row, answer, actions = (
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((pool.request_width(spec.action_dim),), jnp.uint32),
            ((pool.answer_width(spaces.num_words),), jnp.uint32),
            ((spec.horizon, spec.action_dim), jnp.float32),
        )
    )
    call = host_call(host.step, f"step {host.name}", [row], [answer])
    replay = host_call(host.step, f"replay {host.name}", [row, actions], [answer])

    @_of_any_batch
    def answers(rows: Array, actions: Array) -> Array:
        found = call(rows)
        here = (found[..., -1] == 1).all()
        return jax.lax.cond(here, lambda: found, lambda: replay(rows, actions))

    def ask(request: pool.Request, actions: Array) -> tuple[Array, ...]:
        # in the order in which `pool.unpacked` reads them
        row = jnp.concatenate([_bits(jnp.atleast_1d(part)) for part in request])
        size = spaces.num_words
        ends = [size, 2 * size, 2 * size + pool.EXTRAS]
        after, shown, others, ticket = jnp.split(answers(row, actions), ends)
        others = jax.lax.bitcast_convert_type(others, jnp.float32)
        return _seen(spaces, after), _seen(spaces, shown), others, ticket[:-1]

    return ask


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, jnp.uint32)


def _of_any_batch(function: Callable) -> Callable:
    """Calls a function of arrays with any leading axes once for all that vmap maps."""
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def _(size, batched, *args):
        whole = [
            x if has else jnp.broadcast_to(x, (size, *x.shape))
            for x, has in zip(args, batched, strict=True)
        ]
        return mapped(*whole), True

    return mapped


def build(name: str, options: Options) -> Env:
    """Builds the environment of a registry's entry.

    Raises:
        UserError: as `environment`; or its pictures are to be others than it draws.
    """
    why = "draws its pictures itself; config.env_args may tell it how"
    refuse_pixels(name, options.pixels, why, but=("stack",))
    return environment(
        sources.Source(name, dict(options.args), options.keys),
        horizon=options.horizon,
        workers=options.host.workers,
        timeout=options.host.timeout,
        stack=options.pixels.stack,
    )


ENTRY = EnvEntry(build, any_physics=False, takes=("args", "keys", "horizon", "pixels"))
