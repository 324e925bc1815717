"""FOWM beside fyhMer/fowm: updates, planner, and prioritised replay."""

import importlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import harness, recorded
from benchmarks.parity.harness import (
    DTYPE,
    OPTIONS,
    Over,
    drawn,
    fresh,
    layer,
    rows,
    shake,
)
from benchmarks.parity.report import Departure, Report, Weights
from o2ojax import planning
from o2ojax.agents import fowm, fowm_networks, fowm_planning
from o2ojax.replay import sum_tree, windows
from o2ojax.types import Batch, Info, Metrics

O, A, B, H = 5, 3, 16, 5  # noqa: E741
LARGE = 1.0  # weights with which gradients are so large that they are cut
PLANNED = 0.5  # and with which the policy reaches the border of [-1, 1]
SMALL: dict[str, Any] = dict(
    latent_dim=10,
    width=24,
    encoder_width=16,
    num_samples=32,
    num_proposals=6,
    num_elites=8,
)
HOPPER = fowm.FOWMConfig(**SMALL)
FREE = fowm.FOWMConfig(**SMALL, penalty=0.0)
XARM = fowm.FOWMConfig(**SMALL, gamma=0.9, expectile=0.9, penalty=1.0, iterations=6.0)

# no numbers that are always single
planning.jnp = fowm_planning.jnp = Over(jnp, float32=DTYPE)


# --- weights


def parts(params: Any, *names: str) -> list[np.ndarray]:
    """Some layers and norms of a network."""
    return [x for name in names for x in layer(params[name])]


def trunk(params: Any) -> list[np.ndarray]:
    """Two normalised layers."""
    return parts(params, "Dense_0", "LayerNorm_0", "Dense_1", "LayerNorm_1")


def encoder(params: Any) -> list[np.ndarray]:
    """The encoder."""
    p = params["params"]
    return parts(p, "Dense_0") + parts(p["Latent_0"], "Dense_0", "LayerNorm_0")


def dynamics(params: Any) -> list[np.ndarray]:
    """The dynamics."""
    p = params["params"]
    return trunk(p["NormedMLP_0"]) + parts(p["Latent_0"], "Dense_0", "LayerNorm_0")


def head(params: Any) -> list[np.ndarray]:
    """Reward and policy."""
    p = params["params"]
    return trunk(p["NormedMLP_0"]) + parts(p, "Dense_0")


def value(params: Any) -> list[np.ndarray]:
    """V, or a critic."""
    return parts(params["params"], "Dense_0", "LayerNorm_0", "Dense_1", "Dense_2")


def critics(params: Any) -> list[np.ndarray]:
    """All critics."""
    num = len(jax.tree.leaves(params)[0])
    return [x for at in range(num) for x in value(harness.member(params, at))]


def weights(state: fowm.FOWMState) -> Weights:
    """By network."""
    p, target = state.model.params, state.target
    return dict(
        encoder=encoder(p["encoder"]),
        dynamics=dynamics(p["dynamics"]),
        reward=head(p["reward"]),
        critics=critics(p["critic"]),
        value=value(p["value"]),
        policy=head(state.actor.params),
        target_encoder=encoder(target["encoder"]),
        target_critics=critics(target["critic"]),
    )


def both(title: str, config: fowm.FOWMConfig, size: float = 0.1, **given: Any) -> tuple:
    """Our agent and its state, and the original with the same weights.

    Args:
        size: of biases, see `harness.drawn`.
        given: to the original, see `theirs.fowm`.
    """
    agent = fowm.fowm(harness.spec(O, A), config)
    state, rng = harness.blank(agent.init), np.random.default_rng(OPTIONS.seed)
    model = drawn(state.model.params, rng, size)
    target = {name: model[name] for name in ("encoder", "critic")}
    state = state._replace(
        model=fresh(state.model, model),
        actor=fresh(state.actor, drawn(state.actor.params, rng, size)),
        target=shake(target, rng, 0.05),
    )
    them = recorded.original("fowm", title, weights(state), config, **given)
    return agent, state, them


# --- updates


def terms(m: Metrics, error: Any) -> dict[str, Any]:
    """Weighted loss terms of an update, and its priorities [B]."""
    return dict(
        consistency=m["consistency_loss"],
        reward=m["reward_loss"],
        Q=m["critic_loss"],
        V=m["value_loss"],
        q=m["q"],
        priorities=np.clip(error, 0, 1e4),
    )


def updates(
    title: str, config: fowm.FOWMConfig, online: bool = False, size: float = 0.1
) -> Report:
    """Some updates."""
    agent, state, them = both(title, config, size, cuts=size == LARGE)
    report = Report(title)
    report.begin(weights(state))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data = rows(200 + at, (B, H), O, A)
        weight = np.random.default_rng(at).uniform(0.2, 1, B).astype(DTYPE)
        key = jax.random.key(1000 + at)
        batch = Batch(jax.tree.map(jnp.asarray, data), jnp.asarray(weight), ())
        state, info = update(state, batch, key)
        told = them.update(data, weight, 1 + at, online, key)
        report.note(terms(info.metrics, info.td_error), told)
        report.weight(weights(state), them.weights())
    return report


# --- plans


