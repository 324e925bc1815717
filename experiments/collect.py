"""Makes datasets by D4RL's protocol: `python -m experiments.collect --config=FILE:ENV`.

A SAC run from scratch until its first policy that reaches a third of D4RL's expert
score. `medium-replay` is all that the run gathered until then, `medium` is gathered by
that policy, `random` by uniform noise. The run itself is an ordinary one: it resumes,
and a second call makes other kinds from the same run.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from o2ojax import agents, data, envs, loop, policies, population, training
from o2ojax import config as settings
from o2ojax.errors import UserError, unknown
from o2ojax.files import write_json
from o2ojax.job import Job, Record, prepare
from o2ojax.progress import Progress
from o2ojax.types import Env, Policy, Run, Transition
from o2ojax.workdir import surroundings

KINDS = ("random", "medium-replay", "medium")
NUM_ENVS = 20  # side by side, where a fixed policy gathers


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 interrupted and saved, 2 bad input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m experiments.collect",
        description="Makes random, medium-replay and medium datasets of one task.",
    )
    parser.add_argument("--config", required=True, metavar="FILE.py:ENV")
    parser.add_argument(
        "--workdir", type=Path, metavar="DIR", help="of the SAC run (runs/collect/ENV)"
    )
    parser.add_argument("--out", type=Path, default=Path("datasets"), metavar="DIR")
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="KIND,KIND")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="of random and of medium"
    )
    parser.add_argument(
        "--subsample",
        type=int,
        default=0,
        metavar="ROWS",
        help="keep whole episodes, evenly spread, of about so many rows",
    )
    options, overrides = parser.parse_known_args(given)
    try:
        config = settings.load(options.config)
        settings.override(config, overrides)
        kinds = options.kinds.split(",")
        for kind in kinds:
            if kind not in KINDS:
                raise unknown("kind of dataset", kind, KINDS)
        if options.rows < 1:
            raise UserError(f"--rows={options.rows}; it must be at least 1")
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--out={options.out} cannot be written: {error.strerror}"
            ) from error
        workdir = options.workdir or Path("runs") / "collect" / config.env
        job = prepare(config, workdir)
        progress = Progress()
        run, record = training.run_phases(job, progress)
        member = best_member(job, record, progress)
        for kind in kinds:
            transitions = make(kind, job, run, member, options.rows)
            if options.subsample:
                transitions = data.subsample(transitions, options.subsample)
            path = options.out / f"{config.env}-{kind}.npz"
            save(path, transitions, given, job, member, record)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except training.Interrupted:
        print("interrupted; saved. The same command goes on from here", file=sys.stderr)
        return 1
    return 0


def best_member(job: Job, record: Record, progress: Progress) -> int:
    """The member whose last evaluation scored highest."""
    score = data.score(job.config.env, np.array(record.points[-1]["returns"]))
    score = score.mean(axis=1)
    if not record.reached:
        progress.warn(
            f"no member scored {job.config.online.until:.1f} in {record.step} steps;"
            f" taking the best there is, {np.nanmax(score):.1f}"
        )
    return int(np.nanargmax(score))


def make(kind: str, job: Job, run: Run, member: int, num_rows: int) -> Transition:
    """The rows of one kind of dataset, in order of time, NumPy."""
    if kind == "medium-replay":
        ring = jax.tree.map(lambda leaf: np.asarray(leaf[member]), run.replay)
        rows = jax.tree.map(lambda leaf: leaf[: int(ring.count)], ring.rows)
        if int(ring.count) > len(ring.rows.reward):
            raise UserError(
                "config.replay.capacity is smaller than the run was long, so its first"
                " transitions are lost; leave it at 0"
            )
        return streams(rows, job.sizes.num_envs)
    env = envs.make(job.config.env, job.config.physics)
    state = jax.tree.map(lambda leaf: leaf[member], run.agent)
    policy = policies.uniform(env.spec.action_dim)
    if kind == "medium":
        config = settings.agent_config(job.config)
        nothing = population.replay.uniform.nothing()
        plan = agents.Plan(job.sizes.offline_updates, job.sizes.online_steps)
        algorithm = agents.find(job.config.algorithm)
        recipe = algorithm.recipe(env.spec, config, plan, nothing, nothing)
        policy = recipe.online.explore
    key = jax.random.key(1_000 + KINDS.index(kind))  # apart from those of seeds
    return streams(gather(env, policy, state, key, num_rows), NUM_ENVS)


def gather(
    env: Env, policy: Policy, state, key: jax.Array, num_rows: int
) -> Transition:
    """`num_rows` transitions of a fixed policy in NUM_ENVS environments, [T * W]."""
    nothing = population.replay.uniform.nothing()
    num_steps = -(-num_rows // NUM_ENVS)

    @jax.jit
    def play(key):
        key_start, key_collect = jax.random.split(key)
        workers = loop.start_workers(
            env, policy, nothing, state, (), key_start, NUM_ENVS
        )
        keys = jax.random.split(key_collect, num_steps)
        return loop.flat(loop.collect(env, policy, state, workers, keys)[1])

    return jax.tree.map(np.asarray, play(key))


def streams(rows: Transition, num_envs: int) -> Transition:
    """Each environment's transitions one after another; each stream's end is a cut."""
    order = np.arange(len(rows.reward)).reshape(-1, num_envs).T
    last = rows.last.copy()
    last[order[:, -1]] = True
    rows = rows._replace(last=last)
    return jax.tree.map(lambda leaf: leaf[order.ravel()], rows)


def save(
    path: Path,
    transitions: Transition,
    given: Sequence[str],
    job: Job,
    member: int,
    record: Record,
) -> None:
    """Writes a dataset, and beside it where it came from."""
    data.write(path, transitions)
    returns = data.episode_returns(transitions)
    score = data.score(job.config.env, returns)
    provenance = {
        "command": shlex.join(["python", "-m", "experiments.collect", *given]),
        "protocol": "D4RL (Fu et al. 2020, arxiv.org/abs/2004.07219), SAC of this"
        " project, Gymnasium's -v4 task; scores are not D4RL scores",
        "physics": envs.choose_physics(job.config.physics),
        "seed": settings.seeds(job.config)[member],
        "environment_steps": record.step,
        "rows": len(transitions.reward),
        "episodes": len(returns),
        "terminals": int((transitions.discount == 0).sum()),
        "returns": {
            "min": float(returns.min()),
            "mean": float(returns.mean()),
            "max": float(returns.max()),
        },
        "mean_score": float(np.mean(score)),
    } | surroundings()
    write_json(path.with_suffix(".json"), provenance)
    print(
        f"wrote {path}: {len(transitions.reward):,} rows, {len(returns)} episodes,"
        f" mean return {returns.mean():.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
