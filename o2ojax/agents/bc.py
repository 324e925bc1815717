"""Behaviour cloning: do what the data did.

The policy is IQL's, learned at a constant rate from the likelihood of the data.
Pomerleau, "ALVINN: An Autonomous Land Vehicle in a Neural Network", NeurIPS 1988.
"""

from typing import NamedTuple

import optax

from o2ojax import fields, learning, networks, policies, vision
from o2ojax.agents import base
from o2ojax.fields import choice, positive, sizes, whole
from o2ojax.learning import TrainState, gradient_step
from o2ojax.types import Agent, Batch, EnvSpec, Info, Key, Recipe


@fields.config
class BCConfig:
    """Behaviour cloning has few choices."""

    lr: float = positive(3e-4)
    widths: tuple[int, ...] = sizes(256, 256)
    # of images, if there are any
    encoder: str = choice(*vision.ENCODERS)  # convolutions; its own loss trains them
    shift: int = whole(4)  # up to so many pixels, at random


class BCState(NamedTuple):
    """All that behaviour cloning learns."""

    actor: TrainState


def bc(spec: EnvSpec, config: BCConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net = networks.GaussianActor(spec.action_dim, config.widths)
    actor_net = vision.sighted(spec, config, actor_net)
    optimiser = optax.adam(config.lr)

    def init(key: Key) -> BCState:
        params = actor_net.init(key, base.blank_obs(spec))
        return BCState(learning.init(optimiser, params))

    def update(state: BCState, batch: Batch, key: Key) -> tuple[BCState, Info]:
        del key  # The loss draws no samples.

        # Actor: the likelihood of the data's actions.
        def actor_loss(params):
            policy = actor_net.apply(params, batch.data.obs)
            log_prob = policy.log_prob(batch.data.action)
            loss = -(batch.weight * log_prob).mean()
            return loss, {"actor_loss": loss}

        actor, metrics = gradient_step(optimiser, state.actor, actor_loss)
        return BCState(actor), Info(metrics)

    explore, exploit = policies.gaussian(
        lambda state, obs: actor_net.apply(state.actor.params, obs)
    )
    return vision.shifting(spec, config, Agent(init, update, explore, exploit))


def recipe(spec: EnvSpec, config: BCConfig, plan: base.Plan) -> Recipe:
    """Online, it imitates the data and itself."""
    del plan
    return base.keep_learning(bc(spec, config))


ALGORITHM = base.Algorithm(BCConfig, recipe)
