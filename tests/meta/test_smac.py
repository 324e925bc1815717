import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_smac

from o2ojax import loop, networks
from o2ojax.agents import base
from o2ojax.meta import belief, families, pearl, smac, task_store, trials
from o2ojax.meta.task_store import ContextSampling, TrialContext
from o2ojax.types import Batch, EnvSpec, Run, Transition, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
SIZES = dict(widths=(16, 16), encoder_widths=(12, 8), latent_dim=3, num_tasks=4)
CONFIG = smac.SMACConfig(
    lr=1e-3, gamma=0.9, target_rate=0.1, temperature=2.0, decoder_widths=(8,), **SIZES
)
PEARL = pearl.PEARLConfig(lr=1e-3, gamma=0.9, target_rate=0.1, **SIZES)
TASKS, ROWS, CONTEXT = 4, 8, 6
KEY = jax.random.key(0)


def made_up(shape, seed) -> Transition:
    draw = np.random.default_rng(seed)
    rows = Transition(
        obs=draw.normal(size=(*shape, 3)),
        action=draw.uniform(-1, 1, (*shape, 2)),
        reward=draw.normal(size=shape),
        discount=draw.uniform(size=shape) < 0.8,
        next_obs=draw.normal(size=(*shape, 3)),
        last=draw.uniform(size=shape) < 0.2,
        task=np.zeros(shape, np.int32),
    )
    return jax.tree.map(
        lambda x: np.float32(x) if x.dtype in (np.float64, bool) else x, rows
    )._replace(last=rows.last)


def batch_of(seed) -> Batch:
    shape = (TASKS, ROWS)
    data, context = made_up(shape, seed), made_up((TASKS, CONTEXT), seed + 100)
    return Batch(data, np.ones(shape, np.float32), np.zeros(shape, np.int32), context)


def steeper(tree, factor=300.0):
    """Last layers, which begin near 0, far from it."""

    def scale(path, leaf):
        names = [key.key for key in path if hasattr(key, "key")]
        last = max((n for n in layers(tree, names)), default="")
        return leaf * factor if names[-2:] == [last, "kernel"] else leaf

    def layers(tree, names):
        for name in names[:-2]:
            tree = tree[name]
        return [name for name in tree if name.startswith("Dense")]

    return jax.tree_util.tree_map_with_path(scale, tree)


def sharpened(state):
    return type(state)(
        *(
            part._replace(params=steeper(part.params))
            if hasattr(part, "opt_state")
            else steeper(part)
            for part in state
        )
    )


@jax.jit
def begin(config, key):
    return smac.smac(SPEC, config, online=False).init(key)


@jax.jit
def offline_update(config, state, batch, key):
    return smac.smac(SPEC, config, online=False).update(state, batch, key)


@jax.jit
def online_update(config, state, batch, key):
    return smac.smac(SPEC, config, online=True).update(state, batch, key)


@jax.jit
def pearl_update(config, state, batch, key):
    return pearl.pearl(SPEC, config).update(state, batch, key)


@pytest.fixture(scope="module")
def start():
    state = sharpened(begin(CONFIG, KEY))
    other = sharpened(begin(CONFIG, jax.random.key(1)))
    return state._replace(target_critic=other.critic.params)


def noises(key, num, last=("z", "z", "a", "a")):
    """Standard normal draws of an update's keys, float64."""
    shapes = {"z": (TASKS, 3), "a": (TASKS * ROWS, 2)}
    keys = jax.random.split(key, num)
    return [
        np.float64(jax.random.normal(key, shapes[kind]))
        for key, kind in zip(keys, last, strict=True)
    ]


# Updates


@pytest.mark.parametrize(
    "online, changes",
    [
        (False, {}),
        (False, {"sees_next": True, "kl_weight": 2.0, "temperature": 0.3}),
        (True, {}),
        (True, {"labels": "true", "q_weight": 0.4}),
    ],
)
def test_updates_are_those_of_the_reference(start, online, changes):
    """The noise is what the update's key stands for; all else is worked anew."""
    config = dataclasses.replace(CONFIG, **changes)
    state = start
    if config.sees_next:
        state = sharpened(begin(config, KEY))
    expected = reference.state_of(state)
    update = online_update if online else offline_update
    for at in range(3):
        batch, key = batch_of(at), jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = reference_smac.smac(
            expected, reference.double(batch), config, noises(key, 4), online
        )
        reference.close(info.metrics, metrics, rtol=1e-4, atol=1e-5)
        agree_in_all(state, expected)


def agree_in_all(state, expected):
    """As `reference.agree`, but steps where a gradient is next to 0 may differ."""
    for name, part in state._asdict().items():
        adam = expected[name]
        if not isinstance(adam, reference.Adam):
            reference.close(part, adam, rtol=1e-4, atol=2e-5)
            continue
        moments = part.opt_state[0]
        assert int(moments.count) == adam.count
        reference.close(moments.mu, adam.mu, rtol=2e-4, atol=1e-5)
        reference.close(part.params, adam.params, rtol=1e-4, atol=2e-5)


