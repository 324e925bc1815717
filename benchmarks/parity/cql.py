"""CQL beside aviralkumar2907/CQL, `d4rl/rlkit/torch/sac/cql.py`.

Its policy's `backward` comes after the critics' steps, which PyTorch refuses since 1.5;
see `torch_side.adams`. Comparisons named `all from the weights before` also take the
temperature's step last, and drop the guard of 1e-6 in its log-density: so they show
whether all else is equal. The others show what each of those departures comes to.
"""

import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import harness, rlkit_side
from benchmarks.parity.harness import DTYPE, OPTIONS, Feed, Over, fresh, rows, shake
from benchmarks.parity.report import Departure, Report
from benchmarks.parity.rlkit_side import NORMALS, mlp, policy
from benchmarks.parity.torch_side import adams, load, losses_told, tensor, torch
from o2ojax.agents import cql
from o2ojax.learning import TrainState

O, A, B, N = 5, 3, 8, 10  # noqa: E741
WIDTHS = (24, 20)
UNIFORM = Feed()

rlkit_side.begin()
PTU, CQL, POLICIES, DISTRIBUTIONS, NETWORKS = harness.original(
    "CQL/d4rl",
    "rlkit.torch.pytorch_util",
    "rlkit.torch.sac.cql",
    "rlkit.torch.sac.policies",
    "rlkit.torch.distributions",
    "rlkit.torch.networks",
)


class Uniform:
    """Stands in for `torch.FloatTensor`, of which only uniform draws are asked."""

    def __init__(self, *shape: int):
        self.shape = shape

    def uniform_(self, low: float, high: float) -> Any:
        """Our draw."""
        assert (low, high) == (-1, 1)
        return tensor(UNIFORM.take(self.shape))


CQL.torch = Over(torch, FloatTensor=Uniform)
OLD, DEFERRED, FLUSH = adams()
rlkit_side.flush_before_targets(PTU, FLUSH)


def groups(state: cql.CQLState, them: Any) -> dict[str, list]:
    """Theirs and ours, tensor by tensor."""
    first, second = (harness.member(state.critic.params, at) for at in range(2))
    first_target, second_target = (
        harness.member(state.target_critic, at) for at in range(2)
    )
    scalar = lambda learned: np.asarray(learned.params)[None]  # noqa: E731
    found = dict(
        policy=policy(state.actor.params, them.policy),
        critics=mlp(first, them.qf1) + mlp(second, them.qf2),
        targets=mlp(first_target, them.target_qf1)
        + mlp(second_target, them.target_qf2),
        temperature=[(them.log_alpha, scalar(state.log_temperature))],
    )
    if them.with_lagrange:
        found["multiplier"] = [(them.log_alpha_prime, scalar(state.log_multiplier))]
    return found


def shaken(state: cql.CQLState, key: jax.Array, log_std: float) -> cql.CQLState:
    """Every network moved, and the target apart from its own.

    Args:
        log_std: is added to the policy's, in all states.
    """
    k = jax.random.split(key, 4)
    critic, actor = shake(state.critic.params, k[1]), shake(state.actor.params, k[2])
    last = actor["params"]["MLP_0"][f"Dense_{len(WIDTHS)}"]
    last["bias"] = last["bias"].at[A:].add(log_std)

    def number(learned: TrainState, value: float) -> TrainState:
        return fresh(learned, jnp.asarray(value, DTYPE))

    multiplier = state.log_multiplier
    return cql.CQLState(
        actor=fresh(state.actor, actor),
        critic=fresh(state.critic, critic),
        target_critic=shake(critic, k[3], 0.05),
        log_temperature=number(state.log_temperature, -0.3),
        log_multiplier=number(multiplier, 0.2) if multiplier else (),
    )


def their_trainer(config: cql.CQLConfig, adam: type, guard: float) -> Any:
    """The original."""
    DISTRIBUTIONS.TanhNormal.__init__.__defaults__ = (guard,)
    sizes = dict(input_size=O + A, output_size=1, hidden_sizes=list(WIDTHS))
    net = POLICIES.TanhGaussianPolicy(
        obs_dim=O, action_dim=A, hidden_sizes=list(WIDTHS)
    )
    space = types.SimpleNamespace(shape=(A,))
    return CQL.CQLTrainer(
        types.SimpleNamespace(action_space=space),
        net,
        *(NETWORKS.FlattenMlp(**sizes) for _ in range(4)),
        discount=config.gamma,
        policy_lr=config.actor_lr,
        qf_lr=config.lr,
        optimizer_class=adam,
        soft_target_tau=config.target_rate,
        policy_eval_start=0,
        min_q_version=3,
        temp=config.gap_temperature,
        min_q_weight=config.conservatism,
        max_q_backup=config.max_backup,
        deterministic_backup=not config.entropy_backup,
        num_random=N,
        with_lagrange=config.lagrange,
        lagrange_thresh=config.target_gap,
    )


