import numpy as np
import pytest

from benchmarks.parity import __main__ as command
from benchmarks.parity.report import Departure, Report


def report_of(difference, departure=None):
    start = np.array([1.0, 2.0])
    report = Report("x", departure)
    report.begin({"net": [start]})
    report.term("loss", 1.0, 1.0)
    report.weight({"net": [start + 1e-3 + difference]}, {"net": [start + 1e-3]})
    return report


@pytest.mark.parametrize("difference, exceeds", [(0.0, False), (1e-8, True)])
def test_weights_that_differ_exceed(difference, exceeds):
    assert report_of(difference).exceeds() == exceeds


def test_a_departure_has_a_limit_of_its_own():
    departure = Departure("it is known", 1e-6)
    assert not report_of(1e-8, departure).exceeds()
    assert report_of(1e-5, departure).exceeds()


def test_a_number_that_is_none_exceeds():
    report = Report("x")
    report.term("loss", 1.0, 1.0)
    report.term("loss", np.nan, 1.0)
    report.term("loss", 1.0, 1.0)
    assert report.exceeds()


def test_way_is_of_the_steps_taken():
    found = report_of(2e-6).summary()
    np.testing.assert_allclose([found["weights"], found["way"]], [1e-6, 2e-3], 1e-2)


def test_unknown_agents_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.parse([str(tmp_path), "--only=iql,ppo"])
    assert "ppo: choose from iql" in capsys.readouterr().err


def test_a_fault_must_show_where_nothing_departs():
    same, known = report_of(0.0), report_of(0.0, Departure("it is known", 1e-6))
    assert command.is_right(same, control=False)
    assert not command.is_right(same, control=True)
    assert command.is_right(known, control=True)
    assert command.is_right(report_of(1e-3), control=True)
