"""What is asked of every agent in the registry; new ones are asked for free.

A job is an agent's whole life, offline and then online, for six members through the
programs that a run uses. Its programs are compiled once per agent, and read by all
tests. The environment is `aim`, whose returns tell the action that was taken; the data
are made up, so that every row ends, goes on, and earns differently. What an agent does
otherwise than the rest is a row of `traits`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from members import acts, lend, member, store_for, with_extras
from traits import TRAITS, Traits, small, traits_of

from o2ojax.agents import AGENTS, Algorithm
from o2ojax.envs.probes import aim
from o2ojax.replay import STORES, NoOptions, windows
from o2ojax.run import population
from o2ojax.types import Run, Transition

KEY = jax.random.key(0)
SEEDS = (3, 1, 4, 15, 9, 2)
NUM_MEMBERS = len(SEEDS)
ENV = aim()
SIZES = population.Sizes(
    offline_updates=6,
    online_steps=12,
    num_envs=2,
    warmup=4,
    steps_per_round=1,
    updates_per_round=2,
    first_round=2,
    batch=32,
    capacity=64,
    eval_episodes=2,
    reward_scale=2.0,
    reward_shift=-1.0,
    store=STORES.find("uniform"),
    options=NoOptions(),
)
NUM_ROUNDS = 6
CUT = ("iql", "off2on", "fowm", "smac")  # rows, batches of several, windows, tasks


def made_up(num_rows: int = 48) -> Transition:
    draw = np.random.default_rng(0)
    return jax.tree.map(
        jnp.asarray,
        Transition(
            obs=np.float32(draw.normal(size=(num_rows, 1))),
            action=np.float32(draw.uniform(-0.9, 0.9, (num_rows, 1))),
            reward=np.float32(draw.normal(size=num_rows)),
            discount=np.float32(draw.uniform(size=num_rows) < 0.8),
            next_obs=np.float32(draw.normal(size=(num_rows, 1))),
            last=draw.uniform(size=num_rows) < 0.3,
            task=np.zeros(num_rows, np.int32),
        ),
    )


DATASET = made_up()


class Job(NamedTuple):
    """One agent, and the programs of its run."""

    name: str
    config: Any
    sizes: population.Sizes
    programs: population.Programs

    def members(self, seeds=SEEDS, grid=None) -> population.Member:
        return population.members(self.config, seeds, grid or {})

    @property
    def algorithm(self) -> Algorithm:
        return AGENTS.find(self.name)

    @property
    def dataset(self) -> Transition:
        return with_extras(DATASET, self.algorithm.needs(self.config))

    @property
    def traits(self) -> Traits:
        return traits_of(self.name)

    def stages(self) -> population.Stages:
        """What one member learns with, outside the programs."""
        stages_of = population.stages(self.algorithm, ENV.spec, self.sizes)
        return stages_of(population.Member(KEY, self.config), self.dataset)


class Life(NamedTuple):
    """What is left of six members at every stage, in NumPy, and what was told."""

    born: Run
    trained: Run
    offline_metrics: Any
    offline_returns: Any
    handed: Run
    done: Run
    online_metrics: Any
    online_returns: Any


@pytest.fixture(scope="module", params=AGENTS)
def job(request):
    return job_of(request.param, small(request.param))


def job_of(name: str, config) -> Job:
    algorithm = AGENTS.find(name)
    store = store_for(algorithm.needs(config))
    sizes = SIZES._replace(store=store, options=store.options())
    return Job(name, config, sizes, population.programs(algorithm, ENV, sizes))


def host(tree):
    """A copy that no program can take back."""
    return jax.tree.map(np.array, tree)


def offline(job, members, *chunks):
    run, first, metrics = job.programs.init(members, job.dataset), 0, None
    for num in chunks:
        run, metrics = job.programs.offline.learn(run, members, job.dataset, first, num)
        first += num
    return host(run), host(metrics)


def online(job, members, trained, *chunks):
    run, first, metrics = (
        job.programs.hand_over(lend(trained), members, job.dataset),
        0,
        0,
    )
    for num in chunks:
        size = (num, SIZES.updates_per_round)
        run, metrics = job.programs.online.learn(run, members, job.dataset, first, size)
        first += num
    return host(run), host(metrics)


@pytest.fixture(scope="module")
def life(job):
    members = job.members()
    programs = job.programs
    born = host(programs.init(members, job.dataset))
    trained, offline_metrics = offline(job, members, SIZES.offline_updates)
    handed = host(programs.hand_over(lend(trained), members, job.dataset))
    done, online_metrics = online(job, members, trained, NUM_ROUNDS)
    return Life(
        born,
        trained,
        offline_metrics,
        host(programs.offline.evaluate(trained, members, job.dataset, 6).returns),
        handed,
        done,
        online_metrics,
        host(programs.online.evaluate(done, members, job.dataset, 12).returns),
    )


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other, rtol=1e-4, atol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other
    )


def differ(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(not np.array_equal(a, b) for a, b in pairs)


# An update


def test_an_update_keeps_shapes_and_types(life):
    for before, after in (
        (life.born, life.trained),
        (life.handed, life.done),
    ):
        assert jax.tree.structure(before) == jax.tree.structure(after)
        for old, new in zip(
            jax.tree.leaves(before), jax.tree.leaves(after), strict=True
        ):
            assert old.shape == new.shape and old.dtype == new.dtype


def test_an_update_tells_scalars(job):
    offline, online, hand_over = job.stages()

    def begin(key):
        return offline.agent.init(key), offline.buffer.init()

    def begin_online(key):
        return hand_over(*begin(key), online.buffer.init(), key)

    for (agent, buffer), start in ((offline, begin), (online, begin_online)):

        def told(key, agent=agent, buffer=buffer, start=start):
            state, replay = start(key)
            _, batch = buffer.sample(replay, key)
            return agent.update(state, batch, key)[1].metrics

        metrics = jax.eval_shape(told, KEY)
        assert metrics
        for name, metric in metrics.items():
            assert (metric.shape, metric.dtype) == ((), jnp.float32), name


def test_all_that_is_learned_is_finite(job, life):
    for tree in life:
        for leaf in jax.tree.leaves(tree):
            assert np.isfinite(np.float64(leaf)).all()
    assert job.programs.healthy(life.done).tolist() == [True] * NUM_MEMBERS


def test_a_broken_member_is_found(job, life):
    def broken(leaf):
        leaf = leaf.copy()
        if leaf.dtype == np.float32:
            leaf[2] = np.nan
        return leaf

    run = life.done._replace(agent=jax.tree.map(broken, life.done.agent))
    healthy = [at != 2 for at in range(NUM_MEMBERS)]
    assert job.programs.healthy(run).tolist() == healthy


def test_metrics_are_told_member_by_member(life):
    for metrics in (life.offline_metrics, life.online_metrics):
        for name, metric in metrics.items():
            assert metric.shape == (NUM_MEMBERS,) and metric.dtype == np.float32
            if name != "temperature":  # follows the sign of a gradient, at first
                assert len(set(metric.tolist())) > 1, name


def test_both_phases_learn(life):
    assert differ(life.born.agent, life.trained.agent)
    assert differ(life.handed.agent, life.done.agent)


# Acting


def test_only_exploration_is_random(job, life):
    state, store = member(life.done.agent, 0), member(life.done.replay, 0)
    obs = jax.random.normal(KEY, (64, 1))
    keys, others = (jax.random.split(jax.random.key(seed), 64) for seed in (0, 1))
    for agent, buffer in job.stages()[:2]:
        act = functools.partial(
            acts, buffer=buffer, agent_state=state, store=store, obs=obs
        )
        same(act(agent.exploit, keys=keys), act(agent.exploit, keys=keys))
        same(act(agent.explore, keys=keys), act(agent.explore, keys=keys))
        assert differ(act(agent.explore, keys=others), act(agent.explore, keys=keys))


def test_actions_are_within_bounds_whatever_the_weights(job, life):
    def steeper(leaf):
        return 50 * leaf if leaf.dtype == np.float32 else leaf

    store = member(life.done.replay, 0)
    state = jax.tree.map(steeper, member(life.done.agent, 0))
    obs, keys = jax.random.normal(KEY, (64, 1)), jax.random.split(KEY, 64)
    for agent, buffer in job.stages()[:2]:
        for policy in (agent.explore, agent.exploit):
            action = acts(policy, buffer, state, store, obs, keys)
            assert action.shape == (64, 1) and action.dtype == jnp.float32
            assert 0.9 < np.abs(action).max() <= 1.0


def test_the_switch_to_online_is_no_surprise(job, life):
    """The first exploration online is what exploration offline would have been."""
    obs, keys = jax.random.normal(KEY, (16, 1)), jax.random.split(KEY, 16)
    old, new = (
        acts(agent.explore, buffer, run.agent, run.replay, obs, keys)
        for (agent, buffer), run in zip(
            job.stages()[:2],
            (member(life.trained, 0), member(life.handed, 0)),
            strict=True,
        )
    )
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6)


def test_an_evaluation_judges_what_the_member_would_do(job, life):
    """On `aim`, a return is -(action - 0.5)^2 of the action at obs 1."""
    if job.traits.judged_by_chance:
        pytest.skip("the judged policy draws")
    offline, online, _ = job.stages()
    for run, returns, (agent, buffer) in (
        (life.trained, life.offline_returns, offline),
        (life.done, life.online_returns, online),
    ):
        assert returns.shape == (NUM_MEMBERS, SIZES.eval_episodes)
        for at in (0, NUM_MEMBERS - 1):
            one = member(run, at)
            action = acts(
                agent.exploit,
                buffer,
                one.agent,
                one.replay,
                jnp.ones((1, 1)),
                KEY[None],
            )
            expected = np.full(SIZES.eval_episodes, -((action[0, 0] - 0.5) ** 2))
            np.testing.assert_allclose(returns[at], expected, rtol=1e-4, atol=1e-6)


# What is gathered


def ring_of(replay):
    """What was gathered: the store itself, or the ring of one of windows or tasks."""
    if isinstance(replay, windows.Windows):
        return replay.rows
    if replay.count.ndim > 1:  # members, and the only task
        return jax.tree.map(lambda x: x[:, 0], replay)
    return replay


def test_what_is_gathered_is_stored_raw(job, life):
    """The warm-up and all rounds, each row with the reward that `aim` gave."""
    gathered = SIZES.warmup + SIZES.online_steps
    store = ring_of(life.done.replay)
    np.testing.assert_array_equal(store.count, [gathered] * NUM_MEMBERS)
    rows = jax.tree.map(lambda x: x[:, :gathered], store.rows)
    if not job.traits.labels:
        np.testing.assert_allclose(
            rows.reward, -((rows.action[..., 0] - 0.5) ** 2), rtol=1e-4, atol=1e-6
        )
    assert (rows.obs == 1).all() and (rows.discount == 0).all() and rows.last.all()
    # no member repeats another's actions (the ends are where noise is cut)
    inside = [a[np.abs(a) < 1].tolist() for a in rows.action]
    if job.traits.repeats:
        inside = [set(a) for a in inside]
    assert len({x for a in inside for x in a}) == sum(len(a) for a in inside)


# Members


def test_settings_are_outermost_and_seeds_innermost(job):
    field = job.traits.swept
    value = getattr(job.config, field)
    members = job.members((3, 1), {field: (value, 0.5 * value, 0.1 * value)})
    swept = getattr(members.config, field)
    np.testing.assert_allclose(
        swept, np.repeat([value, 0.5 * value, 0.1 * value], 2), rtol=1e-6
    )
    keys = jax.random.key_data(members.key)
    expected = jnp.stack([jax.random.key_data(jax.random.key(s)) for s in (3, 1)])
    np.testing.assert_array_equal(keys, np.tile(expected, (3, 1)))


def test_a_setting_counts_and_a_seed_counts_and_nothing_else(job, life):
    """Three settings, two of them alike, of two seeds: as one job."""
    field = job.traits.swept
    value = getattr(job.config, field)
    members = job.members(SEEDS[:2], {field: (value, value, 0.5 * value)})
    born = host(job.programs.init(members, job.dataset))
    trained, _ = offline(job, members, SIZES.offline_updates)
    done, _ = online(job, members, trained, NUM_ROUNDS)
    # the same start, but for the seed
    same(member(born, slice(0, 2)), member(born, slice(4, 6)))
    for run, reference in ((trained, life.trained), (done, life.done)):
        # alike in setting and seed, wherever they stand
        close(member(run, slice(0, 2)), member(run, slice(2, 4)))
        close(member(run, slice(0, 2)), member(reference, slice(0, 2)))
        # another setting, another seed
        for seed in (0, 1):
            assert differ(member(run.agent, seed), member(run.agent, seed + 4))
        assert differ(member(run.agent, 0), member(run.agent, 1))


def test_members_that_start_alike_part_by_their_keys_in_every_phase(job, life):
    members = job.members()

    def alike(run):
        return jax.tree.map(lambda x: jnp.stack([x[0]] * NUM_MEMBERS), run)

    def are_all_different(tree):
        leaves = [leaf.reshape(NUM_MEMBERS, -1) for leaf in jax.tree.leaves(tree)]
        rows = np.concatenate(leaves, axis=1)
        return len(np.unique(rows, axis=0)) == NUM_MEMBERS

    assert are_all_different(life.born.agent)
    trained, _ = job.programs.offline.learn(
        alike(life.born), members, job.dataset, 0, 6
    )
    assert are_all_different(trained.agent)
    handed = job.programs.hand_over(alike(life.trained), members, job.dataset)
    assert are_all_different(ring_of(handed.replay).rows.action)
    size = (NUM_ROUNDS, SIZES.updates_per_round)
    done, _ = job.programs.online.learn(
        alike(life.handed), members, job.dataset, 0, size
    )
    assert are_all_different(ring_of(done.replay).rows.action)


def test_a_seed_is_the_same_in_any_company(job, life):
    """A seed's place among others counts for nothing, nor do the others."""
    others = job.members((9, 5, 6, 7, 8, 3))
    trained = offline(job, others, SIZES.offline_updates)[0]
    done = online(job, others, trained, NUM_ROUNDS)[0]
    for before, after in ((life.trained, trained), (life.done, done)):
        same(member(before, SEEDS.index(9)), member(after, 0))
        same(member(before, SEEDS.index(3)), member(after, 5))


