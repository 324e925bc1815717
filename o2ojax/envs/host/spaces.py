"""Observations and actions of Gymnasium as vectors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .sources import HostError, Source


class Spaces(NamedTuple):
    """How observations and actions of an environment become vectors.

    keys:  of Dict observations, the parts that are joined; () for a plain Box.
    num_obs: numbers of an observation.
    low, high: [A], the bounds of an action in the environment's own units.
    shape: of an action.
    """

    keys: tuple[str, ...]
    num_obs: int
    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]

    def observation(self, obs: Any) -> np.ndarray:
        """[O], float32."""
        parts = [_part(obs, key) for key in self.keys] if self.keys else [obs]
        parts = [np.asarray(part, np.float64).ravel() for part in parts]
        vector = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if vector.size != self.num_obs:
            raise HostError(
                f"an observation has {vector.size} numbers, and the observation space"
                f" says {self.num_obs}"
            )
        with np.errstate(over="ignore"):
            numbers = vector.astype(np.float32)
        if not np.isfinite(numbers).all():
            at = int(np.flatnonzero(~np.isfinite(numbers))[0])
            where = self._entry_of(at, parts)
            raise HostError(f"number {at} of an observation is {vector[at]}{where}")
        return numbers

    def _entry_of(self, number: int, parts: Sequence[np.ndarray]) -> str:
        """Where a number of a joined observation comes from, as part of a message."""
        ends = np.cumsum([part.size for part in parts])
        at = int(np.searchsorted(ends, number, side="right"))
        return f", in its entry {self.keys[at]!r}" if self.keys else ""

    def control(self, action: np.ndarray) -> np.ndarray:
        """An action [A] in [-1, 1] in the environment's units and shape."""
        low, high = self.low, self.high
        scaled = low + (action.astype(np.float64) + 1) / 2 * (high - low)
        scaled = np.minimum(np.maximum(scaled, low), high)
        return scaled.astype(np.float32).reshape(self.shape)


def spaces_of(env: Any, source: Source) -> Spaces:
    """What is known of the spaces of an environment.

    Raises:
        HostError: observations or actions are of a kind that agents cannot take.
    """
    from gymnasium import spaces

    name, seen, action = source.name, env.observation_space, env.action_space
    if not isinstance(action, spaces.Box):
        raise HostError(
            f"{name} has actions of the kind {type(action).__name__}; only continuous"
            " ones, a bounded Box, can be learned"
        )
    bounds = np.float64([action.low.ravel(), action.high.ravel()])
    if not np.isfinite(bounds).all() or (bounds[0] >= bounds[1]).any():
        raise HostError(
            f"{name} has actions from {action.low.min()} to {action.high.max()}; every"
            " one needs finite bounds (gymnasium.wrappers.RescaleAction gives them)"
        )
    parts = dict(_leaves(seen)) if isinstance(seen, spaces.Dict) else {"": seen}
    chosen = _chosen(parts, source.keys, name)
    for key, part in chosen.items():
        what = f"entry {key!r} of its observations" if key else "an observation"
        if not isinstance(part, (spaces.Box, spaces.Discrete, spaces.MultiBinary)):
            raise HostError(f"{name}: {what} is a {type(part).__name__}, not numbers")
        if part.dtype == np.uint8 and len(part.shape) > 1:
            raise HostError(
                f"{name}: {what} is an image, {list(part.shape)}; agents take vectors."
                " Name the other entries in config.env_keys, or wrap the environment"
            )
    num_obs = sum(int(np.prod(part.shape)) for part in chosen.values())
    keys = tuple(key for key in chosen if key)
    return Spaces(keys, num_obs, *bounds, tuple(action.shape))


def _leaves(space: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """The parts of nested Dicts, named as "desired_goal/kettle"."""
    for key, part in space.spaces.items():
        if hasattr(part, "spaces") and isinstance(part.spaces, Mapping):
            yield from _leaves(part, f"{before}{key}/")
        else:
            yield f"{before}{key}", part


def _chosen(parts: dict, keys: Sequence[str], name: str) -> dict:
    """The parts of these keys; a key of a nested Dict stands for all that is in it."""
    if not keys:
        return parts
    if "" in parts:
        raise HostError(
            f"config.env_keys is {','.join(keys)}, and observations of {name} are a"
            " plain array: leave it out"
        )
    chosen = {}
    for key in keys:
        found = {x: parts[x] for x in parts if x == key or x.startswith(f"{key}/")}
        if not found:
            raise HostError(
                f"config.env_keys names {key!r}, and observations of {name} have"
                f" {', '.join(parts)}"
            )
        chosen |= found
    return chosen


def _part(obs: Any, key: str) -> Any:
    for name in key.split("/"):
        obs = obs[name]
    return obs
