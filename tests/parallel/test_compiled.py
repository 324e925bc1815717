"""One member's function over all members: at once, or turn by turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax.parallel import compiled, tuning


def member(state, key, shared, num):
    """Adds `num` times what it has drawn; tells the sum before."""
    noise = jax.random.normal(key, state["w"].shape)
    return {"w": state["w"] @ shared + num * noise}, state["w"].sum()


def arguments():
    state = {"w": jnp.arange(18.0).reshape(3, 2, 3)}
    return state, jax.random.split(jax.random.key(0), 3), jnp.eye(3)


@pytest.mark.parametrize("turns", [True, False])
def test_members_that_learn_get_what_they_get_all_at_once(monkeypatch, turns):
    monkeypatch.setattr(tuning, "on_cpu", lambda: turns)
    learn = compiled.over_learners(member, (0, 0, None), sized=True)
    assert isinstance(learn, tuning.MemberSequence) == turns
    at_once = compiled.over_members(member, (0, 0, None), sized=True)
    expected, sums = at_once(*arguments(), 2)
    for program in (learn, learn.lower(*arguments(), 2).compile()):
        size = (2,) if program is learn else ()
        state, told = program(*arguments(), *size)
        np.testing.assert_allclose(state["w"], expected["w"], rtol=1e-6)
        np.testing.assert_array_equal(told, sums)
        np.testing.assert_array_equal(told, [15.0, 51.0, 87.0])


def test_a_member_must_return_the_state_that_it_got(monkeypatch):
    monkeypatch.setattr(tuning, "on_cpu", lambda: True)
    learn = compiled.over_learners(lambda state, by: (state * by, ()), (0, None))
    with pytest.raises(AssertionError, match="dtypes"):
        learn(jnp.arange(3), jnp.float32(0.5))
