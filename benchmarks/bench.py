"""`make bench`: updates, environment steps and memory, as shares of what is possible.

Prints a table and writes `benchmarks/results/bench-DEVICE.json`.
"""

import argparse
import functools
import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import rollout
from rich.console import Console
from rich.table import Table

from benchmarks import flop as flops
from benchmarks import timing
from experiments.configs import smac_study
from o2ojax import agents, envs, loop, population, training
from o2ojax.agents import fowm, iql, off2on, smac
from o2ojax.envs import locomotion
from o2ojax.files import write_json
from o2ojax.progress import Progress
from o2ojax.replay import balanced, tasks, uniform
from o2ojax.types import EnvSpec, Run, Transition

RESULTS = Path(__file__).parent / "results"
UPDATES = 400  # of IQL in a window, and as much work of the others


def random_data(spec: EnvSpec, num_rows: int) -> Transition:
    """Noise in the shape of a dataset."""
    keys = jax.random.split(jax.random.key(0), 4)
    return Transition(
        obs=jax.random.normal(keys[0], (num_rows, spec.obs_dim)),
        action=jax.random.uniform(keys[1], (num_rows, spec.action_dim), minval=-1.0),
        reward=jax.random.normal(keys[2], (num_rows,)),
        discount=jnp.ones(num_rows),
        next_obs=jax.random.normal(keys[3], (num_rows, spec.obs_dim)),
        last=jnp.zeros(num_rows, bool),
        task=jnp.zeros(num_rows, jnp.int32),
    )


def sizes(**changed: Any) -> population.Sizes:
    """The paper's sizes, but for what is named."""
    given = dict(
        offline_updates=1_000_000,
        online_steps=10_000,
        num_envs=1,
        warmup=0,
        steps_per_round=1,
        updates_per_round=1,
        batch=256,
        replay="uniform",
        capacity=10_000,
        eval_episodes=10,
        reward_scale=1.0,
        reward_shift=0.0,
    )
    return population.Sizes(**(given | changed))


WIDTH, BATCH, NUM_ACTIONS, NUM_AGENTS = 256, 256, 10, 5  # the papers'
TITLES = {"off2on": f"off2on offline, N = {NUM_AGENTS}"}


def bench_offline(name: str, num_members: int, windows: int) -> dict[str, Any]:
    """An agent's offline phase, all members together, and its share of the limit."""
    env = envs.make("halfcheetah", "mujoco")
    algorithm = agents.find(name)
    programs = population.programs(algorithm, env, sizes())
    members = population.members(algorithm.config(), range(num_members), {})
    dataset = random_data(env.spec, 100_000)
    flop = {
        "iql": lambda: flops.iql(env.spec, WIDTH, BATCH),
        "cql": lambda: flops.cql(env.spec, WIDTH, BATCH, NUM_ACTIONS),
        "off2on": lambda: NUM_AGENTS * flops.cql(env.spec, WIDTH, BATCH, NUM_ACTIONS),
        "fowm": lambda: flops.fowm(env.spec, algorithm.config(), BATCH),
    }[name]()
    updates = max(8, int(UPDATES * flops.iql(env.spec, WIDTH, BATCH) / flop))
    each = updates // num_members
    run = programs.begin(members, dataset)

    def learn():
        nonlocal run
        run, _ = programs.offline(run, members, dataset, np.int32(0), each)
        return run

    taken = timing.alternate({"learn": learn, "limit": timing.matrix_limit()}, windows)
    return {"agent": TITLES.get(name, name), "members": num_members} | shares(
        each * num_members, flop, taken
    )


