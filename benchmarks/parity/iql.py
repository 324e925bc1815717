"""IQL beside ikostrikov/implicit_q_learning, which is in JAX, too."""

from collections.abc import Iterator
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from benchmarks.parity import harness
from benchmarks.parity.harness import DTYPE, OPTIONS, fresh, rows, shake
from benchmarks.parity.report import Report
from o2ojax.agents import iql

O, A, B = 5, 3, 16  # noqa: E741
WIDTHS = (32, 24)
NUM_STEPS = 10  # of the cosine


def load_original() -> Any:
    """Its `learner`, under the names that it expects of older releases."""
    flax.config.update("flax_return_frozendict", True)
    jax.tree_multimap = jax.tree_util.tree_map
    jit = jax.jit

    def lenient_jit(function, **kwargs):
        # It names a static argument that its function does not have.
        if kwargs.get("static_argnames") == ("actor_def", "distribution"):
            kwargs["static_argnames"] = ("actor_def",)
        return jit(function, **kwargs)

    jax.jit = lenient_jit
    (learner,) = harness.original("implicit_q_learning", "learner")
    jax.jit = jit
    return learner


LEARNER = load_original()


def their_actor(params: Any) -> Any:
    """Our policy's weights, as theirs are nested."""
    dense = params["params"]["MLP_0"]
    last = f"Dense_{len(WIDTHS)}"
    hidden = {name: dense[name] for name in dense if name != last}
    log_std = params["params"]["log_std"]
    return {"MLP_0": hidden, "Dense_0": dense[last], "log_stds": log_std}


def their_critic(params: Any) -> Any:
    """Our critics' weights, as theirs are nested."""
    return {f"Critic_{at}": harness.member(params["params"], at) for at in range(2)}


def nested_as_theirs(state: iql.IQLState) -> dict[str, Any]:
    """All weights, by the original's names of networks."""
    return dict(
        actor=their_actor(state.actor.params),
        critic=their_critic(state.critic.params),
        value=state.value.params["params"],
        target_critic=their_critic(state.target_critic),
    )


def groups(state: iql.IQLState, them: Any) -> dict[str, list]:
    """Theirs and ours, tensor by tensor."""

    def pairs(ours, theirs):
        theirs = jax.tree.leaves(flax.core.unfreeze(theirs.params))
        return list(zip(theirs, jax.tree.leaves(ours), strict=True))

    return {
        name: pairs(ours, getattr(them, name))
        for name, ours in nested_as_theirs(state).items()
    }


def shaken(state: iql.IQLState, key: jax.Array) -> iql.IQLState:
    """Every network moved, and the target apart from its own."""
    k = jax.random.split(key, 4)
    critic = shake(state.critic.params, k[1])
    return iql.IQLState(
        actor=fresh(state.actor, shake(state.actor.params, k[0])),
        critic=fresh(state.critic, critic),
        value=fresh(state.value, shake(state.value.params, k[2])),
        target_critic=shake(critic, k[3], 0.05),
    )


def their_learner(config: iql.IQLConfig, state: iql.IQLState, cosine: bool) -> Any:
    """The original, with our weights."""
    them = LEARNER.Learner(
        0,
        jnp.zeros((1, O), DTYPE),
        jnp.zeros((1, A), DTYPE),
        hidden_dims=WIDTHS,
        expectile=config.expectile,
        temperature=config.beta,
        dropout_rate=config.dropout or None,
        max_steps=NUM_STEPS,
        opt_decay_schedule="cosine" if cosine else None,
    )
    for name, params in nested_as_theirs(state).items():
        model, params = getattr(them, name), flax.core.freeze(params)
        opt_state = model.tx.init(params) if model.tx else None
        setattr(them, name, model.replace(params=params, opt_state=opt_state))
    return them


def compare(title: str, cosine: bool = False, **changed: float) -> Report:
    """Some updates, and the judged action."""
    config = iql.IQLConfig(widths=WIDTHS, **changed)
    decay = optax.cosine_decay_schedule(config.lr, NUM_STEPS) if cosine else None
    agent = iql.iql(harness.spec(O, A), config, decay)
    key = jax.random.key(OPTIONS.seed)
    state = shaken(agent.init(key), key)
    them = their_learner(config, state, cosine)
    report = Report(title)
    report.begin(**groups(state, them))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data = rows(100 + at, (B,), O, A)
        # the original's own key for its dropout
        state, info = update(
            state, harness.batch_of(data), jax.random.split(them.rng)[0]
        )
        told = them.update(
            LEARNER.Batch(
                data.obs, data.action, data.reward, data.discount, data.next_obs
            )
        )
        m = info.metrics
        for name in ("value_loss", "actor_loss", "critic_loss"):
            report.term(name, m[name], told[name])
        report.term("v", m["value"], told["v"])
        report.term("q", m["q"], (told["q1"] + told["q2"]) / 2)
        report.term("advantage", m["advantage"], told["adv"].mean())
        report.weight(**groups(state, them))
    obs = rows(7, (), O, A).obs
    judged, _ = agent.exploit.act(state, (), obs, key)
    report.term("judged action", judged, them.sample_actions(obs, temperature=0.0))
    return report


def comparisons() -> Iterator[Report]:
    """The published settings."""
    yield compare("IQL, locomotion, constant rate")
    yield compare("IQL, cosine", cosine=True)
    yield compare("IQL, mazes", expectile=0.9, beta=10.0)
    yield compare("IQL, dropout", dropout=0.1, beta=0.5)
