import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_rlpd

from o2ojax import learning, replay
from o2ojax.agents import AGENTS, base, rlpd
from o2ojax.errors import UserError
from o2ojax.run import resolve
from o2ojax.run.config import defaults
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
NUM, ROWS = 3, 8  # critic steps of an update, and rows of each
CONFIG = rlpd.RLPDConfig(
    lr=1e-3,
    gamma=0.9,
    target_rate=0.1,
    init_temperature=0.4,
    critic_steps=NUM,
    num_critics=4,
    widths=(16, 16),
)
BATCHES = reference.batches(3, rows=NUM * ROWS)
KEY = jax.random.key(0)


@jax.jit
def begin(config, key):
    return rlpd.rlpd(SPEC, config).init(key)


@jax.jit
def update(config, state, batch, key):
    return rlpd.rlpd(SPEC, config).update(state, batch, key)


@pytest.fixture(scope="module")
def start():
    """Targets of their own, so that all terms matter."""
    other = begin(CONFIG, jax.random.key(1)).critic.params
    return begin(CONFIG, KEY)._replace(target_critic=other)


def noise_of(config, key):
    """What an update's key stands for; all else is worked anew."""
    key_critic, key_actor = jax.random.split(key)
    next_one, few = [], []
    for one in jax.random.split(key_critic, NUM):
        key_next, key_few = jax.random.split(one)
        next_one.append([jax.random.normal(key_next, (ROWS, 2))])
        num = config.num_target_critics
        few.append(jax.random.choice(key_few, config.num_critics, (num,), False))
    actor = jax.random.normal(key_actor, (ROWS, 2))
    return reference_rlpd.Noise(np.float64(next_one), np.array(few), np.float64(actor))


def expected_update(expected, batch, config, key):
    batch = reference.double(batch)
    return reference_rlpd.update(
        expected,
        batch,
        config,
        noise_of(config, key),
        lambda q: q.mean(0),
        reference_rlpd.minibatch(batch, NUM - 1, NUM),
        dict.fromkeys(("actor", "critic", "log_temperature"), config.lr),
    )


