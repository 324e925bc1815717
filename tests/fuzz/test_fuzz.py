"""Some cases of every fuzzer, and all that they have found."""

import contextlib

import pytest

from tests.fuzz import faulty, harness
from tests.fuzz.findings import FINDINGS

CACHE = harness.ROOT / ".cache" / "jax"
CASES = {"files": 60, "configs": 40, "checkpoints": 8, "environments": 30}


@pytest.fixture(scope="module", params=harness.FUZZERS)
def worker(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE))
        made = harness.Worker(request.param)
    yield made
    made.close()


def test_what_was_found_is_mended(worker):
    for case in FINDINGS[worker.name]:
        outcome = worker.run(case)
        assert outcome.kind in harness.GOOD, (case, outcome.told)


def test_some_cases(worker):
    counts, found = harness.fuzz(worker, 600, seed=2, most=CASES[worker.name])
    assert not found
    assert counts.total() == CASES[worker.name]
    assert counts["refused"] > 0 < counts["accepted"] + counts["warned"]


def test_the_harness_judges_every_end(monkeypatch):
    monkeypatch.setattr(harness, "PATIENCE", 5.0)
    told = []
    with contextlib.closing(harness.Worker("faulty")) as worker:
        judged = {end: worker.run(("", [(end,)])).kind for end in faulty.ENDS}
        assert judged == faulty.ENDS
        counts, found = harness.fuzz(worker, 60, most=20, tell=told.append)
    assert counts["traceback"] > 0 and len(found) == len(told) == 1
    assert found[0].case == ("", [("raises",)])  # shrunk to what matters
    again = harness.cases(0)
    assert [next(again) for _ in range(2)] == ["0-0", "0-1"]