def bench_ensemble(windows: int, num_rows: int) -> dict[str, Any]:
    """Off2OnRL's online updates from a million rows, evenly drawn and balanced."""
    env = envs.make("halfcheetah", "mujoco")
    config = off2on.Off2OnConfig(num_agents=NUM_AGENTS)
    agent = off2on.online(env.spec, config)
    dataset = random_data(env.spec, num_rows)
    fresh = jax.tree.map(lambda leaf: leaf[:1_000], dataset)
    updates = 20

    def learner(make_store):
        @functools.partial(
            jax.jit,
            donate_argnums=(1, 2),
            compiler_options=population.compiler_options(),
        )
        def learn(dataset, state, replay):
            keys = jax.random.split(jax.random.key(0), updates)
            return loop.learn(agent, make_store(dataset), state, replay, keys)[:2]

        @jax.jit
        def begin(dataset, fresh, key):
            state = off2on.combine(off2on.offline(env.spec, config).init(key), config)
            store = make_store(dataset)
            return state, store.add(store.init(), fresh)

        held = begin(dataset, fresh, jax.random.key(0))

        def work():
            nonlocal held
            held = learn(dataset, *held)
            return held

        return work

    capacity = 250_000
    works = {
        "learn": learner(lambda data: uniform.union(data, capacity, BATCH)),
        "balanced": learner(lambda data: balanced.balanced(data, capacity, BATCH)),
        "limit": timing.matrix_limit(),
    }
    taken = timing.alternate(works, windows)
    flop = flops.off2on(env.spec, WIDTH, BATCH, NUM_AGENTS)
    return {
        "agent": f"off2on online, N = {NUM_AGENTS}",
        "members": 1,
        "rows": num_rows,
        "balanced_adds": timing.spread(taken["balanced"] / taken["learn"] - 1),
    } | shares(updates, flop, taken)


def bench_smac(online: bool, windows: int, num_rows: int) -> dict[str, Any]:
    """SMAC's updates at the authors' sizes, 100 tasks of `num_rows` rows in all."""
    env = envs.make("cheetah-vel", "mujoco")
    config = smac.SMACConfig()
    agent = smac.smac(env.spec, config, online)
    num_tasks, batch = env.spec.num_train, config.online_batch if online else 128
    dataset = random_data(env.spec, num_rows)
    fresh = jax.tree.map(lambda leaf: leaf[:1_000], dataset)
    updates = 20

    def make_store(dataset):
        draws = smac.draws(config)
        if not online:
            return tasks.offline(dataset, num_tasks, batch, draws)
        like = jax.tree.map(lambda leaf: leaf[0], dataset)
        return tasks.online(dataset, like, num_tasks, 10_000, batch, draws)

    @functools.partial(
        jax.jit,
        donate_argnums=(1, 2),
        compiler_options=population.compiler_options(),
    )
    def learn(dataset, state, replay):
        keys = jax.random.split(jax.random.key(0), updates)
        return loop.learn(agent, make_store(dataset), state, replay, keys)[:2]

    @jax.jit
    def begin(dataset, fresh, key):
        store = make_store(dataset)
        replay = store.init()
        return agent.init(key), store.add(replay, fresh) if online else replay

    held = begin(dataset, fresh, jax.random.key(0))

    def work():
        nonlocal held
        held = learn(dataset, *held)
        return held

    taken = timing.alternate({"learn": work, "limit": timing.matrix_limit()}, windows)
    flop = flops.smac(env.spec, config, batch, online)
    phase = "online" if online else "offline"
    return {"agent": f"smac {phase}, 4 x {batch}", "members": 1} | shares(
        updates, flop, taken
    )


class Watched(training.Session):
    """A run that is told how long it is inside of compiled calls.

    told: of each phase, the seconds that it took, what was compiled aside, and those
          inside.
    """

    told: dict[str, tuple[float, float]] = {}

    def phase(self, run: Run) -> Run:
        """As the phase of any run."""
        self.inside = self.compiling = 0.0
        started = time.perf_counter()
        run = super().phase(run)
        took = time.perf_counter() - started - self.compiling
        self.told[self.record.phase] = took, self.inside
        return run

    def compile(self, *arguments: Any) -> Any:
        """A compiled program that is watched."""
        started = time.perf_counter()
        program = super().compile(*arguments)
        self.compiling += time.perf_counter() - started

        def watched(*given):
            started = time.perf_counter()
            out = jax.block_until_ready(program(*given))
            self.inside += time.perf_counter() - started
            return out

        return watched


