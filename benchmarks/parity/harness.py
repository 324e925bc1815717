"""What comparisons share on our side: options, draws, weights and data.

Nothing here or in the modules of agents needs PyTorch or an original: those are in
`theirs`.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from o2ojax import losses
from o2ojax.learning import TrainState
from o2ojax.types import Agent, Batch, EnvSpec, Transition, vector

DTYPE = np.float64 if jax.config.jax_enable_x64 else np.float32
OPTIONS = argparse.Namespace()  # those of the command


def begin(options: argparse.Namespace) -> None:
    """Takes the command's options, and puts in the fault of --control."""
    vars(OPTIONS).update(vars(options))
    file = options.originals
    OPTIONS.recorded = json.loads(file.read_text()) if file.is_file() else None
    if options.control:
        right = losses.td_target
        losses.td_target = lambda reward, discount, value, gamma: right(
            reward, discount, value, 0.9999 * gamma
        )


class Over:
    """An object with some attributes replaced; all others are its own."""

    def __init__(self, inner: Any, **replaced: Any):
        self.__dict__.update(replaced)
        self.__dict__["_inner"] = inner

    def __getattr__(self, name):
        """What was not replaced."""
        return getattr(self.__dict__["_inner"], name)


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


def blank(init: Callable[[jax.Array], Any]) -> Any:
    """What an agent's `init` returns, of zeros: as Adam begins; weights are `drawn`.

    An agent's own first weights are in single precision: their last bits depend on how
    XLA compiles, which the record of an original must not.
    """
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def drawn(params: Any, rng: np.random.Generator, size: float = 0.1) -> Any:
    """Weights of the shapes of these, no layer of them 0; leaves of NumPy.

    Args:
        size: the standard deviation of biases; of kernels, whose variance is 1 / (3 fan
            in) more: so policies do not saturate.
    """

    def one(path: Any, like: Any) -> np.ndarray:
        name = path[-1].key
        start = 1.0 if name == "scale" else 0.0
        more = 1 / (3 * like.shape[-2]) if name == "kernel" else 0.0
        noise = np.sqrt(size**2 + more) * rng.normal(size=like.shape)
        return np.asarray(start + noise, DTYPE)

    return jax.tree_util.tree_map_with_path(one, params)


def shake(params: Any, rng: np.random.Generator, size: float) -> Any:
    """Weights moved a little, so that no target is its network."""

    def one(x: np.ndarray) -> np.ndarray:
        return np.asarray(x + size * rng.normal(size=x.shape), DTYPE)

    return jax.tree.map(one, params)


def fresh(learned: TrainState, params: Any) -> TrainState:
    """Other weights, their optimiser at its beginning."""
    return learned._replace(params=params, opt_state=cast(learned.opt_state))


def member(params: Any, at: int) -> Any:
    """One of an ensemble, in NumPy."""
    return jax.tree.map(lambda x: np.asarray(x)[at], params)


# --- weights, in the layout of PyTorch's


def layer(params: Any) -> list[np.ndarray]:
    """A linear layer's or a norm's weights."""
    weight = np.asarray(params["kernel" if "kernel" in params else "scale"])
    return [weight.T, np.asarray(params["bias"])]


def columns(params: Any, cut: slice) -> dict[str, Any]:
    """A part of a layer's outputs: what is one layer of ours may be two of theirs."""
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    return {"kernel": kernel[:, cut], "bias": bias[cut]}


def halves(params: Any) -> list[np.ndarray]:
    """A layer of means and log stds, which are layers of their own in originals."""
    num = len(params["bias"]) // 2
    means, spreads = (columns(params, cut) for cut in (slice(num), slice(num, None)))
    return layer(means) + layer(spreads)


def layers(params: Any) -> list[np.ndarray]:
    """All of an MLP, from its first to its last."""
    return [x for at in range(len(params)) for x in layer(params[f"Dense_{at}"])]


def mlp(params: Any) -> list[np.ndarray]:
    """A network that is an MLP."""
    return layers(params["params"]["MLP_0"])


def twins(params: Any) -> list[np.ndarray]:
    """Two critics, one after the other."""
    return mlp(member(params, 0)) + mlp(member(params, 1))


def squashed(params: Any) -> list[np.ndarray]:
    """The squashed policy."""
    p = dict(params["params"]["MLP_0"])
    last = p.pop(f"Dense_{len(p) - 1}")
    return layers(p) + halves(last)


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


def judged(agent: Agent, state: Any, obs: Any) -> jax.Array:
    """The action by which an agent is judged, [A]."""
    act = jax.jit(agent.exploit.act)
    return act(state, (), jnp.asarray(obs), jax.random.key(0))[0]
