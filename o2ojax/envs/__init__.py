"""Environments by name. A task is written once; its physics is a choice."""

from o2ojax.envs import locomotion
from o2ojax.envs.physics import c_physics
from o2ojax.errors import unknown
from o2ojax.types import Env

ENVS = tuple(locomotion.TASKS)
PHYSICS = {"mujoco": c_physics}


def choose_physics(name: str) -> str:
    """The physics that `auto` stands for here, or the name itself.

    Raises:
        UserError: for a name that is neither `auto` nor in `PHYSICS`.
    """
    if name != "auto" and name not in PHYSICS:
        raise unknown("physics", name, ("auto", *PHYSICS))
    return "mujoco" if name == "auto" else name


def make(name: str, physics: str = "auto") -> Env:
    """Builds an environment.

    Raises:
        UserError: for an unknown environment or physics.
    """
    if name not in ENVS:
        raise unknown("environment", name, ENVS)
    return locomotion.locomotion(name, PHYSICS[choose_physics(physics)])
