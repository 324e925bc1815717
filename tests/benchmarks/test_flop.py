"""The operations that benchmarks count by hand, against those in the traced updates."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval

from benchmarks import flop
from o2ojax.agents import awac, bc, bcq, cql, fowm, iql, off2on, sac, td3_bc
from o2ojax.meta import pearl, smac
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
    """Of all matrix products that count, those in a loop as often as it turns.

    A product of one column, 1^T dy, is a bias's gradient, a sum, and does not count.
    """
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return counted(used)


def counted(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            [left, _], dims = equation.invars, equation.params["dimension_numbers"]
            shape, contracted = left.aval.shape, dims[0][0]
            if shape[-1] == 1 and len(shape) - 1 not in contracted:
                continue
            inner = math.prod(shape[i] for i in contracted)
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


def test_those_without_a_remainder():
    for make, config, count in (
        (bc.bc, bc.BCConfig(**WIDE), flop.bc),
        (iql.iql, iql.IQLConfig(**WIDE), flop.iql),
    ):
        assert count(SPEC, config, BATCH) == of_an_update(make, config, BATCH)


def test_sacs():
    config = sac.SACConfig(**WIDE)
    # a slope is led back to all inputs, where it is wanted for some
    unasked = 2 * SPEC.obs_dim * WIDTH
    expected = flop.sac(SPEC, config, BATCH) + 2 * BATCH * unasked
    assert of_an_update(sac.sac, config, BATCH) == expected


def test_cqls():
    config = cql.CQLConfig(num_actions=NUM_ACTIONS, **WIDE)
    found = of_an_update(cql.cql, config, BATCH)
    assert flop.cql(SPEC, config, BATCH) == pytest.approx(found, rel=0.05)


def test_awacs():
    config = awac.AWACConfig(actor_widths=(WIDTH,) * 3, **WIDE)
    policy = flop.passes(SPEC.obs_dim, SPEC.action_dim, config.actor_widths)
    twice = policy.forward + 2 * flop.critic(SPEC, config.widths).forward
    expected = flop.awac(SPEC, config, BATCH) + 2 * BATCH * twice
    assert of_an_update(awac.awac, config, BATCH) == expected


def test_td3_bcs():
    """Ours steps the policy every time, through one critic of two computed."""
    config = td3_bc.TD3BCConfig(delay=1, **WIDE)
    second = flop.critic(SPEC, config.widths).back
    unasked = 2 * SPEC.obs_dim * WIDTH
    expected = flop.td3_bc(SPEC, config, BATCH) + 2 * BATCH * (second + unasked)
    assert of_an_update(td3_bc.td3_bc, config, BATCH) == expected
    delayed = config.replace(delay=2)
    assert of_an_update(td3_bc.td3_bc, delayed, BATCH) == expected
    policy = flop.passes(SPEC.obs_dim, SPEC.action_dim, config.widths)
    saved = flop.td3_bc(SPEC, config, BATCH) - flop.td3_bc(SPEC, delayed, BATCH)
    assert saved == BATCH * (policy.learn + second)  # half of 2 a row


def test_bcqs():
    config = bcq.BCQConfig(widths=(16, 12), vae_widths=(20, 10), num_candidates=4)
    second = flop.critic(SPEC, config.widths).back
    unasked = SPEC.obs_dim * (2 * config.widths[0] + config.vae_widths[0])
    expected = flop.bcq(SPEC, config, BATCH) + 2 * BATCH * (second + unasked)
    assert of_an_update(bcq.bcq, config, BATCH) == expected


def test_off2ons():
    config = off2on.Off2OnConfig(num_agents=NUM_AGENTS, num_actions=NUM_ACTIONS, **WIDE)

    def init(key):
        return off2on.combine(off2on.offline(SPEC, config).init(key), config)

    found = of_an_update(off2on.online, config, BATCH, init=init)
    counted = flop.off2on_online(SPEC, config, BATCH)
    assert counted == pytest.approx(found, rel=0.05)
    found = of_an_update(off2on.offline, config, NUM_AGENTS * BATCH)
    counted = flop.off2on_offline(SPEC, config, BATCH)
    assert counted == pytest.approx(found, rel=0.05)


def test_fowms():
    found = of_an_update(fowm.fowm, FOWM, BATCH, FOWM.horizon)
    assert flop.fowm(SPEC, FOWM, BATCH) == found


def of_a_meta_update(make, config) -> int:
    """A batch is of two tasks, BATCH rows and a context of 4 of each."""
    rows, context = transitions(2, BATCH), transitions(2, 4)
    weight = jnp.ones((2, BATCH))
    batch = Batch(rows, weight, jnp.zeros((2, BATCH), jnp.int32), context)
    key = jax.random.key(0)
    state = jax.eval_shape(make(SPEC, config).init, key)
    traced = jax.make_jaxpr(lambda c, *rest: make(SPEC, c).update(*rest))
    return operations(traced(config, state, batch, key).jaxpr)


META = dict(
    num_tasks=2,
    context=4,
    latent_dim=3,
    widths=(WIDTH,) * 3,
    encoder_widths=(10,) * 3,
)


@pytest.mark.parametrize("online", [False, True])
def test_smacs(online):
    """What is asked twice of the same weights and rows is to be counted once."""
    config = smac.SMACConfig(**META, decoder_widths=(6,) * 2)
    found = of_a_meta_update(lambda *given: smac.smac(*given, online), config)
    q, policy, encoder = (each.forward for each in flop.meta(SPEC, config))
    twice = 2 * BATCH * (2 * q + policy + online * 2 * q) + 2 * 4 * encoder
    joint = SPEC.obs_dim + SPEC.action_dim
    # a slope is led back to all inputs, where it is wanted for some
    unasked = 2 * (SPEC.obs_dim + 3) * WIDTH if online else joint * 6
    expected = flop.smac(SPEC, config, BATCH, online) + 2 * twice
    assert found == expected + 2 * 2 * BATCH * unasked


def test_pearls():
    """Likewise."""
    config = pearl.PEARLConfig(**META)
    encoder = flop.meta(SPEC, config).encoder.forward
    unasked = SPEC.obs_dim + SPEC.action_dim  # of critics that teach the encoder,
    unasked += SPEC.obs_dim + 3  # and of those that teach the policy
    expected = flop.pearl(SPEC, config, BATCH) + 2 * 2 * 4 * encoder
    assert of_a_meta_update(pearl.pearl, config) == (
        expected + 2 * 2 * BATCH * 2 * unasked * WIDTH
    )


def test_a_plans():
    key = jax.random.key(0)
    state = jax.eval_shape(fowm.fowm(SPEC, FOWM).init, key)
    memory = jnp.zeros((FOWM.horizon, SPEC.action_dim))
    obs = jnp.zeros(SPEC.obs_dim)
    traced = jax.make_jaxpr(lambda c, *rest: fowm.search(SPEC, c, *rest))
    found = operations(traced(FOWM, state, memory, obs, key).jaxpr)
    # the search's own products, of weights and elites, are not among those counted
    assert flop.plan(SPEC, FOWM) == pytest.approx(found, rel=0.01)
