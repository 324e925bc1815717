"""Environments by name. A task is written once; its physics is a choice."""

import jax

from o2ojax.envs import locomotion, manipulation
from o2ojax.envs.physics import Simulator, c_physics
from o2ojax.errors import unknown
from o2ojax.types import Env

BUILDERS = {
    **dict.fromkeys(locomotion.TASKS, locomotion.locomotion),
    **dict.fromkeys(manipulation.TASKS, manipulation.manipulation),
}
ENVS = tuple(BUILDERS)


def _mjx(*given):
    from o2ojax.envs import mjx_physics  # takes seconds to import

    return mjx_physics.mjx_physics(*given)


def _warp(*given):
    from o2ojax.envs import mjx_physics

    return mjx_physics.warp_physics(*given)


PHYSICS = {"mujoco": c_physics, "mjx": _mjx, "mjx-warp": _warp}


def choose_physics(name: str) -> str:
    """The physics that `auto` stands for here, or the name itself.

    `auto` is `mjx` where there is an accelerator, and `mujoco` on a CPU.

    Raises:
        UserError: for a name that is neither `auto` nor in `PHYSICS`.
    """
    if name != "auto" and name not in PHYSICS:
        raise unknown("physics", name, ("auto", *PHYSICS))
    if name != "auto":
        return name
    return "mujoco" if jax.default_backend() == "cpu" else "mjx"


def caveats(physics: str) -> list[str]:
    """What someone who has chosen a physics should know before it runs here."""
    found = []
    if jax.default_backend() == "cpu" and physics in SLOW_ON_CPU:
        found.append(
            f"physics {physics!r} on a CPU takes about {SLOW_ON_CPU[physics]} times as"
            " long as 'mujoco', the C library"
        )
    if physics == "mjx-warp":
        found.append(
            "physics 'mjx-warp' is not deterministic: a run that is resumed or repeated"
            " will not end with the same numbers. 'mjx' is"
        )
    return found


# 40 to 75 and 25 to 35, by task: benchmarks/results/envs-cpu.json
SLOW_ON_CPU = {"mjx": 50, "mjx-warp": 30}


def make(name: str, physics: str = "auto", simulator: Simulator = Simulator()) -> Env:  # noqa: B008
    """Builds an environment.

    Raises:
        UserError: for an unknown environment or physics, or one that cannot be had.
    """
    if name not in ENVS:
        raise unknown("environment", name, ENVS)
    return BUILDERS[name](name, PHYSICS[choose_physics(physics)], simulator)
