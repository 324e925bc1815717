"""From Python: training, a policy in a user's units, and its file."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traits import small

import o2ojax
from o2ojax import api, exported
from o2ojax.agents import AGENTS, base
from o2ojax.errors import UserError
from o2ojax.types import EnvSpec, Transition, vector

SPEC = EnvSpec(
    "none", vector(3), 2, 9, action_bounds=((-2.0, 0.0), (2.0, 512.0)), num_tasks=2
)
PLAN = base.Plan(10, 10, jnp.float32([1.0, -2.0, 0.5]), jnp.float32([0.5, 2.0, 3.0]))
KEY = jax.random.key(0)
OBS = np.array([0.3, -1.0, 0.5])


def policy_of(name, explore=False):
    recipe = AGENTS.find(name).recipe(SPEC, small(name), PLAN)
    agent = recipe.offline
    acts, state = agent.explore if explore else agent.exploit, jax.jit(agent.init)(KEY)
    return api.RunPolicy(acts, agent.oracle, state, SPEC, {}), agent


@pytest.mark.parametrize("name", AGENTS)
def test_a_policy_acts_as_its_agent_and_so_does_its_file(name, tmp_path):
    """Over three steps, in which planners and agents that infer tasks remember."""
    policy, agent = policy_of(name)
    path = policy.export(tmp_path / "policy.o2o")
    again = exported.load(path)
    (state, other), key = (policy.start(seed=7), again.start(seed=7)), jax.random.key(7)
    key, own = jax.random.split(key)
    memory = agent.exploit.start(policy.state, (), own)
    act = jax.jit(agent.exploit.act)
    low, high = np.array(SPEC.action_bounds)
    for step in range(3):
        action, state = policy.act(OBS + step, state)
        same, other = again.act(OBS + step, other)
        key, own = jax.random.split(key)
        unit, memory = act(policy.state, memory, jnp.float32(OBS + step), own)
        np.testing.assert_allclose(action, low + (unit + 1) / 2 * (high - low), 1e-5)
        np.testing.assert_allclose(same, action, rtol=1e-4, atol=1e-4)
        given = OBS + step, action, 1.5, OBS + step + 1, False
        state, other = policy.observe(state, *given), again.observe(other, *given)
        row = Transition(
            *(jnp.float32(OBS + step), unit, jnp.float32(1.5), jnp.float32(1)),
            *(jnp.float32(OBS + step + 1), jnp.bool_(False), jnp.int32(0)),
        )
        memory, _ = agent.exploit.observe(policy.state, memory, row)
    for ours, theirs in zip(state.memory, jax.tree.leaves(memory), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_several_episodes_are_played_side_by_side():
    policy, _ = policy_of("fowm")
    state, alone = policy.start(seed=3, num=3), policy.start(seed=3)
    action, state = policy.act(np.stack([OBS, OBS, 2 * OBS]), state)
    single, _ = policy.act(OBS, alone)
    assert action.shape == (3, 2)
    np.testing.assert_allclose(action[0], single, rtol=1e-5)
    assert not np.allclose(action[0], action[1])  # a plan of its own
    state = policy.observe(
        state, np.stack([OBS] * 3), action, np.zeros(3), np.stack([OBS] * 3), [True] * 3
    )
    assert state.key.shape == (3, 2)


def test_a_file_holds_no_more_than_acting_needs(tmp_path):
    policy, _ = policy_of("iql")
    with zipfile.ZipFile(policy.export(tmp_path / "policy.o2o")) as file:
        with file.open("weights.npz") as weights:
            arrays = np.load(weights)
            sizes = [arrays[name].size for name in arrays.files]
    actor = jax.tree.leaves(policy.state.actor.params)
    assert sum(sizes) <= sum(leaf.size for leaf in actor)


def test_a_file_does_not_tell_where_it_was_made(tmp_path):
    with zipfile.ZipFile(policy_of("bc")[0].export(tmp_path / "policy.o2o")) as file:
        programs = [name for name in file.namelist() if name.endswith("stablehlo")]
        assert len(programs) == 3
        assert not any(b".py" in file.read(name) for name in programs)


@pytest.mark.parametrize("name", ["smac", "pearl"])
def test_an_agent_is_told_its_task_by_rows_of_it(name):
    policy, agent = policy_of(name)
    draw = np.random.default_rng(0)
    rows = Transition(
        obs=np.float32(draw.normal(size=(8, 3))),
        action=np.float32(draw.uniform(0, 1, (8, 2))),
        reward=np.float32(draw.normal(size=8)),
        discount=np.ones(8, np.float32),
        next_obs=np.float32(draw.normal(size=(8, 3))),
        last=np.zeros(8, bool),
        task=np.zeros(8, np.int32),
    )
    told, untold = policy.start(context=rows), policy.start()
    assert not all(map(np.array_equal, told.memory, untold.memory))
    action, _ = policy.act(OBS, told)
    assert action.shape == (2,)
    with pytest.raises(UserError, match="infers no task"):
        policy_of("bc")[0].start(context=rows)


@pytest.mark.parametrize(
    "obs, said",
    [
        (np.zeros(4), "an observation has 4 numbers, not 3"),
        ({"a": np.zeros(3)}, "an observation must be 3 numbers"),
        ("up", "an observation must be 3 numbers"),
    ],
)
def test_a_wrong_observation_is_refused_in_a_sentence(obs, said):
    policy, _ = policy_of("bc")
    with pytest.raises(UserError) as refused:
        policy.act(obs, policy.start())
    assert str(refused.value).startswith(said)


def damaged(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "edited":
        at = content.find(b"weights.npz") + 200
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    elif how == "text":
        path.write_text("a policy")
    elif how == "newer":
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        parts["about.json"] = json.dumps(
            json.loads(parts["about.json"]) | {"format": 9}
        )
        with zipfile.ZipFile(path, "w") as file:
            for name, part in parts.items():
                file.writestr(name, part)
    else:
        path.unlink()


@pytest.mark.parametrize(
    "how, said",
    [
        ("cut", "is no exported policy, or damaged"),
        ("edited", "is no exported policy, or damaged"),
        ("text", "is no exported policy, or damaged"),
        ("newer", "has format 9; this reads 1"),
        ("gone", "No such file or directory"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_in_a_sentence(how, said, tmp_path):
    path = policy_of("bc")[0].export(tmp_path / "policy.o2o")
    damaged(path, how)
    with pytest.raises(UserError) as refused:
        exported.load(path)
    assert said in str(refused.value) and "\n" not in str(refused.value)


# A whole run

FIELDS = {
    "agent.widths": (8, 8),
    "batch": 8,
    "offline.updates": 20,
    "online.steps": 20,
    "log.every": 10,
    "eval.every": 10,
    "eval.episodes": 2,
    "checkpoint.every": 10,
    "checkpoint.best": True,
}
HERE = Path(__file__).parent / "envs" / "hosted.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    draw = np.random.default_rng(0)
    obs = draw.normal(size=(101, 3))
    np.savez(
        folder / "log.npz",
        observations=obs[:-1],
        actions=draw.uniform(-2, 2, (100, 2)),
        rewards=draw.normal(size=100),
        terminals=np.zeros(100, bool),
        timeouts=np.arange(100) % 10 == 9,
        next_observations=obs[1:],
    )
    return o2ojax.train(
        "iql",
        env=f"{HERE}:Nested",
        dataset=folder / "log.npz",
        seeds=2,
        workdir=folder / "run",
        **FIELDS,
        horizon=10,
        env_keys=("at", "goal"),
    )


def test_training_returns_what_load_returns(trained):
    again = o2ojax.load(trained.directory)
    assert again.returns.shape == trained.returns.shape == (4, 2, 2)
    np.testing.assert_array_equal(again.success, trained.success)
    assert list(again.phase) == ["offline"] * 2 + ["online"] * 2
    assert "iql" in again.table() and "iql" in repr(again)
    assert again.figure(trained.directory / "x.png").stat().st_size > 10_000
    assert again.config["spec"]["action_bounds"] == [[-2.0, -2.0], [2.0, 2.0]]


def test_a_policy_sees_and_acts_in_the_environments_units(trained):
    policy = trained.policy(member=1)
    obs = {"at": [0.1], "goal": {"far": [0.2], "near": [0.3]}}
    action, _ = policy.act(obs, policy.start())
    assert np.abs(action).max() <= 2.0
    with pytest.raises(UserError, match="must be a dict with at, goal/far, goal/near"):
        policy.act({"at": [0.1]}, policy.start())


def test_checkpoints_and_members_are_named(trained):
    first = trained.policy(member=0, checkpoint=20)
    newest, best = trained.policy(member=0), trained.policy(checkpoint="best")
    assert first.about["provenance"]["checkpoint"] == 20
    assert newest.about["provenance"]["checkpoint"] == 41
    score = trained.success.mean(axis=(1, 2))  # the first of equal ones is kept
    assert best.about["provenance"]["checkpoint"] == (10, 20, 31, 41)[score.argmax()]
    with pytest.raises(UserError, match="has no checkpoint 7"):
        trained.policy(checkpoint=7)
    with pytest.raises(UserError, match="has no member 5"):
        trained.policy(member=5)


def test_a_file_acts_where_no_agent_can_be_imported(trained, tmp_path):
    path = trained.policy(member=0).export(tmp_path / "policy.o2o")
    obs = {"at": [0.1], "goal": {"far": [0.2], "near": [0.3]}}
    expected, _ = trained.policy(member=0).act(obs, trained.policy(member=0).start(3))
    script = f"""
import sys
sys.modules.update({{"o2ojax.agents": None, "o2ojax.api": None, "flax": None}})
from o2ojax import exported
policy = exported.load({str(path)!r})
action, _ = policy.act({obs!r}, policy.start(3))
print(*map(float, action))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(o2ojax.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = [float(x) for x in done.stdout.split()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"agent.lrr": 1.0},
            "unknown config field 'agent.lrr'; did you mean 'agent.lr'",
        ),
        ({"agent.lr": "fast"}, "config.agent.lr is 'fast'; it must be"),
        ({"horizon": 0}, "has no step limit of its own"),
        ({"env_args": {"speed": 1}}, "unexpected keyword argument 'speed'"),
        (
            {"action_bounds": (1, -1)},
            "config.action_bounds is (1, -1); it must be auto",
        ),
    ],
)
def test_bad_fields_are_refused_in_a_sentence(change, said, tmp_path):
    fields = FIELDS | {"horizon": 10, "offline.updates": 0} | change
    fields["replay.name"] = "online"
    with pytest.raises(UserError) as refused:
        o2ojax.train("iql", env=f"{HERE}:Walk", workdir=tmp_path / "run", **fields)
    assert said in str(refused.value)
