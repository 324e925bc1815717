"""Plays an environment by any policy, and writes what it met: `collect --policy=`."""

import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax import api, data, exported, loop, policies, registry, vision
from o2ojax.errors import UserError
from o2ojax.run.config import RunConfig
from o2ojax.run.job import make_env
from o2ojax.run.progress import Progress
from o2ojax.types import EMPTY, Env, EnvSpec, Policy, Transition

RANDOM = "random"
CHUNK = 200  # steps of each environment between two movements of the bar


def play(
    config: RunConfig, named: str, num_rows: int, out: str, progress: Progress
) -> None:
    """Plays whole episodes of about so many rows, and writes them.

    Args:
        config: its environment, its arguments, and how many play at once.
        named: `random`; the directory of a finished run, whose best member explores; an
            exported policy, FILE.o2o; or a door of a function (obs [O], key) -> action
            [A] in [-1, 1].
        out: a file, or `minari:ID`. Actions are written in the environment's units.
    Raises:
        UserError: there is no such policy, it is of another environment, or the data
            cannot be written.
    """
    env = make_env(config)
    policy, state = policy_of(named, env)
    rows = episodes(env, policy, state, num_rows, config, progress)
    data.write(out, rows, action_bounds=env.spec.action_bounds)
    returns = data.episode_returns(rows)
    progress.headline(
        f"{out}: {len(rows.last):,} rows in {len(returns):,} episodes, mean return"
        f" {returns.mean():.2f}"
    )


def policy_of(named: str, env: Env) -> tuple[Policy, Any]:
    """A policy by its name, and the state of its agent."""
    if named == RANDOM:
        return policies.uniform(env.spec.action_dim), ()
    if registry.is_door(named):
        choose = registry.behind(named)
        return policies.memoryless(lambda state, obs, key: choose(obs, key)), ()
    if named.endswith(".o2o"):
        return of_file(named, env.spec), ()
    if not os.path.isdir(named):
        raise UserError(
            f"--policy={named}: neither {RANDOM}, nor a run's directory, nor FILE.o2o,"
            " nor file.py:FUNCTION"
        )
    taken = api.load(named).policy(explore=True)
    if taken.spec.obs != env.spec.obs or taken.spec.action_dim != env.spec.action_dim:
        raise UserError(
            f"--policy={named} is of {taken.spec.name}, which has other observations or"
            f" actions than {env.spec.name}"
        )
    return taken.acts, taken.state


def of_file(path: str, spec: EnvSpec) -> Policy:
    """An exported policy. One row after another: its programs know no batches."""
    player = exported.load(path)
    about, wanted = player.about, (spec.obs_dim, spec.action_dim)
    sizes = about["num_obs"], len(about["low"])
    if sizes != wanted:
        raise UserError(
            f"--policy={path} has observations of {sizes[0]} numbers and actions of"
            f" {sizes[1]}; {spec.name} has {wanted[0]} and {wanted[1]}"
        )
    sees = {name: tuple(form) for name, form in (about.get("parts") or {}).items()}
    if sees != (shows := api.parts_of(spec)):
        raise UserError(
            f"--policy={path} has observations of parts {sees or 'none'}; {spec.name}"
            f" has {shows or 'none'}"
        )
    start, act, observe = (
        jax.custom_batching.sequential_vmap(player.programs[name])
        for name in exported.PROGRAMS
    )

    def begin(state, context, key):
        del state, context
        return start(jax.random.key_data(key))

    def choose(state, memory, obs, key):
        del state, key  # it draws by the key that its memory carries
        action, memory, own = act(memory[0], obs, memory[1])
        return action, (memory, own)

    def look(state, memory, made):
        del state
        given = made.obs, made.action, made.reward, made.next_obs, made.last
        return (observe(memory[0], *given), memory[1]), made

    return Policy(begin, choose, look)


def episodes(
    env: Env,
    policy: Policy,
    state: Any,
    num_rows: int,
    config: RunConfig,
    progress: Progress,
) -> Transition:
    """Whole episodes of at least so many rows, leaves [N, ...] on the host."""
    num_envs, key = config.online.envs, jax.random.key(config.seeds[0])
    key_start, key_play = jax.random.split(key)
    begin = jax.jit(
        lambda key: loop.start_workers(env, policy, EMPTY, state, (), key, num_envs)
    )

    @jax.jit
    def collect(workers, first):
        keys = loop.keys_from(key_play, first, CHUNK)
        workers, made = loop.collect(env, policy, state, workers, keys)
        return workers, vision.newest(made, env.spec)

    workers, parts, ended = begin(key_start), [], 0
    env.check()
    with progress.phase("online", num_rows, 0) as bar:
        while ended < num_rows:
            started = time.perf_counter()
            workers, made = collect(workers, jnp.int32(CHUNK * len(parts)))
            parts.append(jax.device_get(made))
            env.check()
            ended = len(_whole(parts).last)
            steps, seconds = num_envs * CHUNK, time.perf_counter() - started
            bar.advance(min(steps, num_rows), steps / seconds)
    rows = _whole(parts)
    cut = np.flatnonzero(rows.last)
    end = cut[np.searchsorted(cut, num_rows - 1)] + 1
    return jax.tree.map(lambda leaf: leaf[:end], rows)


def _whole(parts: list[Transition]) -> Transition:
    """The finished episodes of all environments, one after another."""
    joined = jax.tree.map(lambda *x: np.concatenate(x).swapaxes(0, 1), *parts)  # [W, T]
    num_steps = joined.last.shape[1]
    kept = [
        slice(0, num_steps - int(np.argmax(row[::-1])) if row.any() else 0)
        for row in joined.last
    ]
    return jax.tree.map(
        lambda leaf: np.concatenate([x[at] for x, at in zip(leaf, kept, strict=True)]),
        joined,
    )
