"""What a CPU runs and what an accelerator runs: two forms of the same updates.

Two members of every algorithm are updated in both forms, here: one after another, in
slices, and in sequence; and all at once. What is small in a test counts as large. In
float64 they agree but for rounding, which shows that they are the same algorithm; in
float32, losses and gradients do.
"""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_suite import DATASET, ENV, KEY, SIZES, host, job_of, lend
from traits import TINY, small

from o2ojax.agents import AGENTS, base
from o2ojax.parallel import compiled, tuning
from o2ojax.run import population
from o2ojax.types import Batch, Recipe

BATCH, NUM_ACTIONS = 8, 2
THIN = TINY | {
    "widths": (8,),
    "actor_widths": (8,),
    "vae_widths": (8,),
    "encoder_widths": (8,),
    "decoder_widths": (8,),
    "num_actions": NUM_ACTIONS,
    "num_critics": 2,
}
ROWS_EACH = 1 + 3 * NUM_ACTIONS  # of CQL's critics, for each state
PLAN = base.Plan(
    SIZES.offline_updates, SIZES.online_steps, DATASET.obs.mean(0), DATASET.obs.std(0)
)
KEYS = jnp.stack([KEY, jax.random.key(1)])
# Whose update, of one member, has a form of its own on a CPU: slices, or an ensemble.
IN_FORMS = set(AGENTS) - {"bc"}


@contextlib.contextmanager
def form(cpu: bool):
    """What is chosen on a CPU or on an accelerator, with all that is there large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "on_cpu", lambda: cpu)
        patch.setattr(tuning, "SLICE_ROWS", 2 * ROWS_EACH)
        patch.setattr(tuning, "MANY_ROWS", 2)
        patch.setattr(tuning, "LARGE", 1)
        yield


class Start(NamedTuple):
    """What two members are updated from, leaves [2, ...]; a tuple has both phases."""

    states: tuple[Any, ...]
    members: population.Member
    batches: tuple[Batch, ...]


def agents(recipe: Recipe):
    """The agents of a recipe that differ."""
    if recipe.online is recipe.offline:
        return (recipe.offline,)
    return recipe.offline, recipe.online


def begin(job, member) -> Start:
    """An untrained agent in either phase, and a batch for it."""
    sizes = job.sizes._replace(batch=BATCH)
    stages = population.stages(job.algorithm, ENV.spec, sizes)(member, job.dataset)
    (offline, store), (online, online_store), hand_over = stages
    state, replay = offline.init(member.key), store.init()
    _, batch = store.sample(replay, member.key)
    handed, replay = hand_over(state, replay, online_store.init(), member.key)
    _, online_batch = online_store.sample(replay, member.key)
    num = len(agents(job.algorithm.recipe(ENV.spec, member.config, PLAN)))
    return Start((state, handed)[:num], member, (batch, online_batch)[:num])


class Both(NamedTuple):
    """An algorithm's updates in both forms: a CPU's, and an accelerator's.

    start:    in float32.
    learners: programs of two members, by whether it is a CPU's.
    """

    name: str
    start: Start
    learners: dict[bool, Any]

    def arguments(self) -> tuple:
        return *lend(self.start), KEYS

    def updates(self, start: Start, cpu: bool, num: int) -> list:
        """The states and the metrics after each of `num` updates."""
        states, told = lend(start.states), []
        learn = self.learners[cpu]
        with form(cpu):
            for _ in range(num):
                states, metrics = learn(states, start.members, start.batches, KEYS)
                told.append(host((states, metrics)))
        return told


@pytest.fixture(scope="module", params=AGENTS)
def both(request) -> Both:
    job = job_of(request.param, small(request.param, THIN))
    members = job.members((3, 1))
    start = jax.jit(jax.vmap(functools.partial(begin, job)))(members)

    def update(states, member, batches, key):
        recipe = job.algorithm.recipe(ENV.spec, member.config, PLAN)
        done = [
            agent.update(state, batch, key)
            for agent, state, batch in zip(agents(recipe), states, batches, strict=True)
        ]
        states, infos = zip(*done, strict=True)
        return states, tuple(info.metrics for info in infos)

    learners = {}
    for cpu in (True, False):
        with form(cpu):
            learners[cpu] = compiled.over_learners(update, (0, 0, 0, 0))
    return Both(job.name, start, learners)


def test_small_shapes_are_large_here():
    rows = jnp.zeros((BATCH, 3))
    for cpu in (True, False):
        with form(cpu):
            assert tuning.num_slices(BATCH, ROWS_EACH) == (4 if cpu else 1)
            assert tuning.networks_in_sequence(rows) == cpu
            assert (tuning.sequential_if_large(jnp.sin, 2) is jnp.sin) != cpu
            assert tuning.members_in_sequence() == cpu


def test_the_forms_are_two(both):
    """Members share their products on an accelerator, and so do networks."""
    products = {}
    for cpu, learner in both.learners.items():
        assert isinstance(learner, tuning.MemberSequence) == cpu
        with form(cpu):
            text = learner.lower(*both.arguments()).as_text()
        products[cpu] = text.count("dot_general")
    if both.name in IN_FORMS:
        assert products[True] > products[False]
    else:
        assert products[True] == products[False]


def in_float64(tree):
    return jax.tree.map(
        lambda x: (
            jnp.asarray(x, jnp.float64)
            if jnp.issubdtype(x.dtype, jnp.floating)
            else jnp.asarray(x)
        ),
        tree,
    )


def test_two_updates_agree_in_float64(both):
    with jax.enable_x64(True):
        start = in_float64(both.start)
        ours, plain = (both.updates(start, cpu, 2) for cpu in (True, False))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert a.dtype == b.dtype != np.float32
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def gradients(states) -> list:
    """The gradients of a first update, times 1 - b1: Adam's first moments."""

    def is_adam(node):
        return isinstance(node, optax.ScaleByAdamState)

    nodes = jax.tree.leaves(states, is_leaf=is_adam)
    return [node.mu for node in nodes if is_adam(node)]


def test_losses_and_gradients_agree_in_float32(both):
    ours, plain = (both.updates(both.start, cpu, 1)[0] for cpu in (True, False))
    assert gradients(plain[0])
    for a, b in zip(
        jax.tree.leaves((ours[1], gradients(ours[0]))),
        jax.tree.leaves((plain[1], gradients(plain[0]))),
        strict=True,
    ):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
