"""FOWM beside fyhMer/fowm: updates, planner, and prioritised replay."""

import contextlib
import io
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import harness
from benchmarks.parity.harness import DTYPE, OPTIONS, Feed, Over, fresh, rows, shake
from benchmarks.parity.report import Departure, Report, as_numpy
from benchmarks.parity.torch_side import layer, load, tensor, torch
from o2ojax import planning
from o2ojax.agents import fowm, fowm_networks, fowm_planning
from o2ojax.replay import sum_tree, windows
from o2ojax.types import Batch, Info, Transition

O, A, B, H = 5, 3, 16, 5  # noqa: E741
LARGE = 1.0  # weights with which gradients are so large that they are cut
NORMALS, PAIRS = Feed(), Feed()
CHOSEN: dict[str, Any] = {}  # which elite we chose, and by which chances they would
TDMPC, HELPER = harness.original("fowm/src", "algorithm.tdmpc", "algorithm.helper")
CPU = torch.device("cpu")


def choice(num: Any, size: Any = None, replace: bool = True, p: Any = None) -> Any:
    """Stands in for NumPy's: of an elite, where it has chances, or of two critics."""
    if p is not None:
        CHOSEN["chances"] = np.array(p, copy=True)
        return CHOSEN["index"]
    return PAIRS.take((2,)).astype(int)


def prepare() -> None:
    """Our draws, no device but the CPU, and no numbers that are always single."""
    TDMPC.torch = Over(
        torch,
        device=lambda name: CPU,
        randn=lambda *shape, device=None: tensor(NORMALS.take(shape)),
    )
    TDMPC.np = Over(np, random=Over(np.random, choice=choice))
    HELPER._standard_normal = lambda shape, dtype, device: tensor(NORMALS.take(shape))
    torch.nn.Module.cuda = torch.Tensor.cuda = lambda self: self
    planning.jnp = fowm_planning.jnp = Over(jnp, float32=DTYPE)


prepare()


def their_config(config: fowm.FOWMConfig, batch: int = B) -> types.SimpleNamespace:
    """The original's config, by our names of the same numbers."""
    return types.SimpleNamespace(
        modality="state",
        obs_shape=(O,),
        action_dim=A,
        action_shape=(A,),
        latent_dim=config.latent_dim,
        mlp_dim=config.width,
        enc_dim=config.encoder_width,
        num_q=config.num_critics,
        lr=config.lr,
        std_schedule=config.min_std,
        horizon_schedule=config.horizon,
        horizon=config.horizon,
        batch_size=batch,
        discount=config.gamma,
        mpc=True,
        iterations=int(config.iterations),
        num_samples=config.num_samples,
        num_elites=config.num_elites,
        # int(coef * samples) must come out as our number
        mixture_coef=(config.num_proposals + 0.5) / config.num_samples,
        min_std=config.min_std,
        max_std=config.max_std,
        temperature=config.temperature,
        momentum=config.momentum,
        uncertainty_cost=config.penalty,
        seed_steps=0,
        rho=config.rho,
        expectile=config.expectile,
        A_scaling=config.beta,
        consistency_coef=config.consistency_weight,
        reward_coef=config.reward_weight,
        value_coef=config.value_weight,
        grad_clip_norm=config.max_grad,
        per=True,
        per_alpha=0.6,
        per_beta=0.4,
        update_freq=2,
        tau=config.target_rate,
        buffer_device="cpu",
        max_buffer_size=64,
        train_steps=64,
        episode_length=8,
        data_first_percent=1.0,
    )


# --- weights


def trunk(params: Any, sequence: Any) -> list:
    """Two normalised layers; in the original one after the other in a Sequential."""
    pairs = []
    for at in range(2):
        pairs += layer(params[f"Dense_{at}"], sequence[3 * at])
        pairs += layer(params[f"LayerNorm_{at}"], sequence[3 * at + 1])
    return pairs


def latent(params: Any, dense: Any, norm: Any) -> list:
    """The last layer of a latent state."""
    return layer(params["Dense_0"], dense) + layer(params["LayerNorm_0"], norm)


def encoder(params: Any, sequence: Any) -> list:
    """The encoder."""
    p = params["params"]
    first = layer(p["Dense_0"], sequence[0])
    return first + latent(p["Latent_0"], sequence[2], sequence[3])


