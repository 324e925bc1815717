"""Environments that a case describes: of Gymnasium, `Odd`, and pure, `pure`.

This file is imported by worker processes, which know no JAX, so that it imports that
only where it is needed.
"""

import json
import os
import random
import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces

VALUES = (
    *(
        "None",
        "'x'",
        "np.nan",
        "np.inf",
        "-np.inf",
        "1e30",
        "1e300",
        "True",
        "3",
        "2.5",
    ),
    *("[]", "[1.0]", "{}", "object()", "1j", "b'x'", "np.zeros(3)", "np.zeros((2, 2))"),
    *("np.zeros(2, 'U3')", "np.array([np.nan, 1])", "np.array([1, np.inf])", "()"),
    *("np.zeros(2, bool)", "np.float64([1e300, 0])", "[1, [2]]", "np.zeros(0)"),
    *(
        "{'a': 1.0}",
        "np.array(None)",
        "np.ma.masked",
        "10**400",
        "lambda: 0",
        "range(2)",
    ),
)
SPACES = (
    *("None", "3", "spaces.Discrete(3)", "spaces.MultiBinary(2)", "spaces.Text(3)"),
    *("spaces.Box(-1, 1, ())", "spaces.Box(-1, 1, (0,))", "spaces.Box(-1, 1, (2, 2))"),
    *("spaces.Box(-np.inf, np.inf, (2,))", "spaces.Box(0, 255, (8, 8, 3), np.uint8)"),
    *(
        "spaces.Box(-1, 1, (2,), np.int64)",
        "spaces.Box(0.0, 0.0, (2,))",
        "spaces.Tuple([])",
    ),
    *("spaces.Dict({})", "spaces.Dict({'a': spaces.Box(-1, 1, (2,))})", "spaces.Box"),
    *("spaces.Dict({'a': spaces.Dict({'b': spaces.Box(-1, 1, (2,))})})",),
    *(
        "spaces.MultiDiscrete([2, 3])",
        "spaces.Sequence(spaces.Discrete(2))",
        "object()",
    ),
    *("spaces.Box(-1e30, 1e30, (2,), np.float64)", "spaces.Box(-1, 1, (100000,))"),
)
ERRORS = (
    *("ValueError('a\\nb')", "KeyError()", "RuntimeError(b'x')", "AssertionError"),
    *("StopIteration()", "MemoryError()", "RecursionError()", "OSError(28, 'full')"),
    *("UnicodeDecodeError('utf8', b'x', 0, 1, 'y')", "NotImplementedError()"),
    *("ExceptionGroup('g', [ValueError()])", "GeneratorExit()", "SystemExit(3)"),
    *("Silent()", "Warning('w')"),
)
# What is changed -> how, as text that is evaluated, or one of a few words.
CHANGES = {
    "obs": VALUES,
    "first obs": VALUES,
    "reward": VALUES,
    "terminated": VALUES,
    "truncated": VALUES,
    "info": (*VALUES, *(f"{{'success': {value}}}" for value in VALUES[:28])),
    "step": (
        *VALUES,
        "(1, 2)",
        "(None,) * 5",
        "[0.0] * 6",
        "(np.zeros(2), 0.0, False, {})",
    ),
    "reset": (*VALUES, "np.zeros(2)", "(np.zeros(2), {}, 1)"),
    "raise": (*ERRORS, "hang", "die"),
    "raise in reset": ERRORS,
    "raise in making": ERRORS,
    "observation space": SPACES,
    "action space": SPACES,
    "habit": (
        "same array",
        "other noise",
        "no seed",
        "prints",
        "grows",
        "chdir",
        "threads",
    )
    + ("seeds", "warns", "closes badly", "no spec", "dt", "unwrapped", "recursion"),
}


class Silent(Exception):
    """Cannot even be shown."""

    def __str__(self):
        raise ValueError


