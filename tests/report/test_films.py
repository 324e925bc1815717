"""Films: who plays, that it is an episode, and what the pictures show."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import run as command
from experiments.report import main
from o2ojax import agents, envs, loop, policies, report
from o2ojax.envs import locomotion, manipulation, rendering
from o2ojax.errors import UserError
from o2ojax.meta import families
from o2ojax.report import films
from o2ojax.run import population
from o2ojax.run.job import prepare
from o2ojax.run.resolve import from_json, load, override, resolve
from o2ojax.types import EMPTY, EnvSpec, EnvState, Run, vector
from tests.report.test_report import CURVES, config, curves, write_run

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def backend():
    """What draws here; without it, what is to be drawn is skipped."""
    try:
        return rendering.find_backend()
    except UserError as error:
        pytest.skip(str(error))


def described(config):
    """What a run of two seeds says of a config file's config."""
    given = load(f"{ROOT}/experiments/configs/{config}")
    given.seeds = 2
    return resolve(given).described()


def train(workdir, online_steps):
    """A run of two members."""
    status = command.main(
        [
            f"--config={ROOT}/experiments/configs/iql.py:hopper-medium-replay",
            f"--workdir={workdir}",
            "--config.agent.widths=16,16",
            "--config.batch=32",
            "--config.seeds=1",
            "--config.population.beta=1,10",
            "--config.offline.updates=20",
            f"--config.online.steps={online_steps}",
            "--config.eval.every=20",
            "--config.eval.episodes=1",
            "--config.checkpoint.every=20",
            "--config.log.every=20",
        ]
    )
    assert status == 0
    return workdir


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that stayed offline."""
    return train(tmp_path_factory.mktemp("film") / "run", online_steps=0)


# Who plays


def test_the_member_with_the_best_final_score_is_chosen(tmp_path):
    nan = np.nan
    shown = curves([[9, 9, 9, 9]], [[90, 80, 20, 10], [20, nan, 50, 30]])
    result = report.read(write_run(tmp_path / "run", config(seeds=4), shown))
    assert films.choose(result, None) == 2
    assert films.choose(result, 0) == 0


@pytest.mark.parametrize("member", [2, -1])
def test_a_member_that_is_not_there_is_refused(member, tmp_path):
    result = report.read(write_run(tmp_path / "run", config(), CURVES))
    with pytest.raises(UserError, match=f"no member {member}: they are 0 to 1"):
        films.choose(result, member)


def test_a_run_whose_members_all_died_has_nobody_to_film(tmp_path):
    dead = curves([[5, 5]], [[np.nan, np.nan]])
    result = report.read(write_run(tmp_path / "run", config(), dead))
    with pytest.raises(UserError, match="all members have died"):
        films.choose(result, None)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["--config.population.expectile=0.7,0.9", "--config.seeds=3,5"],
        ["--config.online.until=50.0", "--config.agent.widths=8,4"],
        ["--config.simulator.mass=0.3", "--config.simulator.variants=2"],
        ["--config.offline.from=other", "--config.offline.updates=0"],
    ],
)
def test_a_config_comes_back_from_what_the_run_says_of_it(overrides):
    config = load(f"{ROOT}/experiments/configs/iql.py")
    override(config, overrides)
    given = resolve(config)
    described = json.loads(json.dumps(given.described()))
    again = from_json(described | {"members": [], "commit": ""})
    assert again.described() == given.described()
    assert again.agent == given.agent
    assert again.online.until == given.online.until


def assert_the_second_plays(workdir, phase, num_steps):
    """Its episode earns what an evaluation of its newest weights earns, by itself."""
    job = prepare(from_json(report.read(workdir).config), workdir)
    run, found = films.restore(job, workdir)
    assert found == phase
    plan = agents.Plan(20, num_steps)
    recipe = agents.AGENTS.find("iql").recipe(job.spec, job.config.agent, plan)
    state = jax.tree.map(lambda leaf: leaf[1], run.agent)
    env, policy = envs.make("hopper", "mujoco"), getattr(recipe, phase).exploit
    expected = jax.jit(
        lambda state, key: loop.evaluate(env, policy, EMPTY, Run(state, (), ()), key, 1)
    )(state, jax.random.fold_in(job.members.key[1], population.FILM))
    states, earned = films.episode_of(job, env, run, phase, 1)
    np.testing.assert_allclose(earned, expected.returns[0], rtol=1e-3)
    assert len(states.physics.qpos) == len(states.physics.qvel) > 1
    np.testing.assert_array_equal(states.age, np.arange(len(states.age)))


def test_a_member_plays_with_what_it_has_learned(finished):
    assert_the_second_plays(finished, "offline", 0)


@pytest.mark.slow
def test_a_member_plays_with_what_it_has_learned_online(tmp_path):
    assert_the_second_plays(train(tmp_path / "run", 20), "online", 20)


def test_of_a_family_the_episode_that_counts_is_filmed(tmp_path):
    """The last of a trial, in a task to be judged on."""
    given = load(f"{ROOT}/experiments/configs/smac.py:cheetah-vel-pearl")
    narrow = {"widths": (8,), "encoder_widths": (8,), "decoder_widths": (8,)}
    given.agent.update(narrow | {"prior_exploit": 1, "trial": 2})
    given.update({"seeds": 1, "physics": "mujoco"})
    given.tasks.test = given.eval.episodes = 3
    job = prepare(resolve(given), tmp_path)
    run = job.programs.init(job.members, job.dataset)
    env = envs.make("cheetah-vel", "mujoco", num_train=20, num_test=3)
    smac = agents.AGENTS.find("smac")
    stages_of = population.stages(smac, env.spec, job.sizes)

    def evaluate(run, who, dataset):
        agent, store = stages_of(who, dataset).offline
        key = jax.random.fold_in(who.key, population.FILM)
        return loop.evaluate(env, agent.exploit, store, run, key, 1, trial=2)

    one = jax.tree.map(lambda leaf: leaf[0], (run, job.members))
    expected = jax.jit(evaluate)(*one, job.dataset)
    states, earned = films.episode_of(job, env, run, "offline", 0)
    assert abs(expected.returns[0] - expected.metrics["episode_1"][0]) > 1e-2
    np.testing.assert_allclose(earned, expected.returns[0], rtol=1e-3)
    assert len(states.physics.qpos) == 200
    [speed] = families.split("cheetah-vel", 20, 3)[20]
    assert films.describe_task(job) == (
        f", task 20 of cheetah-vel ({speed:.2f}), the last of a trial's 2 episodes"
    )


def test_a_run_without_a_checkpoint_is_refused(finished, tmp_path):
    job = prepare(from_json(report.read(finished).config), finished)
    with pytest.raises(UserError, match="no checkpoint"):
        films.restore(job, tmp_path)


# That it is an episode


@pytest.fixture(scope="module")
def played():
    """A hopper that acts at random until it falls, and goes on after that."""
    env, run = envs.make("hopper", "mujoco"), Run((), (), ())
    policy = policies.uniform(env.spec.action_dim)
    (states, transitions), expected = jax.jit(
        lambda key: (
            films.play(env, policy, EMPTY, run, key),
            loop.evaluate(env, policy, EMPTY, run, key, 1),
        )
    )(KEY)
    return env, states, transitions, expected


def test_it_earns_what_an_evaluation_of_one_episode_earns(played):
    _, _, transitions, expected = played
    length = int(transitions.last.argmax()) + 1
    assert 1 < length < 1000
    np.testing.assert_allclose(
        transitions.reward[:length].sum(), expected.returns[0], rtol=1e-5
    )


def test_each_state_is_what_the_action_made_of_the_one_before(played):
    env, states, transitions, _ = played
    length = int(transitions.last.argmax()) + 1
    keys = jax.random.split(KEY, len(transitions.reward))
    after, _ = jax.jit(jax.vmap(env.step))(states, transitions.action, keys)
    np.testing.assert_array_equal(states.age[:length], np.arange(length))
    for name in ("qpos", "qvel"):
        now, then = getattr(after.physics, name), getattr(states.physics, name)
        np.testing.assert_array_equal(now[: length - 1], then[1:length])


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn: models and poses, in a list."""
    found = []

    def draw(model, poses, goal_radius):
        found.append((model, poses))
        return np.zeros((len(poses.qpos), rendering.HEIGHT, rendering.WIDTH, 3))

    monkeypatch.setattr(rendering, "draw", draw)
    return found


