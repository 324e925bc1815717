"""The online loop: IQL of full size, one update for each transition."""

import functools

import numpy as np

from benchmarks import flop, timing, workloads
from benchmarks.record import MATRIX, Figure, Section, figure
from o2ojax import agents, envs
from o2ojax.agents import iql
from o2ojax.run import population


def collector(physics: str, num_envs: int) -> timing.Work:
    """The online phase of one member on halfcheetah; a unit is a transition."""
    env = envs.make("halfcheetah", physics)
    sizes = workloads.sizes(
        num_envs=num_envs,
        updates_per_round=num_envs,
        capacity=100_000,
        online_steps=100_000,
    )
    programs = population.programs(agents.find("iql"), env, sizes)
    members = population.members(iql.IQLConfig(), range(1), {})
    dataset = workloads.random_data(env.spec, 100_000)
    run = programs.init(members, dataset)
    run = programs.hand_over(run, members, dataset)
    rounds = workloads.chunk(num_envs * of_a_step())
    done = 0

    def call():
        nonlocal run, done
        run, metrics = programs.online(run, members, dataset, np.int32(done), rounds)
        done += rounds
        return run, metrics

    return timing.Work(call, rounds * num_envs)


def of_a_step() -> int:
    """Operations of an update, and of an action."""
    spec, config = envs.make("halfcheetah", "mujoco").spec, iql.IQLConfig()
    policy = flop.passes(spec.obs_dim, spec.action_dim, config.widths)
    return flop.iql(spec, config, workloads.BATCH) + 2 * policy.forward


def measure(name: str, windows: int) -> list[Figure]:
    """Steps per second, and the share of the limit that their updates take."""
    found = []
    physics = ("mjx", "mjx-warp") if workloads.on_accelerator() else ()
    for chosen in ("mujoco", *physics):
        for num_envs in (1, 128):
            works = {
                "loop": collector(chosen, num_envs),
                "limit": timing.matrix_limit(),
            }
            rates = timing.rates(works, windows)
            limit = MATRIX, rates["loop"] * of_a_step() / rates["limit"]
            sizes = {"physics": chosen, "environments": num_envs}
            rate = rates["loop"]
            found.append(
                figure("online", name, sizes, "steps/s", rate, limit, of_a_step())
            )
    return found


def cases():
    """IQL's."""
    return {"iql": functools.partial(measure, "iql")}


SECTION = Section(
    "online: IQL, 256-256, batch 256, on halfcheetah, one update per transition",
    cases,
    across="environments",
)