class Odd(gymnasium.Env):
    """A point [2] that actions push. Its changes: [(what, which, from what step)]."""

    def __init__(self, changes="[]"):
        self.changes = {
            what: (CHANGES[what][which], when)
            for what, which, when in json.loads(changes)
        }
        self.observation_space = self.value(
            "observation space", spaces.Box(-9, 9, (2,))
        )
        self.action_space = self.value("action space", spaces.Box(-2.0, 2.0, (2,)))
        self.habit = self.changes.get("habit", ("",))[0]
        self.fail("raise in making")
        if self.habit == "dt":
            self.dt = "soon"
        if self.habit == "no spec":
            self.spec = 3

    age = 0

    def value(self, what, usual):
        how, when = self.changes.get(what, (None, 0))
        return usual if how is None or self.age < when else eval(how, globals())

    def fail(self, what):
        how, when = self.changes.get(what, (None, 0))
        if how is None or self.age < when:
            return
        if how == "hang":
            time.sleep(1000)
        if how == "die":
            os._exit(5)
        raise eval(how, globals())

    def reset(self, *, seed=None, options=None):
        super().reset(seed=None if self.habit == "no seed" else seed)
        self.age, self.at = 0, self.np_random.normal(size=2)
        self.fail("raise in reset")
        if self.habit == "seeds":
            np.random.seed(3), random.seed(3)
        if self.habit == "recursion":
            sys.setrecursionlimit(10_000)
        return self.value("reset", (self.value("first obs", self.at.copy()), {}))

    def step(self, action):
        self.age += 1
        self.at += 0.1 * np.resize(np.float64(action), 2)
        self.fail("raise")
        if self.habit == "other noise":
            self.at += np.frombuffer(os.urandom(2), np.uint8) / 1000
        if self.habit == "prints":
            print("x" * 1000)
        if self.habit == "warns":
            import warnings

            warnings.warn("careful\nnow", stacklevel=1)
        obs = self.at if self.habit == "same array" else self.at.copy()
        if self.habit == "grows":
            obs = np.zeros(2 + self.age)
        made = (
            self.value("obs", obs),
            self.value("reward", float(self.at[0])),
            self.value("terminated", bool(self.at[0] > 3)),
            self.value("truncated", False),
            self.value("info", {}),
        )
        return self.value("step", made)

    def close(self):
        if self.habit == "closes badly":
            raise RuntimeError("cannot close")


PARTS = ("obs", "state", "reward", "discount", "last", "next_obs", "success", "spec")
THINGS = (
    *(
        "None",
        "3",
        "'x'",
        "jnp.zeros(3)",
        "jnp.zeros((2, 2))",
        "jnp.nan",
        "jnp.zeros(2)",
    ),
    *("jnp.int32(1)", "jnp.bool_(True)", "jnp.zeros(2, jnp.int32)", "{}", "[1.0, 2.0]"),
    *("1 / 0", "np.zeros(2)", "np.float64(1)", "jnp.full(2, jnp.nan)", "lambda: 0"),
    *("jnp.float32(0.5)", "jax.random.key(0)", "float(at[0])", "if_traced(at)", "()"),
    *("EnvSpec('x', vector(2), 0, 10)", "EnvSpec('x', vector(2), 2, 0)", "EnvSpec"),
    *("EnvSpec('x', vector(2), -1, 10)", "EnvSpec('x', vector(0), 2, 10)", "jnp.inf"),
    *("EnvSpec('x', None, 2, 10)", "EnvSpec('x', vector(2), 'two', 10)", "print"),
    *("EnvSpec(3, vector(2), 2, 10)", "EnvSpec('x', vector(2), 2, 10**30)", "2.5"),
    *("EnvSpec('x', vector(2), 2, 10, num_tasks=0)", "EnvSpec('x', vector(2), 2, 2.5)"),
    *(
        "EnvSpec('x', vector(2), 2, 10, action_bounds=3)",
        "(_ for _ in ()).throw(Silent())",
    ),
    *("EnvSpec('x', vector(2), 2, 10, action_bounds=((0, 0), (0, 0)))", "sys.exit(3)"),
    *("EnvSpec('x', vector(2), 2, 10, decision_time='x')",),
)


def pure(changes="[]"):
    """An Env of which parts are something else."""
    import jax
    import jax.numpy as jnp

    from o2ojax.types import Env, EnvSpec, EnvState, Transition, vector

    given = {part: THINGS[which] for part, which in json.loads(changes)}

    def value(part, usual, at=None):
        if part not in given:
            return usual
        known = {"jax": jax, "jnp": jnp, "EnvSpec": EnvSpec, "vector": vector, "at": at}
        known["if_traced"] = lambda x: 1 if x[0] > 0 else 2
        return eval(given[part], globals() | known)

    def reset(key, task):
        at = jax.random.normal(key, (2,))
        return EnvState(at, value("obs", at, at), jnp.int32(0), task)

    def step(env, action, key):
        at = env.physics + 0.1 * action
        last = env.age >= 9
        made = Transition(
            env.obs,
            action,
            value("reward", at[0], at),
            value("discount", jnp.float32(1), at),
            value("next_obs", at, at),
            value("last", last, at),
            env.task,
        )
        after = EnvState(at, at, jnp.where(last, 0, env.age + 1), env.task)
        return value("state", after, at), made

    success = (lambda env, made: value("success", None)) if "success" in given else None
    return Env(value("spec", EnvSpec("odd", vector(2), 2, 10)), reset, step, success)
