"""Makes datasets of a task: `python -m experiments.collect --config=FILE:ENV`.

By D4RL's protocol:

random         uniform noise
medium         the first policy of a SAC run that reaches a third of D4RL's expert score
medium-replay  all that this run gathered until then
expert         the policy at the end of a SAC run that goes on to its last step
medium-expert  medium, then as many rows of expert

Of a family of tasks there is one kind, a meta-dataset, made by a PEARL run that plays
all its training tasks:

pearl          the last trials of each task, of as many rows as --last

These runs are ordinary ones: they resume, and a second call makes other kinds from
the same runs. With several seeds, the member that scores highest is taken.

AntMaze needs no run. A walker that ships is sent through the maze, see `antmaze`:

fixed          from the start to the goal
play           from anywhere to a few places, of which the goal is one
diverse        from anywhere to anywhere

The manipulation tasks need no run. Their scripted policies play, with Gaussian noise:

random         uniform noise
medium         noise that lets about half of the episodes end in success
medium-replay  noise that falls, episode by episode, from START to medium's
expert         no noise
medium-expert  medium, then as many rows of expert

So do those that are seen as pictures, with --config.pixels.size and so on. Frames are
drawn of what has been played, and kept once.
"""

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from o2ojax import agents, data, envs, loop, policies, vision
from o2ojax.data.files import write_json
from o2ojax.envs import pixels
from o2ojax.envs.antmaze import MAZES
from o2ojax.errors import GO_ON, UserError, unknown
from o2ojax.meta import families
from o2ojax.parallel.compiled import use_cache
from o2ojax.registry import short
from o2ojax.replay.ring import take
from o2ojax.run import training
from o2ojax.run.config import RunConfig
from o2ojax.run.job import Job, Record, prepare
from o2ojax.run.progress import Progress
from o2ojax.run.resolve import load, override, resolve
from o2ojax.run.workdir import surroundings
from o2ojax.types import EMPTY, Env, Policy, Run, Transition

from . import CONFIGS, antmaze, demonstrations, entry_point, leave, playing, program

# The SAC runs that a kind is made from.
KINDS = {
    "random": (),
    "medium-replay": ("medium",),
    "medium": ("medium",),
    "medium-expert": ("medium", "expert"),
    "expert": ("expert",),
}
PEARL = "pearl"  # the kind of a family of tasks, and who gathers it

# Where AntMaze's walker begins, and is sent.
PLAYERS = {
    "fixed": "sent from the start to the goal, and to and fro there until it meets it",
    "play": "from anywhere to the start, the goal and two corners, in any order",
    "diverse": "from anywhere to anywhere",
}

ROWS = 1_000_000  # of a kind, unless told
NUM_ENVS = 20  # side by side, where a fixed policy gathers
CHUNK = 250  # steps of each between two looks at the clock