def test_a_seed_alone_is_the_seed_in_company():
    """Of one agent, as a population of another size is compiled anew."""
    job = job_of("iql", small("iql"))
    crowd, alone = job.members(), job.members(SEEDS[4:5])
    one, together = offline(job, alone, 2)[0], offline(job, crowd, 2)[0]
    close(one, member(together, slice(4, 5)))
    one, together = (
        online(job, who, run, 2)[0] for who, run in ((alone, one), (crowd, together))
    )
    close(one, member(together, slice(4, 5)))


def test_how_a_phase_is_cut_changes_nothing(job, life):
    """Bit for bit, as a run that is interrupted and resumed must be."""
    if job.name not in CUT:
        pytest.skip("it is cut as the others are, and would be compiled anew for it")
    members = job.members()
    trained, _ = offline(job, members, 2, 2, 2)
    same(trained, life.trained)
    done, _ = online(job, members, trained, 2, 2, 2)
    same(done, life.done)


# Hyper-parameters


def floats(config) -> list[str]:
    return [f.name for f in dataclasses.fields(config) if f.type in (float, "float")]


def traced(config) -> list[str]:
    return [
        f.name
        for f in dataclasses.fields(config)
        if f.metadata.get("pytree_node", True)
    ]


def test_floats_are_traced_and_the_rest_is_compiled_in(job):
    config = job.config
    excused = job.traits.compiled_in.keys()
    assert set(traced(config)) == set(floats(config)) - excused
    assert len(jax.tree.leaves(config)) == len(traced(config))


