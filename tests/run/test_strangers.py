"""Likely mistakes in a stranger's algorithm and store: one sentence each, at once."""

from pathlib import Path

import pytest

from o2ojax.errors import UserError
from o2ojax.run import doors, resolve
from o2ojax.run.config import defaults
from o2ojax.run.job import prepare

EXAMPLES = Path(__file__).parents[2] / "examples"


def prepared(folder, example, *changes):
    """A job with an example, after these texts of its file were replaced."""
    text = (EXAMPLES / f"{example}.py").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{example}.py"
    path.write_text(text)
    is_store = example == "recent_store"
    config = defaults("iql" if is_store else f"{path}:ALGORITHM", "hopper")
    config.dataset, config.seeds, config.batch = "hopper-random", 2, 32
    if is_store:
        resolve.put(config, {"replay.name": f"{path}:STORE"})
    return prepare(resolve.resolve(config), folder / "run")


@pytest.mark.parametrize("example", ["layernorm_iql", "recent_store"])
def test_what_is_right_passes(example, tmp_path, recwarn):
    prepared(tmp_path, example)
    assert not [w for w in recwarn if w.category is doors.DoorWarning]


@pytest.mark.parametrize(
    "change, said",
    [
        (
            ("lambda spec, config, plan:", "lambda spec, config:"),
            "layernorm_iql.py:ALGORITHM fails with TypeError: <lambda>() takes 2 posit",
        ),
        (
            ("def update(state: State, batch, key):", "def update(state, batch):"),
            "ALGORITHM fails with TypeError: agent.<locals>.update() takes",
        ),
        (
            (
                "return state, Info(metrics | critic_metrics | actor_metrics)",
                "return state, {}",
            ),
            "must return (state, Info), and it returns a tuple that ends in a dict",
        ),
        (
            (
                "State(actor, critic, value, slow)",
                "State(actor, critic, value, critic)",
            ),
            "state in the form in which it was given: .target_critic.opt_state",
        ),
        (
            (
                'return loss, {"value_loss": loss}',
                'return loss, {"value_loss": error[:2]}',
            ),
            "metric 'value_loss' of the agent's `update` has the shape [2]; it must be",
        ),
        (
            ("data = batch.data", "data = batch.rows"),
            "fails with AttributeError: 'Batch' object has no",
        ),
        (
            ("act = policies.gaussian(", "act = (None, None)\n    policies.gaussian("),
            "fails with AttributeError: 'NoneType' object has no attribute 'start'",
        ),
        (
            ("s.actor.params, obs)", "s.actress.params, obs)"),
            "'State' object has no attribute 'actress'",
        ),
        (
            (
                "critic_net.apply(s.critic.params, obs, action)",
                "critic_net.apply(s.critic.params, obs, action).min(0)",
            ),
            "the agent's `q` returns float32[3] for 3 rows; it must be of the shape",
        ),
    ],
)
def test_an_algorithm_that_cannot_run_is_refused(change, said, tmp_path):
    with pytest.raises(UserError) as refused:
        prepared(tmp_path, "layernorm_iql", change)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            ("def sample(replay, key):", "def sample(replay):"),
            "recent_store.py:STORE fails with TypeError: recent.<locals>.sample()",
        ),
        (
            ("return replay, evenly", "return evenly"),
            "must return (replay, Batch), and it returns a Batch",
        ),
        (
            ("inputs.batch - num_old,", "inputs.batch - num_old - 1,"),
            "`weight` of the store's batch has the shape [31]; it must be [32], as",
        ),
        (
            ("evenly(data, jnp.concatenate([old, num_rows + new]))",
             "evenly(data, jnp.concatenate([old, num_rows + new])[:, None])"),
            "of the store's batch has the shape [32, 1]; it must be [32], as",
        ),
        (
            ("sample, ring.add)", "sample, lambda replay, rows: rows)"),
            "the store's `add` must return the store in the form in which it was given",
        ),
        (
            ("@fields.section\n", ""),
            "its options are Options; they must be a class made with @fields.section",
        ),
    ],
)  # fmt: skip
def test_a_store_that_cannot_run_is_refused(change, said, tmp_path):
    with pytest.raises(UserError) as refused:
        prepared(tmp_path, "recent_store", change)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_the_line_is_the_strangers(tmp_path):
    change = ("data = batch.data", "data = batch.rows")
    text = (EXAMPLES / "layernorm_iql.py").read_text()
    line = text[: text.index(change[0])].count("\n") + 1
    with pytest.raises(UserError, match=f"ALGORITHM, line {line}, fails with"):
        prepared(tmp_path, "layernorm_iql", change)


def test_a_critic_whose_values_meet_every_target_is_warned_of(tmp_path):
    unsqueezed = ("return nn.Dense(1)(x).squeeze(-1)", "return nn.Dense(1)(x)")
    with pytest.warns(doors.DoorWarning, match="layernorm_iql.py:ALGORITHM, line "):
        prepared(tmp_path, "layernorm_iql", unsqueezed, ("*act, q=q)", "*act)"))
