"""The bench as an instrument: its figures, its tables, and how two results compare.

Nothing that is timed is asserted.
"""

import copy
import json
import re

import numpy as np
import pytest

from benchmarks import (
    bench,
    command,
    compare,
    record,
    scaling,
    stores,
    tables,
    timing,
    whole,
)
from benchmarks.record import MATRIX, Section
from benchmarks.timing import Work
from o2ojax.data.files import write_json
from o2ojax.errors import UserError


def figure(section, name, *given, **more):
    return {"section": section, "name": name} | record.figure(*given, **more)


def rate(name, values, unit="updates/s", **more):
    return figure("updates", name, {"members": 1}, unit, values, **more)


def results(*figures):
    return {
        "format": record.FORMAT,
        "machine": {"device": "cpu", "cores": 2, "processor": "made up"},
        "versions": {"jax": "1.0"},
        "commit": "abc",
        "figures": list(figures),
    }


def marks(old, new):
    lines = compare.compare(results(*old), results(*new))
    return {line.figure["name"]: line.mark for line in lines}


def test_windows_are_taken_in_turn(monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 2.0)
    asked = []

    def work(name, seconds, units):
        def run(times):
            asked.append((name, times))
            return next(seconds)

        return Work(run, units)

    # the first call compiles, 0.1 s are too short to say how many fill a window
    ours = work("ours", iter([9.0, 0.1, 1.5, 0.5, 1.0, 2.0]), 10)
    theirs = work("theirs", iter([9.0, 0.5, 4.0, 4.0, 4.0]), 1)
    found = timing.rates({"ours": ours, "theirs": theirs}, windows=3)
    warm = [("ours", 1), ("ours", 1), ("ours", 3), ("theirs", 1), ("theirs", 1)]
    # windows of 2 s: 4 calls of 0.5 s each
    assert asked == warm + 3 * [("ours", 4), ("theirs", 4)]
    np.testing.assert_allclose(found["ours"], [80.0, 40.0, 20.0])
    np.testing.assert_allclose(found["theirs"], [1.0, 1.0, 1.0])


def test_works_are_timed_beside_the_limit_and_the_first(monkeypatch):
    monkeypatch.setattr(timing, "matrix_limit", lambda: Work(lambda n: n * 1.0, 100))
    works = [({"members": n}, Work(lambda times: times * 0.5, n, 5)) for n in (1, 4)]
    one, four = record.timed(works, "updates/s", 2, beside_first=True)
    assert one["sizes"] == {"members": 1} and one["median"] == 2.0
    assert one["flop"] == 5 and one["limit"] == MATRIX and "times_one" not in one
    assert one["share_of_limit"]["median"] == pytest.approx(2.0 * 5 / 100)
    assert four["times_one"]["median"] == 4.0
    [plain] = record.timed([({}, Work(lambda times: times * 0.5, 4))], "ms", 1)
    assert plain["median"] == 125.0 and "limit" not in plain and "flop" not in plain


def test_a_figure_has_its_median_range_and_shares():
    share = MATRIX, np.array([0.5, 0.4, 0.6])
    assert rate("iql", [3.0, 1.0, 2.0], limit=share, flop=7) == {
        "section": "updates",
        "name": "iql",
        "sizes": {"members": 1},
        "unit": "updates/s",
        "median": 2.0,
        "min": 1.0,
        "max": 3.0,
        "windows": 3,
        "flop": 7,
        "limit": MATRIX,
        "share_of_limit": {"median": 0.5, "min": 0.4, "max": 0.6},
    }
    part = rate("update", [1.0, 3.0], "s", whole=np.array([4.0, 4.0]))
    assert part["share_of_run"] == {"median": 0.5, "min": 0.25, "max": 0.75}
    assert rate("iql", 5)["windows"] == 1
    eight = rate("iql", [2.0, 3.0], limit=share, one=np.array([2.0, 2.0]))
    assert eight["times_one"] == {"median": 1.25, "min": 1.0, "max": 1.5}
    assert tables.cells(eight)["of one's"] == "1.25 [1.00, 1.50]"