def bench_host() -> dict[str, Any]:
    """The share of a SMAC run's time that the host takes, evaluations included."""
    config = smac_study.get_config("smac/cheetah-vel-pearl")
    config.offline.updates, config.online.steps = 3_000, 9_000
    original, training.Session = training.Session, Watched
    try:
        with tempfile.TemporaryDirectory() as folder:
            progress = Progress(Console(file=io.StringIO()))
            training.train(config, Path(folder) / "run", progress)
    finally:
        training.Session = original
    return {
        phase: {"seconds": took, "outside_compiled_calls": 1 - inside / took}
        for phase, (took, inside) in Watched.told.items()
    }


def bench_planning(num_envs: int, iterations: int, windows: int) -> dict[str, Any]:
    """FOWM's decisions for environments side by side, in one compiled call."""
    spec = envs.make("halfcheetah", "mujoco").spec
    config = fowm.FOWMConfig(iterations=float(iterations))
    agent = fowm.fowm(spec, config)
    state = jax.jit(agent.init)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), num_envs)
    obs = jax.random.normal(jax.random.key(2), (num_envs, spec.obs_dim))
    blank = jnp.zeros((num_envs, config.horizon, spec.action_dim))
    act = jax.jit(
        jax.vmap(agent.exploit.act, (None, 0, 0, 0)),
        compiler_options=population.compiler_options(),
    )
    flop = num_envs * flops.plan(spec, config)
    calls = max(1, int(2e10 / flop))

    def plan():
        memory = blank
        for _ in range(calls):
            _, memory = act(state, memory, obs, keys)
        return memory

    taken = timing.alternate({"plan": plan, "limit": timing.matrix_limit()}, windows)
    limit = timing.MATRIX_FLOP * timing.MATRIX_REPEATS / taken["limit"]
    return {
        "envs": num_envs,
        "iterations": iterations,
        "milliseconds": timing.spread(1e3 * taken["plan"] / calls),
        "flop_per_plan": flop,
        "share_of_limit": timing.spread(calls * flop / taken["plan"] / limit),
    }


def shares(updates: int, flop: int, taken: dict[str, np.ndarray]) -> dict[str, Any]:
    """Updates per second, and what they are of the machine's limit."""
    rate = updates / taken["learn"]
    limit = timing.MATRIX_FLOP * timing.MATRIX_REPEATS / taken["limit"]
    return {
        "updates_per_second": timing.spread(rate),
        "flop_per_update": flop,
        "limit_gflop_per_second": timing.spread(limit / 1e9),
        "share_of_limit": timing.spread(rate * flop / limit),
    }


