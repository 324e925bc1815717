"""Environments that misbehave, at once or after some steps: Gymnasium's, and pure ones.

They are made, as a run makes them, and stepped in compiled code, in this process or in
worker processes. What they say must be usable, or refused in a sentence. Those that
never answer, or end their process, are tried in workers alone: in a run's own process
nothing can be done about them.
"""

import json
import random
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax import envs
from tests.fuzz import odd
from tests.fuzz.harness import ROOT, Case, Unnoticed

FILE = ROOT / "tests" / "fuzz" / "odd.py"
STEPS, MEMBERS = 40, 2
TIMEOUT = 2.0  # seconds that a worker gets to answer
FATAL = ("hang", "die")  # for the process that it is in


class Fuzzer:
    def __init__(self, folder: Path):
        del folder

    def draw(self, chance: random.Random) -> Case:
        if chance.random() < 0.3:
            return "pure", [
                (chance.choice(odd.PARTS), chance.randrange(len(odd.THINGS)))
                for _ in range(chance.choice((1, 1, 2)))
            ]
        todo: list[tuple] = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            part = chance.choice(list(odd.CHANGES))
            how = chance.randrange(len(odd.CHANGES[part]))
            when = chance.choice((0, 0, 1, 3, 25, 30))
            if odd.CHANGES[part][how] in FATAL:
                when = 25  # later than the run itself looks
            todo.append((part, how, when))
        workers = chance.choice((0, 0, 0, 0, 1, 2))
        if any(odd.CHANGES[part][how] in FATAL for part, how, _ in todo):
            workers = chance.choice((1, 2))
        options = {"horizon": chance.choice((10, 30, 30, 0)), "workers": workers}
        keys = chance.choice(("", "", "", "", "a", "a/b", "nowhere"))
        todo.append(("options", json.dumps(options | {"keys": keys}), 0))
        return "gymnasium", todo

    def run(self, case: Case) -> bool:
        what, todo = case
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if what == "pure":
                env = envs.make(f"{FILE}:pure", args={"changes": json.dumps(todo)})
            else:
                given = [json.loads(x[1]) for x in todo if x[0] == "options"]
                env = self._of_gymnasium(given[0] if given else {}, todo)
            self._play(env, look=what == "gymnasium")
        return not caught

    def _of_gymnasium(self, options: dict, todo: list[tuple]) -> envs.Env:
        changes = [x for x in todo if x[0] != "options"]
        fatal = any(odd.CHANGES[part][how] in FATAL for part, how, _ in changes)
        workers = options.get("workers", 1) or int(fatal)
        host = envs.Host(workers, TIMEOUT if workers else 60.0)
        keys = tuple(filter(None, [options.get("keys", "")]))
        return envs.make(
            f"{FILE}:Odd",
            horizon=options.get("horizon", 10),
            args={"changes": json.dumps(changes)},
            keys=keys,
            host=host,
        )

    def _play(self, env: envs.Env, look: bool) -> None:
        """Steps some environments, and looks at all that they say.

        Numbers of a pure environment that are not finite are a run's to tell of, which
        looks for them in weights and returns: they are parts of its program.
        """
        size = env.spec.action_dim
        actions = jax.random.uniform(
            jax.random.key(1), (STEPS, MEMBERS, size), minval=-1
        )
        keys = jax.random.split(jax.random.key(2), (STEPS, MEMBERS))

        def step(states, given):
            after, made = jax.vmap(env.step)(states, *given)
            done = env.success(after, made) if env.success else made.reward
            return after, (made, done)

        def play(keys, actions, seeds):
            states = jax.vmap(env.reset, (0, None))(seeds, jnp.int32(0))
            return states.obs, jax.lax.scan(step, states, (actions, keys))[1]

        seeds = jax.random.split(jax.random.key(0), MEMBERS)
        first, (made, done) = jax.block_until_ready(jax.jit(play)(keys, actions, seeds))
        env.check()
        if look:
            self._look(env, jax.tree.map(np.asarray, (first, made, done)))

    def _look(self, env: envs.Env, played: tuple) -> None:
        first, made, done = played
        for name, values in (
            ("observation", [first, made.obs, made.next_obs]),
            ("reward", [made.reward]),
            ("success", [done]),
        ):
            if not all(np.isfinite(x).all() for x in jax.tree.leaves(values)):
                raise Unnoticed(f"{name} that is not finite")
        if not np.isin(made.discount, (0, 1)).all():
            raise Unnoticed("a discount that is neither 0 nor 1")
        if (made.last != made.last.astype(bool)).any() or (
            (made.discount == 0) & ~made.last.astype(bool)
        ).any():
            raise Unnoticed("an end after which the episode goes on")
        if not (
            env.spec.obs_dim > 0 and env.spec.action_dim > 0 and env.spec.horizon > 0
        ):
            raise Unnoticed(f"sizes of none: {env.spec}")
