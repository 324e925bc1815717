"""Environment steps per second by task, physics and batch, and the online loop on each.

`python -m benchmarks.envs` prints two tables and writes
`benchmarks/results/envs-DEVICE.json`.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console
from rich.table import Table

from benchmarks import bench, timing
from o2ojax import agents, envs, loop, policies, population
from o2ojax.agents import iql
from o2ojax.files import write_json
from o2ojax.replay import uniform

RESULTS = Path(__file__).parent / "results"
ON_CPU = {"mujoco": (64, 512), "mjx": (64,), "mjx-warp": (64,)}
ON_GPU = {name: (64, 512, 2048, 8192) for name in ("mjx", "mjx-warp")}
FAST = envs.Simulator(iterations=4, ls_iterations=8)
ONLINE_ENVS = 128
SECONDS = 2.0  # that a timed window should last, about


def bench_steps(
    name: str, physics: str, simulator: envs.Simulator, num_envs: int, windows: int
) -> dict[str, Any]:
    """Random play: steps per second, seconds to compile, bytes at the most."""
    env = envs.make(name, physics, simulator)
    policy, nothing = policies.uniform(env.spec.action_dim), uniform.nothing()
    num_steps = 4

    @jax.jit
    def start(key):
        return loop.start_workers(env, policy, nothing, (), (), key, num_envs)

    def play(workers, key):
        keys = jax.random.split(key, num_steps)
        return loop.collect(env, policy, (), workers, keys)[0]

    key = jax.random.key(0)
    workers = start(key)
    compiled, cold, warm = compile_twice(play, workers, key)

    def work():
        nonlocal workers
        workers = compiled(workers, key)
        return workers

    timing.seconds(work)
    repeats = max(1, round(SECONDS / timing.seconds(work)))

    def window():
        for _ in range(repeats):
            work()
        return workers

    taken = np.array([timing.seconds(window) for _ in range(windows)])
    return {
        "env": name,
        "physics": physics,
        "solver": list(simulator[:2]),
        "envs": num_envs,
        "steps_per_second": timing.spread(repeats * num_steps * num_envs / taken),
        "compile_seconds": {"cold": cold, "cached": warm},
        "peak_bytes": bench.needed(compiled),
    }


def compile_twice(function: Any, *arguments: Any) -> tuple[Any, float, float]:
    """A compiled function, and seconds to trace and compile it: anew, and cached.

    A program with a callback to the host is never cached.
    """
    before = jax.config.jax_compilation_cache_dir
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        try:
            seconds = []
            for _ in range(2):
                jax.clear_caches()
                compilation_cache.reset_cache()
                started = time.perf_counter()
                compiled = jax.jit(function).lower(*arguments).compile()
                seconds.append(time.perf_counter() - started)
        finally:
            jax.config.update("jax_compilation_cache_dir", before)
            compilation_cache.reset_cache()
    return compiled, *seconds


def bench_online(
    physics: str, simulator: envs.Simulator, windows: int
) -> dict[str, Any]:
    """IQL of full size online on halfcheetah, one update per transition.

    Also how long a round's steps and its updates take by themselves.
    """
    env = envs.make("halfcheetah", physics, simulator)
    rounds = 2
    sizes = bench.sizes(
        num_envs=ONLINE_ENVS,
        updates_per_round=ONLINE_ENVS,
        capacity=100_000,
        online_steps=100_000,
    )
    programs = population.programs(agents.find("iql"), env, sizes)
    members = population.members(iql.IQLConfig(), range(1), {})
    dataset = bench.random_data(env.spec, 100_000)
    run = programs.begin(members, dataset)
    run = programs.hand_over(run, members, dataset)
    agent = iql.iql(env.spec, iql.IQLConfig())
    workers, state = (
        jax.tree.map(lambda leaf: leaf[0], tree) for tree in (run.workers, run.agent)
    )

    @jax.jit
    def collect(state, workers, key):
        keys = jax.random.split(key, rounds)
        return loop.collect(env, agent.explore, state, workers, keys)[0]

    learning = programs.begin(members, dataset)

    def whole():
        nonlocal run
        run, _ = programs.online(run, members, dataset, np.int32(0), rounds)
        return run

    def steps():
        return collect(state, workers, jax.random.key(0))

    def updates():
        nonlocal learning
        learning, _ = programs.offline(
            learning, members, dataset, np.int32(0), rounds * ONLINE_ENVS
        )
        return learning

    taken = timing.alternate(
        {"whole": whole, "steps": steps, "updates": updates}, windows
    )
    done = rounds * ONLINE_ENVS
    return {
        "physics": physics,
        "solver": list(simulator[:2]),
        "envs": ONLINE_ENVS,
        "steps_per_second": timing.spread(done / taken["whole"]),
        "environment_share": timing.spread(taken["steps"] / taken["whole"]),
        "updates_share": timing.spread(taken["updates"] / taken["whole"]),
    }


def named(row: dict[str, Any]) -> str:
    """Physics, and the solver's iterations where they are not the model's own."""
    if not row["solver"][0]:
        return row["physics"]
    return "{}, {}/{}".format(row["physics"], *row["solver"])


def show(results: dict[str, Any]) -> None:
    """Prints the tables."""
    console = Console(width=120)
    table = Table(title="environment steps, random play, one compiled loop")
    for column in ("env", "physics"):
        table.add_column(column)
    for column in (
        "envs",
        "steps/s",
        "range",
        "compile s",
        "cached",
        "peak MB",
    ):
        table.add_column(column, justify="right")
    for row in results["steps"]:
        rate, compiling = row["steps_per_second"], row["compile_seconds"]
        table.add_row(
            row["env"],
            named(row),
            str(row["envs"]),
            f"{rate['median']:,.0f}",
            f"[{rate['min']:,.0f}, {rate['max']:,.0f}]",
            f"{compiling['cold']:.1f}",
            f"{compiling['cached']:.1f}",
            f"{row['peak_bytes'] / 1e6:.1f}",
        )
    console.print(table)
    table = Table(
        title=f"IQL online on halfcheetah: 256-256, batch 256, {ONLINE_ENVS}"
        " environments, one update per transition"
    )
    table.add_column("physics")
    for column in ("steps/s", "share of the steps", "share of the updates"):
        table.add_column(column, justify="right")
    for row in results["online"]:
        table.add_row(
            named(row),
            f"{row['steps_per_second']['median']:,.0f}",
            bench.in_words(row["environment_share"]),
            bench.in_words(row["updates_share"]),
        )
    console.print(table)


def main() -> None:
    """Runs everything; some ten minutes on two cores."""
    on_cpu = jax.default_backend() == "cpu"
    chosen = ON_CPU if on_cpu else ON_GPU
    parser = argparse.ArgumentParser(prog="python -m benchmarks.envs")
    parser.add_argument("--envs", default=",".join(envs.ENVS), metavar="ENV,ENV")
    parser.add_argument("--physics", default=",".join(chosen), metavar="NAME,NAME")
    parser.add_argument("--windows", type=int, default=5)
    options = parser.parse_args()
    physics = options.physics.split(",")
    solvers = {
        name: (envs.Simulator(),) if name == "mujoco" else (envs.Simulator(), FAST)
        for name in physics
    }
    results = {
        "machine": timing.machine(),
        "steps": [
            bench_steps(env, name, solver, num_envs, options.windows)
            for env in options.envs.split(",")
            for name in physics
            for solver in solvers[name]
            for num_envs in chosen[name]
        ],
        "online": [
            bench_online(name, solver, options.windows)
            for name in physics
            for solver in solvers[name]
        ],
    }
    show(results)
    kind = results["machine"]["device"].split()[0]
    path = RESULTS / f"envs-{kind}.json"
    write_json(path, results)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
