"""Environments of Gymnasium: pure by seed and actions, whatever happens to them."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs.host import live, sources, workers
from o2ojax.envs.host.pool import EXTRAS, Pool
from o2ojax.errors import UserError

KEY = jax.random.key(0)
HERE = f"{__file__.rpartition('/')[0]}/hosted.py"
T, W = 50, 3


def build(name="Walk", horizon=30, **options):
    options["host"] = options.get("host", envs.Host())
    return envs.make(f"{HERE}:{name}", horizon=horizon, **options)


def played(env, state, first, num):
    """Steps W environments by fixed actions: states [num, W], transitions, the last."""
    actions = jax.random.uniform(jax.random.key(1), (T, W, 2), minval=-1.2, maxval=1.2)
    keys = jax.random.split(jax.random.key(2), (T, W))

    def one(states, given):
        after, made = jax.vmap(env.step)(states, *given)
        return after, (after, made)

    given = actions[first : first + num], keys[first : first + num]
    last, (states, made) = jax.jit(lambda s: jax.lax.scan(one, s, given))(state)
    return jax.tree.map(np.asarray, (states, made)), last


def begun(env):
    reset = jax.vmap(env.reset, (0, None))
    return jax.jit(reset)(jax.random.split(KEY, W), 0)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def by_gymnasium(env, seed, actions):
    """Observations and rewards of an episode, by Gymnasium alone."""
    np.random.seed(seed)
    random.seed(seed)
    seen, earned = [env.reset(seed=int(seed))[0]], []
    for action in actions:
        obs, reward, ended, cut, _ = env.step(np.float32(action))
        seen.append(obs)
        earned.append(reward)
        if ended or cut:
            break
    return np.float32(seen), np.float32(earned)


@pytest.mark.parametrize("global_noise", [False, True])
def test_episodes_are_gymnasiums_own(global_noise):
    env = build(args={"global_noise": global_noise})
    start = begun(env)
    (states, made), _ = played(env, start, 0, T)
    module = sources.load_module(HERE)
    for row in range(W):
        stops = np.flatnonzero(made.last[:, row])
        first = 0
        seed = int(start.physics.seed[row])
        for stop in stops:
            actions = 2 * np.clip(made.action[first : stop + 1, row], -1, 1)
            plain = module.Walk(global_noise=global_noise)
            seen, earned = by_gymnasium(plain, seed, actions)
            np.testing.assert_allclose(made.obs[first : stop + 1, row], seen[:-1])
            np.testing.assert_allclose(made.next_obs[stop, row], seen[-1])
            np.testing.assert_allclose(made.reward[first : stop + 1, row], earned)
            seed, first = int(states.physics.seed[stop, row]), stop + 1
        assert len(stops) >= 1


def test_time_limits_go_on_and_ends_do_not():
    env = build()
    (states, made), _ = played(env, begun(env), 0, T)
    ended = made.next_obs[..., 0] > 3
    np.testing.assert_array_equal(made.discount, 1.0 - ended)
    age = np.concatenate([np.zeros((1, W), int), states.age[:-1]])
    np.testing.assert_array_equal(made.last, ended | (age == 29))
    np.testing.assert_array_equal(states.age[made.last], 0)
    # what is gone on from is a new episode's, and the true next one was told
    assert (states.obs[made.last] != made.next_obs[made.last]).all()
    same(states.obs[~made.last], made.next_obs[~made.last])
    assert env.success(states, made).dtype == np.float32


def test_success_is_the_best_of_the_episode_so_far():
    env = build()
    (states, made), _ = played(env, begun(env), 0, T)
    best = np.zeros(W)
    for t in range(T):
        best = np.maximum(best, made.next_obs[t, :, 1] > 1)
        np.testing.assert_array_equal(env.success(states, made)[t], best)
        best = np.where(made.last[t], 0, best)
    assert 0 < env.success(states, made).mean() < 1


@pytest.mark.parametrize("global_noise", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_goes_on_to_the_same_bits_elsewhere(num_workers, global_noise):
    """Nothing lives on but arrays: others play the episodes again."""
    options = dict(args={"global_noise": global_noise}, host=envs.Host(num_workers))
    env = build(**options)
    whole, _ = played(env, begun(env), 0, T)
    before, state = played(env, begun(env), 0, 17)
    other = build(**options)
    after, _ = played(
        other, jax.tree.map(jnp.asarray, jax.device_get(state)), 17, T - 17
    )
    same(whole, jax.tree.map(lambda *x: np.concatenate(x), before, after))


def test_equal_requests_get_equal_answers():
    env = build()
    state = begun(env)
    (first, made), _ = played(env, state, 0, 5)
    (again, remade), _ = played(env, state, 0, 5)
    same((first, made), (again, remade))


def open_pool(name="Walk", horizon=30, **args):
    source = sources.Source(f"{HERE}:{name}", args)
    known = live.probe(source, horizon)
    return Pool(source, known.spaces, horizon, known.owns_generators)


def rows_of(tickets, seeds, ages, new_seeds, actions):
    """Requests, as rows of bits."""
    numbers = np.uint32([seeds, ages, new_seeds]).T
    return np.concatenate([tickets, numbers, np.float32(actions).view(np.uint32)], 1)


def parts_of(answers):
    """Numbers [N, 2 O + EXTRAS], tickets [N, 4], and whether they are there [N]."""
    numbers = answers.view(np.float32)[:, : 2 * 2 + EXTRAS]
    return numbers, answers[:, -5:-1], answers[:, -1] == 1


def step(pool, ticket, seed, actions, action):
    """Asks for a step as a compiled loop does."""
    row = rows_of(ticket, [seed], [len(actions)], [99], [action])
    numbers, after, found = parts_of(pool.step(row))
    if not found:
        log = np.zeros((1, pool.horizon, 2), np.float32)
        log[0, : len(actions)] = actions
        numbers, after, found = parts_of(pool.step(row, log))
    assert found
    return numbers, after


def test_an_episode_that_is_not_live_is_played_again():
    pool, other = open_pool(), open_pool()
    _, ticket = pool.reset(np.uint32([5]))
    actions = np.float32([[0.1, 0.2], [0.3, -1.0], [1.0, 1.0]])
    for at, action in enumerate(actions):
        row, ticket = step(pool, ticket, 5, actions[:at], action)
    there = live_ticket(5, actions[:2])
    again, its_ticket = step(other, there, 5, actions[:2], actions[2])
    same((row, ticket), (again, its_ticket))
    assert (pool.replayed, other.replayed) == (0, 2)
    # a turn back, and two that go on from one state
    one, _ = step(pool, ticket, 5, actions, [0.0, 0.0])
    two, _ = step(pool, ticket, 5, actions, [1.0, 0.0])
    assert pool.replayed == 3 and not np.array_equal(one, two)


def test_the_log_is_sent_only_to_play_an_episode_again(monkeypatch):
    """Under vmap over members, too, all of whose episodes begin alike."""
    calls = []
    step = workers.Host.step

    def watched(self, rows, *actions):
        calls.append((rows.shape, len(actions)))
        return step(self, rows, *actions)

    monkeypatch.setattr(workers.Host, "step", watched)
    env = build()

    def play(env, states, first, count):
        def member(states, scale):
            def one(states, key):
                actions = scale * jax.random.normal(key, (W, 2))
                return jax.vmap(env.step, (0, 0, None))(states, actions, key)[0], None

            keys = jax.random.split(KEY, 40)[first : first + count]
            return jax.lax.scan(one, states, keys)[0]

        return jax.jit(jax.vmap(member))(states, jnp.float32([0.1, 1.0]))

    states = jax.tree.map(lambda x: jnp.stack([x, x]), begun(env))
    halfway = play(env, states, 0, 12)
    whole = play(env, halfway, 12, 8)
    assert calls == [((2 * W, 4 + 3 + 2), 0)] * 20
    calls.clear()
    again = play(build(), halfway, 12, 8)  # nothing of which is live
    same(jax.device_get(whole), jax.device_get(again))
    assert [log for _, log in calls] == [0, 1, *[0] * 7]


def test_threads_step_mujocos_environments_to_the_same_bits(monkeypatch):
    monkeypatch.setattr(workers, "num_cores", lambda: 3)
    monkeypatch.setattr(live, "THREADED_FROM", 0.0)
    source = sources.Source("gymnasium:InvertedPendulum-v5", {})
    known = live.probe(source)
    assert known.threaded
    assert not live.probe(sources.Source(f"{HERE}:Walk", {}), 30).threaded
    found = []
    for threaded in (True, False):
        host = workers.Host(source, known._replace(threaded=threaded))
        assert host.pools[0].pool.num_threads == (3 if threaded else 1)
        seeds = np.arange(5, dtype=np.uint32)
        _, tickets = host.reset(seeds)
        for age in range(20):
            actions = np.sin(age + np.arange(5))[:, None]
            rows = rows_of(tickets, seeds, np.full(5, age), seeds + 9, actions)
            answers = host.step(rows)
            tickets = answers[:, -5:-1]
            found.append(answers)
        host.check()
        host.close()
    np.testing.assert_array_equal(found[:20], found[20:])


def live_ticket(seed, actions):
    ticket = live.ticket_of(seed)
    for action in actions:
        ticket = live.next_ticket(ticket, action)
    return np.frombuffer(ticket, np.uint32)[None]


def test_a_pool_makes_no_more_environments_than_it_needs():
    pool = open_pool(horizon=4)
    _, tickets = pool.reset(np.arange(3, dtype=np.uint32))
    seeds, ages = np.arange(3), np.zeros(3)
    for step in range(40):
        new = np.arange(3) + 3 * (step + 1)
        action = np.full((3, 2), 0.01 * step)
        rows = rows_of(tickets, seeds, ages, new, action)
        numbers, tickets, found = parts_of(pool.step(rows))
        assert found.all()
        stops = numbers[:, 2 * 2 + 2] > 0
        seeds, ages = np.where(stops, new, seeds), np.where(stops, 0, ages + 1)
    assert pool.replayed == 0
    assert len(pool.live) + len(pool.idle) <= 6


def test_an_old_request_is_answered_whole():
    """Its episodes are over, and newer ones that are over crowd them out."""
    pool, none = open_pool(horizon=1), np.zeros((3, 0, 2), np.float32)

    def ask(seeds, *log):
        tickets = np.concatenate([live_ticket(seed, []) for seed in seeds])
        zeros = np.zeros((3, 2))
        rows = rows_of(tickets, seeds, np.zeros(3), np.add(seeds, 1000), zeros)
        return pool.step(rows, *log)

    first = ask([1, 2, 3])
    for start in (10, 20, 30):
        ask([start, start + 1, start + 2])
    again = ask([1, 2, 50], none)
    np.testing.assert_array_equal(first[:2], again[:2])
    assert parts_of(again)[2].all()


def test_each_device_may_ask_for_rows_of_its_own():
    source = sources.Source(f"{HERE}:Walk", {})
    known = live.probe(source, 30)
    pool = Pool(source, known.spaces, 30, False, num_callers=4)
    tickets = {}
    for age in range(10):
        for caller in range(4):
            seeds = np.arange(2, dtype=np.uint32) + 10 * caller
            if age == 0:
                _, tickets[caller] = pool.reset(seeds)
            rows = rows_of(
                tickets[caller], seeds, np.full(2, age), seeds + 5, np.zeros((2, 2))
            )
            _, tickets[caller], found = parts_of(pool.step(rows))
            assert found.all()
    assert pool.replayed == 0


def test_nested_dicts_are_joined_in_the_order_that_is_asked_for():
    everything = build("Nested")
    assert everything.spec.obs_keys == ("at", "goal/far", "goal/near")
    some = build("Nested", keys=("goal/near", "at"))
    assert some.spec.obs.shape == (2,)
    whole, part = begun(everything).obs, begun(some).obs
    np.testing.assert_array_equal(part, whole[:, [2, 0]])
    assert build("Nested", keys=("goal",)).spec.obs_keys == ("goal/far", "goal/near")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("alone", [False, True])
def test_pictures_are_gymnasiums_own(alone, workers):
    """Bit for bit, before and after a restart; 105 bytes are no whole words."""
    host = envs.Host(workers=workers)
    env = build("Camera", args={"alone": alone}, host=host)
    seen = {"pixels" if alone else "eye": ((5, 7, 3), jnp.uint8)}
    seen |= {} if alone else {"state": ((2,), jnp.float32)}
    assert {k: (x.shape, x.dtype) for k, x in env.spec.obs.items()} == seen
    start = begun(env)
    (states, made), _ = played(env, start, 0, T)
    plain = sources.load_module(HERE).Camera(alone=alone)
    for row in range(W):
        seed, first = int(start.physics.seed[row]), 0
        for stop in np.flatnonzero(made.last[:, row]):
            actions = 2 * np.clip(made.action[first : stop + 1, row], -1, 1)
            assert_seen(made, row, first, plain.reset(seed=seed)[0])
            for at, action in enumerate(np.float32(actions), first):
                shown = plain.step(action)[0]
                assert_seen(made, row, at, shown, "next_obs")
                if at < stop:
                    assert_seen(made, row, at + 1, shown)
            seed, first = int(states.physics.seed[stop, row]), stop + 1
        assert first > 0


def assert_seen(made, row, at, shown, which="obs"):
    """What a row of transitions sees is what Gymnasium has shown."""
    found = jax.tree.map(lambda x: x[at, row], getattr(made, which))
    if not isinstance(shown, dict):
        shown = {"eye": shown}
        found = {"eye": found["pixels"]}
    assert found["eye"].tobytes() == shown["eye"].tobytes()
    if "at" in shown:
        np.testing.assert_array_equal(found["state"], np.float32(shown["at"]))


def test_pictures_come_back_where_an_episode_is_played_again():
    """In a fresh process, as after a resume: only actions and seeds were kept."""
    env = build("Camera")
    whole, _ = played(env, begun(env), 0, T)
    _, middle = played(env, begun(env), 0, 20)
    again, _ = played(build("Camera"), middle, 20, T - 20)
    same(again, jax.tree.map(lambda x: x[20:], whole))


@pytest.mark.parametrize("alone", [False, True])
def test_a_stack_is_what_was_seen_before(alone):
    """Beside an environment that shows one picture: of each step, the last three."""
    name = "pixels" if alone else "eye"
    args, three = {"alone": alone}, envs.Pixels(stack=3)
    one = build("Camera", args=args, horizon=9)
    env = build("Camera", args=args, horizon=9, pixels=three)
    assert env.spec.stack == 3 and env.spec.obs[name].shape == (5, 7, 9)
    (_, single), _ = played(one, begun(one), 0, T)
    (states, made), _ = played(env, begun(env), 0, T)
    for row in range(W):
        before = []
        for at in range(T):
            before = before or [single.obs[name][at, row]] * 3
            seen = np.concatenate(before[-3:], axis=-1)
            np.testing.assert_array_equal(made.obs[name][at, row], seen)
            before.append(single.next_obs[name][at, row])
            seen = np.concatenate(before[-3:], axis=-1)
            np.testing.assert_array_equal(made.next_obs[name][at, row], seen)
            before = [] if made.last[at, row] else before
    assert made.last.sum() > W
    same(states.obs[name][:-1], made.obs[name][1:])


def test_entries_are_chosen_among_numbers_and_pictures():
    assert build("Camera", keys=("at",)).spec.obs.shape == (2,)
    assert list(build("Camera", keys=("eye",)).spec.obs) == ["eye"]
    probed = build("Camera").seen
    assert probed["eye"].shape[1:] == (5, 7, 3) and probed["eye"].dtype == np.uint8
    assert probed["state"].dtype == np.float32


def test_what_is_registered_and_what_brings_its_limit():
    spec = envs.make("gymnasium:Pendulum-v1").spec
    assert (spec.horizon, spec.obs.shape, spec.action_dim) == (200, (3,), 1)
    assert spec.action_bounds == ((-2.0,), (2.0,))
    assert envs.make("gymnasium:Pendulum-v1", horizon=7).spec.horizon == 7
    assert build("limited", horizon=0).spec.horizon == 9


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("Walk", {"horizon": 0}, "has no step limit of its own: give config.horizon"),
        ("discrete", {}, "has actions of the kind Discrete; only continuous ones"),
        (
            "unbounded",
            {},
            "has actions from -inf to inf; every one needs finite bounds",
        ),
        ("grey", {}, "is a picture, [8, 8]; they must be [height, width, channels]: w"),
        ("channels_first", {}, "is a picture, [3, 8, 8], channels first; they must be"),
        (
            "floating",
            {},
            "is a picture of float32, [8, 8, 3]; they must be uint8, 0 to",
        ),
        ("filmed", {}, "is a picture, [4, 8, 8, 3]; they must be [height, width, chan"),
        (
            "other_size",
            {},
            "a picture is float64 [2], and the observation space says u",
        ),
        ("Walk", {"pixels": envs.Pixels(stack=2)}, "config.pixels.stack is 2, and"),
        ("Camera", {"pixels": envs.Pixels(size=64)}, "draws its pictures itself; con"),
        ("text", {}, "an observation is a Text, not numbers"),
        ("nothing", {}, "returns a NoneType; it must return an o2ojax.types.Env or a"),
        ("Walk", {"args": {"speed": 1}}, "unexpected keyword argument 'speed'"),
        ("Walk", {"keys": ("goal",)}, "observations of"),
        ("Nested", {"keys": ("gaol",)}, "config.env_keys names 'gaol', and observatio"),
        ("Fails", {"args": {"how": "reset"}}, "RuntimeError: no power"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(name, options, said):
    with pytest.raises(UserError) as refused:
        build(name, **options)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name, said",
    [
        ("gymnasium:Pushed-v5", "Gymnasium has no environment 'Pushed-v5'"),
        ("gymnasium:no_module:Pusher-v5", "ModuleNotFoundError"),
        ("gymnasium:CartPole-v1", "actions of the kind Discrete"),
        ("gymnasium:", "cannot be made"),
    ],
)
def test_a_name_that_gymnasium_does_not_know(name, said):
    with pytest.raises(UserError, match=said):
        envs.make(name)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    "how, said",
    [
        ("raises", "RuntimeError: the gripper (hosted.py, line"),
        ("nan", "number 1 of an observation is nan"),
        ("reward", "the reward is inf"),
        ("size", "an observation has 3 numbers, and the observation space says 2"),
    ],
)
def test_what_goes_wrong_in_a_run_is_told_after_it(how, said, num_workers):
    """With the seed and the step; compiled programs end, on NaN."""
    env = build("Fails", args={"how": how}, host=envs.Host(num_workers))
    state = begun(env)
    played(env, state, 0, 10)
    env.check()  # nothing so far
    played(env, state, 0, T)
    with pytest.raises(UserError) as failed:
        env.check()
    seeds = [str(seed) for seed in state.physics.seed]
    assert said in str(failed.value) and "at step 25 of" in str(failed.value)
    assert any(f"seed {seed}:" in str(failed.value) for seed in seeds)
    env.check()  # once


def test_a_worker_that_dies_is_replaced_and_its_episodes_played_again(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    env = build("Fails", args={"how": "dies once"}, host=envs.Host(workers=2))
    with pytest.warns(workers.HostWarning, match="died with status 7; another one"):
        found, _ = played(env, begun(env), 0, T)
    env.check()
    plain = build("Walk")
    same(found, played(plain, begun(plain), 0, T)[0])


@pytest.mark.parametrize(
    "how, said", [("dies", "died with status 7"), ("hangs", "did not answer for 2 s")]
)
def test_a_worker_that_dies_again_stops_the_run(how, said):
    env = build("Fails", args={"how": how}, host=envs.Host(1, 2.0))
    with pytest.warns(workers.HostWarning):
        played(env, begun(env), 0, T)
    with pytest.raises(UserError, match=f"{said}, and so did another one"):
        env.check()


def test_an_environment_with_hidden_state_is_found_out():
    assert build().spec.pure
    assert not build(args={"hidden": True}).spec.pure


def test_global_generators_are_left_as_they_were():
    np.random.seed(3)
    random.seed(3)
    expected = np.random.uniform(), random.random()
    np.random.seed(3)
    random.seed(3)
    env = build(args={"global_noise": True})
    played(env, begun(env), 0, T)
    assert (np.random.uniform(), random.random()) == expected
