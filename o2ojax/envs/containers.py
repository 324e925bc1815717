"""tray_sparse and drawer_sparse: a cube is put into a tray, or taken out of a drawer.

After the three manipulation tasks with sparse rewards of Off2OnRL (Lee et al.,
"Offline-to-Online Reinforcement Learning via Balanced Replay and Pessimistic
Q-Ensemble", 2021, arxiv.org/abs/2107.00591). The scenes are our own: those of
`manipulation`, with a tray or a drawer. As there, a reward is 1 for each decision after
which the success criterion holds, else 0, and success does not end an episode.
"""

import jax.numpy as jnp

from o2ojax.envs.entry import EnvEntry, Options
from o2ojax.envs.manipulation import (
    OPEN,
    REST,
    Sight,
    Task,
    by_success,
    lifted,
    manipulation,
    nowhere,
)
from o2ojax.types import Array, Env

TRAY = (0.0, 0.15)  # m, centre of the tray
INSIDE = 0.063  # m, from there to its rim, along x and y
SETTLED = 0.005  # m, height above REST below which the cube lies in the tray
HANDLE = -0.05  # m, x of the closed drawer's handle
ROOF = -0.11  # m, x of the front of the cabinet's roof


def put_away(sight: Sight) -> Array:
    """Whether the cube lies in the tray."""
    x, y, z = (sight.cube[..., i] for i in range(3))
    inside = (jnp.abs(x - TRAY[0]) < INSIDE) & (jnp.abs(y - TRAY[1]) < INSIDE)
    return inside & (z < REST + SETTLED)


TASKS = {
    "tray_sparse": Task(
        action_dim=4,
        hand=(0.0, 0.0, 0.15),
        finger=OPEN,
        goal=nowhere,
        reward=by_success(put_away),
        success=put_away,
        cube=(0.0, -0.08),
        spread=0.08,
        scene="tray",
        horizon=60,
        camera="at_tray",
    ),
    "drawer_sparse": Task(
        action_dim=4,
        hand=(0.05, 0.0, 0.15),
        finger=OPEN,
        goal=nowhere,
        reward=by_success(lifted),
        success=lifted,
        cube=(-0.18, 0.0),
        spread=0.02,
        scene="drawer",
        horizon=80,
    ),
}


def build(name: str, options: Options) -> Env:
    """Builds one of `TASKS`, as the registry asks for it."""
    return manipulation(name, TASKS[name], options.make_physics, options.simulator)


ENTRY = EnvEntry(build)
