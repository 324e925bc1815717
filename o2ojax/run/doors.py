"""What would fail inside a run of a stranger's algorithm or store, found before it.

One update of each phase is traced for one member: shapes are worked out, and nothing is
computed. What fails is told in one sentence, with its place in the stranger's file.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from o2ojax import registry, replay
from o2ojax.agents import Algorithm, base
from o2ojax.errors import RAISED, UserError, first_line
from o2ojax.run import population
from o2ojax.types import Agent, Batch, Buffer, EnvSpec, Info, Policy, Transition


class DoorWarning(UserWarning):
    """Something in a stranger's file that works, and may not be meant."""


def check(
    names: Sequence[str],
    algorithm: Algorithm,
    spec: EnvSpec,
    sizes: population.Sizes,
    member: population.Member,
    dataset: Transition | None,
) -> None:
    """Traces an update of each phase, if an algorithm or a store is a stranger's.

    Args:
        names: of the algorithm and of the store.
    Raises:
        UserError: they fail, or return something that a run cannot go on with.
    """
    strangers = [name for name in names if registry.is_door(name)]
    if not strangers:
        return
    store = sizes.store._replace(
        online=_checked(sizes.store.online), offline=_checked(sizes.store.offline)
    )
    stages_of = population.stages(algorithm, spec, sizes._replace(store=store))

    def walk(member, dataset):
        _walk(stages_of(member, dataset), sizes, member, spec)

    try:
        with jax.numpy_rank_promotion("allow"):
            jax.eval_shape(walk, member, dataset)
    except UserError:
        raise
    except RAISED as error:
        raise registry.failure(_blamed(strangers, error), error) from error
    try:
        with jax.numpy_rank_promotion("raise"):
            jax.eval_shape(lambda *given: walk(*given), member, dataset)
    except ValueError as error:
        warnings.warn(
            f"{registry.place(_blamed(strangers, error), error)} lets shapes of"
            " different ranks meet, which are broadcast. See that it is meant: where"
            f" [B] meets [B, 1], every row meets every other ({first_line(error)})",
            DoorWarning,
            stacklevel=2,
        )


def _walk(course: population.Stages, sizes: population.Sizes, member, spec) -> None:
    (agent, buffer), (online_agent, ring), hand_over = course
    key = member.key
    state, store = agent.init(key), buffer.init()
    if sizes.offline_updates:
        _learn(agent, buffer, state, store, key)
    if sizes.online_steps:
        state, store = hand_over(state, store, ring.init(), key)
        gathered = _act(online_agent.explore, ring, state, store, key, spec)
        new = jax.tree.map(
            lambda x: jnp.zeros((sizes.num_envs, *x.shape), x.dtype), gathered
        )
        store = ring.add(store, new) if ring.add else store
        _learn(online_agent, ring, state, store, key)
        agent, buffer = online_agent, ring
    for policy in (agent.explore, agent.exploit):
        _act(policy, buffer, state, store, key, spec)
    if agent.q is not None:
        _ask(agent.q, state, spec)


def _ask(q: Callable, state, spec: EnvSpec) -> None:
    """Asks the critics about three rows."""
    rows = jax.tree.map(
        lambda x: jnp.zeros((3, *x.shape)), (spec.obs, base.blank_action(spec))
    )
    found = q(state, *rows)
    if jnp.ndim(found) != 2 or jnp.shape(found)[1] != 3:
        raise UserError(
            f"the agent's `q` returns {_form(found)} for 3 rows; it must be of the"
            " shape [E, 3], with what each of E critics says"
        )


def _act(
    policy: Policy, buffer: Buffer, state, store, key, spec: EnvSpec
) -> Transition:
    """Begins a trial, acts once, and returns what would be stored of it."""
    memory = policy.start(state, buffer.trial_context(store, jnp.int32(0), key), key)
    action, after = policy.act(state, memory, base.blank_obs(spec), key)
    if jnp.shape(action) != (spec.action_dim,):
        raise UserError(
            "a policy's `act` returns an action of the shape"
            f" {list(jnp.shape(action))}; it must be [{spec.action_dim}]"
        )
    _expect(memory, after, "a policy's `act`", "the memory")
    transition = base.blank_transition(spec)
    after, stored = policy.observe(state, memory, transition)
    _expect(memory, after, "a policy's `observe`", "the memory")
    plain = stored._replace(extras={})
    _expect(transition, plain, "a policy's `observe`", "the transition")
    return stored