class Learner(NamedTuple):
    """A SAC run that has come to its end, and the member that is taken from it."""

    job: Job
    run: Run
    record: Record
    member: int


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, GO_ON interrupted and saved."""
    command = sys.argv[1:] if arguments is None else list(arguments)
    options, overrides = parser().parse_known_args(command)
    use_cache()
    try:
        given = load(options.config, CONFIGS)
        override(given, overrides)
        config = resolve(given)
        if options.policy:
            out = options.file or f"{short(config.env)}.npz"
            rows = options.rows or ROWS
            playing.play(config, options.policy, rows, out, Progress())
            return 0
        of_tasks = envs.ENVS.find(config.env).parameters is not None
        kinds = options.kinds or default_kinds(config.env, of_tasks)
        kinds = kinds.split(",")
        check(kinds, of_tasks, config, options)
        physics = envs.choose_physics(config.physics)
        name = config.env if physics == "mujoco" else f"{config.env}-{physics}"
        workdir = options.workdir or Path("runs") / "collect" / name
        progress = Progress()
        by_script = demonstrations.is_scripted(config.env)
        needs = dict.fromkeys(KINDS, ()) if by_script else KINDS
        needs = needs | {PEARL: (PEARL,)} | dict.fromkeys(antmaze.PLACES, ())
        stages = sorted({stage for kind in kinds for stage in needs[kind]})
        learners = {
            stage: learn(stage, config, workdir / stage, progress)
            for stage in reversed(stages)  # medium is the shorter
        }
        for kind in kinds:
            rows = options.last if kind == PEARL else options.rows or ROWS
            transitions = make(kind, config, learners, rows, progress)
            if options.subsample:
                transitions = data.subsample(transitions, options.subsample)
            made_from = [learners[stage] for stage in needs[kind]]
            path = options.out / f"{name}-{kind}.npz"
            save(path, kind, transitions, config, made_from, command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except training.Interrupted:
        print("interrupted; saved. The same command goes on from here", file=sys.stderr)
        return GO_ON
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    result = argparse.ArgumentParser(
        prog=program("collect"),
        description="Makes datasets of one task: by D4RL's protocol, or of a scripted"
        " policy where there is one.",
    )
    result.add_argument("--config", required=True, metavar="FILE.py:ENV")
    result.add_argument(
        "--workdir", type=Path, metavar="DIR", help="of the runs (runs/collect/ENV)"
    )
    result.add_argument("--out", type=Path, default=Path("datasets"), metavar="DIR")
    result.add_argument(
        "--kinds",
        metavar="KIND,KIND",
        help=f"of {', '.join(KINDS)} (default: random,medium-replay,medium); of a"
        f" family: {PEARL}",
    )
    result.add_argument(
        "--rows",
        type=int,
        help=f"of random, medium and expert (default: {ROWS}); medium-expert has so"
        " many of each; scripted policies play on until all their episodes have"
        " stopped, and medium-replay has so many too",
    )
    result.add_argument(
        "--policy",
        metavar="POLICY",
        help=f"play by it, in place of D4RL's protocol: {playing.RANDOM}, a run's"
        " directory, FILE.o2o, or file.py:FUNCTION, (obs, key) -> action in [-1, 1]",
    )
    result.add_argument(
        "--file",
        metavar="FILE",
        help="with --policy, what to write: a .npz, .hdf5 or minari:ID (ENV.npz)",
    )
    result.add_argument(
        "--last",
        type=int,
        default=1_200,
        metavar="ROWS",
        help="of each task of a family, the newest, whole trials (default: 1200, two of"
        " three episodes)",
    )
    result.add_argument(
        "--subsample",
        type=int,
        default=0,
        metavar="ROWS",
        help="keep whole episodes, evenly spread, of about so many rows",
    )
    return result


def known_kinds(name: str, of_tasks: bool) -> tuple[str, ...]:
    """The kinds of dataset that an environment has."""
    if of_tasks:
        return (PEARL,)
    return tuple(antmaze.PLACES if name in MAZES else KINDS)


def default_kinds(name: str, of_tasks: bool) -> str:
    """Those that are made if none is named."""
    known = known_kinds(name, of_tasks)
    plain = ("random", "medium-replay", "medium")
    return ",".join(known if of_tasks or name in MAZES else plain)


def check(
    kinds: Sequence[str],
    of_tasks: bool,
    config: RunConfig,
    options: argparse.Namespace,
) -> None:
    """Refuses what cannot work, before hours are spent on it."""
    known = known_kinds(config.env, of_tasks)
    for kind in kinds:
        if kind not in known:
            raise unknown(f"kind of dataset of {config.env}", kind, known)
    if of_tasks and config.algorithm != PEARL:
        raise UserError(
            f"config.algorithm is {config.algorithm!r}; a meta-dataset is gathered by"
            " PEARL: use --config=experiments/configs/pearl.py:FAMILY"
        )
    for name, least in (("rows", 1), ("last", 1), ("subsample", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name}={value}; it must be at least {least}")
    if of_tasks:
        check_last(config, options)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out={options.out} cannot be written: {error.strerror}"
        ) from error


def check_last(config: RunConfig, options: argparse.Namespace) -> None:
    """Refuses what would leave parts of trials, or not as many of each task."""
    for name in ("rows", "subsample"):
        if getattr(options, name):
            raise UserError(
                f"--{name}={getattr(options, name)} is for one task; of a family, as"
                " many rows of each task are kept as --last says"
            )
    trial = config.steps_per_round
    if options.last % trial:
        raise UserError(
            f"--last={options.last} would cut trials; it must be a multiple of {trial},"
            " the steps of one (config.online.round over config.online.envs)"
        )


def learn(stage: str, config: RunConfig, workdir: Path, progress: Progress) -> Learner:
    """A SAC run: until its mark for medium, to its last step for expert."""
    if stage == "expert":
        online = dataclasses.replace(config.online, until=float("inf"))
        config = dataclasses.replace(config, online=online)
    job = prepare(config, workdir)
    run, record = training.run_phases(job, progress)
    score = data.score(config.env, np.array(record.points[-1]["returns"])).mean(axis=1)
    if stage == "medium" and not record.reached:
        progress.warn(
            f"no member scored {config.online.until:.1f} in {record.step} steps;"
            f" taking the best there is, {np.nanmax(score):.1f}"
        )
    return Learner(job, run, record, int(np.nanargmax(score)))


def make(
    kind: str,
    config: RunConfig,
    learners: dict[str, Learner],
    num_rows: int,
    progress: Progress,
) -> Transition:
    """The rows of one kind of dataset, in order of time, NumPy."""
    if kind == "medium-expert":
        halves = [
            make(half, config, learners, num_rows, progress)
            for half in ("medium", "expert")
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *halves)
    anywhere = {"anywhere": True} if kind in ("play", "diverse") else {}
    options = options_of(config, args=anywhere)
    seen_as_pictures = config.env in envs.PICTURED
    built = pixels.unseen if seen_as_pictures else envs.ENVS.find(config.env).build
    env = built(config.env, options)
    if config.env in MAZES:
        policy = antmaze.steered(config.env, kind)
        return play(kind, env, policy, (), num_rows, progress)
    if demonstrations.is_scripted(config.env):
        return demonstrate(kind, env, num_rows, progress)
    if kind == "medium-replay":
        return gathered_while_learning(learners["medium"])
    if kind == PEARL:
        return last_of_each_task(learners[PEARL], num_rows)
    policy, state = policies.uniform(env.spec.action_dim), ()
    if kind in learners:
        job, run, _, member = learners[kind]
        plan = agents.Plan(job.sizes.offline_updates, job.sizes.online_steps)
        recipe = config.entry.recipe(env.spec, config.agent, plan)
        policy = recipe.online.explore
        state = jax.tree.map(lambda leaf: leaf[member], run.agent)
    return play(kind, env, policy, state, num_rows, progress)


def options_of(config: RunConfig, **others: Any) -> envs.Options:
    """What the environment of a config is built with."""
    others |= {"native": config.native, "pixels": config.pixels}
    return envs.options(config.env, config.physics, config.simulator, **others)


def demonstrate(kind: str, env: Env, num_rows: int, progress: Progress) -> Transition:
    """Whole episodes of a scripted policy, in order of time, NUM_ENVS at once."""
    rows_at_once = NUM_ENVS * env.spec.horizon
    num_rounds = -(-num_rows // rows_at_once)
    policy = demonstrations.scripted(kind, env.spec, num_rounds)
    rows = play(kind, env, policy, (), num_rounds * rows_at_once, progress)

    def by_time(leaf):
        episodes = leaf.reshape(NUM_ENVS, num_rounds, env.spec.horizon, *leaf.shape[1:])
        return episodes.swapaxes(0, 1).reshape(leaf.shape)

    return jax.tree.map(by_time, rows)


def play(
    kind: str, env: Env, policy: Policy, state: Any, num_rows: int, progress: Progress
) -> Transition:
    """At least `num_rows` transitions of a policy, drawn by the kind's own key."""
    kinds = [*KINDS, *antmaze.PLACES]
    key = jax.random.key(1_000 + kinds.index(kind))  # apart from those of seeds
    with progress.phase(kind, num_rows, 0) as bar:
        return gather(env, policy, state, key, num_rows, bar)


