"""Runs that cannot be in memory are refused before anything is compiled."""

from pathlib import Path

import jax
import pytest

from o2ojax.errors import UserError
from o2ojax.parallel.devices import Layout
from o2ojax.run import room
from o2ojax.run.job import prepare, shape
from o2ojax.run.resolve import load, override, resolve

ROOT = Path(__file__).parents[2]
SMALL = (
    "agent.widths=16,16",
    "seeds=3",
    "batch=32",
    "online.steps=1000",
    "log.every=10",
)


def run_of(*overrides, config="iql.py:hopper-random"):
    given = load(f"{ROOT}/experiments/configs/{config}")
    override(given, [f"--config.{text}" for text in (*SMALL, *overrides)])
    return resolve(given)


@pytest.mark.parametrize(
    "text, what, fields",
    [
        ("batch=2000000000", "a batch", "config.batch"),
        ("online.steps=2000000000", "replay", "config.online.steps"),
        ("replay.capacity=2000000000", "replay", "config.replay.capacity"),
        ("agent.widths=1000000000,1000000000", "agents", "config.agent, config.seeds"),
        ("agent.num_critics=2000000000", "agents", "config.agent"),
        ("eval.episodes=2000000000", "episodes of an", "config.eval.episodes"),
    ],
)
def test_what_no_machine_can_hold_is_refused_by_name(text, what, fields, tmp_path):
    said = rf"needs [\d,.]+ GB of memory or more, .* are for {what}.*{fields}"
    with pytest.raises(UserError, match=said):
        prepare(run_of(text), tmp_path)


def test_the_memory_of_a_machine_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "memory", lambda: 1000)
    with pytest.raises(UserError, match=r"are 0\.0 GB; .* for data .config.data"):
        prepare(run_of(), tmp_path)


def test_what_is_foretold_is_what_a_run_holds(tmp_path):
    """Data, agents and replay, against the shapes of the arrays themselves."""
    job = prepare(run_of(), tmp_path)
    one = jax.tree.map(lambda leaf: leaf[0], job.members)
    given = job.config.entry, job.spec, job.sizes, job.layout, one, job.dataset
    found = room.needed(*given)
    run = shape(job, "online")
    assert found["data"] == sum(leaf.nbytes for leaf in jax.tree.leaves(job.dataset))
    assert found["agents"] == room._size(run.agent)
    assert found["replay"] == room._size(run.replay)
    rows = 32 * found["data"] / len(job.dataset.reward)  # and what is known of each
    assert rows < found["a batch"] < 1.2 * rows


def test_each_device_holds_the_data_and_its_own_members(tmp_path):
    """On CPU devices, all of them share the memory."""
    job = prepare(run_of(), tmp_path)
    one = jax.tree.map(lambda leaf: leaf[0], job.members)
    mesh = jax.make_mesh((1,), ("members",))
    given = job.config.entry, job.spec, job.sizes, one, job.dataset
    alone = room.needed(*given[:3], Layout(None, 3, 3), *given[3:])
    assert room.needed(*given[:3], Layout(mesh, 3, 3), *given[3:]) == alone


def test_more_members_than_can_be_listed_are_refused():
    many = ",".join(f"{number / 1000}" for number in range(1, 100))
    fields = ("expectile", "beta", "gamma", "lr", "target_rate")
    with pytest.raises(UserError, match=r"9,509,900,499 settings, .* at most 100,0"):
        run_of(*(f"population.{name}={many}" for name in fields))
