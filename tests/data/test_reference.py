import numpy as np
import pytest

from o2ojax.data import REFERENCE, has_reference, score


@pytest.mark.parametrize("name", REFERENCE)
def test_random_play_scores_zero_and_an_expert_a_hundred(name):
    low, high = REFERENCE[name]
    np.testing.assert_allclose(score(name, [low, high]), [0, 100], atol=1e-9)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("halfcheetah", 10.311402),  # 100 * 1280.178953 / 12415.178953
        ("hopper", 31.348890),  # 100 * 1020.272305 / 3254.572305
        ("walker2d", 21.747823),  # 100 * 998.370992 / 4590.670992
        ("ant", 31.522127),  # 100 * 1325.6 / 4205.3
    ],
)
def test_score_of_a_thousand_by_hand(name, expected):
    np.testing.assert_allclose(score(name, 1000.0), expected, rtol=1e-6)


def test_the_shape_of_returns_is_kept():
    assert score("hopper", np.zeros((2, 3), np.float32)).shape == (2, 3)


def test_returns_without_a_reference_stay_as_they_are():
    assert not has_reference("chain")
    assert has_reference("hopper")
    np.testing.assert_array_equal(score("chain", [1.1, -2.3]), [1.1, -2.3])