OPTIONS = {
    "locomotion": {},
    "adroit": {"entropy_backup": False},
    "antmaze": {"entropy_backup": False, "num_target_critics": 1},
    "all_of_them": {"num_target_critics": 4},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_updates_are_those_of_the_reference(start, options):
    config = dataclasses.replace(CONFIG, **options)
    state, expected = start, reference.state_of(start)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = expected_update(expected, batch, config, key)
        expected["num_updates"] = np.float64(at + 1)
        reference.close(info.metrics, metrics, rtol=2e-5, atol=2e-6)
        reference.agree_in_all(state, expected)


def test_all_networks_begin_within_glorots_bounds():
    """Of means and log standard deviations each by itself, as if in two layers."""
    config = dataclasses.replace(CONFIG, widths=(48, 64))
    state = rlpd.rlpd(EnvSpec("none", vector(3), 32, 9), config).init(KEY)
    of_critics = {(35, 48): 83, (48, 64): 112, (64, 1): 65}  # fan in + fan out
    of_actor = {(3, 48): 51, (48, 64): 112, (64, 64): 96}
    for params, fans in (
        (state.critic.params, of_critics),
        (state.actor.params, of_actor),
    ):
        for kernel in kernels(params):
            bound = (6 / fans.pop(kernel.shape[-2:])) ** 0.5
            assert 0.95 * bound < np.abs(kernel).max() <= bound
        assert not fans


def kernels(params):
    layers = params["params"]["MLP_0"]
    return [layers[name]["kernel"] for name in layers if "Dense" in name]


def test_targets_temperature_and_count_start_where_they_are_told():
    state = begin(CONFIG, KEY)
    reference.close(state.target_critic, state.critic.params, rtol=0)
    np.testing.assert_allclose(np.exp(state.log_temperature.params), 0.4, rtol=1e-6)
    assert state.num_updates == 0


def test_only_critics_are_normalised():
    state = jax.eval_shape(rlpd.rlpd(SPEC, rlpd.RLPDConfig()).init, KEY)
    assert set(state.critic.params["params"]["MLP_0"]) == {
        *("Dense_0", "LayerNorm_0", "Dense_1", "LayerNorm_1", "Dense_2")
    }
    assert set(state.actor.params["params"]["MLP_0"]) == {
        *("Dense_0", "Dense_1", "Dense_2")
    }


# The steps of an update


def test_halves_of_the_store_are_halves_of_every_minibatch():
    """Rows of the dataset first and gathered ones after them, as `symmetric` draws."""
    dataset = jax.tree.map(lambda x: jnp.stack([x] * 9), base.blank_transition(SPEC))
    dataset = dataset._replace(reward=jnp.full(9, -1.0))
    gathered = dataset._replace(reward=jnp.full(9, 1.0))
    store = replay.STORES.find("symmetric")
    inputs = replay.Inputs(dataset, base.blank_transition(SPEC), NUM * ROWS, steps=9)
    buffer = store.online(inputs, store.options())
    _, batch = buffer.sample(buffer.add(buffer.init(), gathered), KEY)
    reward = learning.minibatches(batch.data, NUM).reward
    assert reward.shape == (NUM, ROWS)
    np.testing.assert_array_equal(reward.sum(axis=1), np.zeros(NUM))


def test_an_update_takes_a_minibatch_for_each_step_of_the_critics():
    algorithm = AGENTS.find("rlpd")
    config = rlpd.RLPDConfig()
    assert algorithm.online_batches(config) == algorithm.batches(config) == 20
    after, _ = update(CONFIG, begin(CONFIG, KEY), BATCHES[0], KEY)
    counts = [part.opt_state[0].count for part in after[:3]]
    assert counts == [1, NUM, 1]  # of actor, critics, temperature
    assert after.num_updates == 1


def test_the_policy_learns_from_the_last_minibatch_alone(start):
    """The earlier ones move it by way of critics only, which then stand still."""
    config = dataclasses.replace(CONFIG, entropy_per_dim=-3.0)
    batch = BATCHES[0]
    of_last = np.arange(NUM * ROWS) % NUM == NUM - 1
    for same, mask in ((True, of_last), (False, ~of_last)):
        other = np.where(mask[:, None], batch.data.obs, -batch.data.obs)
        idle = batch._replace(weight=np.zeros_like(batch.weight))
        state, _ = update(config, start, idle, KEY)
        moved = idle._replace(data=batch.data._replace(obs=other))
        after, _ = update(config, start, moved, KEY)
        gap = differences(after.actor.opt_state[0].mu, state.actor.opt_state[0].mu)
        assert (gap == 0) == same


def differences(one, other):
    gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
    return max(jax.tree.leaves(gaps))


def test_the_few_target_critics_are_different_ones_and_new_ones_every_step(
    start, monkeypatch
):
    picked = []
    monkeypatch.setattr(
        rlpd.networks,
        "pick",
        lambda params, few: (
            jax.debug.callback(lambda x: picked.append(tuple(x.tolist())), few)
            or jax.tree.map(lambda leaf: leaf[few], params)
        ),
    )
    program = jax.jit(rlpd.rlpd(SPEC, CONFIG).update)
    for seed in range(40):
        jax.block_until_ready(program(start, BATCHES[0], jax.random.key(seed)))
    jax.effects_barrier()
    assert len(picked) == 40 * NUM
    assert all(len(set(few)) == 2 for few in picked)
    counts = np.bincount(np.ravel(picked), minlength=4)
    assert (np.abs(counts - 60) < 5 * np.sqrt(40 * NUM / 4)).all()  # 30 of 120 pairs


def test_a_row_that_ended_does_not_look_ahead(start):
    batch = BATCHES[0]
    ended = batch.data.discount == 0
    elsewhere = np.where(ended[:, None], 9.0, batch.data.next_obs).astype(np.float32)
    moved = batch._replace(data=batch.data._replace(next_obs=elsewhere))
    state, _ = update(CONFIG, start, batch, KEY)
    same, _ = update(CONFIG, start, moved, KEY)
    reference.close(same, state, rtol=0)


def test_what_moves_what(start):
    """Rewards move critics, and the policy by them, but never the temperature."""
    batch = BATCHES[0]
    richer = batch._replace(data=batch.data._replace(reward=batch.data.reward + 5.0))
    state, _ = update(CONFIG, start, batch, KEY)
    other, _ = update(CONFIG, start, richer, KEY)
    assert differences(other.critic.params, state.critic.params) > 1e-4
    assert differences(other.actor.opt_state[0].mu, state.actor.opt_state[0].mu) > 1e-7
    reference.close(other.log_temperature, state.log_temperature, rtol=0)
    # the first critic step is blind to what the actor asks for
    one = dataclasses.replace(CONFIG, critic_steps=1)
    colder = dataclasses.replace(one, entropy_per_dim=-9.0)
    state, _ = update(one, start, batch, KEY)
    other, _ = update(colder, start, batch, KEY)
    for part in ("actor", "critic", "target_critic"):
        reference.close(getattr(other, part), getattr(state, part), rtol=0)
    told = (one.log_temperature.opt_state[0].mu for one in (state, other))
    np.testing.assert_allclose(np.subtract(*told), 0.1 * (-9.0 + 0.5) * 2, rtol=1e-5)


# Acting


def test_actions_are_uniform_until_something_is_learned(start):
    agent = rlpd.rlpd(SPEC, CONFIG)
    obs, keys = jnp.array([0.3, -0.2, 0.5]), jax.random.split(KEY, 4000)

    def play(policy, state):
        act = jax.jit(jax.vmap(policy.act, (None, None, None, 0)))
        return np.float64(act(state, (), obs, keys)[0])

    first = play(agent.explore, start)
    bins = np.histogram2d(*first.T, bins=4, range=[[-1, 1]] * 2)[0]
    assert np.abs(bins - 250).max() < 5 * np.sqrt(250)
    after = start._replace(num_updates=jnp.int32(1))
    params = reference.double(start.actor.params)["params"]["MLP_0"]
    out = reference.mlp(params, np.float64(obs))
    before = np.arctanh(np.clip(play(agent.explore, after), -1 + 1e-9, 1 - 1e-9))
    np.testing.assert_allclose(
        before.mean(0), out[:2], atol=5 * np.exp(out[2:]).max() / 63
    )
    np.testing.assert_allclose(before.std(0), np.exp(out[2:]), rtol=0.1)
    for state in (start, after):  # judged by the mode, learned or not
        mode = play(agent.exploit, state)
        np.testing.assert_allclose(
            mode, np.tile(np.tanh(out[:2]), (4000, 1)), rtol=1e-5
        )


# Config


def test_more_target_critics_than_critics_are_refused():
    config = defaults("rlpd", "hopper-medium-replay")
    config.agent.num_critics = config.agent.num_target_critics = 5
    resolve.resolve(config)
    config.agent.num_target_critics = 6
    with pytest.raises(UserError, match="critics is 6; a target takes at most all 5"):
        resolve.resolve(config)


def test_the_defaults_are_the_authors():
    config = rlpd.RLPDConfig()
    assert (config.lr, config.gamma, config.target_rate) == (3e-4, 0.99, 0.005)
    assert (config.init_temperature, config.entropy_per_dim) == (1.0, -0.5)
    assert (config.num_critics, config.num_target_critics) == (10, 2)
    assert (config.critic_steps, config.widths) == (20, (256, 256))
    assert config.layer_norm and config.entropy_backup


def test_it_goes_on_online_as_it_was_offline():
    recipe = AGENTS.find("rlpd").recipe(SPEC, CONFIG, base.Plan(9, 9))
    assert recipe.offline is recipe.online
    assert recipe.hand_over("agent", "full", "empty", KEY) == ("agent", "empty")
