"""Entries of the registry of environments, and conversion of doors to entries."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax.envs.physics import Simulator
from o2ojax.errors import UserError, first_line
from o2ojax.types import Env


class Options(NamedTuple):
    """A user's options of an environment.

    physics:      name of the physics.
    make_physics: its builder, (models, frame_skip, bodies) -> `physics.Advance`.
    simulator:    changes to the model.
    num_train, num_test: numbers of tasks of a family; 0 for all.
    """

    physics: str
    make_physics: Callable
    simulator: Simulator
    num_train: int = 0
    num_test: int = 0


class EnvEntry(NamedTuple):
    """An entry of the registry of environments.

    build:      (name, Options) -> Env.
    parameters: (name, num_train, num_test) -> [T, P], the parameters of each task of a
                family; None for a single task.
    any_physics: whether it runs on any physics; if False, it has its own simulator.
    """

    build: Callable[[str, Options], Env]
    parameters: Callable[[str, int, int], np.ndarray] | None = None
    any_physics: bool = True


def adopt(found: Any, name: str) -> EnvEntry:
    """Converts the object behind a door to an entry.

    The object is an entry, an Env, or a function that returns an Env. Of `physics`,
    `make_physics` and `simulator`, the function gets those that are its arguments.

    Raises:
        UserError: the object is none of these.
    """
    if isinstance(found, EnvEntry):
        return found
    if isinstance(found, Env):
        return EnvEntry(lambda name, options: checked(found, name), any_physics=False)
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
        return checked(env, name)

    return EnvEntry(build, any_physics=bool(taken & {"physics", "make_physics"}))


def checked(env: Env, name: str) -> Env:
    """The environment, traced once: what would fail in a run, fails here.

    Raises:
        UserError: a function of it fails, or returns another shape or type than `Env`
            and `EnvSpec` ask for.
    """
    key, action = jax.random.key(0), jnp.zeros(env.spec.action_dim)
    try:
        state = jax.eval_shape(env.reset, key, jnp.int32(0))
        after, made = jax.eval_shape(env.step, state, action, key)
        done = env.success and jax.eval_shape(env.success, made.next_obs)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name}: its functions cannot be traced by JAX:"
            f" {type(error).__name__}: {first_line(error)}"
        ) from error
    number, truth = jnp.zeros(()), jnp.zeros((), bool)
    wanted = {
        "the observation of a reset": (state.obs, env.spec.obs),
        "the state after a step": (after, state),
        "next_obs": (made.next_obs, env.spec.obs),
        "the reward": (made.reward, number),
        "the discount": (made.discount, number),
        "last, an episode's end,": (made.last, truth),
        "success": (done if env.success else truth, truth),
    }
    for what, (found, right) in wanted.items():
        if _shapes(found) != _shapes(right):
            raise UserError(
                f"{name}: {what} is {_shapes(found)}; it must be {_shapes(right)}"
            )
    return env


def _shapes(tree: Any) -> str:
    """Types and shapes of arrays, in words."""
    leaves = [f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(tree)]
    return ", ".join(leaves) or "nothing"


def _arguments(function: Callable) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a function written in C
        return set()
