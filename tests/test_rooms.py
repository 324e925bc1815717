"""Who may know what: read from the syntax trees of the package."""

import ast
import dataclasses
from pathlib import Path

import pytest

from experiments import execution
from experiments import run as command
from o2ojax.agents import AGENTS
from o2ojax.run import resolve
from o2ojax.run.config import RunConfig

PACKAGE = Path(__file__).parents[1] / "o2ojax"
MODULES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}
ALGORITHMS = ("agents/", "meta/")


def own_fields():
    """Fields of algorithms' configs that nothing else in the package is called."""
    known = {
        field.name
        for name in AGENTS
        for field in dataclasses.fields(AGENTS.find(name).config)
    }
    elsewhere = set()
    for name, tree in MODULES.items():
        if not name.startswith(ALGORITHMS):
            for node in ast.walk(tree):
                if isinstance(node, ast.AnnAssign) and isinstance(
                    node.target, ast.Name
                ):
                    elsewhere.add(node.target.id)
                if isinstance(node, ast.arg):
                    elsewhere.add(node.arg)
    return known, known - elsewhere


def test_no_field_of_an_algorithm_is_known_outside_its_rooms():
    known, own = own_fields()
    assert {"trial_rows", "prior_explore", "conservatism", "target_rate"} <= own
    for name, tree in MODULES.items():
        if name.startswith(ALGORITHMS):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            assert node.attr not in own, (name, node.lineno, node.attr)
            if getattr(node.value, "attr", "") == "agent":
                assert node.attr not in known, (name, node.lineno, node.attr)


def test_agents_know_no_environment_and_environments_no_agent():
    for name, tree in MODULES.items():
        imported = {
            f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        if name.startswith("agents/"):
            assert not any(x.startswith("o2ojax.envs") for x in imported), name
        if name.startswith("envs/"):
            assert not any(x.startswith("o2ojax.agents") for x in imported), name
        assert not any(x.startswith("experiments") for x in imported), name


def test_nothing_after_resolve_looks_at_a_config_dict():
    may = {"api.py", "run/config.py", "run/resolve.py"}
    for name, tree in MODULES.items():
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert name in may or "ConfigDict" not in names, name


def test_a_run_resolves_its_config_once(monkeypatch, tmp_path):
    calls, real = [], resolve.resolve

    def counted(config):
        calls.append(config)
        return real(config)

    for module in (resolve, execution):
        monkeypatch.setattr(module, "resolve", counted)
    seen = []
    monkeypatch.setattr(execution, "train", lambda run, *given: seen.append(run))
    given = ["--config=experiments/configs/iql.py:hopper-random"]
    assert command.main([*given, f"--workdir={tmp_path}"]) == 0
    assert len(calls) == 1
    assert isinstance(seen[0], RunConfig)


@pytest.mark.parametrize("field", ["env", "agent", "online", "seeds"])
def test_what_is_resolved_is_frozen(field):
    run = resolve.resolve(resolve.load("experiments/configs/iql.py:hopper-random"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(run, field, None)
