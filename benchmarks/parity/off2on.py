"""Off2OnRL beside shlee94/Off2OnRL: its online phase, and its balanced replay.

Rows are drawn by our store and given to both, so the sampler itself is not compared; of
the offline phase, the original has only checkpoints.
"""

import types
from collections.abc import Iterator
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import harness, rlkit_side
from benchmarks.parity.harness import DTYPE, OPTIONS, fresh, gaussian_noise, rows, shake
from benchmarks.parity.report import Departure, Report
from benchmarks.parity.rlkit_side import NORMALS
from benchmarks.parity.torch_side import column, load, losses_told, tensor, torch
from o2ojax.agents import off2on
from o2ojax.agents.sac import SACState
from o2ojax.replay import balanced, ring
from o2ojax.types import Batch, Buffer, Transition

O, A, B, N = 5, 3, 16, 3  # noqa: E741
WIDTH = 24
NUM_OFFLINE, CAPACITY, NUM_ONLINE = 60, 30, 20

rlkit_side.begin()
harness.stand_in("d4rl")
PTU, TRAINER, POLICIES, NETWORKS, REPLAY = harness.original(
    "Off2OnRL/rlkit",
    "rlkit.torch.pytorch_util",
    "rlkit.torch.sac.ours",
    "rlkit.torch.sac.policies",
    "rlkit.torch.networks",
    "rlkit.data_management.prioritized_replay_buffer",
)
PTU.from_numpy = lambda x: torch.as_tensor(np.array(x, DTYPE))  # theirs is float32
(EXAMPLE,) = harness.original("Off2OnRL/rlkit/examples", "ours")


def ensemble(params: Any, twin: int, module: Any) -> list:
    """One of the twins of all agents, which are one module there."""
    p = params["params"]["MLP_0"]
    pairs = []
    for at, layer in enumerate((module.h1, module.h2, module.output)):
        kernel, bias = (np.asarray(p[f"Dense_{at}"][x]) for x in ("kernel", "bias"))
        pairs.append((layer.weights, kernel[:, twin]))
        pairs.append((layer.biases, bias[:, twin, None]))
    return pairs


def groups(state: SACState, store: balanced.Balanced, them: Any) -> dict[str, list]:
    """Theirs and ours, tensor by tensor."""
    critic, target = state.critic.params, state.target_critic
    policies = [
        pair
        for at, module in enumerate(them.policy.policies)
        for pair in rlkit_side.policy(harness.member(state.actor.params, at), module)
    ]
    return dict(
        policies=policies,
        critics=ensemble(critic, 0, them.qf1) + ensemble(critic, 1, them.qf2),
        targets=ensemble(target, 0, them.target_qf1)
        + ensemble(target, 1, them.target_qf2),
        temperature=[(them.log_alpha, np.asarray(state.log_temperature.params))],
        ratio=rlkit_side.mlp(store.ratio.params, them.weight_net),
    )


def shaken(config: off2on.Off2OnConfig, key: jax.Array) -> SACState:
    """N agents as one, every network moved, and the target apart from its own."""
    agents = off2on.offline(harness.spec(O, A), config).init(key)
    state = off2on.combine(agents, config)
    k = jax.random.split(key, 3)
    critic = shake(state.critic.params, k[0])
    return SACState(
        actor=fresh(state.actor, shake(state.actor.params, k[1])),
        critic=fresh(state.critic, critic),
        log_temperature=fresh(state.log_temperature, jnp.asarray(0.0, DTYPE)),
        target_critic=shake(critic, k[2], 0.05),
    )


def their_replay(data: Transition) -> Any:
    """The original's prioritised store, with the dataset in it."""
    box = lambda size: gymnasium.spaces.Box(-1, 1, (size,))  # noqa: E731
    env = types.SimpleNamespace(observation_space=box(O), action_space=box(A))
    store = REPLAY.PriorityReplayBuffer(128, env)
    add(store, data)
    return store


def add(store: Any, data: Transition) -> None:
    """Adds rows to the original's store."""
    for at in range(len(data.reward)):
        obs, action, reward, discount, next_obs = (x[at] for x in data[:5])
        store.add_sample(obs, action, reward, 1 - discount, next_obs)


def their_trainer(config: off2on.Off2OnConfig, replay: Any) -> Any:
    """The original, as `examples/ours.py` has it."""
    widths = list(config.widths)
    policies = [
        POLICIES.TanhGaussianPolicy(obs_dim=O, action_dim=A, hidden_sizes=widths)
        for _ in range(N)
    ]
    twins = ("qf1", "qf2", "target_qf1", "target_qf2")
    space = types.SimpleNamespace(shape=(A,))
    return TRAINER.OursTrainer(
        env=types.SimpleNamespace(action_space=space),
        policy=EXAMPLE.ParallelTanhGaussianPolicy(policies),
        weight_net=NETWORKS.ConcatMlp(
            input_size=O + A, output_size=1, hidden_sizes=widths
        ),
        **{name: EXAMPLE.ParallelMlp(O + A, WIDTH, 2, 1, N) for name in twins},
        priority_replay_buffer=replay,
        offline_dataset_size=NUM_OFFLINE,
        temperature=balanced.Options().temper,
        discount=0.99,
        soft_target_tau=5e-3,
        policy_lr=3e-4,
        qf_lr=3e-4,
        ensemble_size=N,
    )