def gathered_while_learning(learner: Learner) -> Transition:
    """All that a member's ring holds, each of its environments in turn."""
    job, run, _, member = learner
    ring = jax.tree.map(lambda leaf: np.asarray(leaf[member]), run.replay)
    if int(ring.count) > len(ring.rows.reward):
        raise UserError(
            "config.replay.capacity is smaller than the run was long, so its first"
            " transitions are lost; leave it at 0"
        )
    rows = jax.tree.map(np.asarray, take(ring, np.arange(int(ring.count))))
    return streams(vision.newest(rows, job.spec), job.sizes.num_envs)


def last_of_each_task(learner: Learner, num_rows: int) -> Transition:
    """The newest `num_rows` rows of each task, task by task, each in order of time.

    They are whole trials: every round of the run began with a new one.
    """
    job, run, _, member = learner
    ring = jax.tree.map(lambda leaf: np.asarray(leaf[member]), run.replay)
    num_tasks, capacity = ring.rows.reward.shape
    if job.sizes.num_envs != num_tasks:
        raise UserError(
            f"config.online.envs is {job.sizes.num_envs}; to tell the episodes of a"
            f" task apart, each of the {num_tasks} training tasks needs one environment"
        )
    held = min(ring.count.min(), capacity)
    if held < num_rows:
        raise UserError(
            f"--last={num_rows}, but the run holds only {held} rows of a task: lower"
            " it, or take more online.steps or replay.capacity"
        )
    order = (ring.count[:, None] + np.arange(-num_rows, 0)) % capacity  # oldest first
    tasks = np.arange(num_tasks)[:, None]
    rows = jax.tree.map(lambda leaf: leaf[tasks, order], ring.rows)
    last, trial = rows.last.copy(), job.sizes.steps_per_round
    last[:, trial - 1 :: trial] = True  # where episodes end early, the next one is cut
    return jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows._replace(last=last)
    )