def put_draws(config: cql.CQLConfig, key: jax.Array) -> None:
    """What our update will draw from this key, and 0 for draws that are not used."""
    key_actor, key_next, key_gap = jax.random.split(key, 3)
    key_uniform, key_own, key_ahead = jax.random.split(key_gap, 3)

    def several(key, num):
        keys = jax.random.split(key, num)
        drawn = [harness.gaussian_noise(one, (B, A)) for one in keys]
        return np.stack(drawn, axis=1).reshape(-1, A)

    NORMALS.put(harness.gaussian_noise(key_actor, (B, A)))
    unused = np.zeros((B, A))
    if config.max_backup:
        NORMALS.put(unused, unused, several(key_next, N))
    else:
        NORMALS.put(several(key_next, 1), unused)
    NORMALS.put(several(key_own, N), several(key_ahead, N))
    uniform = jax.random.uniform(key_uniform, (B, N, A), DTYPE, -1.0, 1.0)
    UNIFORM.put(uniform.reshape(-1, A))


def note_terms(
    report: Report, config: cql.CQLConfig, m: Any, told: list[float], stats: Any
) -> None:
    """Loss terms of an update; their gap comes weighted, and less its target."""
    q1, q2, actor_loss = told[-3:]
    report.term("critic_loss", m["critic_loss"], q1 + q2)
    report.term("actor_loss", m["actor_loss"], actor_loss)
    report.term("entropy", m["entropy"], -stats["Log Pis Mean"])
    multiplier = stats.get("Alpha_prime", 1.0)
    gaps = np.array([stats["min QF1 Loss"], stats["min QF2 Loss"]]) / multiplier
    target = config.target_gap if config.lagrange else 0.0
    report.term("gap", m["gap"], (gaps + target).mean() / config.conservatism)
    if config.lagrange:
        report.term("multiplier", m["multiplier"], multiplier)


def compare(
    title: str,
    adam: type = DEFERRED,
    guard: float = 0.0,
    log_std: float = 0.0,
    departure: Departure | None = None,
    **changed: Any,
) -> Report:
    """Some updates."""
    config = cql.CQLConfig(widths=WIDTHS, num_actions=N, **changed)
    agent = cql.cql(harness.spec(O, A), config)
    key = jax.random.key(OPTIONS.seed)
    state = shaken(agent.init(key), key, log_std)
    them = their_trainer(config, adam, guard)
    load(groups(state, them))
    report = Report(title, departure)
    report.begin(**groups(state, them))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, key = rows(800 + at, (B,), O, A), jax.random.key(1000 + at)
        put_draws(config, key)
        state, info = update(state, harness.batch_of(data), key)
        them._need_to_update_eval_statistics = True
        with losses_told() as told:
            them.train_from_torch(rlkit_side.batch_for_them(data))
        NORMALS.done()
        UNIFORM.done()
        note_terms(report, config, info.metrics, told, them.eval_statistics)
        report.weight(**groups(state, them))
    return report


def comparisons() -> Iterator[Report]:
    """The options, then the departures that `agents/cql.py` tells of."""
    same = "all from the weights before, no guard"
    yield compare(f"CQL(H), {same}")
    yield compare(f"CQL(H), Lagrange, {same}", lagrange=True)
    yield compare(
        f"CQL(H), max backup, T 0.7, {same}", max_backup=True, gap_temperature=0.7
    )
    yield compare(f"CQL(H), entropy backup, {same}", entropy_backup=True)
    yield compare(
        "CQL(H), all from the weights before",
        guard=1e-6,
        departure=Departure("its log-density has a guard of 1e-6", 2e-5),
    )
    yield compare(
        "CQL(H), as PyTorch before 1.5 ran it",
        OLD,
        1e-6,
        departure=Departure(
            "it has the guard, steps the temperature first, and its policy's gradient"
            " goes through critics after their step",
            5e-4,
        ),
    )
    yield compare(
        "CQL(H), a policy of log std -6",
        log_std=-6.0,
        departure=Departure("it clips the log std at -5, not at -20", 0.5),
    )
