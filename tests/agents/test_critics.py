"""Critics are built from the same fields of all agents' configs that have some."""

import dataclasses

import jax
import pytest

from o2ojax import networks
from o2ojax.agents import AGENTS, base
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
WITH_CRITICS = [name for name in AGENTS if name not in ("bc", "fowm")]
# How many there are as published, whether they are normalised, and their activation;
# most: 2, not, and ReLUs.
PUBLISHED = {
    "fql": (2, True, "gelu"),
    "ifql": (2, True, "gelu"),
    "rebrac": (2, True, "relu"),
    "rlpd": (10, True, "relu"),
    "wsrl": (10, True, "relu"),
}


def offline_agent(name, **fields):
    algorithm = AGENTS.find(name)
    config = dataclasses.replace(algorithm.config(), **fields)
    return algorithm.recipe(SPEC, config, base.Plan(1, 1)).offline


def weights(part):
    """Shapes of an agent's part by their paths, as "params/MLP_0/Dense_0/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(part)[0]
    }


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_their_number_their_layers_and_their_activation_are_the_configs(
    name, monkeypatch
):
    called, real = [], networks.ACTIVATIONS["silu"]
    monkeypatch.setitem(
        networks.ACTIVATIONS, "silu", lambda x: called.append(x.shape) or real(x)
    )
    fields = dict(num_critics=3, widths=(7, 5), layer_norm=True, activation="silu")
    if hasattr(AGENTS.find(name).config(), "actor_layer_norm"):
        fields["actor_layer_norm"] = False
    agent = offline_agent(name, **fields)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    critic = weights(state.target_critic)
    lead = (5, 3) if name == "off2on" else (3,)  # of each of its agents
    for at, width in enumerate((7, 5)):
        assert critic[f"params/MLP_0/LayerNorm_{at}/scale"] == (*lead, width)
    assert critic["params/MLP_0/Dense_2/kernel"] == (*lead, 5, 1)
    assert {(7,), (5,)} == set(called)
    assert not any("LayerNorm" in path for path in weights(state.actor))


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_by_default_they_are_the_published_ones(name):
    config = AGENTS.find(name).config()
    num, normalised, activation = PUBLISHED.get(name, (2, False, "relu"))
    assert config.num_critics == num
    assert (config.layer_norm, config.activation) == (normalised, activation)
    state = jax.eval_shape(offline_agent(name).init, jax.random.key(0))
    layers = weights(state.target_critic)
    assert any("LayerNorm" in path for path in layers) == normalised


def test_v_is_built_as_q_is_in_iql():
    state = jax.eval_shape(
        offline_agent("iql", layer_norm=True).init, jax.random.key(0)
    )
    assert "params/MLP_0/LayerNorm_1/scale" in weights(state.value.params)