def tried(job, field):
    value = getattr(job.config, field)
    return job.traits.tried_at.get(field, 0.5 * value if value else 0.1)


def test_every_hyper_parameter_does_something_and_none_recompiles(job, life):
    """Half of each value leads elsewhere; the programs of the first job do it all."""
    programs = (job.programs.init, job.programs.offline.learn)
    compiled = [program._cache_size() for program in programs]
    assert min(compiled) > 0
    idle, early, late = [], [], []
    names = traced(job.config)
    for at in range(0, len(names), NUM_MEMBERS - 1):
        some = names[at : at + NUM_MEMBERS - 1]
        settings = [{}] + [{field: tried(job, field)} for field in some]
        settings += [{}] * (NUM_MEMBERS - len(settings))
        configs = [dataclasses.replace(job.config, **setting) for setting in settings]
        members = population.Member(
            jnp.stack([KEY] * NUM_MEMBERS),
            jax.tree.map(lambda *x: jnp.asarray(x, jnp.float32), *configs),
        )
        born = host(job.programs.init(members, job.dataset)).agent
        run = offline(job, members, SIZES.offline_updates)[0]
        trained = run.agent
        for place in range(len(some) + 1, NUM_MEMBERS):
            same(member(trained, place), member(trained, 0))  # nothing else counts
        for place, field in enumerate(some, start=1):
            if differ(member(born, place), member(born, 0)):
                early.append(field)
            if not differ(member(trained, place), member(trained, 0)):
                late.append(field)
                done = online(job, members, run, NUM_ROUNDS)[0]
                if not differ(member(done, place), member(done, 0)):
                    idle.append(field)
    traits = job.traits
    assert set(idle) == set(traits.of_an_option)
    assert set(late) == {*traits.online_only, *traits.of_an_option}
    assert set(early) == set(traits.at_birth)
    assert [program._cache_size() for program in programs] == compiled


def test_all_traits_are_of_agents_that_there_are():
    assert TRAITS.keys() <= set(AGENTS)
