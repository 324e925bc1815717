"""Runs that are killed end as if they had not been: a few of `make torture`."""

import pytest

from tests import torture


@pytest.mark.slow
def test_a_few_kills():
    assert torture.main(["--kills=8", "--only=iql"]) == 0
