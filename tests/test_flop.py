"""The operations that benchmarks count by hand, against those in the traced updates."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval

from benchmarks import flop
from o2ojax.agents import cql, fowm, iql, off2on, smac
from o2ojax.types import Batch, EnvSpec, Transition

SPEC = EnvSpec("made up", obs_dim=7, action_dim=3, horizon=50)
WIDTH, BATCH, NUM_ACTIONS, NUM_AGENTS = 16, 8, 4, 3
WIDE = dict(widths=(WIDTH, WIDTH))
FOWM = fowm.FOWMConfig(
    encoder_width=10,
    width=WIDTH,
    latent_dim=6,
    num_samples=12,
    num_proposals=5,
    num_elites=4,
)


def operations(jaxpr) -> int:
    """Of all matrix products that count, those in a loop as often as it turns."""
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return counted(used)


def counted(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            [left, _], dims = equation.invars, equation.params["dimension_numbers"]
            inner = math.prod(left.aval.shape[i] for i in dims[0][0])
            total += 2 * inner * equation.outvars[0].aval.size
        times = equation.params.get("length", 1)
        for value in equation.params.values():
            for part in value if isinstance(value, (tuple, list)) else (value,):
                inside = getattr(part, "jaxpr", part)
                if hasattr(inside, "eqns"):
                    total += times * counted(inside)
    return total


def transitions(*lead):
    return Transition(
        obs=jnp.zeros((*lead, SPEC.obs_dim)),
        action=jnp.zeros((*lead, SPEC.action_dim)),
        reward=jnp.zeros(lead),
        discount=jnp.ones(lead),
        next_obs=jnp.zeros((*lead, SPEC.obs_dim)),
        last=jnp.zeros(lead, bool),
        task=jnp.zeros(lead, jnp.int32),
    )


def of_an_update(make, config, *lead, init=None) -> int:
    key = jax.random.key(0)
    batch = Batch(transitions(*lead), jnp.ones(lead[0]), jnp.zeros(lead[0], jnp.int32))
    state = jax.eval_shape(init or make(SPEC, config).init, key)
    traced = jax.make_jaxpr(lambda c, *rest: make(SPEC, c).update(*rest))
    return operations(traced(config, state, batch, key).jaxpr)


def test_iqls():
    config = iql.IQLConfig(**WIDE)
    found = of_an_update(iql.iql, config, BATCH)
    assert flop.iql(SPEC, WIDTH, BATCH) == found


def test_cqls():
    config = cql.CQLConfig(num_actions=NUM_ACTIONS, **WIDE)
    found = of_an_update(cql.cql, config, BATCH)
    assert flop.cql(SPEC, WIDTH, BATCH, NUM_ACTIONS) == pytest.approx(found, rel=0.05)


def test_off2ons():
    config = off2on.Off2OnConfig(num_agents=NUM_AGENTS, **WIDE)

    def init(key):
        return off2on.combine(off2on.offline(SPEC, config).init(key), config)

    found = of_an_update(off2on.online, config, BATCH, init=init)
    assert flop.off2on(SPEC, WIDTH, BATCH, NUM_AGENTS) == pytest.approx(found, rel=0.05)


def test_fowms():
    found = of_an_update(fowm.fowm, FOWM, BATCH, FOWM.horizon)
    assert flop.fowm(SPEC, FOWM, BATCH) == found


@pytest.mark.parametrize("online", [False, True])
def test_smacs(online):
    """What is asked twice of the same weights and rows is to be counted once."""
    config = smac.SMACConfig(
        num_tasks=2,
        context=4,
        latent_dim=3,
        widths=(WIDTH,) * 3,
        encoder_widths=(10,) * 3,
        decoder_widths=(6,) * 2,
    )
    rows, context = transitions(2, BATCH), transitions(2, 4)
    weight = jnp.ones((2, BATCH))
    batch = Batch(rows, weight, jnp.zeros((2, BATCH), jnp.int32), context)
    key = jax.random.key(0)
    state = jax.eval_shape(smac.smac(SPEC, config, online).init, key)
    traced = jax.make_jaxpr(lambda c, *rest: smac.smac(SPEC, c, online).update(*rest))(
        config, state, batch, key
    )
    q = flop.passes(SPEC.obs_dim + 3 + SPEC.action_dim, 1, WIDTH, hidden=3).forward
    policy = flop.passes(SPEC.obs_dim + 3, 2 * SPEC.action_dim, WIDTH, hidden=3)
    seen = SPEC.obs_dim + SPEC.action_dim + 1
    encoder = flop.passes(seen, 6, 10, hidden=3).forward
    twice = 2 * BATCH * (2 * q + policy.forward + online * 2 * q) + 2 * 4 * encoder
    joint = SPEC.obs_dim + SPEC.action_dim
    # a slope is led back to all inputs, where it is wanted for some
    unasked = 2 * (SPEC.obs_dim + 3) * WIDTH if online else joint * 6
    expected = flop.smac(SPEC, config, BATCH, online) + 2 * twice
    assert operations(traced.jaxpr) == expected + 2 * 2 * BATCH * unasked


def test_a_plans():
    key = jax.random.key(0)
    state = jax.eval_shape(fowm.fowm(SPEC, FOWM).init, key)
    memory = jnp.zeros((FOWM.horizon, SPEC.action_dim))
    obs = jnp.zeros(SPEC.obs_dim)
    traced = jax.make_jaxpr(lambda c, *rest: fowm.search(SPEC, c, *rest))
    found = operations(traced(FOWM, state, memory, obs, key).jaxpr)
    # the search's own products, of weights and elites, are not among those counted
    assert flop.plan(SPEC, FOWM) == pytest.approx(found, rel=0.01)