def gather(
    env: Env, policy: Policy, state: Any, key: jax.Array, num_rows: int, bar: Any
) -> Transition:
    """At least `num_rows` transitions of a fixed policy in NUM_ENVS environments."""
    key_start, key_collect = jax.random.split(key)

    @jax.jit
    def start(key):
        return loop.start_workers(env, policy, EMPTY, state, (), key, NUM_ENVS)

    @jax.jit
    def play(workers, first):
        keys = loop.keys_from(key_collect, first, CHUNK)
        workers, fresh = loop.collect(env, policy, state, workers, keys)
        return workers, vision.newest(loop.flat(fresh), env.spec)

    workers, chunks = start(key_start), []
    for first in range(0, -(-num_rows // NUM_ENVS), CHUNK):
        started = time.perf_counter()
        workers, fresh = play(workers, first)
        chunks.append(jax.tree.map(np.asarray, fresh))
        seconds = time.perf_counter() - started
        left = num_rows - NUM_ENVS * first
        bar.advance(min(NUM_ENVS * CHUNK, left), NUM_ENVS * CHUNK / seconds)
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)
    needed = -(-num_rows // NUM_ENVS) * NUM_ENVS
    return streams(jax.tree.map(lambda leaf: leaf[:needed], rows), NUM_ENVS)


def streams(rows: Transition, num_envs: int) -> Transition:
    """Each environment's transitions one after another; each stream's end is a cut."""
    order = np.arange(len(rows.reward)).reshape(-1, num_envs).T
    last = rows.last.copy()
    last[order[:, -1]] = True
    rows = rows._replace(last=last)
    return jax.tree.map(lambda leaf: leaf[order.ravel()], rows)


def save(
    path: Path,
    kind: str,
    transitions: Transition,
    config: RunConfig,
    made_from: Sequence[Learner],
    given: Sequence[str],
) -> None:
    """Writes a dataset, and beside it where it came from."""
    parameters = None
    if kind == PEARL:
        parameters = families.split(config.env, config.tasks.train)
        parameters = parameters[: transitions.task.max() + 1]
    if config.env in envs.PICTURED:
        painter = pixels.painter(config.env, options_of(config))
        rows, tables = pixels.drawn(transitions, painter, config.pixels)
        data.write(path, rows, parameters, tables=tables)
    else:
        data.write(path, transitions, parameters)
    returns = data.episode_returns(transitions)
    provenance = {
        "command": shlex.join(["python", "-m", "experiments.collect", *given]),
        "protocol": protocol(kind, config.env),
        "physics": envs.choose_physics(config.physics),
        "runs": [
            {
                "seed": job.config.seeds[member],
                "environment_steps": record.step,
                "score": float(
                    data.score(config.env, record.points[-1]["returns"][member]).mean()
                ),
            }
            for job, _, record, member in made_from
        ],
        "rows": len(transitions.reward),
        "episodes": len(returns),
        "terminals": int((transitions.discount == 0).sum()),
        "returns": {
            "min": float(returns.min()),
            "mean": float(returns.mean()),
            "max": float(returns.max()),
        },
        "mean_score": float(data.score(config.env, returns).mean()),
    }
    if demonstrations.is_scripted(config.env):
        success = demonstrations.successes(config.env, transitions)
        provenance["success"] = success.mean().item()
    provenance |= surroundings()
    write_json(path.with_suffix(".json"), provenance)
    print(
        f"wrote {path}: {len(transitions.reward):,} rows, {len(returns)} episodes,"
        f" mean return {returns.mean():.1f}"
    )


def protocol(kind: str, name: str) -> str:
    """How the rows were made, for someone who only has them."""
    if kind == PEARL:
        return (
            "PEARL (Rakelly et al. 2019, arxiv.org/abs/1903.08254) of this project, its"
            " last rows of each training task; returns are those of exploration"
        )
    if name in MAZES:
        return (
            "AntMaze's data after D4RL (Fu et al. 2020, arxiv.org/abs/2004.07219), by a"
            f" walker of this project with noise of {antmaze.NOISE} on its actions,"
            f" {PLAYERS[kind]}; these are not D4RL's rows"
        )
    if not demonstrations.is_scripted(name):
        return (
            "D4RL (Fu et al. 2020, arxiv.org/abs/2004.07219), SAC of this project,"
            " Gymnasium's -v4 task; scores are not D4RL scores"
        )
    halves = ("medium", "expert") if kind == "medium-expert" else (kind,)
    players = [demonstrations.player(half, name) for half in halves]
    played = ", then as many rows of ".join(players)
    return (
        f"{played}; no learner, not D4RL's; there are no reference scores, mean_score"
        " is the mean return; success is the share of episodes whose last state is one"
    )


if __name__ == "__main__":
    leave(main)
