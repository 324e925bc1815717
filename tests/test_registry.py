"""Things by name: built-in ones, and a stranger's behind a door."""

import dataclasses
import sys
from pathlib import Path

import pytest

from o2ojax import registry
from o2ojax.agents import AGENTS, Algorithm
from o2ojax.envs import ENVS, EnvEntry
from o2ojax.envs.entry import Options
from o2ojax.envs.physics import Simulator
from o2ojax.errors import UserError
from o2ojax.replay import STORES
from o2ojax.run.config import FORMAT, Store
from o2ojax.types import Env

KINDS = {"algorithm": (AGENTS, Algorithm), "replay": (STORES, Store)}
KINDS |= {"environment": (ENVS, EnvEntry)}


@pytest.fixture
def write(tmp_path):
    """Writes a Python file; returns its path as text."""

    def written(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return written


@pytest.fixture
def numbers():
    """A registry of whole numbers."""
    built_in = {"three": "o2ojax.envs:FAMILIES", "four": "o2ojax.no_such:FOUR"}
    return registry.Registry("number", built_in, registry.instance_of(int))


def refusal(found, name):
    with pytest.raises(UserError) as refused:
        found.find(name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# Built-in names


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_name_leads_to_an_entry(kind):
    found, expected = KINDS[kind]
    assert len(list(found)) > 5
    for name in found:
        assert isinstance(found.find(name), expected), name
        assert found.find(name) is found.find(name)


@pytest.mark.parametrize(
    "kind, name, nearest",
    [
        ("algorithm", "rebrack", "rebrac"),
        ("replay", "unifrom", "uniform"),
        ("environment", "hoper", "hopper"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(kind, name, nearest):
    found, _ = KINDS[kind]
    said = refusal(found, name)
    assert said.startswith(f"unknown {kind} {name!r}; did you mean {nearest!r}? Known:")
    for known in found:
        assert known in said


def test_nothing_is_imported_before_it_is_asked_for(numbers):
    """One of its entries leads nowhere, and nobody minds."""
    assert list(numbers) == ["three", "four"]
    assert refusal(numbers, "five") == "unknown number 'five'. Known: four, three"
    assert "there is no such module" in refusal(numbers, "four")


# Files


def test_a_file_has_what_it_defines(write, numbers):
    path = write("TWO = 2\nclass Three: value = 3\n")
    assert numbers.find(f"{path}:TWO") == 2


def test_a_path_may_be_relative(write, numbers, tmp_path, monkeypatch):
    write("TWO = 2\n")
    monkeypatch.chdir(tmp_path)
    assert numbers.find("mine.py:TWO") == 2
    assert numbers.find("./mine.py:TWO") == 2


def test_a_file_is_run_once(write, numbers, tmp_path, monkeypatch):
    """However often, by whatever path, and whatever of it is asked for."""
    path = write(
        "from pathlib import Path\n"
        "count = Path(__file__).with_suffix('.count')\n"
        "count.write_text(count.read_text() + '*' if count.exists() else '*')\n"
        "ONE, TWO = 1, 2\n"
    )
    monkeypatch.chdir(tmp_path)
    names = (f"{path}:ONE", f"{path}:TWO", "mine.py:ONE", "../%s/mine.py:ONE")
    found = [numbers.find(name.replace("%s", tmp_path.name)) for name in names]
    assert found == [1, 2, 1, 1]
    assert registry.load_file(Path(path)) is registry.load_file(Path("mine.py"))
    assert (tmp_path / "mine.count").read_text() == "*"


def test_files_of_one_name_are_two(write, numbers):
    one, two = write("N = 1\n", "a/mine.py"), write("N = 2\n", "b/mine.py")
    assert (numbers.find(f"{one}:N"), numbers.find(f"{two}:N")) == (1, 2)


def test_what_a_file_defines_may_be_pickled_by_name(write):
    """Its module stands where Python looks for modules."""
    path = write("class Mine:\n    pass\n")
    kind = registry.behind(f"{path}:Mine")
    assert getattr(sys.modules[kind.__module__], "Mine") is kind  # noqa: B009


def test_a_missing_file_is_named(numbers):
    said = refusal(numbers, "no/such/file.py:TWO")
    assert said == "no/such/file.py: there is no such file"


def test_a_folder_is_no_file(tmp_path, numbers):
    (tmp_path / "folder.py").mkdir()
    assert "there is no such file" in refusal(numbers, f"{tmp_path}/folder.py:TWO")


@pytest.mark.parametrize(
    "text, why",
    [
        ("1 / 0\n", "fails with ZeroDivisionError: division by zero"),
        ("TWO = (\n", "fails with SyntaxError: '(' was never closed"),
        ("import no_such_module\n", "fails with ModuleNotFoundError: No module named"),
        ("raise ValueError('first\\nsecond')\n", "fails with ValueError: first"),
        ("raise KeyError\n", "fails with KeyError: KeyError"),
        (
            "from o2ojax.errors import UserError\nraise UserError('give a number')\n",
            "mine.py: give a number",
        ),
    ],
)
def test_a_file_that_fails_is_named_and_may_be_mended(write, numbers, text, why):
    path = write(text)
    said = refusal(numbers, f"{path}:TWO")
    assert said.startswith(path) and why in said
    write("TWO = 2\n")
    assert numbers.find(f"{path}:TWO") == 2


def test_a_missing_name_is_named(write, numbers):
    path = write("TWO = 2\n")
    assert refusal(numbers, f"{path}:THREE") == f"{path}:THREE: {path} defines no THREE"


def test_something_of_another_type_is_refused(write, numbers):
    path = write("TWO = 'two'\n")
    said = refusal(numbers, f"{path}:TWO")
    assert said == f"{path}:TWO is of type str; it must be an instance of builtins.int"


# Modules


def test_a_module_has_what_it_defines(numbers):
    assert numbers.find("o2ojax.run.config:FORMAT") == FORMAT
    assert AGENTS.find("o2ojax.agents.iql:ALGORITHM") is AGENTS.find("iql")
    assert STORES.find("o2ojax.replay.uniform:UNION") is STORES.find("uniform")


@pytest.mark.parametrize(
    "module", ["no_such_module", "o2ojax.no_such", "..", "os.path.x"]
)
def test_a_missing_module_is_named(numbers, module):
    said = refusal(numbers, f"{module}:TWO")
    assert said.startswith(f"{module}: there is no such module")
    assert "path/to/file.py:NAME" in said


def test_a_missing_name_in_a_module_is_named(numbers):
    said = refusal(numbers, "o2ojax.errors:TWO")
    assert said == "o2ojax.errors:TWO: o2ojax.errors defines no TWO"


def test_a_module_that_fails_is_named(write, numbers, tmp_path, monkeypatch):
    write("1 / 0\n", "mine_that_fails.py")
    monkeypatch.syspath_prepend(tmp_path)
    said = refusal(numbers, "mine_that_fails:TWO")
    assert said == "mine_that_fails fails with ZeroDivisionError: division by zero"


# What is a door


@pytest.mark.parametrize(
    "name, door",
    [
        ("a.py:B", True),
        ("some/where/a.py:B", True),
        ("C:/a.py:B", True),
        ("module.sub:name", True),
        ("hopper", False),
        ("hopper-medium-replay", False),
        ("data.hdf5", False),
        (":B", False),
        ("a.py:", False),
        ("a.py:1", False),
        ("minari:D4RL/door/human-v2", False),
    ],
)
def test_a_door_is_a_place_and_a_name(name, door):
    assert registry.is_door(name) == door


@pytest.mark.parametrize(
    "name, short",
    [
        ("iql", "iql"),
        ("some/where/mine.py:AGENT", "mine"),
        ("package.sub.mine:AGENT", "mine"),
        ("some/where/mine.py:swing", "mine:swing"),
        ("package.sub.mine:Swing", "mine:Swing"),
    ],
)
def test_a_door_is_shortened_for_tables(name, short):
    assert registry.short(name) == short


def test_a_fingerprint_is_of_the_files_content(write):
    path = write("TWO = 2\n")
    before = registry.fingerprint(f"{path}:TWO")
    assert len(before) == 16 and int(before, 16) >= 0
    assert before == registry.fingerprint(f"{path}:TWO")
    write("TWO = 3\n")
    assert registry.fingerprint(f"{path}:TWO") != before
    assert len(registry.fingerprint("o2ojax.agents.iql:ALGORITHM")) == 16
    assert registry.fingerprint("sys:path") == ""  # in no file


# What each registry takes


ALGORITHM = """
from o2ojax import fields
from o2ojax.agents import Algorithm
{declared}
def recipe(spec, config, plan):
    raise NotImplementedError
MINE = Algorithm(Config, recipe)
"""
GOOD = """
@fields.config
class Config:
    lr: float = fields.positive(0.5)
    size: int = fields.count(3)
"""


def test_an_algorithm_of_ones_own(write):
    path = write(ALGORITHM.format(declared=GOOD))
    found = AGENTS.find(f"{path}:MINE")
    assert dataclasses.asdict(found.config()) == {"lr": 0.5, "size": 3}
    assert found.needs(found.config()).kind == "single transitions"


@pytest.mark.parametrize(
    "declared, why",
    [
        ("class Config: pass", "its config must be a class under @fields.config"),
        (
            "@fields.config\nclass Config:\n    lr: float",
            "field lr of its config has no default",
        ),
        (
            "@fields.config\nclass Config:\n    size: int = 3",
            "field size of its config is 3; only a float can be traced: declare it by",
        ),
    ],
)
def test_an_algorithm_whose_config_cannot_be_used(write, declared, why):
    path = write(ALGORITHM.format(declared=declared))
    assert refusal(AGENTS, f"{path}:MINE").startswith(f"{path}:MINE: {why}")


@pytest.mark.parametrize(
    "kind, words",
    [
        ("algorithm", "must be an o2ojax.agents.Algorithm"),
        ("replay", "must be an instance of o2ojax.replay.store.Store"),
        (
            "environment",
            "must be an o2ojax.types.Env, or a function that returns one or a"
            " gymnasium.Env",
        ),
    ],
)
def test_a_registry_says_what_it_takes(kind, words):
    found, _ = KINDS[kind]
    name = "o2ojax.run.config:FORMAT"
    assert refusal(found, name) == f"{name} is of type int; it {words}"


def built(entry, name):
    options = Options("mujoco", None, Simulator(variants=3, mass=0.5))
    return entry.build(name, options)


def test_an_environment_may_be_one_or_a_function_that_returns_one(write):
    path = write(
        "from o2ojax.envs.probes import aim\n"
        "ENV = aim()\n"
        "def plain(): return ENV\n"
        "def of_physics(physics, target=0.25): return ENV._replace(render=physics)\n"
        "def of_both(simulator, *, physics): return ENV._replace(render=simulator)\n"
    )
    for name, expected in (("ENV", None), ("plain", None), ("of_physics", "mujoco")):
        entry = ENVS.find(f"{path}:{name}")
        env = built(entry, name)
        assert isinstance(env, Env) and env.render == expected
        assert entry.any_physics == (name == "of_physics")
        assert entry.parameters is None
    assert built(ENVS.find(f"{path}:of_both"), "").render.variants == 3


@pytest.mark.parametrize(
    "body, why",
    [
        ("return 1 / 0", "fails with ZeroDivisionError: division by zero"),
        ("return 3", "returns a int; it must return an o2ojax.types.Env"),
        ("return aim(1, 2, 3, 4)", "fails with TypeError"),
    ],
)
def test_a_function_that_makes_no_environment_is_named(write, body, why):
    path = write(f"from o2ojax.envs.probes import aim\ndef mine():\n    {body}\n")
    with pytest.raises(UserError) as refused:
        built(ENVS.find(f"{path}:mine"), "its name")
    assert str(refused.value).startswith(f"its name {why}")


def test_a_store_of_ones_own(write):
    path = write(
        "from o2ojax.replay import Store, uniform\n"
        "MINE = uniform.ONLINE._replace(needs_dataset=True)\n"
    )
    found = STORES.find(f"{path}:MINE")
    assert found.needs_dataset and found.serves == "single transitions"
    assert not STORES.find("online").needs_dataset
