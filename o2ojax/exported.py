"""Acts with an exported policy: one file, NumPy and JAX, no training code.

    policy = o2ojax.exported.load("pusher.o2o")
    state = policy.start(seed=0)
    action, state = policy.act(obs, state)

The file is a zip of `about.json`, of the weights that acting needs, and of programs in
StableHLO, which JAX compiles for the machine's CPU or GPU. Nothing in it is unpickled.
A run's policy in memory is a `Player`, too: `o2ojax.api.RunPolicy`.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from o2ojax.errors import UserError, first_line

FORMAT = 1
PROGRAMS = ("start", "act", "observe")


class State(NamedTuple):
    """Where a policy is in an episode, or in B of them: then leaves are [B, ...]."""

    memory: tuple  # arrays, what it remembers
    key: np.ndarray  # uint32 [2], of what it draws next


class Player:
    """A policy in the units of its environment.

    Args:
        programs: "start", "act" and "observe", functions of arrays.
        about: `obs`, the entries of Dict observations that are joined, or none;
            `num_obs`; `parts`, of an observation with images: each part's shape and
            dtype; `low` and `high`, the bounds of actions; provenance.
    """

    def __init__(self, programs: Mapping[str, Callable], about: Mapping[str, Any]):
        self.programs, self.about = programs, about
        self._low, self._high = (np.float32(about[name]) for name in ("low", "high"))

    def start(self, seed: int = 0, num: int | None = None) -> State:
        """Begins an episode, or `num` side by side; of an agent that infers its task, a
        trial of episodes. The seed is that of all that the policy draws.
        """
        keys = [np.uint32([at, seed]) for at in range(1 if num is None else num)]
        states = [State(*self.programs["start"](key)) for key in keys]
        return states[0] if num is None else stacked(states)

    def act(self, obs: Any, state: State) -> tuple[np.ndarray, State]:
        """Chooses an action [A] in the environment's units. Returns it and the state.

        Args:
            obs: as the environment gives it, [O] or a dict; [B, ...] for B episodes.
                With images, a dict of parts; frames of a stack along the last axis,
                oldest first.
        Raises:
            UserError: the observation has another size, or lacks an entry; or the
                policy knows no finite action.
        """
        if state.key.ndim == 2:
            rows = range(len(state.key))
            return stacked([self.act(_row(obs, at), _row(state, at)) for at in rows])
        given = state.memory, self.observation(obs), state.key
        action, memory, key = self.programs["act"](*given)
        if not np.isfinite(action).all():
            raise UserError(f"the policy's action is {action}: its weights are damaged")
        return self.in_units(np.asarray(action)), State(memory, key)

    def observe(
        self, state: State, obs: Any, action: Any, reward: Any, next_obs: Any, last: Any
    ) -> State:
        """Takes in what a step has led to, and whether it was the episode's `last`.

        Agents that infer their task learn it so, and planners drop their plans; for all
        others nothing happens.
        """
        if state.key.ndim == 2:
            given = state, obs, action, reward, next_obs, last
            indices = range(len(state.key))
            return stacked([self.observe(*_row(given, at)) for at in indices])
        given = self.observation(obs), self.in_box(action), np.float32(reward)
        given = *given, self.observation(next_obs), np.bool_(last)
        return state._replace(memory=self.programs["observe"](state.memory, *given))

    def observation(self, obs: Any) -> Any:
        """An observation as the agent was trained on: a vector, or a dict of parts."""
        parts = self.about.get("parts") or {}
        if not parts:
            return self.vector(obs)
        return {name: _part(obs, name, *parts[name]) for name in sorted(parts)}

    def vector(self, obs: Any) -> np.ndarray:
        """An observation as the vector [O] that the agent was trained on."""
        keys, wanted = self.about["obs"], self.about["num_obs"]
        try:
            parts = [_entry(obs, key) for key in keys] if keys else [obs]
            joined = np.concatenate([np.asarray(x, np.float32).ravel() for x in parts])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            form = f"a dict with {', '.join(keys)}" if keys else f"{wanted} numbers"
            raise UserError(f"an observation must be {form}: {error!r}") from error
        if joined.size != wanted or not np.isfinite(joined).all():
            what = f"has {joined.size} numbers, not {wanted}, or one that is not finite"
            raise UserError(f"an observation {what} (of several: start(num=...))")
        return joined

    def in_box(self, action: Any) -> np.ndarray:
        """An action in the environment's units, in [-1, 1]."""
        span = self._high - self._low
        return np.float32(2 * (np.float32(action) - self._low) / span - 1)

    def in_units(self, action: np.ndarray) -> np.ndarray:
        """An action in [-1, 1], in the environment's units."""
        scaled = self._low + (action + 1) / 2 * (self._high - self._low)
        return np.clip(scaled, self._low, self._high)