def _learn(agent: Agent, buffer: Buffer, state, store, key) -> None:
    """Samples a batch and updates from it."""
    _, batch = buffer.sample(store, key)
    found = agent.update(state, batch, key)
    after, info = _pair(found, Info, "the agent's `update`", "(state, Info)")
    _expect(state, after, "the agent's `update`", "the state")
    for name, value in info.metrics.items():
        if jnp.shape(value):
            raise UserError(
                f"the metric {name!r} of the agent's `update` has the shape"
                f" {list(jnp.shape(value))}; it must be a single number"
            )


def _checked(make: Callable) -> Callable:
    """A store's builder, whose buffers check what they return."""

    def build(inputs: replay.Inputs, options: Any) -> Buffer:
        buffer = make(inputs, options)

        def sample(store, key):
            found = buffer.sample(store, key)
            what = "the store's `sample`"
            after, batch = _pair(found, Batch, what, "(replay, Batch)")
            _expect(store, after, "the store's `sample`", "the store")
            if inputs.needs.kind != replay.TASKS:
                _expect_rows(batch, inputs.batch)
            return after, batch

        def add(store, transitions):
            after = buffer.add(store, transitions)
            _expect(store, after, "the store's `add`", "the store")
            return after

        return buffer._replace(sample=buffer.sample and sample, add=buffer.add and add)

    return build


def _pair(found: Any, kind: type, what: str, right: str) -> tuple:
    """What is found, if it is a pair that ends in something of this kind."""
    if type(found) is tuple and len(found) == 2 and isinstance(found[1], kind):
        return found
    told = f"a {type(found).__name__}"
    if type(found) is tuple and found:
        told += f" that ends in a {type(found[-1]).__name__}"
    raise UserError(f"{what} must return {right}, and it returns {told}")


def _expect(before: Any, after: Any, what: str, whose: str) -> None:
    """A program goes on with what it returns: shapes and types must stay."""
    old, new = (jax.tree.structure(tree) for tree in (before, after))
    if old != new:
        ways = [
            {
                jax.tree_util.keystr(path)
                for path, _ in jax.tree_util.tree_leaves_with_path(tree)
            }
            for tree in (before, after)
        ]
        differing = sorted(ways[0] ^ ways[1])
        where = f": {differing[0]} is in one of them alone" if differing else ""
        raise UserError(
            f"{what} must return {whose} in the form in which it was given{where}"
        )
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(before),
        jax.tree.leaves(after),
        strict=True,
    ):
        if (jnp.shape(a), jnp.result_type(a)) != (jnp.shape(b), jnp.result_type(b)):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise UserError(
                f"{what} changes {f'{name} of ' * bool(name)}{whose} from {_form(a)} to"
                f" {_form(b)}; shapes and types must stay"
            )


def _form(x: Any) -> str:
    return f"{jnp.result_type(x)}{list(jnp.shape(x))}"


def _expect_rows(batch: Batch, num: int) -> None:
    parts = {"weight": batch.weight, "index": batch.index}
    for name, part in parts.items():
        if jnp.shape(part) != (num,):
            raise UserError(
                f"`{name}` of the store's batch has the shape {list(jnp.shape(part))};"
                f" it must be [{num}], as `inputs.batch` is"
            )
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch.data):
        if jnp.shape(leaf)[:1] != (num,):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise UserError(
                f"`{name}` of the store's batch has the shape {list(leaf.shape)}; it"
                f" must have {num} rows, as `inputs.batch` is"
            )


def _blamed(strangers: Sequence[str], error: Exception) -> str:
    """The stranger whose file an error has come through; else all of them."""
    through = [name for name in strangers if registry.place(name, error) != name]
    return through[0] if through else " and ".join(strangers)