def begun(env, num):
    """States in which episodes begin, leaves [T, ...]."""
    reset = jax.jit(jax.vmap(env.reset))
    return reset(jax.random.split(KEY, num), np.zeros(num, np.int32))


def test_the_goal_of_a_task_is_seen(drawn):
    env = envs.make("reach", "mujoco")
    states = begun(env, 3)
    env.render(states)
    [(_, poses)] = drawn
    np.testing.assert_array_equal(poses.goal, states.physics.goal)
    assert poses.qpos.shape == (3, 9)


def test_a_task_without_a_goal_shows_none(drawn):
    env = envs.make("hopper", "mujoco")
    states = begun(env, 3)
    env.render(states)
    [(_, poses)] = drawn
    np.testing.assert_array_equal(poses.qpos, states.physics.qpos)
    np.testing.assert_array_equal(poses.qvel, states.physics.qvel)
    assert poses.goal.shape == (3, 0)


# How long each picture is shown


@pytest.mark.parametrize(
    "num_decisions, decision_time, every, num_frames",
    [
        (1000, 0.05, 2, 500),
        (1000, 0.008, 3, 334),
        (999, 0.05, 2, 500),
        (50, 0.05, 1, 50),
        (1, 0.008, 3, 1),
    ],
)
def test_a_film_takes_as_long_as_its_episode(
    num_decisions, decision_time, every, num_frames
):
    found, durations = films.timing(num_decisions, decision_time)
    assert found == every
    assert len(durations) == num_frames == len(range(0, num_decisions, every))
    # to half a hundredth of a second, but for what the last frame stands for
    whole = 1000 * num_frames * every * decision_time
    assert abs(sum(durations) - whole) <= 5
    assert min(durations) >= 20
    assert not any(duration % 10 for duration in durations)


