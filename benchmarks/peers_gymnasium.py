"""Gymnasium's side of `benchmarks.peers`: random play in a vector environment.

Runs in our environment: gymnasium and MuJoCo are those that ours are made of. Its
argument is a job, in JSON; see `peers.STEPPERS`.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np

from benchmarks.peers_protocol import IDS, serve


def prepare(job: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], Any]]:
    """What to know of gymnasium, and its work: a step of all environments."""
    num_envs = job["envs"]
    env = gymnasium.make_vec(
        IDS[job["env"]], num_envs=num_envs, vectorization_mode=job["mode"]
    )
    shape = env.action_space.shape  # [num_envs, A]
    generator = np.random.default_rng(0)
    env.reset(seed=0)

    def work():
        env.step(generator.uniform(-1.0, 1.0, shape).astype(np.float32))

    for _ in range(100):
        work()
    packages = gymnasium, mujoco, np
    return {
        "versions": {package.__name__: package.__version__ for package in packages},
        "env": IDS[job["env"]],
        "autoreset": str(env.metadata["autoreset_mode"]),
    }, work


if __name__ == "__main__":
    serve(lambda: prepare(json.loads(sys.argv[1])))