def dynamics(params: Any, sequence: Any) -> list:
    """The dynamics."""
    p = params["params"]
    first = trunk(p["NormedMLP_0"], sequence[0])
    return first + latent(p["Latent_0"], sequence[0][6], sequence[1])


def head(params: Any, sequence: Any) -> list:
    """Reward and policy."""
    p = params["params"]
    return trunk(p["NormedMLP_0"], sequence) + layer(p["Dense_0"], sequence[6])


def value(params: Any, sequence: Any) -> list:
    """V, or a critic."""
    p = params["params"]
    places = {"Dense_0": 0, "LayerNorm_0": 1, "Dense_1": 3, "Dense_2": 5}
    return [x for name, at in places.items() for x in layer(p[name], sequence[at])]


def critics(params: Any, modules: Any) -> list:
    """All critics."""
    return [
        pair
        for at, module in enumerate(modules)
        for pair in value(harness.member(params, at), module)
    ]


def groups(state: fowm.FOWMState, them: Any) -> dict[str, list]:
    """Theirs and ours, tensor by tensor."""
    p, target = state.model.params, state.target
    return dict(
        encoder=encoder(p["encoder"], them.model._encoder),
        dynamics=dynamics(p["dynamics"], them.model._dynamics),
        reward=head(p["reward"], them.model._reward),
        critics=critics(p["critic"], them.model._Qs),
        value=value(p["value"], them.model._V),
        policy=head(state.actor.params, them.model._pi),
        target_encoder=encoder(target["encoder"], them.model_target._encoder),
        target_critics=critics(target["critic"], them.model_target._Qs),
    )


def both(config: fowm.FOWMConfig, size: float = 0.1) -> tuple:
    """Our agent and its state, and the original with the same weights.

    Args:
        size: how far weights are moved, so that no layer is 0.
    """
    agent = fowm.fowm(harness.spec(O, A), config)
    key = jax.random.key(OPTIONS.seed)
    state = agent.init(key)
    keys = jax.random.split(key, 3)
    model = shake(state.model.params, keys[0], size)
    target = {name: model[name] for name in ("encoder", "critic")}
    state = state._replace(
        model=fresh(state.model, model),
        actor=fresh(state.actor, shake(state.actor.params, keys[1], size)),
        target=shake(target, keys[2], 0.05),
    )
    them = TDMPC.TDMPC(their_config(config))
    load(groups(state, them))
    return agent, state, them


# --- updates


class Given:
    """A store for the original that hands out given windows."""

    def __init__(self, data: Transition, weight: np.ndarray, batch: int = 0):
        self.data, self.weight = data, weight
        self.cfg = types.SimpleNamespace(batch_size=batch)

    def sample(self) -> tuple:
        """As its store's: time comes first."""
        d = self.data

        def in_time(x):
            return tensor(np.swapaxes(np.asarray(x), 0, 1))

        return (
            tensor(d.obs[:, 0]),
            in_time(d.next_obs),
            in_time(d.action),
            in_time(d.reward)[..., None],
            in_time(d.discount)[..., None],
            in_time(d.last)[..., None],
            torch.arange(len(d.obs)),
            tensor(self.weight),
        )

    def update_priorities(self, index: Any, priorities: Any) -> None:
        """Keeps them to be compared."""
        self.priorities = as_numpy(priorities)[:, 0]


