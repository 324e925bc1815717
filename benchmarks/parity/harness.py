"""What comparisons share on our side: options, originals, draws and data.

`begin` comes before the module of an agent is imported: such a module imports its
original at once.
"""

import argparse
import importlib
import sys
import types
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from o2ojax import losses
from o2ojax.learning import TrainState
from o2ojax.types import Batch, EnvSpec, Transition, vector

DTYPE = np.float64 if jax.config.jax_enable_x64 else np.float32
OPTIONS = argparse.Namespace()  # those of the command


def begin(options: argparse.Namespace) -> None:
    """Takes the command's options, and puts in the fault of --control."""
    vars(OPTIONS).update(vars(options))
    if options.control:
        right = losses.td_target
        losses.td_target = lambda reward, discount, value, gamma: right(
            reward, discount, value, 0.9999 * gamma
        )


# --- originals


def original(folder: str, *modules: str) -> list[types.ModuleType]:
    """Imports modules of an original from its folder."""
    root = OPTIONS.originals / folder
    if not root.is_dir():
        sys.exit(f"{root} is missing; see benchmarks/parity/README.md")
    sys.path.insert(0, str(root))
    return [importlib.import_module(name) for name in modules]


class Whatever(type):
    """Of classes whose every attribute is `Anything`."""

    def __getattr__(cls, name):
        """Refuses what Python itself asks for."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Anything(metaclass=Whatever):
    """What is imported from modules of which nothing is used."""

    def __init__(self, *args, **kwargs):
        pass

    def __init_subclass__(cls, **kwargs):
        """Takes whatever a subclass is declared with."""


class AnyModule(types.ModuleType):
    """A module in which every name is `Anything`."""

    __path__: list[str] = []

    def __getattr__(self, name):
        """Refuses what Python itself asks for."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


def stand_in(*names: str) -> None:
    """Stands in for modules that an original imports and that are not needed here."""
    for name in names:
        sys.modules[name] = AnyModule(name)


class Over:
    """An object with some attributes replaced; all others are those of the original."""

    def __init__(self, inner: Any, **replaced: Any):
        self.__dict__.update(replaced)
        self.__dict__["_inner"] = inner

    def __getattr__(self, name):
        """What was not replaced."""
        return getattr(self.__dict__["_inner"], name)


# --- random draws


class Feed:
    """Draws that are handed out in order, in place of an original's own."""

    def __init__(self):
        self.left: list[np.ndarray] = []

    def put(self, *draws: Any) -> None:
        """Adds draws to the end of the queue."""
        self.left += [np.asarray(draw, DTYPE) for draw in draws]

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next draw, which must have the shape that is asked for."""
        assert self.left, f"no draw is left for {tuple(shape)}"
        draw = self.left.pop(0)
        assert tuple(shape) == draw.shape, f"{tuple(shape)} asked, {draw.shape} is next"
        return draw

    def done(self) -> None:
        """Makes sure that the original has drawn as often as we have."""
        assert not self.left, f"{len(self.left)} draws were not asked for"


def gaussian_noise(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """What `distrax` draws for a Gaussian of this shape: its sample at N(0, 1)."""
    zeros = jnp.zeros(shape, DTYPE)
    standard = distrax.MultivariateNormalDiag(zeros, jnp.ones_like(zeros))
    return np.asarray(standard.sample(seed=key))


# --- weights


def cast(tree: Any) -> Any:
    """Floats in the precision under test."""

    def one(x):
        is_float = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        return jnp.asarray(x, DTYPE) if is_float else jnp.asarray(x)

    return jax.tree.map(one, tree)


def shake(tree: Any, key: jax.Array, size: float = 0.1) -> Any:
    """Weights moved a little, so that no layer is 0 and no target is its network."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    moved = [
        x + size * jax.random.normal(k, x.shape, x.dtype)
        for x, k in zip(leaves, keys, strict=True)
    ]
    return cast(jax.tree.unflatten(structure, moved))


def fresh(learned: TrainState, params: Any) -> TrainState:
    """Other weights, their optimiser at its beginning."""
    return learned._replace(params=params, opt_state=cast(learned.opt_state))


def member(params: Any, at: int) -> Any:
    """One of an ensemble."""
    return jax.tree.map(lambda x: x[at], params)


# --- data


def rows(seed: int, lead: tuple[int, ...], obs_dim: int, action_dim: int) -> Transition:
    """Transitions of random numbers, some of them terminal; leaves of NumPy."""
    rng = np.random.default_rng(seed)
    last = rng.random(lead) < 0.25
    ends = last & (rng.random(lead) < 0.6)
    return Transition(
        obs=rng.normal(size=(*lead, obs_dim)).astype(DTYPE),
        action=rng.uniform(-0.95, 0.95, size=(*lead, action_dim)).astype(DTYPE),
        reward=rng.normal(size=lead).astype(DTYPE),
        discount=(1.0 - ends).astype(DTYPE),
        next_obs=rng.normal(size=(*lead, obs_dim)).astype(DTYPE),
        last=last,
        task=np.zeros(lead, np.int32),
    )


def batch_of(data: Transition, context: Any = ()) -> Batch:
    """Rows of equal weight [B], or of tasks [G, B] with their context."""
    num = data.reward.shape[-1]
    data, context = jax.tree.map(jnp.asarray, (data, context))
    return Batch(data, jnp.ones(num, DTYPE), jnp.arange(num), context)


def spec(obs_dim: int, action_dim: int) -> EnvSpec:
    """Of an environment that nobody steps."""
    return EnvSpec("parity", vector(obs_dim), action_dim, 100)
