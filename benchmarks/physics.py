"""Is it the same game on MJX? Single steps against the C library, and a policy played.

`python -m benchmarks.physics` prints two tables and writes
`benchmarks/results/physics-DEVICE.json`; on two CPU cores it takes half an hour.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import timing
from o2ojax import agents, envs
from o2ojax.data.files import write_json
from o2ojax.envs import locomotion
from o2ojax.envs.physics import PhysicsState, body_ids, host_step
from o2ojax.run import config as settings
from o2ojax.run import population, training
from o2ojax.run.job import Job, prepare
from o2ojax.run.progress import Progress
from o2ojax.types import Run

RESULTS = Path(__file__).parent / "results"
NUM_STATES = 100
NUM_EPISODES = 100


class Setting(NamedTuple):
    """A physics, and how thoroughly it solves for contact forces."""

    physics: str
    simulator: envs.Simulator = envs.Simulator()

    def __str__(self) -> str:
        """As the tables name it."""
        if not self.simulator.iterations:
            return self.physics
        return "{}, {}/{}".format(self.physics, *self.simulator[:2])


REFERENCE = Setting("mujoco")
SETTINGS = (
    Setting("mjx"),
    Setting("mjx", envs.Simulator(iterations=4, ls_iterations=8)),
    Setting("mjx", envs.Simulator(iterations=1, ls_iterations=6)),
)


def states(name: str) -> tuple[PhysicsState, np.ndarray]:
    """Met by random play on the C library, with a random control for each; float32."""
    env = envs.make(name, "mujoco")
    num_envs, num_steps = 20, 75

    def step(state, key):
        keys = jax.random.split(key, num_envs)
        controls = jax.vmap(
            lambda key: jax.random.uniform(key, (env.spec.action_dim,), minval=-1.0)
        )(keys)
        after, _ = jax.vmap(env.step)(state, controls, keys)
        return after, (state.physics, controls)

    @jax.jit
    def play(key):
        keys = jax.random.split(key, num_envs)
        start = jax.vmap(env.reset, (0, None))(keys, np.int32(0))
        return jax.lax.scan(step, start, jax.random.split(key, num_steps))[1]

    met = jax.tree.map(np.asarray, play(jax.random.key(0)))
    rows = jax.tree.map(
        lambda leaf: leaf.reshape(num_envs * num_steps, *leaf.shape[2:]), met
    )
    every = num_envs * num_steps // NUM_STATES
    return jax.tree.map(lambda leaf: leaf[every - 1 :: every], rows)


def single_steps(name: str, setting: Setting) -> dict[str, Any]:
    """How far one decision leads from where the C library leads in double precision."""
    before, control = states(name)
    task = locomotion.TASKS[name]
    models = locomotion.load_models(task.file, envs.Simulator())
    step = host_step(models, task.frame_skip, body_ids(models[0], task.bodies))
    rows = np.concatenate([*before[:4], control], axis=1).astype(np.float64)
    after, _ = step(rows, np.zeros(NUM_STATES, int))
    qpos, qvel, *_ = np.split(after, np.cumsum([models[0].nq, models[0].nv]), axis=1)

    tuned = locomotion.load_models(task.file, setting.simulator)
    advance = envs.PHYSICS[setting.physics](tuned, task.frame_skip, task.bodies)
    variants = np.zeros(NUM_STATES, np.int32)
    ours = jax.jit(jax.vmap(advance))(before, control, variants)
    return {
        "env": name,
        "setting": str(setting),
        "qpos": errors(ours.qpos, qpos),
        "qvel": errors(ours.qvel, qvel),
    }


def errors(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Over the states, the largest error among a state's numbers."""
    error = np.abs(np.asarray(ours, np.float64) - theirs).max(axis=1)
    return {
        "median": float(np.median(error)),
        "90%": float(np.quantile(error, 0.9)),
        "max": float(error.max()),
    }


def learn(name: str, steps: int) -> tuple[Job, Run]:
    """A policy to be judged: SAC, from scratch, on the C library."""
    config = settings.load(f"experiments/configs/sac.py:{name}")
    config.agent.widths = (64, 64)
    config.batch = 64
    config.seeds = 1
    config.physics = REFERENCE.physics
    config.online.steps = steps
    config.eval.every = config.checkpoint.every = steps
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(config, Path(folder))
        run, _ = training.run_phases(job, Progress())
    return job, run


def play(job: Job, run: Run, setting: Setting) -> dict[str, Any]:
    """Returns of fresh episodes of a policy, and the mean's 95% bootstrap interval."""
    name = job.config.env
    env = envs.make(name, setting.physics, setting.simulator)
    sizes = job.sizes._replace(eval_episodes=NUM_EPISODES)
    programs = population.programs(agents.find(job.config.algorithm), env, sizes)
    returns = programs.evaluate_online(run, job.members, None, np.int32(0))
    returns = np.asarray(returns, np.float64)[0]
    generator = np.random.default_rng(0)
    means = generator.choice(returns, (10_000, NUM_EPISODES)).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "env": name,
        "setting": str(setting),
        "episodes": NUM_EPISODES,
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "ci95": [float(low), float(high)],
        "returns": np.round(returns, 2).tolist(),
    }


def overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two intervals have a point in common."""
    return a["ci95"][0] <= b["ci95"][1] and b["ci95"][0] <= a["ci95"][1]


def show(results: dict[str, Any]) -> None:
    """Prints the tables."""
    console = Console(width=120)
    table = Table(
        title=f"One decision from {NUM_STATES} states, against the C library in double"
        " precision. Solver and line-search iterations after the comma; Gymnasium's"
        " 100/50 else"
    )
    for column in ("env", "physics", "qpos: median", "90%", "max", "qvel: median"):
        table.add_column(column, justify="left" if len(table.columns) < 2 else "right")
    for column in ("90%", "max"):
        table.add_column(column, justify="right")
    for row in results["single_steps"]:
        figures = [*row["qpos"].values(), *row["qvel"].values()]
        cells = [f"{figure:.1e}" for figure in figures]
        table.add_row(row["env"], row["setting"], *cells)
    console.print(table)
    table = Table(title=f"Return of one SAC policy over {NUM_EPISODES} episodes")
    for column in ("env", "physics", "mean", "95% interval", "overlaps with C"):
        table.add_column(column, justify="left" if len(table.columns) < 2 else "right")
    reference = {
        row["env"]: row
        for row in results["returns"]
        if row["setting"] == str(REFERENCE)
    }
    for row in results["returns"]:
        low, high = row["ci95"]
        agrees = "yes" if overlap(row, reference[row["env"]]) else "NO"
        table.add_row(
            row["env"],
            row["setting"],
            f"{row['mean']:.1f}",
            f"[{low:.1f}, {high:.1f}]",
            agrees if row["setting"] != str(REFERENCE) else "",
        )
    console.print(table)


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.physics")
    parser.add_argument("--envs", default=",".join(envs.ENVS), metavar="ENV,ENV")
    parser.add_argument("--steps", type=int, default=20_000, help="of SAC")
    options = parser.parse_args()
    names = options.envs.split(",")
    results = {"machine": timing.machine(), "single_steps": [], "returns": []}
    for name in names:
        results["single_steps"] += [single_steps(name, each) for each in SETTINGS]
        job, run = learn(name, options.steps)
        played = [play(job, run, each) for each in (REFERENCE, *SETTINGS)]
        results["returns"] += played
        show(results)
    kind = results["machine"]["device"].split()[0]
    path = RESULTS / f"physics-{kind}.json"
    write_json(path, results)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