POINTS = ("point-robot", "point-robot-sparse")


def test_the_time_of_a_decision_is_the_tasks():
    times = {
        name: envs.make(name, "mujoco").spec.decision_time
        for name in envs.ENVS
        if name not in (*POINTS, *envs.PICTURED)
    }
    assert times["halfcheetah"] == times["ant"] == pytest.approx(0.05)
    assert times["cheetah-vel"] == times["push-goal"] == pytest.approx(0.05)
    assert times["hopper"] == times["walker2d"] == pytest.approx(0.008)
    assert times["reach"] == times["push_sparse"] == pytest.approx(0.05)
    assert min(times.values()) > 0


@pytest.mark.parametrize("name", envs.FAMILIES)
def test_a_family_is_drawn_by_the_model_that_moves_in_it(name, drawn):
    env = envs.make(name, "mujoco", num_train=1, num_test=1)
    if name in POINTS:
        assert env.render is None and env.spec.decision_time == 0
        return
    env.render(begun(env, 1))
    [(model, shown)] = drawn
    assert (shown.qpos.shape, shown.qvel.shape) == ((1, model.nq), (1, model.nv))


def test_a_point_is_not_filmed(tmp_path):
    run = write_run(tmp_path / "run", described("iql.py:point-robot-pearl"), CURVES)
    with pytest.raises(UserError, match="no video of point-robot: it has nothing to"):
        films.film(report.read(run), tmp_path / "a.gif")


# What the pictures show


def moved(env, model, *shifts):
    """The model at rest, all of its joints moved by each of `shifts`."""
    qpos = np.stack([model.qpos0 + shift for shift in shifts])
    states = begun(env, len(shifts))
    physics, qvel = states.physics, np.zeros((len(shifts), model.nv))
    if isinstance(physics, manipulation.Scene):
        body = physics.physics._replace(qpos=qpos, qvel=qvel)
        return states._replace(physics=physics._replace(physics=body))
    return states._replace(physics=physics._replace(qpos=qpos, qvel=qvel))


def model_of(name):
    if name in locomotion.TASKS:
        return locomotion.load_model(locomotion.TASKS[name].file)
    return manipulation.load_models(envs.Simulator())[0]


@pytest.mark.parametrize("name", [*locomotion.TASKS, "reach"])
def test_a_moved_robot_is_another_picture(name, backend):
    env, model = envs.make(name, "mujoco"), model_of(name)
    rest, other = env.render(moved(env, model, 0, 0.1))
    assert rest.shape == (rendering.HEIGHT, rendering.WIDTH, 3)
    assert rest.dtype == np.uint8
    assert (rest != other).any(axis=-1).mean() > 0.01


def test_a_model_is_lit_without_being_changed():
    model = model_of("hopper")
    before = model.vis.headlight.ambient.copy()
    lit = rendering.lit(model)
    assert (lit.vis.headlight.ambient != before).any()
    np.testing.assert_array_equal(model.vis.headlight.ambient, before)


def test_the_table_is_at_the_bottom_of_the_picture(backend):
    env = envs.make("lift", "mujoco")
    [picture] = env.render(moved(env, model_of("lift"), 0))
    for rows, is_sky in ((picture[:20], True), (picture[-20:], False)):
        red, _, blue = rows.mean(axis=(0, 1))  # the sky is blue, the table of wood
        assert (blue > red + 5) == is_sky and (red > blue + 5) != is_sky


def test_a_goal_is_a_green_spot_through_which_the_cube_is_seen(backend):
    """At the goal there is the cube in one picture, and nothing in the other."""
    model = model_of("push")
    qpos = np.stack([model.qpos0, model.qpos0])
    qpos[1, 5] -= 0.3
    still = np.zeros((2, model.nv))

    def draw(goal):
        poses = rendering.Pose(qpos, still, goal)
        return rendering.draw(rendering.lit(model), poses, manipulation.NEAR)

    without = draw(np.zeros((2, 0)))
    full, empty = draw(np.tile(model.qpos0[5:8], (2, 1)))
    spot = (empty != without[1]).any(axis=-1)
    assert 0.005 < spot.mean() < 0.1
    red, green, blue = empty[spot].mean(axis=0)
    assert green > 1.2 * max(red, blue)
    cube = spot & (without[0] != without[1]).any(axis=-1)
    assert np.abs(full[cube].astype(int) - empty[cube]).mean() > 20


