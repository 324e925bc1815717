"""What is special about an agent, as far as tests that are asked of all must know."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from o2ojax.agents import AGENTS

NONE: Mapping[str, Any] = MappingProxyType({})


class Traits(NamedTuple):
    """One agent's row; these are those of an agent that has none.

    compiled_in: floats that are, and why.
    online_only: floats that change nothing before the online phase.
    of_an_option: floats of an option that is off.
    at_birth:    floats that an untrained agent is told.
    tried_at:    floats of which half, as is tried of all others, may change nothing.
    swept:       the float by which the members of a population differ.
    imitates:    no reward moves it; it is judged by what it imitates.
    repeats:     its draws are cut before they become actions, so that some come again.
    labels:      it tells rewards itself, online.
    judged_by_chance: its judged policy draws, too: no return can be told in advance.
    suited:      what it needs to value plain returns, and to act well on noisy data.
    """

    compiled_in: Mapping[str, str] = NONE
    online_only: tuple[str, ...] = ()
    of_an_option: tuple[str, ...] = ()
    at_birth: tuple[str, ...] = ()
    tried_at: Mapping[str, float] = NONE
    swept: str = "lr"
    imitates: bool = False
    repeats: bool = False
    labels: bool = False
    judged_by_chance: bool = False
    suited: Mapping[str, Any] = NONE


CONSERVATIVE = dict(
    init_temperature=0.01, entropy_per_dim=-3.0, actor_lr=3e-3, conservatism=0.01
)
TRAITS = {
    "awac": Traits(suited=dict(temperature=0.02)),
    "bc": Traits(imitates=True),
    "bcq": Traits(repeats=True, suited=dict(lr=1e-3, perturbation=0.5)),
    "cal_ql": Traits(
        at_birth=("init_temperature",),
        suited=CONSERVATIVE | dict(lagrange=False),
    ),
    "cql": Traits(
        of_an_option=("target_gap",),  # of `lagrange`
        at_birth=("init_temperature",),
        suited=CONSERVATIVE,
    ),
    "fowm": Traits(
        compiled_in={"termination_weight": "the network is there, or it is not"},
        online_only=(
            "penalty",
            "iterations",
            "temperature",
            "momentum",
            "min_std",
            "max_std",
            "noise",
        ),
        tried_at={
            "max_weight": 0.5,
            "max_grad": 0.01,
            "min_std": 1.0,  # elites seldom lie as close as the least std
        },
        judged_by_chance=True,
        suited=dict(expectile=0.8, beta=20.0, penalty=0.0, horizon=1),
    ),
    "fql": Traits(judged_by_chance=True, suited=dict(alpha=0.01)),
    "ifql": Traits(judged_by_chance=True, swept="expectile"),
    "iql": Traits(
        compiled_in={"dropout": "flax asks in Python whether it drops anything"},
        tried_at={"max_weight": 0.5},  # 50 is seldom reached; 0.5 always binds
        swept="expectile",
        suited=dict(expectile=0.8, beta=20.0),
    ),
    "o2ac": Traits(online_only=("exploration", "final_bc"), suited=dict(alpha=10.0)),
    "off2on": Traits(
        online_only=("online_lr",), at_birth=("init_temperature",), suited=CONSERVATIVE
    ),
    "pearl": Traits(
        judged_by_chance=True,
        suited=dict(reward_scale=1.0, temperature=0.01, kl_weight=1.0),
    ),
    "rlpd": Traits(
        at_birth=("init_temperature",),
        suited=dict(init_temperature=0.01, entropy_per_dim=-3.0),
    ),
    "rebrac": Traits(
        online_only=("exploration", "final_penalty", "online_critic_penalty"),
        suited=dict(actor_lr=3e-3),
    ),
    "sac": Traits(
        at_birth=("init_temperature",),
        suited=dict(init_temperature=0.01, entropy_per_dim=-3.0),
    ),
    "smac": Traits(
        online_only=("q_weight",),
        labels=True,
        judged_by_chance=True,
        suited=dict(reward_scale=1.0, temperature=0.02, kl_weight=1.0),
    ),
    "td3_bc": Traits(online_only=("exploration",), suited=dict(alpha=10.0)),
    "wsrl": Traits(
        at_birth=("init_temperature",),
        suited=CONSERVATIVE | dict(lagrange=False, num_critics=3),
    ),
}


def traits_of(name: str) -> Traits:
    """An agent's row; a new one needs none to be asked everything."""
    return TRAITS.get(name, Traits())


# Sizes that tests can do with.
TINY = {
    "widths": (16, 16),
    "actor_widths": (16, 16),
    "vae_widths": (16, 16),
    "num_candidates": 3,
    "num_candidates_act": 3,
    "num_actions": 4,
    "num_agents": 2,
    "critic_steps": 2,
    "horizon": 2,
    "iterations": 2.0,
    "num_samples": 8,
    "num_proposals": 3,
    "num_elites": 4,
    "latent_dim": 8,
    "encoder_width": 16,
    "width": 16,
    "encoder_widths": (16, 16),
    "decoder_widths": (16,),
    "num_tasks": 2,
    "context": 8,
    "trial_context": 8,
    "online_batch": 16,
    "trial_rows": 0,
    "flow_steps": 3,
    "exploration": 0.1,  # ReBRAC's own is none, and then nothing explores
}


def small(name: str, wanted: Mapping[str, Any] = NONE) -> Any:
    """The agent's published config, on tiny networks, with what is wanted besides."""
    config = AGENTS.find(name).config()
    known = {field.name for field in dataclasses.fields(config)}
    changes = {**TINY, **wanted}
    return dataclasses.replace(config, **{f: changes[f] for f in changes if f in known})
