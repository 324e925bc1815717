"""Entries of the registry of environments, and conversion of doors to entries."""

import contextlib
import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax import fields, registry
from o2ojax.envs.physics import Simulator
from o2ojax.errors import RAISED, UserError, first_line
from o2ojax.fields import count, flag, number, whole
from o2ojax.types import Env, EnvSpec


@fields.section
class Host:
    """How environments of Gymnasium are stepped.

    workers: processes that step them; 0 for the run's own.
    timeout: seconds after which a process that does not answer is replaced.
    """

    workers: int = whole(0)
    timeout: float = number(60.0, above=0, traced=False)


@fields.section
class Pixels:
    """How a task that is seen as pictures is seen.

    size:   pixels of a side.
    stack:  newest frames that are seen together.
    state:  whether the arm's own state is seen, too.
    repeat: how often an action is applied in a row.
    """

    size: int = whole(84, at_least=8, at_most=512)
    stack: int = count(1)
    state: bool = flag(True)
    repeat: int = count(2)


def refuse_pixels(name: str, given: Pixels, why: str, but: Sequence[str] = ()) -> None:
    """Refuses choices of `config.pixels` that would have no effect.

    Args:
        why: what the environment is instead, the end of the message.
        but: the fields that have one.
    Raises:
        UserError: another field is not as it is by default.
    """
    chosen, default = fields.values(given), fields.values(Pixels())
    for field in chosen:
        if field not in but and chosen[field] != default[field]:
            said = f"config.pixels.{field} is {chosen[field]}"
            raise UserError(f"{said}, and {name} {why}")


class Options(NamedTuple):
    """A user's options of an environment.

    physics:      name of the physics.
    make_physics: its builder, (models, frame_skip, bodies) -> `physics.Advance`.
    simulator:    changes to the model.
    num_train, num_test: numbers of tasks of a family; 0 for all.
    args:    keyword arguments of what builds it.
    keys:    entries of Dict observations to join, in order; () for all.
    horizon: steps after which an episode is cut; 0 for the environment's own limit.
    host:    how it is stepped, if it is one of Gymnasium.
    pixels:  how it is seen, if it is seen as pictures.
    """

    physics: str
    make_physics: Callable
    simulator: Simulator
    num_train: int = 0
    num_test: int = 0
    args: Mapping[str, Any] = MappingProxyType({})
    keys: tuple[str, ...] = ()
    horizon: int = 0
    host: Host = Host()
    pixels: Pixels = Pixels()


class EnvEntry(NamedTuple):
    """An entry of the registry of environments.

    build:      (name, Options) -> Env.
    parameters: (name, num_train, num_test) -> [T, P], the parameters of each task of a
                family; None for a single task.
    any_physics: whether it runs on any physics; if False, it has its own simulator.
    takes: the names of the `Options` that it obeys, of args, keys, horizon and pixels.
    """

    build: Callable[[str, Options], Env]
    parameters: Callable[[str, int, int], np.ndarray] | None = None
    any_physics: bool = True
    takes: tuple[str, ...] = ()