def stacked(rows: list[Any]) -> Any:
    """Trees of arrays as one, [B, ...]."""
    return jax.tree.map(lambda *x: np.stack(x), *rows)


def _row(tree: Any, at: int) -> Any:
    is_leaf = lambda x: not isinstance(x, (dict, tuple))  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(x)[at], tree, is_leaf=is_leaf)


def _entry(obs: Any, key: str) -> Any:
    for name in key.split("/"):
        obs = obs[name]
    return obs


def _part(obs: Any, name: str, shape: list[int], dtype: str) -> np.ndarray:
    """A part of an observation, which must be as the agent knows it."""
    wanted = f"it must be {list(shape)} of {dtype}"
    if not isinstance(obs, Mapping) or name not in obs:
        given = sorted(obs) if isinstance(obs, Mapping) else type(obs).__name__
        raise UserError(
            f"an observation must be a dict with {name}, not {given}; {wanted}"
        )
    try:
        found = np.asarray(obs[name])
    except ValueError as error:  # rows of several lengths
        raise UserError(f"an observation's {name} is no array; {wanted}") from error
    if list(found.shape) != list(shape):
        raise UserError(
            f"an observation's {name} has the shape {list(found.shape)}; {wanted} (of"
            " several: start(num=...))"
        )
    if found.dtype.kind not in "biuf" or (dtype == "uint8" and found.dtype != np.uint8):
        raise UserError(f"an observation's {name} is of {found.dtype}; {wanted}")
    found = found.astype(dtype)
    if not np.isfinite(found).all():
        raise UserError(f"an observation's {name} has a number that is not finite")
    return found


def load(path: str | Path) -> Player:
    """Reads an exported policy. Raises UserError for a file that is none."""
    try:
        with zipfile.ZipFile(path) as file:
            about = json.loads(file.read("about.json"))
            if (found := about["format"]) != FORMAT:
                raise UserError(f"{path} has format {found}; this reads {FORMAT}")
            arrays = np.load(io.BytesIO(file.read("weights.npz")), allow_pickle=False)
            programs = {
                name: _program(
                    file.read(f"{name}.stablehlo"),
                    [jax.device_put(arrays[str(at)]) for at in about["weights"][name]],
                )
                for name in PROGRAMS
            }
        player = Player(programs, about)
        _check(player)
        return player
    except (FileNotFoundError, UserError) as error:
        raise UserError(first_line(error)) from None
    except Exception as error:  # zip files have sums, and JAX reads what is in this one
        why = first_line(error)
        raise UserError(f"{path} is no exported policy, or damaged: {why}") from error


def _check(player: Player) -> None:
    """Traces the programs on what they will get, so that what does not fit is found."""
    size, num_actions = player.about["num_obs"], len(player.about["low"])
    if not (np.isfinite([player._low, player._high]).all() and size > 0):
        raise ValueError("its sizes or bounds are none")
    if not all(isinstance(name, str) for name in player.about["obs"]):
        raise ValueError("its entries of observations are no names")
    key, parts = np.zeros(2, np.uint32), player.about.get("parts") or {}
    obs = {name: np.zeros(shape, dtype) for name, (shape, dtype) in parts.items()}
    obs = obs or np.zeros(size, np.float32)
    memory, key = jax.eval_shape(player.programs["start"], key)
    action, after, _ = jax.eval_shape(player.programs["act"], memory, obs, key)
    if action.shape != (num_actions,):
        raise ValueError(f"it has actions of shape {action.shape}")
    given = obs, np.zeros(num_actions, np.float32), np.float32(0), obs, np.bool_(False)
    jax.eval_shape(player.programs["observe"], after, *given)


def _program(code: bytes, weights: list[Any]) -> Callable:
    return partial(jax.jit(jax.export.deserialize(bytearray(code)).call), weights)
