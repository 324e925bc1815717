"""Configs from files, command lines and run directories: what becomes of them."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from o2ojax import envs, fields
from o2ojax.agents import AGENTS
from o2ojax.errors import UserError
from o2ojax.replay import STORES
from o2ojax.run import rhythm
from o2ojax.run.config import RunConfig, as_json, defaults, differences
from o2ojax.run.resolve import from_json, load, override, resolve

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
HOPPER = "hopper-medium-replay"
TASKS = {"fowm": "lift-medium-replay", "smac": "point-robot-pearl"}
TASKS |= {"sac": "hopper", "pearl": "point-robot"}


def given(**changes):
    """A plain config of IQL with a few fields, by their dotted names."""
    config = defaults("iql", HOPPER)
    for name, value in changes.items():
        *path, last = name.split("__")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return config


def resolved(*arguments, config=None):
    """The config that a command line makes of another."""
    config = given() if config is None else config
    override(config, [f"--config.{argument}" for argument in arguments])
    return resolve(config)


def refusal(config):
    with pytest.raises(UserError) as refused:
        resolve(config)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def write(tmp_path):
    """Writes a config file; returns its path as text."""

    def written(body):
        path = tmp_path / "mine.py"
        head = "from o2ojax.run.config import defaults\n"
        path.write_text(f"{head}def get_config(task='{HOPPER}'):\n    {body}\n")
        return str(path)

    return written


# What a RunConfig is


def test_a_config_is_typed_and_frozen():
    run = resolve(given(batch="64", offline__updates=1e3, agent__widths=[8, 8]))
    assert (run.batch, run.offline.updates, run.agent.widths) == (64, 1000, (8, 8))
    assert type(run.offline.updates) is int
    for part, name in ((run, "batch"), (run.offline, "updates"), (run.agent, "lr")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, 1)


def test_defaults_are_what_an_empty_config_gets():
    """But for the names; and a config of no more than names is enough."""
    names = {"algorithm": "iql", "env": "hopper", "dataset": HOPPER}
    assert resolve(names) == resolve(given())
    assert resolve(given()).agent == AGENTS.find("iql").config()
    assert resolve(names | {"replay": {"capacity": 5_000}}).replay.name == "uniform"


def test_a_config_may_be_a_plain_dict():
    plain = given(batch=64).to_dict()
    assert type(plain) is dict and type(plain["offline"]) is dict
    assert resolve(plain) == resolve(given(batch=64))


def test_references_are_followed():
    config = given(batch=64)
    config.eval.every = 2_000
    config.checkpoint.every = config.get_oneway_ref("batch") * 500
    config.offline.updates = config.eval.get_ref("every")
    config.eval.every = 4_000
    run = resolve(config)
    assert (run.checkpoint.every, run.offline.updates) == (32_000, 4_000)


def test_the_config_that_was_given_is_left_as_it_was():
    config = given(batch="64")
    resolve(config)
    assert config.batch == "64" and config.seeds == 4


@pytest.mark.parametrize("name", ["env", "algorithm"])
@pytest.mark.parametrize("value", ["", None, 3, ("iql",)])
def test_a_config_without_a_name_is_refused(name, value):
    said = refusal(given(**{name: value}))
    assert name in said.split("; ")[0]


def test_a_section_is_a_dict():
    for name in ("offline", "agent", "replay", "population", "simulator"):
        said = refusal(given(**{name: 3}))
        assert said.startswith(f"config.{name} is 3; it must be a dict of fields")


# Files


def test_a_file_is_given_its_task(write):
    path = write("return defaults('iql', task)")
    assert load(path).dataset == HOPPER
    assert load(f"{path}:ant").env == "ant"


@pytest.mark.parametrize(
    "body, why",
    [
        ("pass", "get_config() returns a NoneType; it must return what"),
        ("return [1, 2]", "get_config() returns a list; it must return what"),
        ("return defaults('iqll', task)", "unknown algorithm 'iqll'; did you mean"),
        ("return 1 / 0", "line 3, fails with ZeroDivisionError: division by zero"),
        ("return defaults('iql', task).bach", "line 3, fails with AttributeError"),
    ],
)
def test_a_file_that_gives_no_config_is_named(write, body, why):
    path = write(body)
    with pytest.raises(UserError) as refused:
        load(path)
    said = str(refused.value)
    assert said.startswith(f"--config={path}") and why in said and "\n" not in said


def test_a_file_may_give_part_of_a_config_as_a_dict(write):
    run = resolve(
        load(
            write(
                "return {'algorithm': 'bc', 'env': 'hopper', 'dataset': task,"
                " 'agent': {'lr': 1e-4}, 'online': {'steps': 0}}"
            )
        )
    )
    assert run.agent == AGENTS.find("bc").config(lr=1e-4)
    assert run.online.steps == 0 and run.batch == RunConfig().batch


def test_overrides_reach_what_a_part_leaves_out(write):
    config = load(write("return {'algorithm': 'iql', 'env': 'hopper'}"))
    run = resolved(
        f"dataset={HOPPER}",
        "agent.widths=8,8",
        "online.steps=0",
        "simulator.iterations=3",
        config=config,
    )
    assert (run.dataset, run.agent.widths) == (HOPPER, (8, 8))
    assert (run.online.steps, run.simulator.iterations) == (0, 3)


def test_a_part_without_its_names_is_refused(write):
    config = load(write("return {'batch': 64}"))
    assert refusal(config) == "config.algorithm is None; it must be a name"


# Unknown fields


@pytest.mark.parametrize(
    "change, said",
    [
        ({"bach": 3}, "unknown config field 'bach'; did you mean 'batch'"),
        (
            {"online__setps": 3},
            "unknown field of config.online 'setps'; did you mean 'steps'",
        ),
        (
            {"agent__expectil": 0.5},
            "unknown hyper-parameter of iql 'expectil'; did you mean 'expectile'? Kn",
        ),
        (
            {"replay__capasity": 3},
            "unknown field of config.replay 'capasity'; did you mean 'capacity'? Kno",
        ),
        (
            {"offline__source": "runs/a"},
            "unknown field of config.offline 'source'. Known: fitted_q, from",
        ),
    ],
)
def test_an_unknown_field_is_answered_with_the_nearest(change, said):
    assert refusal(given(**change)).startswith(said)


@pytest.mark.parametrize(
    "argument, said",
    [
        ("--config.agent.expectil=1", "unknown config field 'agent.expectil'; did you"),
        ("--config.replay.options=1", "unknown config field 'replay.options'"),
        ("--config.offline=1", "unknown config field 'offline'"),
        ("--config.agent=1", "unknown config field 'agent'"),
        ("--config.population=1", "unknown config field 'population'"),
        ("--config.batch", "cannot read '--config.batch'; overrides look like --con"),
        ("--batch=3", "cannot read '--batch=3'; overrides look like --config.FIELD=V"),
        ("--config.batch=many", "config.batch is 'many'; it must be a whole number of"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused(argument, said):
    with pytest.raises(UserError) as refused:
        override(given(), [argument])
    assert str(refused.value).startswith(said)


# Seeds


@pytest.mark.parametrize(
    "value, expected",
    [
        (3, (0, 1, 2)),
        ("3", (0, 1, 2)),
        (3.0, (0, 1, 2)),
        (np.int64(3), (0, 1, 2)),
        ((7, 5), (7, 5)),
        ([7, 5], (7, 5)),
        ("7,5", (7, 5)),
        ("(7,)", (7,)),
        (range(2, 4), (2, 3)),
        (np.array([7, 5]), (7, 5)),
        ((2**32 - 1,), (2**32 - 1,)),
    ],
)
def test_seeds_are_a_number_or_themselves(value, expected):
    found = resolve(given(seeds=value)).seeds
    assert found == expected and {type(seed) for seed in found} == {int}


@pytest.mark.parametrize(
    "value",
    [0, -1, 1.5, (), (1, 1), (1, -1), (2**32,), 100_001, None, "few", True, (0.5,)],
)
def test_what_names_no_seeds_is_refused(value):
    said = refusal(given(seeds=value))
    assert said.startswith(f"config.seeds is {value!r}; it must be a number of seeds")


# Populations


@pytest.mark.parametrize(
    "value, expected",
    [
        ((0.7, 0.9), (0.7, 0.9)),
        ([0.9, "0.7"], (0.9, 0.7)),
        (0.7, (0.7,)),
        ("0.7,0.9", (0.7, 0.9)),
        (np.array([0.5, 0.25]), (0.5, 0.25)),
    ],
)
def test_a_population_lists_values_of_a_number(value, expected):
    run = resolve(given(population__expectile=value))
    assert run.population == {"expectile": expected}


def test_the_fields_of_a_population_have_one_order():
    one = resolved("population.lr=1e-3,1e-4", "population.beta=1,3").population
    other = resolved("population.beta=1,3", "population.lr=1e-3,1e-4").population
    assert list(one.items()) == list(other.items()) == sorted(one.items())


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("expectile", (), "config.population.expectile lists no value; give one or m"),
        ("expectile", (0.7, 0.7), "is (0.7, 0.7), which has a value twice in float32"),
        ("expectile", (0.7, 0.7 + 1e-12), "which has a value twice in float32"),
        ("expectile", (0.7, 1.5), "config.population.expectile is 1.5; it must be a n"),
        ("max_weight", (1.0, math.inf), "is (1.0, inf); all values must be finite"),
        ("beta", (1.0, math.nan), "config.population.beta is nan; it must be a finite"),
        ("expectile", None, "config.population.expectile is None; it must be a numbe"),
        ("expectil", (0.5,), "'expectil'; did you mean 'expectile'"),
        ("widths", ((8,), (16,)), "field (of the numbers that iql traces) 'widths'"),
        ("dropout", (0.1, 0.2), "field (of the numbers that iql traces) 'dropout'"),
    ],
)
def test_a_population_that_cannot_be_is_refused(name, value, said):
    assert said in refusal(given(**{f"population__{name}": value}))


# What brings its own fields


def test_another_algorithm_brings_its_own_fields():
    run = resolved("algorithm=awac", "agent.temperature=0.5")
    assert run.agent == AGENTS.find("awac").config(temperature=0.5)
    config = given(agent__expectile=0.9)
    override(config, ["--config.algorithm=bc"])
    assert resolve(config).agent == AGENTS.find("bc").config()


def test_another_store_brings_its_own_fields_and_keeps_the_capacity():
    config = given(replay__capacity=5_000)
    run = resolved("replay.name=balanced", "replay.temper=2", config=config)
    assert (run.replay.name, run.replay.capacity) == ("balanced", 5_000)
    options = STORES.find("balanced").options(temper=2.0)
    assert run.replay.options == options
    back = resolved("replay.name=uniform", config=config)  # of `balanced`, by now
    assert back.replay.options == STORES.find("uniform").options()
    with pytest.raises(UserError, match="unknown config field 'replay.temper'"):
        resolved("replay.temper=2", config=config)


@pytest.mark.parametrize(
    "arguments",
    [
        ("algorithm=awac", "agent.temperature=0.5", "agent.lr=1e-3"),
        ("replay.name=balanced", "replay.temper=2", "replay.widths=8,8"),
        ("algorithm=off2on", "replay.name=balanced", "agent.num_agents=2"),
        ("population.temperature=1,2", "algorithm=awac", "seeds=3"),
    ],
)
def test_the_order_of_overrides_does_not_matter(arguments):
    first, *others = (
        resolved(*(arguments[at] for at in order))
        for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0))
    )
    assert all(other == first for other in others)


def test_of_two_overrides_of_a_field_the_last_holds():
    assert resolved("batch=64", "batch=32").batch == 32


def test_an_option_of_a_store_is_checked_where_it_is_declared():
    config = given(replay__name="balanced")
    config.replay.head = "relo"
    assert refusal(config).startswith("config.replay.head is 'relo'; it must be relu")


# What cannot work together


@pytest.mark.parametrize(
    "algorithm, task, store, words",
    [
        ("fowm", "hopper-medium-replay", "uniform", "uniform_windows or symmetric_win"),
        ("fowm", "hopper-medium-replay", "tasks", "uniform_windows or symmetric_win"),
        ("iql", "hopper-medium-replay", "uniform_windows", "uniform or symmetric or"),
        ("smac", "point-robot-pearl", "uniform", "tasks"),
    ],
)
@pytest.mark.parametrize("steps", [0, 1_000])
def test_a_store_and_an_agent_go_together_in_both_phases(
    algorithm, task, store, words, steps
):
    config = defaults(algorithm, task)
    config.online.steps, config.replay.name = steps, store
    assert f"set config.replay.name to {words}" in refusal(config)


# config.json


def files():
    """The config file of every algorithm, and others."""
    return sorted(
        path.stem
        for path in CONFIGS.glob("*.py")
        if not path.stem.endswith("_study") and path.stem != "__init__"
    )


def test_every_algorithm_has_a_config_file():
    assert set(AGENTS) <= set(files())


@pytest.mark.parametrize("name", files())
def test_a_config_comes_back_from_what_its_run_says(name):
    run = resolve(load(f"{CONFIGS / name}.py"))
    described = json.loads(json.dumps(run.described(), allow_nan=False))
    again = from_json(described | {"versions": {}, "members": []})
    physics = "auto" if described["physics"] == envs.OWN else described["physics"]
    assert again == dataclasses.replace(run, physics=physics)
    assert again.described() == run.described()
    leaves = jax.tree.leaves(again.agent)
    assert leaves == jax.tree.leaves(run.agent) and leaves


@pytest.mark.parametrize(
    "arguments",
    [
        ("population.expectile=0.7,0.9", "seeds=3,5"),
        ("online.until=50", "agent.widths=8,4", "agent.max_weight=inf"),
        ("offline.from=other", "offline.updates=0"),
        ("replay.name=balanced", "replay.temper=2"),
        ("reward.scale=return_range", "reward.shift=-1"),
        ("devices.per_batch=2", "devices.cut_dataset=true", "online.steps=0"),
    ],
)
def test_so_do_fields_of_all_kinds(arguments):
    run = resolved("physics=mujoco", *arguments)
    assert from_json(json.loads(json.dumps(as_json(run)))) == run
    assert from_json(json.loads(json.dumps(run.described()))) == run


def test_infinity_is_written_by_its_name():
    run = resolved("agent.max_weight=inf")
    described = as_json(run)
    assert described["online"]["until"] == described["agent"]["max_weight"] == "inf"


def test_a_config_json_that_is_damaged_is_refused():
    described = as_json(resolve(given()))
    with pytest.raises(UserError, match="config.batch is 'x'; it must be a whole"):
        from_json(described | {"batch": "x"})
    with pytest.raises(UserError, match="config.env is None; it must be a name"):
        from_json({"algorithm": "iql"})


def test_differences_are_told_by_dotted_names():
    one, other = resolve(given()), resolved("agent.lr=1e-3", "replay.name=balanced")
    found = differences(as_json(one), as_json(other))
    assert found[0] == "agent.lr: 0.0003 -> 0.001"
    assert "replay.name: 'uniform' -> 'balanced'" in found
    assert "replay.temper: None -> 5.0" in found
    assert not differences(as_json(one), as_json(resolve(given())))


# Rounds


@pytest.mark.parametrize(
    "envs, ratio, round_, steps, updates",
    [
        (1, 1.0, 0, 1, 1),
        (5, 3.2, 0, 1, 16),
        (1, 3.2, 0, 5, 16),
        (4, 0.25, 0, 1, 1),
        (2, 0.25, 0, 2, 1),
        (2, 1.0, 40, 20, 40),
        (1, 1 / 3, 0, 3, 1),
    ],
)
def test_a_round_is_the_shortest_in_which_updates_come_out_whole(
    envs, ratio, round_, steps, updates
):
    online = dict(online__envs=envs, online__updates_per_step=ratio)
    run = RunConfig(
        online=dataclasses.replace(
            RunConfig().online, envs=envs, updates_per_step=ratio, round=round_
        )
    )
    assert (run.steps_per_round, run.updates_per_round) == (steps, updates)
    assert run.transitions_per_round == steps * envs
    every = 120 * envs * steps
    rhythm = {f"{name}__every": every for name in ("log", "eval", "checkpoint")}
    config = given(**online, **rhythm, online__round=round_, online__steps=every)
    assert resolve(config).steps_per_round == steps


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"eval__every": 150, "log__every": 100}, "eval.every from 150 to 200"),
        ({"eval__every": 30, "log__every": 100}, "log.every from 100 to 30"),
        (
            {"online__envs": 3, "log__every": 10, "online__steps": 100},
            "log.every from 10 to 12",
        ),
        ({"online__envs": 4, "online__warmup": 6}, "online.warmup from 6 to 8"),
    ],
)
def test_what_does_not_fit_is_rounded_and_told(changes, told):
    usual = dict(online__steps=1200, checkpoint__every=1200, online__round=0)
    with pytest.warns(rhythm.RhythmWarning, match="rounded, to fit") as warned:
        run = resolve(given(**{"eval__every": 120, **usual, **changes}))
    assert told in str(warned[0].message)
    assert run.eval.every % run.log.every == run.checkpoint.every % run.log.every == 0
    for number in (run.log.every, run.online.steps, run.online.warmup):
        assert number % run.transitions_per_round == 0


def test_a_round_that_does_not_come_out_whole_is_refused():
    said = refusal(given(online__updates_per_step=0.25, online__round=6))
    assert "config.online.round is 6; it must be 0, or a multiple of 4" in said
    said = refusal(given(online__updates_per_step=1 / 1001))
    assert "that is a fraction of whole numbers up to 1000" in said


def test_fields_are_named_alike_everywhere():
    """What `defaults` offers is what an override may set."""
    config = defaults("off2on", HOPPER)
    known = fields.values(RunConfig(agent=AGENTS.find("off2on").config()))
    known["replay"].pop("options")  # its fields, of which `uniform` has none
    assert set(config) == set(known)
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            assert set(value) == set(known[name])
            for field in value:
                override(config, [f"--config.{name}.{field}={value[field]}"])
        elif name != "algorithm":
            override(config, [f"--config.{name}={value}"])
    assert "from" in config.offline


def test_arguments_of_an_environment_may_be_infinite_and_come_back(tmp_path):
    config = load(f"{CONFIGS}/iql.py:{HOPPER}")
    config.env_args = {"low": -math.inf, "high": [math.inf, 1]}
    run = resolve(config)
    text = json.dumps(as_json(run), allow_nan=False)
    assert from_json(json.loads(text)).env_args == run.env_args
    config.env_args = {"low": [math.nan]}
    with pytest.raises(UserError, match="config.env_args is .*, with NaN in it"):
        resolve(config)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "change, found",
    [
        ("reward.scale=return_range", lambda run: run.reward.scale == "return_range"),
        ("population.expectile=0.7", lambda run: run.population["expectile"] == (0.7,)),
        ("algorithm=bc", lambda run: run.algorithm == "bc"),
        ("online.until=inf", lambda run: run.online.until == math.inf),
    ],
)
def test_a_config_of_plain_values_is_overridden_like_ours(change, found, frozen):
    """Also one whose own types ConfigDict would insist on, or that is locked."""
    plain = {"algorithm": "iql", "env": "hopper", "dataset": "hopper-random"}
    plain |= {"reward": {"scale": 1}, "online": {"until": 3}, "agent": {"lr": 1}}
    config = ConfigDict(plain)
    if frozen:
        config.lock()
    override(config, [f"--config.{change}"])
    assert found(resolve(config))


@pytest.mark.parametrize("change", ["agent.temperature=inf", "agent.min_std=nan"])
def test_a_planner_takes_no_number_that_is_not_finite(change):
    config = load(f"{CONFIGS}/fowm.py:push-medium-replay")
    with pytest.raises(UserError, match="it must be a finite number above 0"):
        override(config, [f"--config.{change}"])
