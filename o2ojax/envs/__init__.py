"""Registry of environments. A task is defined once and runs on any physics."""

import difflib
from collections.abc import Callable
from typing import Any

import jax

from o2ojax.envs.entry import EnvEntry, Host, Options, Pixels, adopt, refuse_pixels
from o2ojax.envs.physics import Simulator, c_physics
from o2ojax.errors import UserError, unknown
from o2ojax.registry import Registry, is_door
from o2ojax.types import Env

NONE = "none"  # the name for no environment at all
OWN = "own"  # the physics of an environment with its own simulator
FAMILIES = (
    "point-robot",
    "point-robot-sparse",
    "cheetah-vel",
    "ant-dir",
    "humanoid-dir",
    "hopper-params",
    "walker-params",
    "push-goal",
    "reach-goal",
)
PICTURED = tuple(  # tasks that are seen as pictures
    f"{task}-pixels"
    for task in (
        "reach",
        "push",
        "lift",
        "reach_sparse",
        "push_sparse",
        "lift_sparse",
        "tray_sparse",
        "drawer_sparse",
    )
)
ENVS = Registry(
    "environment",
    {
        "halfcheetah": "o2ojax.envs.locomotion:ENTRY",
        "hopper": "o2ojax.envs.locomotion:ENTRY",
        "walker2d": "o2ojax.envs.locomotion:ENTRY",
        "ant": "o2ojax.envs.locomotion:ENTRY",
        "antmaze-umaze": "o2ojax.envs.antmaze:ENTRY",
        "antmaze-medium": "o2ojax.envs.antmaze:ENTRY",
        "antmaze-large": "o2ojax.envs.antmaze:ENTRY",
        "reach": "o2ojax.envs.manipulation:ENTRY",
        "push": "o2ojax.envs.manipulation:ENTRY",
        "lift": "o2ojax.envs.manipulation:ENTRY",
        "reach_sparse": "o2ojax.envs.manipulation:ENTRY",
        "push_sparse": "o2ojax.envs.manipulation:ENTRY",
        "lift_sparse": "o2ojax.envs.manipulation:ENTRY",
        "tray_sparse": "o2ojax.envs.containers:ENTRY",
        "drawer_sparse": "o2ojax.envs.containers:ENTRY",
        **dict.fromkeys(PICTURED, "o2ojax.envs.pixels:ENTRY"),
        **dict.fromkeys(FAMILIES, "o2ojax.meta.families:ENTRY"),
    },
    adopt,
    {"gymnasium:": "o2ojax.envs.from_gymnasium:ENTRY"},
    "; or gymnasium:ID, file.py:FUNCTION, or none, to train from data alone",
)

__all__ = [
    "ENVS",
    "FAMILIES",
    "OWN",
    "PICTURED",
    "EnvEntry",
    "Host",
    "Options",
    "Pixels",
    "Simulator",
    "make",
    "options",
    "split",
]


def _mjx(*given):
    from o2ojax.envs import mjx_physics  # slow import, seconds

    return mjx_physics.mjx_physics(*given)


def _warp(*given):
    from o2ojax.envs import mjx_physics

    return mjx_physics.warp_physics(*given)


PHYSICS = {"mujoco": c_physics, "mjx": _mjx, "mjx-warp": _warp}


def choose_physics(name: str) -> str:
    """Resolves `auto` to `mjx` on an accelerator and `mujoco` on a CPU.

    Other names are returned as they are.

    Raises:
        UserError: the name is neither `auto` nor in `PHYSICS`.
    """
    if name != "auto" and name not in PHYSICS:
        raise unknown("physics", name, ("auto", *PHYSICS))
    if name != "auto":
        return name
    return "mujoco" if jax.default_backend() == "cpu" else "mjx"


def _mujoco_builder(native: str) -> Callable:
    """The builder of MuJoCo's physics: called by XLA itself, or through a callback.

    Raises:
        UserError: `native` is "require", and XLA cannot call it here.
    """
    if native == "never":
        return c_physics
    from o2ojax.envs.native import library, native_physics

    reason = library.why_not()
    if reason and native == "require":
        raise UserError(f"config.native is require, and {reason}")
    return c_physics if reason else native_physics


