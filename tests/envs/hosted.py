"""Environments of Gymnasium that tests make by the names of these functions."""

import os
import random
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    """A point [2] that actions in [-2, 2] push; it says success beyond 1."""

    def __init__(self, global_noise=False, hidden=False, box=None, action=None):
        self.observation_space = box or spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = action or spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.global_noise, self.hidden, self.count = global_noise, hidden, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.age = self.np_random.normal(size=2), 0
        if self.global_noise:
            self.at = self.at + np.random.normal() + random.random()
        return self.at.copy(), {}

    def step(self, action):
        self.count += 1
        self.age += 1
        self.at = self.at + 0.1 * np.float64(action)
        self.at = self.at + 0.01 * self.np_random.normal(size=2)
        if self.global_noise:
            self.at = self.at + 0.01 * np.random.normal() + 0.01 * random.random()
        if self.hidden:
            self.at = self.at + 1e-3 * self.count
        done = bool(self.at[0] > 3)
        return (
            self.at.copy(),
            float(self.at[0]),
            done,
            False,
            {"success": self.at[1] > 1},
        )


class Nested(Walk):
    """The same, in nested Dicts."""

    def __init__(self):
        super().__init__()
        part = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        goal = spaces.Dict({"far": part, "near": part})
        self.observation_space = spaces.Dict({"at": part, "goal": goal})

    def reset(self, **given):
        obs, info = super().reset(**given)
        return self._dict(obs), info

    def step(self, action):
        obs, *others = super().step(action)
        return self._dict(obs), *others

    def _dict(self, obs):
        return {"at": obs[:1], "goal": {"far": obs[1:], "near": obs[1:] / 2}}


class Fails(Walk):
    """Goes wrong at the seventh step, in one of many ways."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def reset(self, **given):
        obs, info = super().reset(**given)
        if self.how == "reset":
            raise RuntimeError("no power")
        return obs, info

    def step(self, action):
        obs, reward, *others = super().step(action)
        if self.age < 25:  # later than a probe looks
            return obs, reward, *others
        if self.how == "raises":
            raise RuntimeError("the gripper\nis stuck")
        if self.how == "nan":
            obs[1] = np.nan
        if self.how == "reward":
            reward = np.inf
        if self.how == "size":
            obs = np.zeros(3)
        if self.how == "dies":
            os._exit(7)
        if self.how == "dies once" and not os.path.exists(os.environ["ONCE"]):
            open(os.environ["ONCE"], "w").close()
            os._exit(7)
        if self.how == "hangs":
            time.sleep(60)
        return obs, reward, *others


def limited():
    """Has a time limit of its own."""
    return gymnasium.wrappers.TimeLimit(Walk(), 9)


def discrete():
    return Walk(action=spaces.Discrete(3))


def unbounded():
    return Walk(action=spaces.Box(-np.inf, np.inf, (2,)))


class Camera(Walk):
    """The same, seen: 5 x 7 x 3 bytes that tell where it is, and itself beside them."""

    def __init__(self, alone=False):
        eye = spaces.Box(0, 255, (5, 7, 3), np.uint8)
        at = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        super().__init__(box=eye if alone else spaces.Dict({"at": at, "eye": eye}))
        self.alone = alone

    def reset(self, **given):
        at, info = super().reset(**given)
        return self.seen(at), info

    def step(self, action):
        at, *others = super().step(action)
        return self.seen(at), *others

    def seen(self, at):
        eye = np.resize(np.float64([*at, at[0] * at[1]]).view(np.uint8), (5, 7, 3))
        return eye if self.alone else {"at": at, "eye": eye}


def picture(*shape, dtype="uint8"):
    return Walk(box=spaces.Box(0, 255 if dtype == "uint8" else 1, shape, dtype))


def grey():
    return picture(8, 8)


def channels_first():
    return picture(3, 8, 8)


def floating():
    return picture(8, 8, 3, dtype="float32")


def filmed():
    return picture(4, 8, 8, 3)


def other_size():
    return Walk(box=spaces.Box(0, 255, (8, 8, 3), np.uint8))


def text():
    return Walk(box=spaces.Text(9))


def nothing():
    return None


gymnasium.register("Walk-v0", entry_point=Walk, max_episode_steps=30)
