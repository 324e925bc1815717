"""Makes environments of Gymnasium by name."""

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np


class HostError(ValueError):
    """An environment cannot be used. The message says why, and what would be right."""


class Source(NamedTuple):
    """Where environments come from.

    name: `gymnasium:ID`, `gymnasium:MODULE:ID`, or a door, `module:NAME` or
          `file.py:NAME`, of a function that returns a `gymnasium.Env`.
    args: keyword arguments.
    keys: of Dict observations, the parts to join, in order; () for all.
    """

    name: str
    args: Mapping[str, Any] = {}
    keys: tuple[str, ...] = ()


PREFIX = "gymnasium:"
RAISED = (Exception, SystemExit, GeneratorExit)  # by others; not what Ctrl-C raises
SUITES = {  # package that registers environments -> how their IDs begin, extra of ours
    "gymnasium_robotics": (
        ("AntMaze", "PointMaze", "AdroitHand", "FrankaKitchen", "Fetch", "HandM"),
        "robotics",
    ),
    "shimmy": (("dm_control/",), "dm-control"),
    "ogbench": (
        ("antmaze-", "pointmaze-", "humanoidmaze-", "antsoccer-", "cube-", "scene-")
        + ("puzzle-", "powderworld-"),
        "ogbench",
    ),
}


def make(source: Source) -> Any:
    """A new environment of a source, without a time limit of Gymnasium's own.

    Raises:
        HostError: there is none of that name, its package is missing, or it fails.
    """
    if source.name.startswith(PREFIX):
        return _registered(source.name.removeprefix(PREFIX), dict(source.args))
    place, _, attribute = source.name.rpartition(":")
    try:
        function = getattr(load_module(place), attribute)
        return function(**source.args)
    except RAISED as error:
        raise HostError(f"{source.name} fails with {told(error)}") from error


def _registered(name: str, args: dict[str, Any]) -> Any:
    import gymnasium

    module, _, name = name.rpartition(":")
    modules = [module] if module else []
    for package, (starts, extra) in SUITES.items():
        if name.startswith(starts) and not module:
            if importlib.util.find_spec(package) is None:
                raise HostError(
                    f"{name} is an environment of {package}, which is not installed:"
                    f" pip install 'o2ojax[{extra}]'"
                )
            modules.append(package)
    try:
        for each in modules:
            importlib.import_module(each)
            MENDS.get(each, lambda: None)()
        return gymnasium.make(
            name, max_episode_steps=-1, disable_env_checker=True, **args
        )
    except gymnasium.error.NameNotFound as error:
        why = told(error).rstrip(".")
        raise HostError(
            f"Gymnasium has no environment {name!r}: {why}. One that a package"
            f" registers is named with its module, as {PREFIX}my_package:{name}"
        ) from error
    except RAISED as error:
        raise HostError(f"{PREFIX}{name} cannot be made: {told(error)}") from error


def _mend_robotics() -> None:
    """Lets gymnasium-robotics find the types of joints.

    It asks whether NumPy's integers are among MuJoCo's enumerated ones, which is never
    so since MuJoCo 3.12: Fetch, Kitchen and the hands fail. It gets plain integers.
    """
    import mujoco
    from gymnasium_robotics.utils import mujoco_utils

    hinge = mujoco.mjtJoint.mjJNT_HINGE
    if np.int32(int(hinge)) in (hinge,):
        return
    members = mujoco.mjtJoint.__members__.items()
    plain = SimpleNamespace(**{name: int(value) for name, value in members})
    mujoco_utils.mujoco = SimpleNamespace(**vars(mujoco) | {"mjtJoint": plain})


MENDS = {"gymnasium_robotics": _mend_robotics}  # run once a package is imported


def load_module(place: str) -> Any:
    """The module of a name or of a file; the same one that `o2ojax.registry` loads."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).resolve()
    name = f"o2ojax_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name not in sys.modules:  # the same module as o2ojax.registry makes of it
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def told(error: BaseException) -> str:
    """The kind of an error, and the first line of what it says."""
    try:
        said = next(iter(str(error).splitlines()), "")
    except Exception:  # a stranger's own class may do anything
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
