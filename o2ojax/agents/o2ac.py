"""In the manner of O2AC: TD3+BC that trusts high values less, and lets go online.

The Offline-Online Actor-Critic (IEEE Transactions on Artificial Intelligence, 2024)
weighs values by a function of themselves that damps over-estimated samples. The paper
was not available to us: the form of that function is our own, and so is the annealing
of the distance to the data online; no parity with its results is claimed.
"""

import jax.numpy as jnp
import optax

from o2ojax import fields, losses
from o2ojax.agents import base, td3_bc
from o2ojax.fields import non_negative
from o2ojax.types import Agent, EnvSpec, Recipe


@fields.config
class O2ACConfig(td3_bc.TD3BCConfig):
    """TD3+BC's, and what is new."""

    damping: float = non_negative(1.0)  # of values above the batch's mean; 0 damps none
    # weight of the distance to the data when online ends
    final_bc: float = non_negative(0.0)


def o2ac(
    spec: EnvSpec,
    config: O2ACConfig,
    plan: base.Plan,
    bc_schedule: optax.Schedule | None = None,
) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    return td3_bc.td3_bc(
        spec,
        config,
        plan.obs_mean,
        plan.obs_std,
        weigh=lambda q: losses.overestimation_weight(q, config.damping),
        bc_schedule=bc_schedule,
    )


def recipe(spec: EnvSpec, config: O2ACConfig, plan: base.Plan) -> Recipe:
    """Online, the distance to the data counts for less and less.

    Its weight falls linearly over as many updates as there are online steps: at one
    update for each step, the published rate of TD3, by the end.
    """
    online_schedule = optax.linear_schedule(1.0, config.final_bc, plan.online_steps)

    def hand_over(agent_state, old, fresh, key):
        """The count of updates begins anew, and the schedule with it."""
        del old, key
        return agent_state._replace(step=jnp.zeros_like(agent_state.step)), fresh

    return Recipe(
        offline=o2ac(spec, config, plan),
        online=o2ac(spec, config, plan, online_schedule),
        hand_over=hand_over,
    )


ALGORITHM = base.Algorithm(
    O2ACConfig,
    recipe,
    whole_batch="its actor's loss is divided by the mean size of all rows' values",
    longer={
        "online": "the weight of the distance to the data fell over the steps that"
        " there were to be; it rises again, to where that of a run of the new length is"
        " by now"
    },
)