def test_a_film_is_written_whole_and_alone(tmp_path):
    frames = np.zeros((3, 24, 32, 3), np.uint8)
    for i, colour in enumerate([(250, 0, 0), (0, 250, 0), (0, 0, 250)]):
        frames[i, 4 * i : 4 * i + 4] = colour
    films.write(tmp_path / "a.gif", frames, [20, 30, 100])
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (3, (32, 24), 0)
        for i, duration in enumerate([20, 30, 100]):
            film.seek(i)
            assert film.info["duration"] == duration
            seen = np.asarray(film.convert("RGB")).astype(int)
            np.testing.assert_allclose(seen, frames[i], atol=10)


# The command


def test_the_command_films_the_best_member(finished, backend, tmp_path, capsys):
    out = f"--out={tmp_path / 'a.png'}"
    assert main([str(finished), out, f"--video={tmp_path / 'a.gif'}"]) == 0
    best = films.choose(report.read(finished), None)
    told = capsys.readouterr().err
    assert f"member {best} (seed 0, beta {(1, 10)[best]})" in told
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames > 1
        assert film.size == (rendering.WIDTH, rendering.HEIGHT)


def test_the_command_hands_on_which_member_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        films, "film", lambda result, path, member: asked.append((path, member))
    )
    run = write_run(tmp_path / "run", config(), CURVES)
    given = [str(run), f"--out={tmp_path / 'a.png'}", "--video=a.gif"]
    assert main([*given, "--member=1"]) == main(given) == 0
    assert asked == [(Path("a.gif"), 1), (Path("a.gif"), None)]


def test_data_that_are_no_longer_what_was_learned_from_are_refused(
    finished, monkeypatch
):
    monkeypatch.setattr(films, "find_backend", lambda: "none")
    result = report.read(finished)
    result.config["data_fingerprint"] = "another"
    with pytest.raises(UserError, match="hopper-medium-replay is not what"):
        films.film(result, Path("a.gif"))


@pytest.fixture
def forgotten():
    """What draws here is looked for anew, and again after the test."""
    rendering.find_backend.cache_clear()
    yield
    rendering.find_backend.cache_clear()


def test_the_next_backend_is_tried_where_one_is_missing(
    backend, monkeypatch, forgotten
):
    monkeypatch.setattr(rendering, "BACKENDS", ("nothing", backend))
    assert rendering.find_backend() == backend


def test_without_a_backend_packages_are_named_and_the_rest_is_there(
    tmp_path, monkeypatch, capsys, forgotten
):
    monkeypatch.setattr(rendering, "BACKENDS", ("nothing", "neither"))
    run = write_run(tmp_path / "run", described("iql.py:hopper-random"), CURVES)
    given = [str(run), f"--out={tmp_path / 'a.png'}", f"--video={tmp_path / 'a.gif'}"]
    assert main([*given, "--markdown"]) == 2
    told = capsys.readouterr()
    assert "| iql |" in told.out
    for package in ("libegl1", "libgl1-mesa-dri", "libosmesa6"):
        assert package in told.err
    assert told.err.count("error:") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run", "a.png"}


@pytest.mark.parametrize(
    "given, message",
    [
        (["run", "--video=a.mp4"], "should end in .gif"),
        (["run", "other", "--video=a.gif"], "one run at a time"),
        (["run", "--member=1"], "--member goes with --video"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_beside_a_film_is_what_the_agent_sees():
    draw = np.random.default_rng(0)
    seen = draw.integers(0, 256, (3, 4, 5, 6), dtype=np.uint8)  # a stack of two
    pixels = jax.ShapeDtypeStruct((4, 5, 6), np.uint8)
    spec = EnvSpec("seen", {"pixels": pixels}, 1, 3, stack=2)
    states = EnvState((), {"pixels": seen}, np.zeros(3), np.zeros(3))
    frames = np.zeros((3, 10, 7, 3), np.uint8)
    found = films.beside_what_is_seen(frames, states, spec)
    assert found.shape == (3, 10, 7 + 4 + 10, 3)
    large = seen[..., 3:].repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(found[:, :8, 11:], large)
    plain = EnvSpec("unseen", vector(3), 1, 3)
    np.testing.assert_array_equal(
        films.beside_what_is_seen(frames, states, plain), frames
    )
