"""A live environment of Gymnasium, and what is found out about one before a run."""

import contextlib
import hashlib
import random
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .sources import PREFIX, RAISED, HostError, Source, make, told
from .spaces import Spaces, spaces_of

LARGEST = float(np.finfo(np.float32).max)  # beyond, float32 has infinity
TICKET = 4  # uint32 numbers that name an episode up to some step


class Step(NamedTuple):
    """What a step leads to.

    obs:        uint32 [num_words], bits, as `Spaces.words` has them.
    reward:     a number.
    terminated: whether the task ended.
    truncated:  whether the environment itself cut the episode.
    success:    the largest success in the episode so far, from 0 to 1; NaN where the
                environment tells none.
    """

    obs: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    success: float


def success_of(info: Mapping[str, Any]) -> float:
    """Success as environments tell it: a truth, or the share of finished parts."""
    for name in ("success", "is_success"):
        if name in info:
            found = float(np.asarray(info[name]).reshape(-1)[0])
            if not abs(found) <= LARGEST:
                raise HostError(f"its {name} is {found}")
            return found
    if "episode_task_completions" in info:
        finished = len(info["episode_task_completions"])
        return finished / max(1, finished + len(info.get("tasks_to_complete", ())))
    return float("nan")


class Live:
    """An environment at some step of an episode.

    `seed` and `actions` say of which; `last` is the newest step.
    """

    def __init__(self, source: Source, spaces: Spaces | None = None):
        self.env = make(source)
        self.spaces = spaces or spaces_of(self.env, source)
        self.seed, self.actions = 0, []
        self.last: Any = None
        self.generators: Any = None  # the states of the global ones, if it draws there

    def begin(self, seed: int, owns_generators: bool = False) -> np.ndarray:
        """Resets; the first observation, uint32 [num_words]."""
        self.seed, self.actions, self.success = seed, [], float("nan")
        np.random.seed(seed)
        random.seed(seed)
        obs, _ = self.env.reset(seed=seed)
        if owns_generators:
            self.generators = np.random.get_state(), random.getstate()
        self.last = Step(self.spaces.words(obs), 0.0, False, False, np.nan)
        return self.last.obs

    def step(self, action: np.ndarray, owns_generators: bool = False) -> Step:
        """Does an action [A] in [-1, 1]."""
        if owns_generators:
            np.random.set_state(self.generators[0])
            random.setstate(self.generators[1])
        self.actions.append(action)
        obs, reward, terminated, truncated, info = self.env.step(
            self.spaces.control(action)
        )
        if owns_generators:
            self.generators = np.random.get_state(), random.getstate()
        reward = float(np.asarray(reward).reshape(-1)[0])
        if not abs(reward) <= LARGEST:
            raise HostError(f"the reward is {reward}")
        self.success = float(np.fmax(self.success, success_of(info)))
        self.last = Step(
            self.spaces.words(obs),
            reward,
            bool(terminated),
            bool(truncated),
            self.success,
        )
        return self.last

    def close(self) -> None:
        """Gives up what it holds."""
        with contextlib.suppress(*RAISED):  # nothing is lost with it
            self.env.close()


def ticket_of(seed: int) -> bytes:
    """The ticket of an episode's first state."""
    return _digest(b"", np.uint32(seed).tobytes())


def next_ticket(ticket: bytes, action: np.ndarray) -> bytes:
    """The ticket of an episode after one more action."""
    return _digest(ticket, np.float32(action).tobytes())


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=4 * TICKET).digest()


class EpisodeError(HostError):
    """An environment failed in an episode, of this seed and these actions [T, A]."""

    def __init__(self, said: str, seed: int, actions: np.ndarray):
        super().__init__(said)
        self.said, self.seed, self.actions = said, seed, actions

    def __str__(self) -> str:
        """Where it failed, and how."""
        where = f"at step {len(self.actions)}" if len(self.actions) else "in reset"
        return f"{where} of the episode of seed {self.seed}: {self.said}"


@contextlib.contextmanager
def told_of(live: Live) -> Iterator[None]:
    """Turns what an environment raises into an EpisodeError."""
    try:
        yield
    except RAISED as error:
        if isinstance(error, HostError):
            said = str(error)
        else:
            said = f"{told(error)} ({_place(error, live.env)})"
        raise EpisodeError(said, live.seed, np.float32(live.actions)) from error


def _place(error: BaseException, env: Any) -> str:
    """The line of an environment's own file that an error came through, or the last."""
    frames = traceback.extract_tb(error.__traceback__)
    module = sys.modules.get(type(env.unwrapped).__module__)
    file = getattr(module, "__file__", None)
    of_its_own = [frame for frame in frames if frame.filename == file]
    last = (of_its_own or frames)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