def their_update(
    them: Any, data: Transition, weight: np.ndarray, step: int, online: bool
) -> tuple[dict, np.ndarray]:
    """What the original tells of an update, and its priorities [B].

    Theirs begins at step 1, where ours is at 0, as targets move at even ones. Online, a
    batch is half of the dataset; ours has the dataset's half first, theirs what was
    gathered, but a batch's order does not matter.
    """
    if not online:
        store = Given(data, weight, B)
        return them.update(store, step), store.priorities
    them.cfg.demo_schedule = 0.5
    old, new = (
        Given(jax.tree.map(lambda x, half=half: x[half], data), weight[half])
        for half in (slice(B // 2), slice(B // 2, None))
    )
    told = them.update(new, step, old)
    return told, np.concatenate([old.priorities, new.priorities])


def updates(
    title: str, config: fowm.FOWMConfig, online: bool = False, size: float = 0.1
) -> Report:
    """Some updates."""
    agent, state, them = both(config, size)
    report = Report(title)
    report.begin(**groups(state, them))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data = rows(200 + at, (B, H), O, A)
        weight = np.random.default_rng(at).uniform(0.2, 1, B).astype(DTYPE)
        key = jax.random.key(1000 + at)
        for k in jax.random.split(key):  # of the model, and of the policy
            PAIRS.put(fowm_networks.sample_pair(k, config.num_critics))
        batch = Batch(jax.tree.map(jnp.asarray, data), jnp.asarray(weight), ())
        state, info = update(state, batch, key)
        told, priorities = their_update(them, data, weight, 1 + at, online)
        PAIRS.done()
        m, c = info.metrics, config
        assert (told["grad_norm"] > c.max_grad) == (size == LARGE)  # cut, or not
        consistency = c.consistency_weight * told["consistency_loss"]
        report.term("consistency", m["consistency_loss"], consistency)
        report.term("reward", m["reward_loss"], c.reward_weight * told["reward_loss"])
        report.term("Q", m["critic_loss"], c.value_weight * told["Q_value_loss"])
        report.term("V", m["value_loss"], c.value_weight * told["V_value_loss"])
        report.term("q", m["q"], told["Q"])
        report.term("priorities", np.clip(info.td_error, 0, 1e4), priorities)
        report.weight(**groups(state, them))
    return report


# --- plans


def put_plan_draws(config: fowm.FOWMConfig, key: jax.Array) -> None:
    """What our search will draw from this key."""
    key_policy, key_pair, key_search = jax.random.split(key, 3)
    num_samples, num_proposals = config.num_samples, config.num_proposals
    noise = jax.random.normal(key_policy, (num_proposals, H, A), DTYPE)
    NORMALS.put(*np.swapaxes(noise, 0, 1))
    for round_ in range(int(config.iterations)):
        key_sample, key_score = jax.random.split(jax.random.fold_in(key_search, round_))
        drawn = jax.random.normal(key_sample, (num_samples, H, A), DTYPE)
        NORMALS.put(np.swapaxes(drawn, 0, 1))
        keys = jax.random.split(key_score, num_samples + num_proposals)
        NORMALS.put(jax.vmap(lambda k: jax.random.normal(k, (A,), DTYPE))(keys))
        PAIRS.put(fowm_networks.sample_pair(key_pair, config.num_critics))


def guard(size: float) -> None:
    """Sets how far inside [-1, 1] the original's noisy actions stay; ours, 0."""
    HELPER.TruncatedNormal.__init__.__defaults__ = (-1.0, 1.0, size)


def plans(
    title: str,
    config: fowm.FOWMConfig,
    explores: bool = True,
    guarded: float = 1e-6,
    departure: Departure | None = None,
) -> Report:
    """An episode's first three plans, with what is left of each for the next."""
    guard(guarded)
    agent, state, them = both(config)
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
        put_plan_draws(config, key_plan)
        if explores:
            NORMALS.put(jax.random.normal(key_noise, (A,), DTYPE))
        weight = found.weight
        CHOSEN["index"] = int(jax.random.choice(key_choice, len(weight), p=weight))
        z = them.model.encode(tensor(obs)[None])
        told = them.plan(z, eval_mode=not explores, step=0, t0=at == 0)
        NORMALS.done()
        PAIRS.done()
        report.term("action", action, told)
        report.term("mean", found.mean, them._prev_mean)
        report.term("chances", weight, CHOSEN["chances"])
    return report


def worths(title: str, config: fowm.FOWMConfig) -> Report:
    """What 20 given plans are worth."""
    guard(0.0)
    _, state, them = both(config)
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
    z = nets.encoder.apply(p["encoder"], rng.normal(size=O).astype(DTYPE))

    def worth(plan, noise):
        def last_action(z):
            action = nets.actor.apply(state.actor.params, z)
            return fowm_networks.noisy_action(action, noise, config.noise)

        return planning.imagined_return(
            world, z, plan, last_action, pair, config.gamma, config.penalty
        )

    NORMALS.put(noise)
    PAIRS.put(pair)
    theirs = them.estimate_value(
        tensor(z)[None].repeat(20, 1), tensor(np.swapaxes(given, 0, 1)), H
    )
    report = Report(title)
    report.term("worth", jax.vmap(worth)(given, noise), theirs[:, 0])
    return report


# --- replay


def their_replay(data: Transition, num_drawn: int) -> Any:
    """The original's own store of a dataset."""
    columns = dict(
        observations=data.obs,
        next_observations=data.next_obs,
        actions=data.action,
        rewards=data.reward,
        masks=data.discount,
        dones=data.last,
    )
    config = their_config(fowm.FOWMConfig(horizon=H), num_drawn)
    with contextlib.redirect_stdout(io.StringIO()):
        return HELPER.ReplayBuffer(config, columns)


def note_windows(report: Report, batch: Batch, theirs: tuple) -> None:
    """Compares the steps of windows that count for a loss."""
    obs, next_obs, action, reward, mask, done, _, weight = map(as_numpy, theirs)
    report.term("weights", batch.weight, weight)
    report.term("obs", batch.data.obs[:, 0], obs)
    counts = np.ones(done.shape[:2])  # as their `update` makes it
    for t in range(1, H):
        counts[t] = counts[t - 1] * ~done[t - 1, :, 0]
    report.term("counted steps", windows.until_last(batch.data.last).T, counts)
    for name, ours, told in (
        ("next_obs", batch.data.next_obs, next_obs),
        ("action", batch.data.action, action),
        ("reward", batch.data.reward[..., None], reward),
        ("mask", batch.data.discount[..., None], mask),
    ):
        ours = np.swapaxes(np.asarray(ours), 0, 1)
        report.term(name, ours * counts[..., None], told * counts[..., None])


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
    theirs = their_replay(data, num_drawn)
    ours = windows.offline(jax.tree.map(jnp.asarray, data), H, num_drawn)
    store, picked = ours.init(), {}

    def pick(total, size, p=None, replace=True):
        picked["chances"] = np.array(p)
        return picked["index"]

    HELPER.np = Over(np, random=Over(np.random, choice=pick))
    report = Report(title, Departure("its store is in single precision", 1e-6))
    for at in range(4):
        tree = store.priorities["data"]
        chances = tree[0].reshape(-1)[:num] / sum_tree.total(tree)
        store, batch = ours.sample(store, jax.random.key(at))
        picked["index"] = np.asarray(batch.index)
        drawn = theirs.sample()
        report.term("chances", chances, picked["chances"])
        note_windows(report, batch, drawn)
        error = errors_of(picked["index"], at)
        store = ours.update_priorities(store, batch, Info({}, jnp.asarray(error)))
        capped = np.minimum(error, 1e4).astype(np.float32)
        theirs.update_priorities(drawn[6], tensor(capped)[:, None])
    HELPER.np = np
    return report


def comparisons() -> Iterator[Report]:
    """The published settings, with small networks."""
    small: dict[str, Any] = dict(
        latent_dim=10,
        width=24,
        encoder_width=16,
        num_samples=32,
        num_proposals=6,
        num_elites=8,
    )
    hopper = fowm.FOWMConfig(**small)
    free = fowm.FOWMConfig(**small, penalty=0.0)
    xarm = fowm.FOWMConfig(
        **small, gamma=0.9, expectile=0.9, penalty=1.0, iterations=6.0
    )
    yield updates("FOWM, hopper", hopper)
    yield updates("FOWM, hopper, gradients clipped", hopper, size=LARGE)
    yield updates("FOWM, xArm, half of it from the dataset", xarm, online=True)
    yield worths("FOWM, worth of plans, no guard", hopper)
    sums = Departure("it adds 1e-9 to a sum of weights that is 1", 2e-8)
    for name, config in (("hopper", hopper), ("no price", free), ("xArm", xarm)):
        title = f"FOWM, plans to explore, {name}, no guard"
        yield plans(title, config, guarded=0.0, departure=sums)
    inside = Departure("its noisy actions stay 1e-6 inside [-1, 1]", 1e-6)
    yield plans("FOWM, plans to explore, hopper", hopper, departure=inside)
    yield plans("FOWM, plans to be judged, hopper", hopper, False, departure=inside)
    yield plans("FOWM, plans to explore, xArm", xarm, departure=inside)
    with np.errstate(all="ignore"):
        yield replay("FOWM, prioritised replay")