def adopt(found: Any, name: str) -> EnvEntry:
    """Converts the object behind a door to an entry.

    The object is an entry, an Env, or a function that returns an Env, or a
    `gymnasium.Env`, of which it must return a new one each time. Of `physics`,
    `make_physics` and `simulator`, the function gets those that are its arguments,
    and all of `Options.args`.

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
            " or a function that returns one or a gymnasium.Env"
        )
    taken = _arguments(found) & {"physics", "make_physics", "simulator"}

    def build(name: str, options: Options) -> Env:
        given = {argument: getattr(options, argument) for argument in taken}
        try:
            env = found(**given, **options.args)
        except UserError:
            raise
        except RAISED as error:
            raise registry.failure(name, error) from error
        if _is_of_gymnasium(env):
            from o2ojax.envs import from_gymnasium

            with contextlib.suppress(*RAISED):  # nothing is lost with it
                env.close()
            return from_gymnasium.build(name, options)
        refuse_pixels(name, options.pixels, "is seen as its own function makes it")
        if not isinstance(env, Env):
            raise UserError(
                f"{name} returns a {type(env).__name__}; it must return an"
                " o2ojax.types.Env or a gymnasium.Env"
            )
        return checked(env, name)

    any_physics = bool(taken & {"physics", "make_physics"})
    return EnvEntry(build, None, any_physics, ("args", "keys", "horizon", "pixels"))


def _is_of_gymnasium(made: Any) -> bool:
    return any(kind.__module__ == "gymnasium.core" for kind in type(made).__mro__)


def checked(env: Env, name: str) -> Env:
    """The environment, traced once: what would fail in a run, fails here.

    Raises:
        UserError: its spec is none, or a function of it fails, or returns another shape
            or type than `Env` and `EnvSpec` ask for.
    """
    _check_spec(env.spec, name)
    key, action = jax.random.key(0), jnp.zeros(env.spec.action_dim)
    try:
        state = jax.eval_shape(env.reset, key, jnp.int32(0))
        after, made = jax.eval_shape(env.step, state, action, key)
        done = env.success and jax.eval_shape(
            lambda *given: jnp.asarray(env.success(*given), jnp.float32), after, made
        )
    except UserError:
        raise
    except RAISED as error:
        raise UserError(
            f"{registry.place(name, error)} cannot be traced by JAX:"
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
        "success": (done if env.success else number, number),
    }
    for what, (found, right) in wanted.items():
        if _shapes(found) != _shapes(right):
            raise UserError(
                f"{name}: {what} is {_shapes(found)}; it must be {_shapes(right)}"
            )
    return env


def _check_spec(spec: Any, name: str) -> None:
    """Raises UserError for sizes that no environment can have."""
    if not isinstance(spec, EnvSpec):
        raise UserError(
            f"{name} has a spec of type {type(spec).__name__}; it must be an"
            " o2ojax.types.EnvSpec"
        )
    for field in ("action_dim", "horizon", "num_tasks"):
        found = getattr(spec, field)
        if not isinstance(found, numbers.Integral) or not 1 <= found < 2**31:
            raise UserError(
                f"{name}: spec.{field} is {fields.shown(found)}; it must be a whole"
                " number of at least 1, below 2**31"
            )
    parts = jax.tree.leaves(spec.obs)
    if not parts or not all(isinstance(x, jax.ShapeDtypeStruct) for x in parts):
        raise UserError(
            f"{name}: spec.obs is {fields.shown(spec.obs)}; it must be"
            " o2ojax.types.vector(SIZE), or a dict of jax.ShapeDtypeStruct"
        )
    for part in parts:
        if part.dtype == np.uint8 and (
            len(part.shape) != 3 or spec.stack < 1 or part.shape[-1] % spec.stack
        ):
            raise UserError(
                f"{name}: spec.obs has a part of {part.shape} of uint8, and spec.stack"
                f" is {spec.stack}; an image must be [H, W, C * stack]"
            )
    if not spec.obs_dim:
        raise UserError(f"{name}: spec.obs has no numbers, and an agent must see some")
    if spec.action_bounds is None:
        return
    try:
        low, high = np.float64(spec.action_bounds)
        usable = low.shape == high.shape == (spec.action_dim,) and np.all(low < high)
    except (TypeError, ValueError):
        usable = False
    if not usable or not np.isfinite([low, high]).all():
        raise UserError(
            f"{name}: spec.action_bounds is {fields.shown(spec.action_bounds)}; it must"
            f" be None, or {spec.action_dim} lowest and as many higher, finite numbers"
        )


def _shapes(tree: Any) -> str:
    """Types and shapes of arrays, in words."""
    leaves = [f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(tree)]
    return ", ".join(leaves) or "nothing"


def _arguments(function: Callable) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a function written in C
        return set()