def test_what_is_slower_is_flagged_where_the_ranges_do_not_overlap():
    old = [
        rate("slower", [99, 100, 101]),
        rate("noisy", [80, 100, 101]),
        rate("a little", [99, 100, 101]),
        rate("faster", [99, 100, 101]),
        rate("cost", [0.99, 1.0, 1.01], "ms"),
        rate("cheaper", [0.99, 1.0, 1.01], "ms"),
        rate("once", [100]),
        rate("gone", [100, 100]),
        rate("memory", [100], "MB"),
    ]
    new = [
        rate("slower", [88, 89, 90]),
        rate("noisy", [84, 85, 86]),
        rate("a little", [91, 92, 93]),
        rate("faster", [111, 112, 113]),
        rate("cost", [1.11, 1.12, 1.13], "ms"),
        rate("cheaper", [0.79, 0.8, 0.81], "ms"),
        rate("once", [50]),
        rate("new", [100, 100]),
        rate("memory", [120], "MB"),
    ]
    assert marks(old, new) == {
        "slower": "SLOWER",
        "noisy": "~",
        "a little": "",
        "faster": "faster",
        "cost": "SLOWER",
        "cheaper": "faster",
        "once": "~",  # nothing is known of its range
        "new": "new",
        "gone": "gone",
        "memory": "SLOWER",
    }


def test_shares_of_a_limit_count_more_than_rates():
    """Another program took half of the machine: the rate fell, and the limit's too."""
    old = rate("iql", [100, 100], limit=(MATRIX, np.array([0.5, 0.5])), flop=10)
    busy = rate("iql", [50, 50], limit=(MATRIX, np.array([0.5, 0.5])), flop=10)
    assert marks([old], [busy]) == {"iql": ""}
    idle = rate("iql", [100, 100], limit=(MATRIX, np.array([0.25, 0.25])), flop=10)
    assert marks([old], [idle]) == {"iql": "SLOWER"}
    # half of the operations at the same share are twice as fast
    lean = rate("iql", [100, 100], limit=(MATRIX, np.array([0.5, 0.5])), flop=5)
    assert marks([old], [lean]) == {"iql": "faster"}
    [line] = compare.compare(results(old), results(lean))
    assert line.by == "share" and line.ratio == pytest.approx(2.0)
    # a share of something else is no share of the same
    other = rate("iql", [100, 100], limit=("rollout", np.array([0.1, 0.1])), flop=10)
    assert marks([old], [other]) == {"iql": ""}


def test_what_is_hardly_a_part_of_a_run_is_not_flagged():
    def part(name, seconds):
        return rate(name, [seconds, seconds], "s", whole=np.array([100.0, 100.0]))

    old = [part("logging", 0.1), part("update", 0.9), part("compile", 30.0)]
    new = [part("logging", 0.2), part("update", 1.8), part("compile", 60.0)]
    found = {"logging": "~", "update": "SLOWER", "compile": "SLOWER"}
    assert marks(old, new) == found


def test_sizes_tell_figures_apart():
    one, eight = (figure("x", "iql", {"members": n}, "s", [n, n]) for n in (1, 8))
    lines = compare.compare(results(one, eight), results(eight, one))
    assert [line.mark for line in lines] == ["", ""]