def test_pearls_updates_are_those_of_the_reference():
    state = sharpened(jax.jit(pearl.pearl(SPEC, PEARL).init)(KEY))
    expected = reference.state_of(state)
    for at in range(3):
        batch, key = batch_of(at), jax.random.key(at)
        state, info = pearl_update(PEARL, state, batch, key)
        expected, metrics = reference_smac.pearl(
            expected, reference.double(batch), PEARL, noises(key, 3, ("z", "a", "a"))
        )
        reference.close(info.metrics, metrics, rtol=1e-4, atol=1e-5)
        agree_in_all(state, expected)


def test_the_target_starts_as_the_critic():
    state = begin(CONFIG, KEY)
    reference.close(state.target_critic, state.critic.params, rtol=0)


# What moves what


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def differ(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(not np.array_equal(a, b) for a, b in pairs)


def test_critics_and_policy_leave_the_encoder_alone(start):
    """With other critics, another policy and another scale, the same encoder comes."""
    other = sharpened(begin(CONFIG, jax.random.key(7)))
    mixed = start._replace(
        critic=other.critic, actor=other.actor, target_critic=other.target_critic
    )
    scaled = dataclasses.replace(CONFIG, reward_scale=50.0, temperature=0.1)
    one, _ = offline_update(CONFIG, start, batch_of(0), KEY)
    two, _ = offline_update(scaled, mixed, batch_of(0), KEY)
    same(one.tasks, two.tasks)
    assert differ(one.tasks.params["encoder"], start.tasks.params["encoder"])
    assert differ(one.critic, two.critic)


def test_encoder_and_decoder_are_bit_identical_online(start):
    state = start
    for at in range(3):
        state, _ = online_update(CONFIG, state, batch_of(at), jax.random.key(at))
    same(state.tasks, start.tasks)
    for part in ("critic", "actor", "target_critic"):
        assert differ(getattr(state, part), getattr(start, part))
    oracle = dataclasses.replace(CONFIG, labels="true")
    state, _ = online_update(oracle, start, batch_of(0), KEY)
    assert differ(state.tasks.params["encoder"], start.tasks.params["encoder"])


def test_pearls_critics_teach_its_encoder():
    state = sharpened(jax.jit(pearl.pearl(SPEC, PEARL).init)(KEY))
    free = dataclasses.replace(PEARL, kl_weight=0.0)
    moved, _ = pearl_update(free, state, batch_of(0), KEY)
    encoders = (s.critic.params["encoder"] for s in (moved, state))
    assert differ(*encoders)


@pytest.mark.parametrize("change", ["context", "next_obs"])
def test_the_encoder_sees_next_states_only_if_asked(start, change):
    batch = batch_of(0)
    context = batch.context
    other = context._replace(next_obs=context.next_obs + 1.0)
    if change == "context":
        other = context._replace(reward=context.reward + 1.0)
    for sees_next in (False, True):
        config = dataclasses.replace(CONFIG, sees_next=sees_next)
        state = begin(config, KEY)
        kls = [
            offline_update(config, state, batch._replace(context=rows), KEY)[1]
            for rows in (context, other)
        ]
        changed = kls[0].metrics["kl"] != kls[1].metrics["kl"]
        assert changed == (sees_next or change == "context")


def test_the_order_of_a_context_does_not_count(start):
    batch = batch_of(0)
    order = np.random.default_rng(0).permutation(CONTEXT)
    mixed = jax.tree.map(lambda x: x[:, order], batch.context)
    one, _ = offline_update(CONFIG, start, batch, KEY)
    two, _ = offline_update(CONFIG, start, batch._replace(context=mixed), KEY)
    reference.close(one.critic.params, two.critic.params, rtol=1e-4, atol=1e-6)


# Trials


def trial_context(seed=0) -> TrialContext:
    return TrialContext(made_up((CONTEXT,), seed), made_up((CONTEXT,), seed + 1))


def poisoned(env):
    """The same environment; all it earns is NaN."""

    def step(state, action, key):
        state, transition = env.step(state, action, key)
        return state, transition._replace(reward=jnp.nan * transition.reward)

    return env._replace(step=step)


POINTS = families.family("point-robot", None, num_train=3, num_test=2)
SMALL = dataclasses.replace(
    CONFIG, num_tasks=2, context=4, trial_context=8, online_batch=4, widths=(8, 8)
)


def meta_dataset(num_tasks=3, rows=30):
    """What a random walker meets in each task, task by task."""
    draw = np.random.default_rng(0)
    shape = (num_tasks * rows,)
    obs = draw.uniform(-1, 1, (*shape, 2))
    action = draw.uniform(-1, 1, (*shape, 2))
    rows = Transition(
        obs=np.float32(obs),
        action=np.float32(action),
        reward=np.float32(draw.normal(size=shape)),
        discount=np.ones(shape, np.float32),
        next_obs=np.float32(obs + 0.1 * action),
        last=np.arange(shape[0]) % rows == rows - 1,
        task=np.repeat(np.arange(num_tasks, dtype=np.int32), rows),
    )
    return jax.tree.map(jnp.asarray, rows)


def play_online(config, env, num_rounds=2):
    """The whole run of a member after its offline phase, with `env`."""
    context_sampling = ContextSampling(
        config.num_tasks, config.context, config.trial_context, config.online_batch
    )
    like = base.blank_transition(env.spec)
    store = task_store.online(meta_dataset(), like, 3, 400, 4, context_sampling)
    agent = smac.smac(env.spec, config, online=True)

    @jax.jit
    def run(key):
        state, rings = agent.init(key), store.init()
        workers = loop.start_workers(env, agent.explore, store, state, rings, key, 2)
        return loop.online(
            agent,
            store,
            env,
            Run(state, rings, workers),
            key,
            0,
            num_rounds,
            210,
            3,
            sample_tasks=lambda key: jnp.int32([2, 0]),
        )

    return run(KEY)


def test_no_true_reward_is_used_without_supervision():
    """If one were, its NaN would be in what is stored, told or learned."""
    run, metrics = play_online(SMALL, poisoned(POINTS))
    for leaf in jax.tree.leaves((run, metrics)):
        assert np.isfinite(np.float64(leaf)).all()
    assert run.replay.count.tolist() == [420, 0, 420]
    true = dataclasses.replace(SMALL, labels="true")
    run, _ = play_online(true, poisoned(POINTS))
    assert np.isnan(run.replay.rows.reward[0]).any()  # the oracle does look


def test_what_is_stored_has_the_decoders_reward_and_all_else_as_it_was():
    state = sharpened(jax.jit(smac.smac(SPEC, CONFIG, True).init)(KEY))
    agent = smac.smac(SPEC, CONFIG, online=True)
    trial = agent.explore.start(state, trial_context(), KEY)
    assert trial.labels.shape == (CONFIG.num_labels, 3)
    row = jax.tree.map(lambda x: x[0], made_up((1,), 5))._replace(last=np.True_)
    for episode in range(2):
        after, stored = agent.explore.observe(state, trial, row)
        decoder = reference.double(state.tasks.params["decoder"]["params"]["MLP_0"])
        x = np.concatenate([row.obs, row.action, trial.labels[episode]])[None]
        expected = reference.mlp(decoder, np.float64(x))
        np.testing.assert_allclose(stored.reward, expected[0, 0], rtol=1e-4, atol=1e-5)
        same(stored._replace(reward=0.0), row._replace(reward=0.0))
        assert after.episode == episode + 1
        trial = after


def test_labels_come_from_logged_rows_and_exploration_from_all():
    agent = smac.smac(SPEC, CONFIG, online=True)
    state = sharpened(jax.jit(agent.init)(KEY))
    given = trial_context()
    other = made_up((CONTEXT,), 9)
    trial = agent.explore.start(state, given, KEY)
    known = agent.explore.start(state, given._replace(known=other), KEY)
    logged = agent.explore.start(state, given._replace(logged=other), KEY)
    same(known.labels, trial.labels)
    same(logged.belief, trial.belief)
    assert differ(known.belief, trial.belief) and differ(logged.labels, trial.labels)


def test_who_is_judged_explores_with_the_prior_and_then_acts_by_what_was_seen():
    agent = smac.smac(SPEC, CONFIG, online=False)
    state = sharpened(jax.jit(agent.init)(KEY))
    rows = made_up((CONTEXT,), 3)._replace(last=np.arange(CONTEXT) % 2 == 1)
    trial = agent.exploit.start(state, (), KEY)
    for at in range(CONTEXT):  # three episodes of two steps
        row = jax.tree.map(lambda x, at=at: x[at], rows)
        trial, stored = agent.exploit.observe(state, trial, row)
        same(stored, row)  # true rewards
    assert trial.episode == 3 and trial.belief.count == 4  # not of the third episode
    first = jax.tree.map(lambda x: x[:4], rows)
    told = agent.oracle.start(state, TrialContext(rows, first), KEY)
    reference.close(trial.belief, told.belief, rtol=1e-5, atol=1e-6)
    assert told.episode == CONFIG.prior_exploit


def test_a_latent_is_drawn_from_the_prior_until_the_episodes_of_exploration_are_over():
    sure = belief.Belief(jnp.full(3, 1e12), jnp.full(3, 7e12), jnp.float32(9.0))
    for episode, expected in ((0, None), (1, None), (2, 7.0), (3, 7.0)):
        trial = trials.Trial(sure, (), (), jnp.int32(episode))
        z = trials.latent(trial, 2, KEY)
        expected = jax.random.normal(KEY, (3,)) if expected is None else [7.0] * 3
        np.testing.assert_allclose(z, expected, rtol=1e-4)


@pytest.mark.parametrize("explores", [True, False])
def test_pearl_keeps_a_latent_for_an_episode(explores):
    agent = pearl.pearl(SPEC, PEARL)
    state = sharpened(jax.jit(agent.init)(KEY))
    policy = agent.explore if explores else agent.exploit
    trial = policy.start(state, trial_context(), KEY)
    num_prior, drawn = 2, set()
    for episode in range(5):
        now = trial._replace(episode=jnp.int32(episode))
        zs = [trials.latent(now, num_prior, key) for key in jax.random.split(KEY, 3)]
        same(zs[0], zs[1])
        same(zs[0], zs[2])
        drawn.add(tuple(zs[0].tolist()))
    assert len(drawn) == 5  # two from the prior, then three by what is known


def test_smac_draws_a_latent_for_every_step_or_for_every_episode():
    for per_episode in (False, True):
        config = dataclasses.replace(CONFIG, per_episode=per_episode)
        agent = smac.smac(SPEC, config, online=True)
        state = sharpened(jax.jit(agent.init)(KEY))
        for policy in (agent.explore, agent.exploit, agent.oracle):
            trial = policy.start(state, trial_context(), KEY)
            zs = [trials.latent(trial, 2, key) for key in jax.random.split(KEY, 2)]
            assert differ(*zs) != per_episode


def sure_of(z):
    """A belief that leaves no doubt of a latent [Z]."""
    z = jnp.float32(z)
    return belief.Belief(jnp.full(3, 1e12), 1e12 * z, jnp.float32(9.0))


@pytest.mark.parametrize("make", [smac.smac, pearl.pearl])
def test_actions_are_the_policys_given_the_latent(make):
    """From the prior in the first episodes, and after them by what is believed."""
    config = CONFIG if make is smac.smac else PEARL
    agent = make(SPEC, config, True) if make is smac.smac else make(SPEC, config)
    state = sharpened(jax.jit(agent.init)(KEY))
    net = networks.SquashedActor(2, config.widths)
    obs, key, known = jnp.float32([0.3, -1.0, 2.0]), jax.random.key(5), [1.0, -2.0, 0.5]

    def policy(z):
        informed = jnp.concatenate([obs, jnp.float32(z)])
        return net.apply(state.actor.params, informed)

    for acts, num_prior in (
        (agent.explore, config.prior_explore),
        (agent.exploit, config.prior_exploit),
    ):
        trial = acts.start(state, trial_context(), KEY)._replace(belief=sure_of(known))
        for episode in (num_prior - 1, num_prior):
            now = trial._replace(episode=jnp.int32(episode))
            action, after = acts.act(state, now, obs, key)
            same(after, now)
            key_z, key_action = jax.random.split(key)
            if acts is agent.exploit:
                key_z = key
            if make is pearl.pearl:
                key_action, noise = key, now.noise[episode]
            else:
                noise = jax.random.normal(key_z, (3,))
            z = noise if episode < num_prior else known
            expected = policy(z).mode()
            if acts is agent.explore:
                expected = policy(z).sample_and_log_prob(key_action)[0]
            np.testing.assert_allclose(action, expected, rtol=1e-3, atol=1e-4)


def test_the_phases_differ_in_what_they_learn():
    """The recipe's offline agent moves the encoder, its online agent does not."""
    store = task_store.offline(meta_dataset(), 3, 4, smac.context_sampling(SMALL))
    made = smac.recipe(POINTS.spec, SMALL, base.Plan(1, 1))
    state = jax.jit(made.offline.init)(KEY)
    _, batch = store.sample((), KEY)
    for agent, moves in ((made.offline, True), (made.online, False)):
        after, _ = jax.jit(agent.update)(state, batch, KEY)
        assert differ(after.tasks, state.tasks) == moves


def test_labels_begin_again_after_the_last():
    agent = smac.smac(SPEC, CONFIG, online=True)
    state = sharpened(jax.jit(agent.init)(KEY))
    trial = agent.explore.start(state, trial_context(), KEY)
    row = jax.tree.map(lambda x: x[0], made_up((1,), 5))
    rewards = [
        agent.explore.observe(state, trial._replace(episode=jnp.int32(at)), row)[1]
        for at in (0, 1, CONFIG.num_labels)
    ]
    assert rewards[0].reward == rewards[2].reward != rewards[1].reward