def plans(
    title: str,
    config: fowm.FOWMConfig,
    explores: bool = True,
    guard: float = 1e-6,
    departure: Departure | None = None,
) -> Report:
    """An episode's first three plans, with what is left of each for the next."""
    agent, state, them = both(title, config, PLANNED, guard=guard)
    nets = fowm.make_networks(harness.spec(O, A), config)
    policy = agent.explore if explores else agent.exploit
    memory = harness.cast(policy.start(state, (), jax.random.key(0)))
    act = jax.jit(policy.act)
    search = jax.jit(lambda *given: fowm_planning.search(nets, config, state, *given))
    report = Report(title, departure)
    for at in range(3):
        obs, key = rows(300 + at, (), O, A).obs, jax.random.key(2000 + at)
        key_plan, key_choice, key_noise = jax.random.split(key, 3)
        found = search(memory, obs, key_plan)
        action, memory = act(state, memory, obs, key)
        weight = found.weight
        chosen = int(jax.random.choice(key_choice, len(weight), p=weight))
        told = them.plan(obs, at == 0, explores, chosen, (key_plan, key_noise))
        report.note(dict(action=action, mean=found.mean, chances=weight), told)
    return report


def worths(title: str, config: fowm.FOWMConfig) -> Report:
    """What 20 given plans are worth."""
    _, state, them = both(title, config, guard=0.0)
    nets = fowm.make_networks(harness.spec(O, A), config)
    p, pair = state.model.params, jnp.array([3, 1])
    world = planning.Model(
        next=lambda z, a: nets.dynamics.apply(p["dynamics"], z, a),
        reward=lambda z, a: nets.reward.apply(p["reward"], z, a),
        values=lambda z, a: nets.critic.apply(p["critic"], z, a),
        alive=lambda z, a: jnp.asarray(1.0, DTYPE),
    )
    rng = np.random.default_rng(5)
    given = rng.uniform(-1, 1, (20, H, A)).astype(DTYPE)
    noise = rng.normal(size=(20, A)).astype(DTYPE)
    z = jax.jit(nets.encoder.apply)(p["encoder"], rng.normal(size=O).astype(DTYPE))

    def worth(plan, noise):
        def last_action(z):
            action = nets.actor.apply(state.actor.params, z)
            return fowm_networks.noisy_action(action, noise, config.noise)

        return planning.imagined_return(
            world, z, plan, last_action, pair, config.gamma, config.penalty
        )

    report = Report(title)
    ours = dict(worth=jax.jit(jax.vmap(worth))(given, noise))
    report.note(ours, them.worth(z, given, noise, pair))
    return report


# --- replay


def terms_of_draw(store: windows.Windows, batch: Batch, num: int) -> dict[str, Any]:
    """Chances, and of windows the steps that count for a loss."""
    tree, data = store.priorities["data"], batch.data
    counts = windows.until_last(data.last).T
    found = {
        "chances": tree[0].reshape(-1)[:num] / sum_tree.total(tree),
        "weights": batch.weight,
        "obs": data.obs[:, 0],
        "counted steps": counts,
    }
    for name, ours in (
        ("next_obs", data.next_obs),
        ("action", data.action),
        ("reward", data.reward[..., None]),
        ("mask", data.discount[..., None]),
    ):
        found[name] = np.swapaxes(np.asarray(ours), 0, 1) * counts[..., None]
    return found


def errors_of(index: np.ndarray, seed: int) -> np.ndarray:
    """TD errors, equal for equal rows, one of them above the highest that counts."""
    errors = np.random.default_rng(seed).exponential(3.0, len(index))
    errors[0] = 3e4
    _, first, inverse = np.unique(index, return_index=True, return_inverse=True)
    return errors[first][inverse].astype(DTYPE)


def replay(title: str, num: int = 40, num_drawn: int = 12) -> Report:
    """Chances, weights and windows of a dataset, as priorities change."""
    data = rows(400, (num,), O, A)
    data.last[-1] = True
    theirs = importlib.import_module("benchmarks.parity.theirs.fowm")
    them = theirs.Replay(data, num_drawn)
    ours = windows.offline(jax.tree.map(jnp.asarray, data), H, num_drawn)
    store = ours.init()
    report = Report(title, Departure("its store is in single precision", 1e-6))
    for at in range(4):
        before = store
        store, batch = ours.sample(store, jax.random.key(at))
        index = np.asarray(batch.index)
        report.note(terms_of_draw(before, batch, num), them.sample(index))
        error = errors_of(index, at)
        store = ours.update_priorities(store, batch, Info({}, jnp.asarray(error)))
        them.update_priorities(error)
    return report


# --- comparisons, by the published settings, with small networks


def same() -> Iterator[Report]:
    """Updates, and what plans are worth."""
    yield updates("FOWM, hopper", HOPPER)
    yield updates("FOWM, hopper, gradients clipped", HOPPER, size=LARGE)
    yield updates("FOWM, xArm, half of it from the dataset", XARM, online=True)
    yield worths("FOWM, worth of plans, no guard", HOPPER)


def departing() -> Iterator[Report]:
    """Plans, and the store."""
    sums = Departure("it adds 1e-9 to a sum of weights that is 1", 2e-8)
    for name, config in (("hopper", HOPPER), ("no price", FREE), ("xArm", XARM)):
        title = f"FOWM, plans to explore, {name}, no guard"
        yield plans(title, config, guard=0.0, departure=sums)
    inside = Departure("its noisy actions stay 1e-6 inside [-1, 1]", 5e-6)
    yield plans("FOWM, plans to explore, hopper", HOPPER, departure=inside)
    yield plans("FOWM, plans to be judged, hopper", HOPPER, False, departure=inside)
    yield plans("FOWM, plans to explore, xArm", XARM, departure=inside)
    with np.errstate(all="ignore"):
        yield replay("FOWM, prioritised replay")