def write(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def test_compare_says_by_its_status_whether_something_is_slower(tmp_path, capsys):
    old = write(tmp_path / "old.json", results(rate("iql", [100, 101])))
    slow = write(tmp_path / "slow.json", results(rate("iql", [50, 51])))
    assert compare.main([old, old]) == 0
    assert compare.main([slow, old]) == 0
    assert capsys.readouterr().err == ""
    assert compare.main([old, slow]) == 1
    out = capsys.readouterr().out
    assert "SLOWER" in out and "1 figures: 1 SLOWER, 0 faster" in out


def test_figures_of_one_file_alone_are_listed(tmp_path, capsys):
    old = write(tmp_path / "old.json", results(rate("iql", [100, 101])))
    new = write(tmp_path / "new.json", results(rate("cql", [20, 21])))
    assert compare.main([old, new]) == 0
    out = capsys.readouterr().out
    assert "2 figures: 0 SLOWER, 0 faster, 1 gone, 1 new" in out
    assert "| updates: cql | members 1 | updates/s |   - | 20.5 |" in out


def test_another_machine_is_warned_of(tmp_path, capsys):
    old, new = results(rate("iql", [100, 101])), results(rate("iql", [100, 101]))
    new["machine"]["cores"], new["versions"]["jax"] = 4, "2.0"
    paths = [write(tmp_path / f"{n}.json", x) for n, x in enumerate((old, new))]
    assert compare.main(paths) == 0
    warned = capsys.readouterr().err
    assert "other machines: cores 2 and 4" in warned
    assert "other versions: jax 1.0 and 2.0" in warned


@pytest.mark.parametrize(
    "text, reason",
    [
        ('{"machine": {}, "updates": []}', "format None.*reads format 2"),
        ("[]", "format None"),
        ("{", "cannot be read: Expecting"),
        (None, "cannot be read: .*No such file"),
    ],
)
def test_files_of_another_format_are_refused(tmp_path, capsys, text, reason):
    good = write(tmp_path / "good.json", results())
    bad = tmp_path / "bad.json"
    if text is not None:
        bad.write_text(text)
    for paths in ([good, str(bad)], [str(bad), good]):
        assert compare.main(paths) == 2
        error = capsys.readouterr().err
        assert "bad.json" in error and re.search(reason, error)


def test_a_table_has_a_row_for_a_name_and_columns_for_a_size():
    figures = [
        figure("x", name, {"physics": "c", "members": num}, "updates/s", [num, num + 1])
        for name in ("iql", "cql")
        for num in (1, 8)
    ]
    figures[-1] |= {"limit": MATRIX, "share_of_limit": timing.spread([0.5, 0.6])}
    section = Section("a title", (), None, across="members")
    columns, rows = tables.lay_out(section, figures)
    assert columns == [
        "",
        "physics",
        "members 1, updates/s",
        "members 8, updates/s",
        "of matrix products",
    ]
    assert rows == [
        ["iql", "c", "1.5 [1, 2]", "8.5 [8, 9]", ""],
        ["cql", "c", "1.5 [1, 2]", "8.5", "0.55 [0.50, 0.60]"],
    ]
    text = tables.of_section({"x": section}, "x", figures)
    assert text.startswith("a title:\n\n|     | physics | members 1, updates/s |")
    assert "\n| iql | c       |           1.5 [1, 2] |" in text
    assert "\n| --- | ------- | -------------------: |" in text


@pytest.mark.parametrize(
    "only, reason",
    [
        ("update", "unknown section or name 'update'; did you mean 'updates'"),
        ("updates,", "unknown section or name ''"),
        ("updates/iq", "unknown section or name 'updates/iq'; did you mean"),
    ],
)
def test_unknown_sections_and_names_are_refused(only, reason):
    with pytest.raises(UserError, match=reason):
        command.choose(bench.SECTIONS, only)


def test_every_agent_and_environment_is_measured():
    from o2ojax.agents import AGENTS
    from o2ojax.envs import ENVS, PICTURED

    chosen = command.choose(bench.SECTIONS)
    updates = {name.split()[0] for section, name in chosen if section == "updates"}
    assert updates == set(AGENTS)
    assert set(ENVS) - set(PICTURED) <= {
        name for section, name in chosen if section == "steps"
    }
    some = command.choose(bench.SECTIONS, "replay,updates/iql,cql")
    replay = [x for x in chosen if x[0] == "replay"]
    cql = [("updates", "cql"), ("seeing", "cql"), *replay, ("latency", "cql")]
    assert sorted(some) == sorted([("updates", "iql"), *cql])


def run(path, *more):
    return command.main("bench", bench.SECTIONS, [f"--out={path}", *more])


def measured_by(monkeypatch, measure):
    section = bench.SECTIONS["replay"]._replace(measure=measure)
    monkeypatch.setitem(bench.SECTIONS, "replay", section)


def test_a_section_from_the_command_to_the_tables(tmp_path, monkeypatch, capsys):
    """The store of windows, small; and what else a file holds, and may hold."""
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    monkeypatch.setattr(stores, "ROWS", 1_000)
    monkeypatch.setattr(stores, "CAPACITY", 1_500)
    monkeypatch.setattr(stores, "TIMES", 2)
    path = tmp_path / "found.json"
    ask = ["--windows=2", "--only=replay/windows"]
    assert run(path, *ask) == 0
    found = record.read(path)
    called = ["python -m benchmarks.bench", f"--out={path}", *ask]
    assert found["command"] == " ".join(called)
    assert found["machine"]["cores"] >= 1 and found["versions"]["jax"]
    units = [each["unit"] for each in found["figures"]]
    assert units == ["draws/s", "adds/s", "reweighs/s"]
    assert all(each["windows"] == 2 for each in found["figures"])

    measured_by(monkeypatch, lambda *given: found["figures"])  # once was enough
    other = rate("iql", [1, 2])
    more = copy.deepcopy(found) | {"figures": [*found["figures"], other]}
    write_json(path, more)
    assert run(path, *ask) == 0
    kept = record.read(path)["figures"]
    assert kept[0] == other | {"commit": found["commit"]}
    assert len(kept) == len(units) + 1
    write_json(path, more | {"commit": "another"})
    assert run(path, *ask) == 0
    assert record.read(path)["figures"][0]["commit"] == "another"
    assert record.read(path)["commit"] == found["commit"]

    assert run(path, f"--markdown={path}") == 0
    text = capsys.readouterr().out
    assert "| windows | 1,000 |" in text and "of another commit: another" in text
    write_json(path, more | {"machine": {"cores": 7}})
    assert run(path, *ask) == 2
    assert "of another machine" in capsys.readouterr().err


@pytest.mark.parametrize("only", ["replay", ""])
def test_what_a_stopped_run_had_not_measured_stays(tmp_path, monkeypatch, only):
    def measure(name, windows):
        if name == "windows":
            raise KeyboardInterrupt
        return [record.figure({"rows": 1}, "draws/s", [2.0])]

    measured_by(monkeypatch, measure)
    sections = {"replay": bench.SECTIONS["replay"]}
    names = [*stores.KINDS, "of another time"]
    old = [figure("replay", name, {}, "draws/s", [1.0]) for name in names]
    now = {key: record.surroundings()[key] for key in ("machine", "versions")}
    path = tmp_path / "found.json"
    write_json(path, results(*old) | now | {"commit": "another"})
    with pytest.raises(KeyboardInterrupt):
        command.main("bench", sections, [f"--out={path}", f"--only={only}"])
    found = {each["name"]: each for each in record.read(path)["figures"]}
    assert found.keys() == set(stores.KINDS)
    assert found["uniform"]["median"] == 2.0 and "commit" not in found["uniform"]
    assert found["windows"]["median"] == 1.0
    assert found["windows"]["commit"] == "another"


def test_no_windows_are_refused(tmp_path, capsys):
    assert run(tmp_path / "found.json", "--windows=0") == 2
    assert "--windows is 0" in capsys.readouterr().err


def test_parts_of_a_run_add_up_to_it(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 4.0, 6.0, 10.0])
    monkeypatch.setattr(whole.time, "perf_counter", lambda: next(now))
    clock = whole.Clock()
    with clock.part("evaluation"):
        with clock.part("compile"):
            pass
    # 0 to 1 and 6 to 10 are outside, 1 to 3 and 4 to 6 around the inner part
    assert clock.stop() == {whole.REST: 5.0, "evaluation": 4.0, "compile": 1.0}


def test_what_is_watched_is_there():
    for holder, name, part in whole.WATCHED:
        assert callable(getattr(holder, name)) and part in whole.PARTS


def test_costs_against_sizes_are_drawn(tmp_path):
    def costs(name, unit, values, **sizes):
        return figure("scaling", name, sizes, unit, values)

    figures = [costs(scaling.UPDATE, "ms", [4.0, 5.0], members=n) for n in (1, 2)]
    figures += [
        costs(scaling.STEP, "us", [90 / n], physics="mujoco", environments=n)
        for n in (1, 64)
    ]
    figures += [
        costs(name, "MB", [rows / 1e4], members=num, rows=rows)
        for name in (scaling.ACCOUNT, scaling.PEAK)
        for num in (1, 8)
        for rows in (100_000, 1_000_000)
    ]
    path = tmp_path / "costs.json"
    scaling.draw(results(*figures), path)
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