class Known(NamedTuple):
    """What a probe finds.

    spaces:   of observations and actions.
    horizon:  the step limit, given or registered; 0 for none.
    has_success: whether it tells success.
    pure:     whether equal seeds and actions led to equal steps.
    owns_generators: whether it draws from the global generators of NumPy or Python.
    threaded: whether threads step several at once: those of MuJoCo, which lets other
        threads go on, where a step is so long that this gains.
    decision_time: seconds between two decisions; 0 where it tells none.
    seen:     [N, O], the observations of the probe; or parts, as of `Spaces.seen`.
    """

    spaces: Spaces
    horizon: int
    has_success: bool
    pure: bool
    owns_generators: bool
    threaded: bool
    decision_time: float
    seen: Any


PROBE_STEPS = 20
THREADED_FROM = 2e-4  # seconds of a step; Hopper's has 1.1e-4, Ant's 3e-4


def probe(source: Source, horizon: int = 0) -> Known:
    """Plays some steps of one seed twice, on two environments.

    Args:
        horizon: the step limit that a user gives; 0 for the registered one.
    Raises:
        HostError: it cannot be made or used; EpisodeError where it fails in the steps.
    """
    first, second = Live(source), Live(source)
    size = len(first.spaces.low)
    actions = np.random.default_rng(0).uniform(-1, 1, (PROBE_STEPS, size))
    actions = np.float32(actions)
    with generators_kept():
        played = _played(first, 0, actions)
        _played(second, 1, actions[:5])  # as in a run: it has played before
        again = _played(second, 0, actions)
        owns_generators = _draws(first, actions)
    known = Known(
        first.spaces,
        horizon or _registered_horizon(source, first.env),
        any(not np.isnan(step.success) for step in played),
        _bits(played) == _bits(again),
        owns_generators,
        threaded=(
            _simulates_with_mujoco(first.env)
            and not owns_generators
            and _seconds(second, actions[: len(again) - 1]) > THREADED_FROM
        ),
        decision_time=_decision_time(first.env.unwrapped),
        seen=first.spaces.seen(np.stack([step.obs for step in played])),
    )
    first.close()
    second.close()
    return known


def _decision_time(env: Any) -> float:
    """Seconds between two decisions, as MuJoCo's environments tell them; 0 where an
    environment means something else by `dt`, or has none.
    """
    try:
        found = float(getattr(env, "dt", 0.0) or 0.0)
    except RAISED:
        return 0.0
    return found if 0 < found < np.inf else 0.0


def _played(live: Live, seed: int, actions: np.ndarray) -> list[Step]:
    with told_of(live):
        live.begin(seed)
    steps = [live.last]
    for action in actions:
        with told_of(live):
            steps.append(live.step(action))
        if steps[-1].terminated or steps[-1].truncated:
            break
    return steps


def _bits(steps: list[Step]) -> bytes:
    return b"".join(
        step.obs.tobytes() + np.float64(step[1:]).tobytes() for step in steps
    )


def _draws(live: Live, actions: np.ndarray) -> bool:
    """Whether an environment draws from NumPy's or Python's global generator."""
    np.random.seed(0)
    random.seed(0)
    before = _generators()
    live.env.reset(seed=0)
    for action in actions:
        *_, terminated, truncated, _ = live.env.step(live.spaces.control(action))
        if terminated or truncated:
            break
    return _generators() != before


def _seconds(live: Live, actions: np.ndarray) -> float:
    """Of a step, in an episode that lasts for these actions."""
    live.begin(0)
    started = time.perf_counter()
    for action in actions:
        live.step(action)
    return (time.perf_counter() - started) / len(actions)


def _simulates_with_mujoco(env: Any) -> bool:
    """Whether most of a step is MuJoCo's, which lets other threads go on meanwhile."""
    mujoco = sys.modules.get("mujoco")
    held = vars(env.unwrapped).values()
    return mujoco is not None and any(isinstance(x, mujoco.MjModel) for x in held)


def _generators() -> tuple:
    state = np.random.get_state()
    return state[1].tobytes(), state[2], random.getstate()


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Leaves the global generators as they were."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)


def _registered_horizon(source: Source, env: Any) -> int:
    import gymnasium

    if source.name.startswith(PREFIX):
        name = source.name.removeprefix(PREFIX).rpartition(":")[2]
        return gymnasium.spec(name).max_episode_steps or 0
    while True:  # a wrapper TimeLimit, wherever it is
        found = getattr(env.spec, "max_episode_steps", None)
        found = found or vars(env).get("_max_episode_steps")
        if found or "env" not in vars(env):
            return found or 0
        env = env.env
