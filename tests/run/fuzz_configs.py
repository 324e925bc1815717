"""Random configs: `python tests/run/fuzz_configs.py NUMBER [PROBES] [SEED] [RUNS]`.

Each is one of ours, changed by overrides and by values of odd types. It must be
resolved, or refused in one sentence. What is accepted must work: of those that are
resolved, PROBES are traced, in full, as a run would; and RUNS are cut short and run.
"""

import math
import random
import sys
import tempfile
import time
import traceback
from fractions import Fraction
from pathlib import Path

import numpy as np
from rich.console import Console

from o2ojax.errors import UserError
from o2ojax.run import population, resolve
from o2ojax.run.config import ConfigDict, RunConfig
from o2ojax.run.job import prepare
from o2ojax.run.progress import Progress
from o2ojax.run.training import train

NAMES = "awac bc bcq cql fql ifql iql o2ac off2on rebrac"
CONFIGS = [
    *(f"{name}.py:hopper-random" for name in NAMES.split()),
    "fowm.py:push-medium-replay",
    "fowm.py:hopper-random",
    "pearl.py:point-robot",
    "sac.py:halfcheetah",
    "smac.py:point-robot-pearl",
    "td3_bc.py:hopper-random",
    "rlpd.py:hopper-random",
    "wsrl.py:hopper-random",
    "iql.py:lift-medium-replay",
]
WORDS = (
    "0 1 2 3 5 7 10 16 64 100 256 1000 5000 -1 -5 0.5 0.1 0.25 3.2 1e-3 1e-60 1e60 1e-8"
    " 0.99999999999 2147483647 2147483648 4294967295 4294967296 99999999999999999999"
    " 1e400 inf -inf nan True False true None (1,) (16,16) 16,16 (0,) () [] [8] {}"
    " {'a':1} 'x' x iql uniform online balanced symmetric tasks symmetric_windows auto"
    " mujoco mjx hopper return_range 0.7,0.9 0.7,0.7 1,inf (1,'a') 1j 0x10 1_000 1e3"
    " relu softplus decoder lambda:0 (((((( \x00 é a:b nowhere.py:X os:path minari:a/b"
).split()
VALUES = [
    *(0, 1, 2, 10, 256, -1, 2**31, 2**63, 10**30, 0.5, 1e-60, 1e60, math.inf, math.nan),
    *(True, False, None, "", "x", "0.5", "3", (), (1,), (16, 16), [8, 8], {}, {"a": 1}),
    *(np.float32(0.5), np.int64(3), np.array(2), np.array([1, 2]), np.bool_(True)),
    *(Fraction(1, 2), 1 + 2j, b"x", object(), print, range(3), {1, 2}, Path("a")),
]


def fields_of(config: ConfigDict, prefix: str = "") -> list[str]:
    found = []
    for name, value in config.items():
        nested = isinstance(value, ConfigDict)
        found += fields_of(value, f"{prefix}{name}.") if nested else [prefix + name]
    return found


def changed(config: ConfigDict, chance: random.Random) -> list:
    """Changes a config in place; returns what was done, to be shown."""
    done: list = []
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        path = chance.choice(fields_of(config)).split(".")
        value = chance.choice(VALUES)
        if chance.random() < 0.05:
            path = path[:1]
        if chance.random() < 0.05:
            path[-1] += "x"
        if chance.random() < 0.1:
            path = ["population", chance.choice(["lr", "gamma", "widths", "expectile"])]
            value = chance.choice([value, (0.5, value), (0.1, 0.2)])
        node = config
        for part in path[:-1]:
            node = node[part] if isinstance(node.get(part), ConfigDict) else config
        done.append((".".join(path), value))
        try:
            node[path[-1]] = value
        except (TypeError, ValueError, KeyError, AttributeError):
            done[-1] = (*done[-1], "not taken by ConfigDict")
    overrides = []
    for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
        name = chance.choice(fields_of(config) + ["population.lr", "population.gamma"])
        overrides.append(f"--config.{name}={chance.choice(WORDS)}")
    try:
        resolve.override(config, overrides)
    finally:
        done += overrides
    return done


