"""Is it the same game on MJX? Single steps against the C library, and a policy played.

`python -m benchmarks.physics` prints two tables and writes
`benchmarks/results/physics-DEVICE.json`; on two CPU cores it takes half an hour.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import record, steps, tables, workloads
from o2ojax import envs
from o2ojax.data.files import write_json
from o2ojax.envs import locomotion
from o2ojax.envs.physics import PhysicsState, body_ids, host_step
from o2ojax.run import resolve
from o2ojax.run.job import Job
from o2ojax.types import Run

NUM_STATES = 100
AGE = 75  # decisions before them
NUM_EPISODES = 100
NUM_STEPS = 20_000  # of SAC


class Setting(NamedTuple):
    """A physics, and how thoroughly it solves for contact forces."""

    physics: str
    simulator: envs.Simulator = steps.OWN

    def __str__(self) -> str:
        """As the tables name it."""
        return steps.named(*self)


REFERENCE = Setting("mujoco")
SETTINGS = (
    Setting("mjx"),
    Setting("mjx", steps.FAST),
    Setting("mjx", envs.Simulator(iterations=1, ls_iterations=6)),
)


def states(name: str) -> tuple[PhysicsState, np.ndarray]:
    """Met by random play on the C library, with a random control for each; float32."""
    env = envs.make(name, "mujoco")
    work, present = steps.player(env, NUM_STATES, AGE)
    work.run(1)
    shape, generator = (NUM_STATES, env.spec.action_dim), np.random.default_rng(0)
    controls = generator.uniform(-1.0, 1.0, shape).astype(np.float32)
    return jax.tree.map(np.asarray, present().physics), controls


def single_steps(name: str, setting: Setting) -> dict[str, Any]:
    """How far one decision leads from where the C library leads in double precision."""
    before, control = states(name)
    task = locomotion.TASKS[name]
    models = locomotion.load_models(task.file, steps.OWN)
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


def learn(name: str) -> tuple[Job, Run]:
    """A policy to be judged: SAC, from scratch, on the C library."""
    config = resolve.load(f"experiments/configs/sac.py:{name}")
    config.agent.widths = (64, 64)
    config.batch = 64
    config.seeds = 1
    config.physics = REFERENCE.physics
    config.online.steps = NUM_STEPS
    config.eval.every = config.checkpoint.every = NUM_STEPS
    return workloads.train(config)


def play(job: Job, run: Run, setting: Setting) -> dict[str, Any]:
    """Returns of fresh episodes of a policy, and the mean's 95% bootstrap interval."""
    env = envs.make(job.config.env, setting.physics, setting.simulator)
    returns = workloads.evaluate(job, run, env, NUM_EPISODES)[0]
    generator = np.random.default_rng(0)
    means = generator.choice(returns, (10_000, NUM_EPISODES)).mean(axis=1)
    return {
        "env": job.config.env,
        "setting": str(setting),
        "episodes": NUM_EPISODES,
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "ci95": np.quantile(means, [0.025, 0.975]).tolist(),
        "returns": np.round(returns, 2).tolist(),
    }


def show(results: dict[str, Any]) -> None:
    """Prints the tables."""
    print(
        f"one decision from {NUM_STATES} states, against the C library in double"
        " precision; solver and line-search iterations after the comma, Gymnasium's"
        " 100/50 else:\n"
    )
    heads = ["env", "physics", "qpos: median", "90%", "max", "qvel: median"]
    rows = [
        [row["env"], row["setting"]]
        + [f"{error:.1e}" for of in ("qpos", "qvel") for error in row[of].values()]
        for row in results["single_steps"]
    ]
    print(tables.markdown([*heads, "90%", "max"], rows))
    print(f"\nreturn of one SAC policy over {NUM_EPISODES} episodes:\n")
    rows = [
        [row["env"], row["setting"], f"{row['mean']:.0f}"]
        + ["[{:.0f}, {:.0f}]".format(*row["ci95"])]
        for row in results["returns"]
    ]
    print(tables.markdown(["env", "physics", "mean", "95% interval"], rows))


def main() -> None:
    """Runs everything."""
    found = record.surroundings()
    results = {name: found[name] for name in ("machine", "versions", "commit")}
    results |= {"single_steps": [], "returns": []}
    for name in locomotion.TASKS:
        results["single_steps"] += [single_steps(name, each) for each in SETTINGS]
        job, run = learn(name)
        played = [play(job, run, each) for each in (REFERENCE, *SETTINGS)]
        results["returns"] += played
    show(results)
    path = record.default_path("physics")
    write_json(path, results)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