def bench_env(name: str, members: int, num_envs: int, windows: int) -> dict[str, Any]:
    """The compiled loop with a policy, against one `rollout` call per decision.

    Both take the same number of decisions with as many environments side by side, from
    states in the middle of an episode.
    """
    num_rows = members * num_envs
    num_steps = max(20, 2_000 // num_rows)
    env = envs.make(name)
    agent = iql.iql(env.spec, iql.IQLConfig())
    store = uniform.nothing()

    def start(key):
        state = agent.init(key)
        workers = loop.start_workers(
            env, agent.explore, store, state, (), key, num_envs
        )
        return Run(state, (), workers)

    def play(run, key):
        keys = loop.keys_from(key, jnp.int32(0), num_steps)
        workers, _ = loop.collect(env, agent.explore, run.agent, run.workers, keys)
        return run._replace(workers=workers)

    keys = jax.random.split(jax.random.key(0), members)
    run = jax.jit(jax.vmap(start))(keys)
    play = jax.jit(jax.vmap(play), donate_argnums=0)

    def ours():
        nonlocal run
        run = play(run, keys)
        return run

    ours()
    theirs = raw_rollout(name, jax.tree.map(np.asarray, run.workers.env), num_steps)
    taken = timing.alternate({"ours": ours, "theirs": theirs}, windows)
    done = num_rows * num_steps
    return {
        "env": name,
        "members": members,
        "envs": num_envs,
        "steps_per_second": timing.spread(done / taken["ours"]),
        "rollout_steps_per_second": timing.spread(done / taken["theirs"]),
        "ratio": timing.spread(taken["theirs"] / taken["ours"]),
    }


def raw_rollout(name: str, state: Any, num_steps: int):
    """`mujoco.rollout` on all cores, one call per decision, with random controls."""
    task = locomotion.TASKS[name]
    model = locomotion.load_model(task.file)
    physics = state.physics
    qpos = physics.qpos.reshape(-1, model.nq)
    qvel = physics.qvel.reshape(-1, model.nv)
    rows = np.concatenate([np.zeros((len(qpos), 1)), qpos, qvel], axis=1)
    warm = physics.warm.reshape(-1, model.nv).astype(np.float64)
    threads = timing.machine()["cores"]
    pool = rollout.Rollout(nthread=threads)
    workspaces = [mujoco.MjData(model) for _ in range(threads)]
    generator = np.random.default_rng(0)

    def work():
        at = rows
        for _ in range(num_steps):
            control = generator.uniform(-1, 1, (len(at), 1, model.nu))
            control = np.repeat(control, task.frame_skip, axis=1)
            states, _ = pool.rollout(
                model, workspaces, at, control, initial_warmstart=warm
            )
            at = states[:, -1]
        return at

    return work


def bench_memory(num_rows: int) -> dict[str, Any]:
    """Bytes for 1 and 8 members: the process's peak, and XLA's own account."""
    capacity = 100_000
    changed = dict(online_steps=capacity, capacity=capacity)
    programs = population.programs(
        agents.find("iql"), envs.make("halfcheetah"), sizes(**changed)
    )
    dataset = random_data(envs.make("halfcheetah").spec, num_rows)
    ring = uniform.union(dataset, capacity, 256).init()
    found = {
        "rows": num_rows,
        "ring_rows": capacity,
        "dataset": size_of(dataset),
        "ring": size_of(ring),
    }
    for num_members in (1, 8):
        members = population.members(iql.IQLConfig(), range(num_members), {})
        run = programs.begin(members, dataset)
        rest = (members, dataset, np.int32(0), 100)
        offline = programs.offline.lower(run, *rest).compile()
        online_run = jax.eval_shape(programs.hand_over, run, members, dataset)
        online = programs.online.lower(online_run, *rest).compile()
        found |= {
            f"agents_{num_members}": size_of(run),
            f"offline_{num_members}": needed(offline),
            f"online_{num_members}": needed(online),
            f"offline_peak_{num_members}": in_own_process(num_members, num_rows),
        }
    return found


def in_own_process(num_members: int, num_rows: int) -> int:
    """Peak bytes of a fresh process that trains offline."""
    command = [sys.executable, "-m", "benchmarks.bench", f"--peak-of={num_members}"]
    done = subprocess.run(
        [*command, f"--rows={num_rows}"], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def peak_of(num_members: int, num_rows: int) -> int:
    """Trains offline for a while. Returns the peak of this process or its device."""
    env = envs.make("halfcheetah")
    programs = population.programs(agents.find("iql"), env, sizes())
    members = population.members(iql.IQLConfig(), range(num_members), {})
    dataset = random_data(env.spec, num_rows)
    run = programs.begin(members, dataset)
    run, _ = programs.offline(run, members, dataset, np.int32(0), 20)
    jax.block_until_ready(run)
    on_device = jax.devices()[0].memory_stats()
    if on_device:
        return on_device["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def size_of(tree: Any) -> int:
    """Bytes of a pytree's arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def needed(compiled: Any) -> int:
    """Bytes of arguments, results and workspace, what is donated counted once."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def show(results: dict[str, Any]) -> None:
    """Prints the tables."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(
        title="updates: the papers' networks, batch 256, rows of halfcheetah's shape"
    )
    table.add_column("agent")
    for name in ("members", "updates/s in total", "share of the matrix limit"):
        table.add_column(name, justify="right")
    for row in results["updates"]:
        table.add_row(
            row["agent"],
            str(row["members"]),
            f"{row['updates_per_second']['median']:,.0f}",
            in_words(row["share_of_limit"]),
        )
    console.print(table)
    adds = results["updates"][-1]["balanced_adds"]
    console.print(f"balanced replay adds {in_words(adds)} to the last, at 1M rows")
    table = Table(title="fowm's planning, 563 plans of 5 steps, one call")
    for name in ("iterations", "envs", "milliseconds", "share of the matrix limit"):
        table.add_column(name, justify="right")
    for row in results["planning"]:
        table.add_row(
            str(row["iterations"]),
            str(row["envs"]),
            f"{row['milliseconds']['median']:,.1f}",
            in_words(row["share_of_limit"]),
        )
    console.print(table)
    table = Table(title="halfcheetah in the compiled loop with a policy")
    for name in ("members x envs", "steps/s", "rollout alone", "ratio"):
        table.add_column(name, justify="right")
    for row in results["env"]:
        table.add_row(
            f"{row['members']} x {row['envs']}",
            f"{row['steps_per_second']['median']:,.0f}",
            f"{row['rollout_steps_per_second']['median']:,.0f}",
            in_words(row["ratio"]),
        )
    console.print(table)
    console.print(memory_table(results["memory"]))
    for phase, told in results["host"].items():
        share = told["outside_compiled_calls"]
        console.print(f"smac {phase}: {share:.1%} of its time outside compiled calls")


def memory_table(memory: dict[str, int]) -> Table:
    """Megabytes of both phases, beside what they cannot do without."""
    table = Table(
        title=f"memory in MB: IQL, a dataset of {memory['rows']:,} rows"
        f" ({memory['dataset'] / 1e6:.0f} MB), rings of {memory['ring_rows']:,} rows"
        f" ({memory['ring'] / 1e6:.0f} MB)"
    )
    for name in ("", "1 member", "8 members", "ratio"):
        table.add_column(name, justify="right" if name else "left")
    for name, key in (
        ("offline phase, peak of the process", "offline_peak"),
        ("offline phase, arrays by XLA's account", "offline"),
        ("online phase, arrays by XLA's account", "online"),
        ("the agents themselves", "agents"),
    ):
        one, eight = memory[f"{key}_1"], memory[f"{key}_8"]
        table.add_row(
            name, f"{one / 1e6:.0f}", f"{eight / 1e6:.0f}", f"{eight / one:.2f}"
        )
    return table


def in_words(figure: dict[str, float]) -> str:
    """Median with its range."""
    return f"{figure['median']:.2f} [{figure['min']:.2f}, {figure['max']:.2f}]"


def main() -> None:
    """Runs everything; several minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench")
    parser.add_argument("--windows", type=int, default=7, help="timed, in turn")
    parser.add_argument("--rows", type=int, default=1_000_000, help="for the memory")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(peak_of(options.peak_of, options.rows))
        return
    results = {
        "machine": timing.machine(),
        "updates": [
            bench_offline("iql", 1, options.windows),
            bench_offline("iql", 8, options.windows),
            bench_offline("cql", 1, options.windows),
            bench_offline("fowm", 1, options.windows),
            bench_smac(False, options.windows, 120_000),
            bench_smac(True, options.windows, 120_000),
            bench_offline("off2on", 1, options.windows),
            bench_ensemble(options.windows, options.rows),
        ],
        "planning": [
            bench_planning(num_envs, iterations, options.windows)
            for iterations in (1, 6)
            for num_envs in (1, 16)
        ],
        "env": [
            bench_env("halfcheetah", members, num_envs, options.windows)
            for members, num_envs in ((1, 1), (1, 8), (8, 8), (8, 64))
        ],
        "memory": bench_memory(options.rows),
        "host": bench_host(),
    }
    show(results)
    kind = results["machine"]["device"].split()[0]
    path = RESULTS / f"bench-{kind}.json"
    write_json(path, results)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
