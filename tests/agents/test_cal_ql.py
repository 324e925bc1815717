"""Cal-QL beside an independent computation, and what its lower bound does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_cal_ql
from reference_cql import Noise

from o2ojax.agents import AGENTS, base, cal_ql
from o2ojax.errors import UserError
from o2ojax.run import resolve
from o2ojax.run.config import defaults
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("none", vector(3), 2, 9)
CONFIG = cal_ql.CalQLConfig(
    lr=1e-3,
    actor_lr=5e-4,
    gamma=0.9,
    target_rate=0.1,
    init_temperature=0.4,
    conservatism=1.5,
    lagrange=False,
    num_actions=3,
    widths=(16, 16),
    actor_widths=(16, 16),
)
KEY = jax.random.key(0)


def with_floors(batch, at):
    """Some rows have a lower bound that binds, some none that does, some none yet."""
    floor = np.random.default_rng(at).normal(size=8) * 3
    floor[at % 8] = -np.inf
    extras = {"return_to_go": np.float32(floor)}
    return batch._replace(data=batch.data._replace(extras=extras))


BATCHES = [with_floors(batch, at) for at, batch in enumerate(reference.batches(3))]


@jax.jit
def begin(config, key):
    return cal_ql.cal_ql(SPEC, config).init(key)


@jax.jit
def update(config, state, batch, key):
    return cal_ql.cal_ql(SPEC, config).update(state, batch, key)


def noise_of(config, key, shape=(8, 2)):
    """What an update's key stands for, and the critics of the target."""
    actor, next_one, gap, some = jax.random.split(key, 4)
    uniform, own, ahead = jax.random.split(gap, 3)
    num = config.num_actions
    uniform = jax.random.uniform(uniform, (shape[0], num, shape[1]))

    def normals(key, num):
        keys = jax.random.split(key, num)
        return np.stack([np.float64(jax.random.normal(k, shape)) for k in keys])

    critics = np.arange(config.num_critics)
    if config.num_target_critics < config.num_critics:
        size = (config.num_target_critics,)
        critics = np.asarray(jax.random.randint(some, size, 0, config.num_critics))
    noise = Noise(
        actor=np.float64(jax.random.normal(actor, shape)),
        next_one=normals(next_one, num if config.max_backup else 1),
        uniform=np.float64(uniform * 2 - 1).swapaxes(0, 1),
        own=normals(own, num),
        ahead=normals(ahead, num),
    )
    return noise, critics


def steeper(params, factor):
    last = ["params", "MLP_0", "Dense_2", "kernel"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (factor if [k.key for k in path] == last else 1),
        params,
    )


def start_of(config):
    """Last layers far from zero, and a target of its own, so that all terms matter."""
    state = begin(config, KEY)
    other = begin(config, jax.random.key(1)).critic.params
    return state._replace(
        actor=state.actor._replace(params=steeper(state.actor.params, 50.0)),
        critic=state.critic._replace(params=steeper(state.critic.params, 100.0)),
        target_critic=steeper(other, 100.0),
    )


@pytest.fixture(scope="module")
def start():
    return start_of(CONFIG)


