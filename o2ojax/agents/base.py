"""What algorithm files share: the registry's entry, critics, blanks to start from."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from o2ojax import fields, registry
from o2ojax.errors import RAISED, UserError
from o2ojax.networks import ACTIVATIONS, Critic, Ensemble, Init
from o2ojax.replay.store import Needs
from o2ojax.types import Agent, Array, EnvSpec, Obs, Recipe, Transition


class Plan(NamedTuple):
    """What a recipe may know of the run it is part of.

    offline_updates: of each member.
    online_steps:    of each member; 0 for a run that stays offline.
    obs_mean, obs_std: [O]  of the dataset's observations; 0 and 1 without one.
    online_updates:  of each member, in its online steps.
    """

    offline_updates: int
    online_steps: int
    obs_mean: Array | float = 0.0
    obs_std: Array | float = 1.0
    online_updates: int = 0


def nothing_to_check(*given) -> None:
    """Of an algorithm that goes with every config that its fields accept."""


class Algorithm(NamedTuple):
    """An entry of the registry.

    config: the class of its hyper-parameters, declared as in `fields`.
    recipe: (spec, config, plan) -> Recipe.
    needs:  (config) -> the `replay.Needs` of its stores.
    check:  (run config) -> None. Raises UserError for a config that cannot work.
    check_task: (run config, spec) -> None; likewise, once the environment is known.
    offline_only: what to know before going online with the agents of a run that was
        planned to stay offline; "" where it makes no difference.
    longer: by phase, what to know before a run's phase becomes longer than planned.
    batches: (config) -> how many batches an offline update takes, in one.
    online_batches: (config) -> likewise, an online update.
    trial: (config) -> of how many episodes a trial is by which it is judged. Above 0,
        every round of the online phase begins new trials, of other tasks.
    whole_batch: why devices cannot share its batches; "" where all its losses are means
        over rows, so that the mean of the parts' gradients is that of the whole.
    warm_starts: whose offline agents it can go on from, besides its own, by their
        algorithm: (their agent state, config) -> its own agent state.
    """

    config: type
    recipe: Callable[[EnvSpec, Any, Plan], Recipe]
    needs: Callable[[Any], Needs] = lambda config: Needs()
    check: Callable[[Any], None] = nothing_to_check
    check_task: Callable[[Any, EnvSpec], None] = nothing_to_check
    offline_only: str = ""
    longer: Mapping[str, str] = MappingProxyType({})
    batches: Callable[[Any], int] = lambda config: 1
    online_batches: Callable[[Any], int] = lambda config: 1
    trial: Callable[[Any], int] = lambda config: 0
    whole_batch: str = ""
    warm_starts: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType({})


def adopt(found: Any, name: str) -> Algorithm:
    """What is behind a door, as an entry.

    Raises:
        UserError: it is no Algorithm, or its config has a field that cannot be traced,
            or it lacks a function; and so does each of its functions that are called
            before a run begins, where it fails, or returns something else.
    """
    if not isinstance(found, Algorithm):
        raise UserError(
            f"{name} is of type {type(found).__name__}; it must be an"
            " o2ojax.agents.Algorithm"
        )
    if not dataclasses.is_dataclass(found.config):
        raise UserError(f"{name}: its config must be a class under @fields.config")
    for declared in dataclasses.fields(found.config):
        if declared.default is dataclasses.MISSING:
            raise UserError(
                f"{name}: field {declared.name} of its config has no default"
            )
        if fields.is_traced(declared) and type(declared.default) is not float:
            raise UserError(
                f"{name}: field {declared.name} of its config is"
                f" {declared.default!r}; only a float can be traced: declare it by"
                " fields.whole, fields.flag or another of o2ojax.fields"
            )
    for what in ("recipe", *ASKED):
        if not callable(getattr(found, what)):
            raise UserError(f"{name}: its {what} must be a function")
    if not registry.is_door(name) or name.startswith("o2ojax."):
        return found
    return found._replace(**{what: _asked(found, what, name) for what in ASKED})


# Functions of an Algorithm that are called before a run begins, and what they return.
ASKED = {
    "needs": Needs,
    "check": object,
    "check_task": object,
    "batches": int,
    "online_batches": int,
    "trial": int,
}


def _asked(found: Algorithm, what: str, name: str) -> Callable:
    """A function of a stranger's, whose failure is told as that of its file."""

    def asked(*given: Any) -> Any:
        try:
            made = getattr(found, what)(*given)
        except UserError:
            raise
        except RAISED as error:
            raise registry.failure(name, error) from error
        if not isinstance(made, ASKED[what]):
            raise UserError(
                f"{name}: its {what} returns a {type(made).__name__}; it must return"
                f" a {ASKED[what].__name__}"
            )
        return made

    return asked


def keep_learning(agent: Agent) -> Recipe:
    """The same agent offline and online."""
    return Recipe(agent, agent)


def fields_for(kind: type, config: Any) -> dict[str, Any]:
    """The values of a config's fields that another class of configs has, too."""
    shared = {field.name for field in dataclasses.fields(kind)}
    given = {field.name for field in dataclasses.fields(config)} & shared
    return {name: getattr(config, name) for name in given}


def critics(
    config: Any,
    hidden_init: Init = Critic.hidden_init,
    output_init: Init = Critic.output_init,
    norm_after: bool = False,
) -> Ensemble:
    """An agent's critics: obs [..., O], action [..., A] -> [E, ...], see `Critic`.

    Args:
        config: the agent's, whose fields `num_critics`, `widths`, `layer_norm` and
            `activation`, a name among `networks.ACTIVATIONS`, tell what they are like.
        hidden_init, output_init: of the weights of all layers but the last, and of it.
        norm_after: whether `layer_norm` follows the activations, see `networks.MLP`.
    """
    one = Critic(
        config.widths,
        hidden_init,
        output_init,
        config.layer_norm,
        ACTIVATIONS[config.activation],
        norm_after,
    )
    return Ensemble(one, config.num_critics)


def check_subset(config: Any) -> None:
    """Refuses a target's critics that are more than there are critics.

    Args:
        config: an agent's, with the fields `num_critics` and `num_target_critics`.
    """
    if config.num_target_critics > config.num_critics:
        raise UserError(
            f"config.agent.num_target_critics is {config.num_target_critics}; a target"
            f" takes at most all {config.num_critics} critics of"
            " config.agent.num_critics"
        )


def blank_obs(spec: EnvSpec) -> Obs:
    """An observation to shape networks by, without leading axes."""
    return jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), spec.obs)


def blank_action(spec: EnvSpec) -> Array:
    """An action to shape networks by, [A]."""
    return jnp.zeros(spec.action_dim)


def blank_transition(spec: EnvSpec) -> Transition:
    """A transition to shape stores by, no leading axes."""
    return Transition(
        obs=blank_obs(spec),
        action=blank_action(spec),
        reward=jnp.zeros(()),
        discount=jnp.zeros(()),
        next_obs=blank_obs(spec),
        last=jnp.zeros((), bool),
        task=jnp.zeros((), jnp.int32),
    )
