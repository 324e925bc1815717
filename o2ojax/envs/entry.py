"""What an entry of the registry of environments is, and what may be behind a door."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from o2ojax.envs.physics import Simulator
from o2ojax.errors import UserError, first_line
from o2ojax.types import Env


class Options(NamedTuple):
    """What a user chooses of an environment.

    physics:      name of what advances it.
    make_physics: (models, frame_skip, bodies) -> `physics.Advance`, likewise.
    simulator:    how its model differs from its file's.
    num_train, num_test: tasks of a family; 0 for all.
    """

    physics: str
    make_physics: Callable
    simulator: Simulator
    num_train: int = 0
    num_test: int = 0


class EnvEntry(NamedTuple):
    """An entry of the registry of environments.

    build:      (name, Options) -> Env.
    parameters: (name, num_train, num_test) -> [T, P], what sets each task of a family
                apart; None for one task.
    any_physics: whether it runs on any of the physics; False: it brings its own.
    """

    build: Callable[[str, Options], Env]
    parameters: Callable[[str, int, int], np.ndarray] | None = None
    any_physics: bool = True


def adopt(found: Any, name: str) -> EnvEntry:
    """What is behind a door, as an entry.

    It is an entry; an Env; or a function that returns an Env, which is given those of
    `physics`, `make_physics` and `simulator` that it has arguments for.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(found, EnvEntry):
        return found
    if isinstance(found, Env):
        return EnvEntry(lambda name, options: found, any_physics=False)
    if not callable(found):
        raise UserError(
            f"{name} is of type {type(found).__name__}; it must be an o2ojax.types.Env,"
            " or a function that returns one"
        )
    taken = _arguments(found) & {"physics", "make_physics", "simulator"}

    def build(name: str, options: Options) -> Env:
        given = {argument: getattr(options, argument) for argument in taken}
        try:
            env = found(**given)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{name} fails with {type(error).__name__}: {first_line(error)}"
            ) from error
        if not isinstance(env, Env):
            raise UserError(
                f"{name} returns a {type(env).__name__}; it must return an"
                " o2ojax.types.Env"
            )
        return env

    return EnvEntry(build, any_physics=bool(taken & {"physics", "make_physics"}))


def _arguments(function: Callable) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of a function written in C
        return set()
