"""EnvPool's side of `benchmarks.peers`: random play through its XLA interface.

Runs in the peers' environment. Its argument is a job, in JSON; see `peers.STEPPERS`.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import envpool
import jax
import jax.numpy as jnp

from benchmarks.peers_protocol import IDS, serve


def prepare(job: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], Any]]:
    """What to know of EnvPool, and its work: many steps of all environments."""
    jax.config.update("jax_enable_x64", True)  # its actions are doubles
    num_envs, num_steps = job["envs"], job["steps"]
    env = envpool.make(
        IDS[job["env"]],
        env_type="gymnasium",
        num_envs=num_envs,
        num_threads=min(num_envs, job["threads"]),
        seed=0,
    )
    handle, _, _, step = env.xla()
    env.reset()
    shape = num_envs, *env.action_space.shape

    @jax.jit
    def play(handle, key):
        def one(handle, key):
            action = jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)
            handle, (_, reward, *_) = step(handle, action.astype(jnp.float64))
            return handle, reward.sum()

        return jax.lax.scan(one, handle, jax.random.split(key, num_steps))

    def work():
        nonlocal handle
        handle, earned = play(handle, jax.random.key(0))
        earned.block_until_ready()

    work()
    return {
        "versions": {"envpool": envpool.__version__, "jax": jax.__version__},
        "env": IDS[job["env"]],
        "steps": num_steps,
        "threads": min(num_envs, job["threads"]),
    }, work


if __name__ == "__main__":
    serve(lambda: prepare(json.loads(sys.argv[1])))