def stores(data: Transition, gathered: Transition) -> tuple:
    """Our store and its state, and theirs, with the dataset and rows of the ring."""
    # so few rows of the ring are half of all draws by a share of 0.98
    options = balanced.Options(widths=(WIDTH, WIDTH), first_share=0.98)
    like = jax.tree.map(jnp.asarray, data)
    buffer = balanced.balanced(like, CAPACITY, B, options)
    store = buffer.init()
    params = shake(store.ratio.params, jax.random.key(OPTIONS.seed))
    ratio = balanced.Ratio(options.widths).apply(params, data.obs, data.action)
    # so low that about half of the ratios are 0, where priorities are the lowest
    params["params"]["MLP_0"]["Dense_2"]["bias"] -= jnp.median(ratio)
    store = store._replace(ratio=fresh(store.ratio, params))
    theirs = their_replay(data)
    theirs.transitions.max = float(store.entry)
    add(theirs, gathered)
    return buffer, buffer.add(store, jax.tree.map(jnp.asarray, gathered)), theirs


def draw(buffer: Buffer, store: balanced.Balanced, key: jax.Array) -> tuple:
    """Our draw, and the rows of either kind that the ratio network learns from."""
    _, _, key_old, key_new = jax.random.split(key, 4)
    num_online = ring.filled(store.rows)
    old = np.asarray(jax.random.randint(key_old, (B,), 0, NUM_OFFLINE))
    new = np.asarray(jax.random.randint(key_new, (B,), 0, num_online))
    store, batch = jax.jit(buffer.sample)(store, key)
    return store, batch, old, new


def for_them(batch: Batch, old: Transition, new: Transition, first: int) -> dict:
    """What was drawn, under the original's names.

    Args:
        first: where its tree has the first row.
    """
    data = batch.data
    return dict(
        offline_observations=tensor(old.obs),
        offline_actions=tensor(old.action),
        online_observations=tensor(new.obs),
        online_actions=tensor(new.action),
        rl_observations=tensor(data.obs),
        rl_actions=tensor(data.action),
        rl_next_observations=tensor(data.next_obs),
        rl_rewards=column(data.reward),
        rl_terminals=1 - column(data.discount),
        tree_idxs=column(np.asarray(batch.index) + first),
    )


def note_terms(report: Report, m: Any, told: list[float], stats: Any) -> None:
    """Loss terms of an update."""
    _, actor_loss, q1, q2, ratio_loss = told
    report.term("critic_loss", m["critic_loss"], q1 + q2)
    report.term("actor_loss", m["actor_loss"], actor_loss)
    report.term("ratio_loss", m["ratio_loss"], ratio_loss)
    report.term("entropy", m["entropy"], -stats["Log Pis Mean"])
    report.term("temperature", m["temperature"], stats["Alpha"])


def note_priorities(report: Report, store: balanced.Balanced, theirs: Any) -> None:
    """Priorities of all rows, and that of rows to come."""
    tree, num = theirs.transitions, NUM_OFFLINE + CAPACITY
    ours = np.asarray(store.priorities[0]).reshape(-1)[:num]
    report.term("priorities", ours, tree.sum_tree[tree.tree_start :][:num])
    report.term("entry", store.entry, tree.max)


def comparisons() -> Iterator[Report]:
    """Some updates, and what they make of the priorities."""
    config = off2on.Off2OnConfig(widths=(WIDTH, WIDTH), num_agents=N)
    agent = off2on.online(harness.spec(O, A), config)
    data, gathered = rows(1, (NUM_OFFLINE,), O, A), rows(2, (NUM_ONLINE,), O, A)
    buffer, store, theirs = stores(data, gathered)
    state = shaken(config, jax.random.key(OPTIONS.seed))
    them = their_trainer(config, theirs)
    load(groups(state, store, them))
    report = Report("Off2OnRL, online")
    single = Departure("both stores keep priorities in single precision", 1e-6)
    priorities = Report("Off2OnRL, balanced replay", single)
    report.begin(**groups(state, store, them))
    update, take = jax.jit(agent.update), lambda x, at: jax.tree.map(lambda x: x[at], x)
    for at in range(OPTIONS.updates):
        key = jax.random.key(1000 + at)
        store, batch, old, new = draw(buffer, store, key)
        NORMALS.put(*(gaussian_noise(k, (B, A)) for k in jax.random.split(key)))
        state, info = update(state, batch, key)
        them._need_to_update_eval_statistics = True
        seen = take(data, old), take(gathered, new)
        with losses_told() as told:
            them.train_from_torch(for_them(batch, *seen, theirs.transitions.tree_start))
        NORMALS.done()
        metrics = info.metrics | batch.metrics
        note_terms(report, metrics, told, them.eval_statistics)
        report.weight(**groups(state, store, them))
        note_priorities(priorities, store, theirs)
    more = rows(3, (4,), O, A)
    store = buffer.add(store, jax.tree.map(jnp.asarray, more))
    add(theirs, more)
    note_priorities(priorities, store, theirs)
    yield from (report, priorities)
