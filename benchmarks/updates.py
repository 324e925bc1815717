"""What agents cost: updates of all of them, FOWM's decisions, and the online loop.

Each is a share of the matrix limit, by the operations counted in it. Networks are the
papers', and so are SMAC's and PEARL's batches; those of all others are of 256, to be
compared: twenty of them in an update of RLPD's, four in one of WSRL's online. A
compiled call draws and learns as a run's does.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flop, timing, workloads
from benchmarks.record import Figure, Section, timed
from benchmarks.timing import Work
from benchmarks.workloads import Case
from o2ojax import envs
from o2ojax.agents import fowm, iql, wsrl
from o2ojax.meta import smac
from o2ojax.parallel import tuning

TD3 = dict(delayed=("actor", "target_actor", "target_critic"))
ENSEMBLE = dict(phase="online", rows=1_000_000)
META = dict(env="cheetah-vel", rows=120_000)  # 100 tasks of as many rows
OF_TASKS = dict(store="tasks", capacity=1_200)  # rows of each task's ring
LOCOMOTION = wsrl.WSRLConfig(  # where its offline phase is CQL with ten critics
    widths=(256, 256), calibrate=False, lagrange=False, online_max_backup=False
)
ONLINE_BATCH = smac.SMACConfig().online_batch
CASES = {
    "bc": Case("bc"),
    "sac": Case("sac"),
    "iql": Case("iql"),
    "awac": Case("awac"),
    "td3_bc": Case("td3_bc", **TD3),
    "o2ac": Case("o2ac", **TD3),
    "cql": Case("cql"),
    "cal_ql": Case("cal_ql"),
    "bcq": Case("bcq"),
    "rlpd": Case("rlpd", phase="online", sizes=dict(store="symmetric")),
    "wsrl offline": Case("wsrl", LOCOMOTION),
    "wsrl online": Case("wsrl", LOCOMOTION, "online", sizes=dict(store="online")),
    "rebrac": Case("rebrac", **TD3),
    "fql": Case("fql"),
    "ifql": Case("ifql"),
    "off2on offline": Case("off2on"),
    "off2on online": Case("off2on", **ENSEMBLE, sizes=dict(capacity=250_000)),
    "off2on online balanced": Case(
        "off2on", **ENSEMBLE, sizes=dict(capacity=250_000, store="balanced")
    ),
    "fowm": Case("fowm", sizes=dict(store="symmetric_windows")),
    "smac offline": Case("smac", **META, sizes=OF_TASKS | {"batch": 128}),
    "smac online": Case(
        "smac", phase="online", **META, sizes=OF_TASKS | {"batch": ONLINE_BATCH}
    ),
    "pearl": Case(
        "pearl", phase="online", **META, sizes=OF_TASKS | {"batch": ONLINE_BATCH}
    ),
}


def measure_updates(name: str, windows: int) -> list[Figure]:
    """Updates per second of one member and of several."""
    numbers = (1, 8) if tuning.on_cpu() else (1, 8, 64)
    works = [({"members": n}, workloads.learner(CASES[name], n)) for n in numbers]
    return timed(works, "updates/s", windows, beside_first=True)


PLANNERS = {"fowm 1 iteration": 1, "fowm 6 iterations": 6}  # the papers'


def planner(iterations: int, num_envs: int) -> Work:
    """Decisions of FOWM's for states at once; a unit is one for all of them."""
    spec = CASES["fowm"].spec()
    config = fowm.FOWMConfig(iterations=float(iterations))
    agent = fowm.fowm(spec, config)
    state = jax.jit(agent.init)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), num_envs)
    obs = jax.random.normal(jax.random.key(2), (num_envs, spec.obs_dim))
    memory = jnp.zeros((num_envs, config.horizon, spec.action_dim))
    one = (state, memory[0], obs[0], keys[0])
    counted = flop.operations(agent.exploit.act, *one, turns=iterations)
    act = jax.jit(
        jax.vmap(agent.exploit.act, (None, 0, 0, 0)),
        compiler_options=tuning.compiler_options(),
    )

    def call():
        nonlocal memory
        action, memory = act(state, memory, obs, keys)
        return action, memory

    return timing.work(call, 1, num_envs * counted)


def measure_planning(name: str, windows: int) -> list[Figure]:
    """Milliseconds of a decision."""
    numbers = (1, 16) if tuning.on_cpu() else (1, 16, 64)
    works = [({"environments": n}, planner(PLANNERS[name], n)) for n in numbers]
    return timed(works, "ms", windows)


def online_loop(physics: str, num_envs: int) -> Work:
    """IQL's online phase, one member's, on halfcheetah; a unit is a transition."""
    env = envs.make("halfcheetah", physics)
    programs = workloads.programs(
        "iql",
        env,
        num_envs=num_envs,
        updates_per_round=num_envs,
        capacity=100_000,
        online_steps=100_000,
    )
    members = workloads.members("iql", 1)
    dataset = workloads.random_data(env.spec, 100_000)
    run = programs.hand_over(programs.init(members, dataset), members, dataset)
    counted = workloads.operations(CASES["iql"]) + of_an_action()
    rounds, done = workloads.chunk(num_envs * counted), 0
    learn = programs.online.learn

    def call():
        nonlocal run, done
        run, metrics = learn(run, members, dataset, np.int32(done), (rounds, num_envs))
        done += rounds
        return run, metrics

    return timing.work(call, rounds * num_envs, counted)


def of_an_action() -> int:
    """Operations of IQL's policy, for one state."""
    spec, key = CASES["iql"].spec(), jax.random.key(0)
    agent = iql.iql(spec, iql.IQLConfig())
    state = jax.eval_shape(agent.init, key)
    return flop.operations(agent.explore.act, state, (), jnp.zeros(spec.obs_dim), key)


def measure_online(name: str, windows: int) -> list[Figure]:
    """Steps per second, an update for each."""
    physics = () if tuning.on_cpu() else ("mjx", "mjx-warp")
    works = (
        ({"physics": chosen, "environments": num}, online_loop(chosen, num))
        for chosen in ("mujoco", *physics)
        for num in (1, 128)
    )
    return timed(works, "steps/s", windows)


UPDATES = Section(
    "updates, all members together: the papers' networks, batches of 256; of 4 tasks x"
    " 128 rows for smac offline, of 4 x 256 online and for pearl",
    tuple(CASES),
    measure_updates,
    across="members",
)
PLANNING = Section(
    "a decision of FOWM's: 563 plans of 5 steps, for environments side by side",
    tuple(PLANNERS),
    measure_planning,
    across="environments",
)
ONLINE = Section(
    "online: IQL, 256-256, batch 256, on halfcheetah, one update per transition",
    ("iql",),
    measure_online,
    across="environments",
)
