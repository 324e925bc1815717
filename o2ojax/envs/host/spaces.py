"""Observations and actions of Gymnasium as vectors, and pictures as they are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .sources import HostError, Source

PIXELS, STATE = "pixels", "state"  # parts of observations with pictures


class Spaces(NamedTuple):
    """How observations and actions of an environment become vectors.

    keys:  of Dict observations, the parts that are seen; () for a plain Box. Those that
        are no pictures are joined.
    num_obs: numbers of an observation, without pictures.
    low, high: [A], the bounds of an action in the environment's own units.
    shape: of an action.
    pictures: [height, width, channels] of each, by its key; "" for one that is all of
        an observation.
    """

    keys: tuple[str, ...]
    num_obs: int
    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]
    pictures: Mapping[str, tuple[int, ...]] = {}

    @property
    def num_words(self) -> int:
        """Words of an observation."""
        return self.num_obs + sum(map(picture_words, self.pictures.values()))

    def words(self, obs: Any) -> np.ndarray:
        """An observation as bits, uint32 [num_words]: its numbers as float32, and then
        its pictures, each filled up to whole words.
        """
        parts = [self.numbers(obs).view(np.uint32)] if self.num_obs else []
        for key, shape in self.pictures.items():
            found = np.asarray(_part(obs, key))
            if (found.shape, found.dtype) != (shape, np.uint8):
                raise HostError(
                    f"a picture is {found.dtype} {list(found.shape)}, and the"
                    f" observation space says uint8 {list(shape)}"
                )
            content = np.zeros(4 * picture_words(shape), np.uint8)
            content[: found.size] = found.ravel()
            parts.append(content.view(np.uint32))
        return np.concatenate(parts)

    def seen(self, words: np.ndarray) -> Any:
        """The opposite of `words`, of observations [N, num_words]: float32 [N, O]; with
        pictures, parts: "state" and each picture.
        """
        numbers = words[:, : self.num_obs].view(np.float32)
        if not self.pictures:
            return numbers
        parts, at = {STATE: numbers} if self.num_obs else {}, self.num_obs
        for key, shape in self.pictures.items():
            end = at + picture_words(shape)
            content = np.ascontiguousarray(words[:, at:end]).view(np.uint8)
            content = content[:, : math.prod(shape)]
            parts[key or PIXELS] = content.reshape(-1, *shape)
            at = end
        return parts

    def numbers(self, obs: Any) -> np.ndarray:
        """All of an observation but its pictures, float32 [O]."""
        keys = [key for key in self.keys if key not in self.pictures]
        parts = [_part(obs, key) for key in keys] if self.keys else [obs]
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
        keys = [key for key in self.keys if key not in self.pictures]
        return f", in its entry {keys[at]!r}" if keys else ""

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
    if not np.prod(action.shape):
        raise HostError(f"{name} has actions of the shape {action.shape}: no numbers")
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
        _check_picture(f"{name}: {what}", part)
    pictures = {key: part.shape for key, part in chosen.items() if _is_picture(part)}
    others = [part for key, part in chosen.items() if key not in pictures]
    if STATE in pictures and others:
        raise HostError(
            f"{name}: entry {STATE!r} of its observations is a picture, and the numbers"
            " beside it would be called so; leave one of them out, config.env_keys"
        )
    num_obs = sum(int(np.prod(part.shape)) for part in others)
    keys = tuple(key for key in chosen if key)
    return Spaces(keys, num_obs, *bounds, tuple(action.shape), pictures)


def picture_words(shape: Sequence[int]) -> int:
    """Words of four bytes that a picture takes."""
    return -(-math.prod(shape) // 4)


def _is_picture(part: Any) -> bool:
    return part.dtype == np.uint8 and len(part.shape) > 1


def _check_picture(what: str, part: Any) -> None:
    """Refuses pictures that are not uint8 [height, width, channels]."""
    shape, means = part.shape, "wrap the environment, or name others in config.env_keys"
    if len(shape) == 3 and part.dtype.kind == "f":
        raise HostError(
            f"{what} is a picture of {part.dtype}, {list(shape)}; they must be uint8, 0"
            f" to 255: {means}"
        )
    if not _is_picture(part):
        return
    if len(shape) != 3:
        raise HostError(
            f"{what} is a picture, {list(shape)}; they must be [height, width,"
            f" channels]: {means}"
        )
    if shape[0] in (1, 3) and shape[2] > shape[0]:
        raise HostError(
            f"{what} is a picture, {list(shape)}, channels first; they must be [height,"
            f" width, channels]: {means}"
        )


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
    for name in key.split("/") if key else ():
        obs = obs[name]
    return obs