def caveats(physics: str, native: str = "auto") -> list[str]:
    """Warnings about a physics on this machine."""
    from o2ojax.envs.native import library

    found = []
    if physics == "mujoco" and native == "auto" and (reason := library.why_not()):
        found.append(
            f"{reason}: each step of the environments goes through Python, which takes"
            " longer, and programs that play are compiled at each start"
        )
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


# Measured: 41 to 68 and 27 to 44, depending on the task, with 64 environments; see
# benchmarks/results/bench-cpu.json.
SLOW_ON_CPU = {"mjx": 50, "mjx-warp": 30}


def split(task: str) -> tuple[str, str]:
    """Splits `ENV-KIND` into ENV and KIND, which is "" if missing.

    Names of families contain hyphens, too. A misspelt family name is not split there,
    so that the error message can suggest the right name.
    """
    if is_door(task) or task.startswith(tuple(ENVS.prefixes)):
        return task, ""
    known = [name for name in ENVS if task == name or task.startswith(f"{name}-")]
    name = max(known, key=len, default=task.partition("-")[0])
    if name not in FAMILIES:
        parts = task.split("-")
        starts = ["-".join(parts[:num]) for num in range(2, len(parts) + 1)]
        nearest = max(starts, key=_likeness, default="")
        name = nearest if _likeness(nearest) > ALIKE else name
    return name, task[len(name) + 1 :]


def _likeness(name: str) -> float:
    """Similarity of a name to the nearest name of a family, from 0 to 1."""
    return max(difflib.SequenceMatcher(None, name, known).ratio() for known in FAMILIES)


ALIKE = 0.8  # `hopper-random` is less similar to `hopper-params`


def make(name: str, *given: Any, **others: Any) -> Env:
    """Builds an environment.

    Args:
        given, others: further arguments of `options`.
    Raises:
        UserError: the environment or physics is unknown, cannot be built, or does not
            fit the other arguments.
    """
    return ENVS.find(name).build(name, options(name, *given, **others))


def options(
    name: str,
    physics: str = "auto",
    simulator: Simulator = Simulator(),  # noqa: B008
    num_train: int = 0,
    num_test: int = 0,
    native: str = "auto",
    **others: Any,
) -> Options:
    """What an environment is built with.

    Args:
        num_train, num_test: numbers of tasks of a family; 0 for all.
        native: whether XLA calls MuJoCo's C library itself, which changes no number:
            "auto", where it can be compiled; "never" or "require".
        others: args, keys, horizon, host and pixels, as in `Options`.
    Raises:
        UserError: the environment or physics is unknown, or does not fit the other
            arguments.
    """
    entry = ENVS.find(name)
    if not entry.any_physics and physics != "auto":
        raise UserError(
            f"config.physics is {physics!r}, but {name} brings its own; leave it at"
            " 'auto'"
        )
    if entry.parameters is None and (num_train or num_test):
        raise UserError(
            f"config.tasks asks for {num_train} training and {num_test} test tasks, but"
            f" {name} is one task, no family; set both to 0, or choose one of"
            f" {', '.join(FAMILIES)}"
        )
    chosen = choose_physics(physics)
    make_physics = PHYSICS[chosen]
    if chosen == "mujoco" and entry.any_physics:
        make_physics = _mujoco_builder(native)
    numbers = num_train, num_test
    made = Options(chosen, make_physics, simulator, *numbers, **others)
    for option, field in (
        ("args", "env_args"),
        ("keys", "env_keys"),
        ("horizon", "horizon"),
    ):
        if getattr(made, option) and option not in entry.takes:
            raise UserError(
                f"config.{field} is {getattr(made, option)}, and {name} takes none:"
                " it is for environments of Gymnasium"
            )
    if "pixels" not in entry.takes:
        why = f"is not seen as pictures; choose one of {', '.join(PICTURED)}"
        refuse_pixels(name, made.pixels, why)
    return made