def small(config: ConfigDict) -> None:
    """Cuts a config down so that a probe of it is quick."""
    for name in ("widths", "actor_widths", "vae_widths", "encoder_widths"):
        if name in config.agent:
            config.agent[name] = (8, 8)
    config.seeds = 2


def probe(run: RunConfig) -> None:
    """Traces all that a run would compile."""
    job = prepare(run, Path("."))
    sizes, programs, step = job.sizes, job.programs, np.int32(0)
    members, dataset = job.members, job.dataset

    def learn(phase: population.Phase, state, size):
        turn = getattr(phase.learn, "turn", None)  # on a CPU, members take turns
        if turn is None:
            return phase.learn.eval_shape(state, members, dataset, step, size)[0]
        given = (state, np.int32(0), members, dataset, step, size)
        return turn.eval_shape(*given)[0]

    state = programs.init.eval_shape(members, dataset)
    if sizes.offline_updates:
        state = learn(programs.offline, state, 1)
    if sizes.offline_updates or run.offline.source:
        programs.offline.evaluate.eval_shape(state, members, dataset, step)
    if sizes.online_steps:
        state = programs.hand_over.eval_shape(state, members, dataset)
        state = learn(programs.online, state, (1, sizes.updates_per_round))
        programs.online.evaluate.eval_shape(state, members, dataset, step)


SHORT = {
    "offline.updates": 4,
    "offline.fitted_q": 4,
    "online.steps": 40,
    "online.warmup": 8,
    "online.envs": 2,
    "eval.every": 20,
    "eval.episodes": 8,
    "log.every": 4,
    "checkpoint.every": 20,
    "batch": 16,
}


def execute(config: ConfigDict) -> None:
    """Runs a config, cut to a few steps, with its other fields as they are."""
    for path, most in SHORT.items():
        *parents, name = path.split(".")
        node = config[parents[0]] if parents else config
        if isinstance(node[name], (int, float)):
            node[name] = min(node[name], most)
    with tempfile.TemporaryDirectory() as folder:
        train(resolve.resolve(config), Path(folder), Progress(Console(quiet=True)))


def fuzz(number: int, probes: int, seed: int, runs: int = 0) -> dict[str, int]:
    """Raises AssertionError for the first config that is neither taken nor refused."""
    chance = random.Random(seed)
    counts = {"accepted": 0, "refused": 0, "probed": 0, "refused when probed": 0}
    folder = Path(__file__).parents[2] / "experiments" / "configs"
    for _ in range(number):
        name, done = chance.choice(CONFIGS), []
        try:
            config = resolve.load(f"{folder}/{name}")
            small(config)
            done = changed(config, chance)
            run = resolve.resolve(config)
        except UserError as error:
            assert str(error) and "\n" not in str(error), (name, done, str(error))
            counts["refused"] += 1
            continue
        except Exception:
            raise AssertionError((name, done, traceback.format_exc())) from None
        counts["accepted"] += 1
        tried = max(probes, runs)
        if counts["probed"] >= tried or chance.random() > 10 * tried / number:
            continue
        counts["probed"] += 1
        try:
            execute(config) if runs else probe(run)
        except UserError as error:
            assert "\n" not in str(error), (name, done, str(error))
            counts["refused when probed"] += 1
            if runs:
                print(name, done, error, sep="\n  ", flush=True)
        except Exception:
            raise AssertionError((name, done, traceback.format_exc())) from None
    return counts


def main() -> None:
    given = [int(x) for x in sys.argv[1:]]
    number, probes, seed, runs = (*given, *(20_000, 0, 0, 0)[len(given) :])
    started = time.time()
    print(fuzz(number, probes, seed, runs), f"in {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