OPTIONS = {
    "plain": {},
    "uncalibrated": {"calibrate": False},
    "soft": {"gap_temperature": 3.0, "num_actions": 2},
    "one_next_action": {"max_backup": False},
    "entropy_backup": {"entropy_backup": True},
    "no_importance": {"importance": False},
    "lagrange": {"lagrange": True, "target_gap": 2.0},
    "ten_critics": {"num_critics": 10},
    "one_of_three": {"num_critics": 3, "num_target_critics": 1},
    "in_slices": {"num_actions": 100},  # 8 x 301 rows, by quarters
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_updates_are_those_of_the_reference(options):
    config = dataclasses.replace(CONFIG, **options)
    state = start_of(config)
    if config.lagrange:
        log_multiplier = state.log_multiplier._replace(params=jnp.float32(0.7))
        state = state._replace(log_multiplier=log_multiplier)
    expected = reference.state_of(state)
    for at, batch in enumerate(BATCHES):
        key = jax.random.key(at)
        state, info = update(config, state, batch, key)
        expected, metrics = reference_cal_ql.cal_ql(
            expected, reference.double(batch), config, *noise_of(config, key)
        )
        reference.close(info.metrics, metrics, rtol=5e-5, atol=5e-6)
        reference.agree_in_all(state, expected)


def test_the_bound_binds_in_these_tests(start):
    _, info = update(CONFIG, start, BATCHES[0], KEY)
    assert 0.1 < info.metrics["bounded"] < 0.9


def test_without_a_bound_calibration_changes_nothing(start):
    """-inf, as a row has it whose episode is not over."""
    none = {"return_to_go": jnp.full(8, -jnp.inf)}
    batch = BATCHES[0]._replace(data=BATCHES[0].data._replace(extras=none))
    state, info = update(CONFIG, start, batch, KEY)
    plain = dataclasses.replace(CONFIG, calibrate=False)
    same, told = update(plain, start, batch, KEY)
    reference.close(state, same, rtol=1e-6, atol=1e-8)
    assert info.metrics["bounded"] == told.metrics["bounded"] == 0


def test_what_lies_below_its_bound_is_pushed_no_further(start):
    """With all of the policy's actions below, only uniform ones are pushed down."""
    high = {"return_to_go": jnp.full(8, 1e3)}
    batch = BATCHES[0]._replace(data=BATCHES[0].data._replace(extras=high))
    config = dataclasses.replace(CONFIG, gap_temperature=1e3)  # all count alike

    def moved(config):
        after, info = update(config, start, batch, KEY)
        return after.critic.params, info.metrics["bounded"]

    (calibrated, bounded), (free, _) = (
        moved(config),
        moved(dataclasses.replace(config, calibrate=False)),
    )
    assert bounded == 1
    agent = cal_ql.cal_ql(SPEC, config)
    own = jnp.stack(
        [agent.exploit.act(start, (), obs, KEY)[0] for obs in batch.data.obs]
    )
    pushed, spared = (
        agent.q(
            start._replace(critic=start.critic._replace(params=params)),
            batch.data.obs,
            own,
        ).mean()
        for params in (free, calibrated)
    )
    assert pushed < spared


def test_the_bound_trains_no_policy(start):
    state, _ = update(CONFIG, start, BATCHES[0], KEY)
    other = dataclasses.replace(CONFIG, conservatism=50.0)
    same, _ = update(other, start, BATCHES[0], KEY)
    reference.close(same.actor, state.actor, rtol=0)
    reference.close(same.log_temperature, state.log_temperature, rtol=0)


def test_the_multiplier_stops_at_its_bound_and_weighs_its_target():
    config = dataclasses.replace(CONFIG, lagrange=True, target_gap=-99.0)
    state = start_of(config)
    state = state._replace(
        log_multiplier=state.log_multiplier._replace(params=jnp.float32(20.0))
    )
    after, info = update(config, state, BATCHES[0], KEY)
    assert info.metrics["multiplier"] == 1e6
    assert after.log_multiplier.params == 20.0


def test_it_begins_as_the_authors_do():
    state = begin(dataclasses.replace(CONFIG, lagrange=True), KEY)
    assert state.log_multiplier.params == 1.0
    own = state.actor.params["params"]
    assert own["log_std_scale"] == 1.0 and own["log_std_shift"] == -1.0
    last = state.critic.params["params"]["MLP_0"]["Dense_2"]["kernel"]
    np.testing.assert_allclose(np.linalg.norm(last, axis=1), 0.01, rtol=1e-3)
    reference.close(state.target_critic, state.critic.params, rtol=0)


def test_the_defaults_are_the_papers_for_mazes():
    config = cal_ql.CalQLConfig()
    assert (config.lr, config.actor_lr) == (3e-4, 1e-4)
    assert (config.conservatism, config.target_gap) == (5.0, 0.8)
    assert config.lagrange and config.max_backup and config.calibrate
    assert (config.widths, config.actor_widths) == ((256,) * 4, (256,) * 2)


def test_it_asks_for_returns_of_its_own_discount():
    algorithm = AGENTS.find("cal_ql")
    assert algorithm.needs(CONFIG).extras == ("return_to_go",)
    assert algorithm.needs(CONFIG).gamma == 0.9
    assert algorithm.needs(dataclasses.replace(CONFIG, calibrate=False)).extras == ()
    recipe = algorithm.recipe(SPEC, CONFIG, base.Plan(9, 9))
    assert recipe.offline is recipe.online


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"population.gamma": (0.9, 0.99)}, "config.population.gamma: members share"),
        ({"agent.num_target_critics": 3}, "config.agent.num_target_critics is 3"),
        ({"replay.name": "balanced"}, "cannot compute"),
    ],
)
def test_what_cannot_work_is_told(changes, told):
    config = defaults("cal_ql", "hopper-medium-replay")
    config.replay.name = "symmetric"
    resolve.resolve(config)
    resolve.put(config, changes)
    with pytest.raises(UserError, match=told):
        resolve.resolve(config)
