"""Statistics by hand, and the tables and figures that a reader gets."""

import csv
import io
import json
import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from experiments.report import main
from o2ojax import report
from o2ojax.errors import UserError
from o2ojax.report import figures, statistics, tables
from o2ojax.run.workdir import save_returns

SPEEDS = {
    "offline": {"updates": 200, "updates_per_second": 50.0},
    "online": {"steps": 100, "updates": 400, "steps_per_second": math.nan},
}


def config(**fields):
    chosen = {"env": "counter", "physics": "mujoco", "simulator": {}}
    chosen |= {"dataset": "counter-random", "algorithm": "iql", "seeds": 2}
    return chosen | {"population": {}} | fields


def curves(offline, online=()):
    """Curves whose two episodes lie 1 below and 1 above the given means, [P, M]."""
    mean = np.array([*offline, *online], np.float32)
    return statistics.Curves(
        returns=np.stack([mean - 1, mean + 1], axis=2),
        phase=np.array(["offline"] * len(offline) + ["online"] * len(online)),
        step=np.concatenate(
            [100 * np.arange(len(offline)), 50 * (1 + np.arange(len(online)))]
        ),
    )


# Two members over two points offline and three online.
CURVES = curves([[0, 0], [50, 30]], [[40, 35], [20, 45], [60, 50]])


def write_run(directory, config, curves):
    directory.mkdir()
    summary = statistics.summarise(config, curves, SPEEDS)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "summary.json").write_text(json.dumps(summary, allow_nan=False))
    save_returns(directory, curves)
    return directory


def printed(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end():
    values = np.array([800, 1, 6, 3, 5, 4, 70, 2])
    assert statistics.interval(values)["iqm"] == 4.5  # (3 + 4 + 5 + 6) / 4


def test_the_interval_is_that_of_rliable():
    values = np.array([12.0, 55, 31, 48, 40, 62, 5, 37, 44, 29])
    estimate = statistics.interval(values, num_resamples=20_000)
    np.testing.assert_allclose(estimate["iqm"], 229 / 6)
    # rliable 1.2.0, get_interval_estimates with 60,000 replications
    np.testing.assert_allclose(estimate["ci95"], [24.0, 48.5], atol=0.35)


def test_an_interval_is_the_same_every_time_whatever_numpy_drew_before():
    values = np.arange(7.0) ** 2
    np.random.seed(1)
    first = statistics.interval(values)
    np.random.seed(2)
    assert statistics.interval(values) == first


def test_a_nan_member_is_left_out_of_the_interval():
    values = np.array([3.0, 9.0, 4.0])
    with_dead = np.array([3.0, math.nan, 9.0, 4.0])
    assert statistics.interval(with_dead) == statistics.interval(values)


def test_the_interval_of_one_member_is_its_value():
    assert statistics.interval(np.array([7.0])) == {"iqm": 7.0, "ci95": [7.0, 7.0]}


def test_no_living_member_gives_nan():
    estimate = statistics.interval(np.full(3, math.nan))
    assert np.isnan([estimate["iqm"], *estimate["ci95"]]).all()


def test_scores_average_episodes_and_scale_by_the_reference():
    episodes = curves([[12135.0, -280.178953]])  # D4RL's expert and random half-cheetah
    np.testing.assert_allclose(
        statistics.scores(episodes, "halfcheetah"), [[100, 0]], atol=1e-4
    )
    np.testing.assert_allclose(
        statistics.scores(episodes, "counter"), [[12135, -280.178953]], rtol=1e-6
    )


def test_dip_and_regret_by_hand():
    achieved = statistics.by_member(statistics.scores(CURVES, "counter"), CURVES.phase)
    np.testing.assert_allclose(achieved["offline"]["score"], [50, 30])
    np.testing.assert_allclose(achieved["online"]["score"], [60, 50])
    np.testing.assert_allclose(achieved["online"]["dip"], [30, 0])  # 50 - 20; rises
    np.testing.assert_allclose(
        achieved["online"]["regret"], [60, 170 / 3]
    )  # (60 + 80 + 40) / 3, (65 + 55 + 50) / 3


def test_regret_counts_points_by_the_steps_that_led_to_them():
    score = np.array([[50.0], [90.0], [60.0], [20.0]])
    phase = np.array(["offline", "online", "online", "online"])

    def regret(*step):
        found = statistics.by_member(score, phase, step=np.array([7, *step]))
        return found["online"]["regret"]

    even = (10 + 40 + 80) / 3
    np.testing.assert_allclose(regret(10, 20, 30), even)
    np.testing.assert_allclose(regret(1010, 1020, 1030), even)  # after a warm-up
    np.testing.assert_allclose(regret(1, 5, 10), (10 + 4 * 40 + 5 * 80) / 10)


def test_a_member_that_died_online_keeps_only_its_offline_score():
    died = curves([[50, 30]], [[40, 35], [math.nan, 45]])
    achieved = statistics.by_member(statistics.scores(died, "counter"), died.phase)
    np.testing.assert_allclose(achieved["offline"]["score"], [50, 30])
    for values in achieved["online"].values():
        np.testing.assert_array_equal(np.isnan(values), [True, False])


def test_a_summary_has_the_documented_shape_and_survives_json():
    summary = statistics.summarise(config(), CURVES, SPEEDS)
    assert list(summary) == (
        "env physics simulator dataset agent members offline online".split()
    )
    assert list(summary["offline"]) == ["updates", "updates_per_second", "score"]
    figures = ["score", "dip"]  # a plain return is no share of 100: no regret
    speeds = ["steps", "updates", "steps_per_second"]
    assert list(summary["online"]) == speeds + figures
    assert summary["agent"] == "iql"
    assert summary["members"] == 2
    assert summary["offline"]["score"]["iqm"] == 40  # (50 + 30) / 2
    assert summary["online"]["dip"]["iqm"] == 15  # (30 + 0) / 2
    assert summary["online"]["steps_per_second"] is None  # was NaN
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_run_that_stays_offline_has_no_online_part():
    summary = statistics.summarise(config(), curves([[0, 0], [5, 7]]), SPEEDS)
    assert "online" not in summary
    assert summary["offline"]["score"]["iqm"] == 6


def test_groups_follow_the_settings_with_seeds_innermost():
    population = {"expectile": [0.7, 0.9], "beta": [1.0, 3.0]}
    asked = config(seeds=[4, 5], population=population)
    offline = [[0.0, 2, 10, 12, 20, 22, 30, 32]]  # 10 for each setting, 2 for each seed
    summary = statistics.summarise(asked, curves(offline, offline), SPEEDS)
    found = [
        (group["settings"], group["online"]["score"]["iqm"])
        for group in summary["groups"]
    ]
    assert found == [
        ({"expectile": 0.7, "beta": 1.0}, 1),
        ({"expectile": 0.7, "beta": 3.0}, 11),
        ({"expectile": 0.9, "beta": 1.0}, 21),
        ({"expectile": 0.9, "beta": 3.0}, 31),
    ]
    assert list(summary["groups"][0]["online"]) == ["score", "dip"]
    scaled = statistics.summarise(
        asked | {"env": "hopper"}, curves(offline, offline), SPEEDS
    )
    assert list(scaled["online"])[3:] == ["score", "dip", "regret"]
    assert list(summary["groups"][0]["offline"]) == ["score"]


def test_how_members_adapt_is_a_mean_over_those_that_live():
    shown = curves([[1, 2, math.nan]])
    told = {"explored": [-1.0, -3.0, 50.0], "z_shift": [math.nan] * 3}
    summary = statistics.summarise(config(seeds=3), shown, SPEEDS, told)
    assert summary["adaptation"] == {"explored": -2, "z_shift": None}


def test_members_that_are_not_seeds_times_settings_are_refused():
    with pytest.raises(UserError, match="2 members.*3 seeds x 1 settings"):
        statistics.summarise(config(seeds=3), CURVES, SPEEDS)


def test_the_table_has_a_row_per_setting_with_scores_and_budgets():
    population = {"expectile": [0.7, 0.9]}
    summary = statistics.summarise(
        config(seeds=1, population=population), CURVES, SPEEDS
    )
    alone = statistics.summarise(config(), curves([[1, 1]]), SPEEDS)
    assert report.table([summary, alone]).row_count == 3
    first, second = report.rows(summary)
    assert first == (
        *("iql, expectile=0.7", "counter-random", "1", "200, 100 (400)"),
        *("50.0 [50.0, 50.0]", "30.0 [30.0, 30.0]"),
        *("60.0 [60.0, 60.0]", "-"),
        "-",  # the return: it is the score
    )
    assert second[0] == "iql, expectile=0.9"
    text = printed(report.table([summary, alone]))
    assert "they are not D4RL scores" in " ".join(text.split())
    assert "[60.0, 60.0]" in text


def test_the_markdown_table_has_the_cells_of_every_row():
    summary = statistics.summarise(config(), CURVES, SPEEDS)
    lines = report.markdown([summary]).splitlines()
    table = [line.split(" | ") for line in lines if line.startswith("|")]
    assert [len(line) for line in table] == [len(tables.COLUMNS)] * 3
    assert "they are not D4RL scores" in lines[0]


def test_where_a_task_can_be_done_the_score_is_how_often_and_the_return_is_told():
    done = np.array([[[0, 0], [0, 1]], [[1, 0], [1, 1]], [[1, 1], [0, 1]]], np.float32)
    measured = curves([[-9, -7], [-5, -3]], [[-2, -4]])._replace(success=done)
    np.testing.assert_allclose(
        statistics.scores(measured, "counter"), [[0, 50], [50, 100], [100, 50]]
    )
    summary = statistics.summarise(config(), measured, SPEEDS)
    assert summary["offline"]["score"]["iqm"] == 75  # (50 + 100) / 2
    assert summary["offline"]["return"]["iqm"] == -4  # (-5 - 3) / 2
    assert summary["online"]["return"]["iqm"] == -3
    [row] = report.rows(summary)
    assert row[-1] == "-3.0 [-4.0, -2.0]"
    assert "return" in printed(report.table([summary]))
    other = statistics.summarise(config(), CURVES, SPEEDS)
    header = report.markdown([other]).splitlines()[2]
    assert "return" not in header
    assert "return" in report.markdown([other, summary]).splitlines()[2]


def test_successes_survive_the_disk_and_must_fit(tmp_path):
    done = np.ones(CURVES.returns.shape, np.float32)
    run = write_run(tmp_path / "run", config(), CURVES._replace(success=done))
    np.testing.assert_array_equal(report.read(run).curves.success, done)
    save_returns(run, CURVES._replace(success=done[:, :1]))
    with pytest.raises(UserError, match="success is"):
        report.read(run)
    save_returns(run, CURVES)
    assert report.read(run).curves.success is None


def test_the_figure_is_written_whole_and_alone(tmp_path):
    run = write_run(tmp_path / "run", config(), CURVES)
    report.draw([report.read(run)], tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "curves.png"}


@pytest.mark.parametrize(
    "shown",
    [
        curves([[5, 5]]),  # nothing but a start
        curves([[5, 5]], [[6, 7]]),  # online from scratch
        curves([[5, 5], [6, 6]]),  # offline only
        curves([[5, 5], [6, math.nan]], [[7, math.nan]]),  # one member died
        curves([[math.nan] * 2] * 2, [[math.nan] * 2]),  # all died
    ],
)
def test_runs_of_every_kind_are_drawn(shown, tmp_path):
    run = write_run(tmp_path / "run", config(), shown)
    report.draw([report.read(run)] * 2, tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")


@pytest.mark.parametrize("num_points", [1, 2])
def test_a_point_alone_is_marked(num_points):
    axes = Figure().subplots()
    step, score = np.arange(num_points), np.ones((num_points, 2))
    figures._draw_series(axes, step, score, "black", "solid", "some")
    assert len(axes.lines) == 3  # two members, and the IQM
    marks = {line.get_marker() for line in axes.lines}
    assert marks == ({"o"} if num_points == 1 else {"None"})


def test_the_command_line_draws_a_figure_for_each_environment(tmp_path, capsys):
    one = write_run(tmp_path / "one", config(), CURVES)
    other = write_run(tmp_path / "other", config(env="hopper"), CURVES)
    out = f"--out={tmp_path / 'a.png'}"
    assert main([str(one), str(other), out, "--markdown"]) == 0
    assert capsys.readouterr().out.count("| iql |") == 2
    assert is_png(tmp_path / "curves-counter.png")
    assert is_png(tmp_path / "curves-hopper.png")
    assert main([str(one), out]) == 0
    assert is_png(tmp_path / "a.png")


def no_run(run):
    (run / "config.json").unlink()


def unfinished(run):
    (run / "summary.json").unlink()


def truncated(run):
    path = run / "returns.npz"
    path.write_bytes(path.read_bytes()[:200])


def pickled(run):
    np.savez(run / "returns.npz", returns=np.array([{}]), phase=[""], step=[0])


def flat(run):
    save_returns(run, CURVES._replace(returns=np.ones(5)))


def of_other_seeds(run):
    (run / "config.json").write_text(json.dumps(config(seeds=3)))


def without_seeds(run):
    (run / "config.json").write_text(json.dumps({"env": "counter"}))


def summary_of_nothing(run):
    (run / "summary.json").write_text("{}")


def broken_json(run):
    (run / "summary.json").write_text("{")


@pytest.mark.parametrize(
    "damage, message",
    [
        (no_run, "not the directory of a finished run: no config.json"),
        (unfinished, "not the directory of a finished run: no summary.json"),
        (truncated, "returns.npz is damaged"),
        (pickled, "returns.npz is damaged"),
        (flat, "[point, member, episode]"),
        (of_other_seeds, "there are 2 members, but the config asks for 3 seeds"),
        (
            without_seeds,
            "lacks algorithm, dataset, physics, population, seeds, simulator",
        ),
        (summary_of_nothing, "not as a run writes it"),
        (broken_json, "cannot read"),
    ],
)
def test_a_damaged_run_is_refused_in_one_line(damage, message, tmp_path, capsys):
    run = write_run(tmp_path / "run", config(), CURVES)
    damage(run)
    assert main([str(run), f"--out={tmp_path / 'a.png'}"]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert str(run) in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert not (tmp_path / "a.png").exists()


def test_a_figure_of_another_kind_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--out=curves.jpg"])
    assert stopped.value.code == 2
    assert "should end in .png, .pdf, .svg" in capsys.readouterr().err


def test_a_folder_that_does_not_exist_is_named(tmp_path, capsys):
    run = write_run(tmp_path / "run", config(), CURVES)
    assert main([str(run), f"--out={tmp_path / 'nowhere' / 'a.png'}"]) == 2
    assert "nowhere" in capsys.readouterr().err


def table_of(form, tmp_path, capsys):
    run = write_run(tmp_path / "a_b", config(), CURVES)
    assert main([str(run), f"--{form}", f"--out={tmp_path / 'x.svg'}"]) == 0
    return capsys.readouterr().out


def test_numbers_for_a_spreadsheet(tmp_path, capsys):
    rows = list(csv.DictReader(io.StringIO(table_of("csv", tmp_path, capsys))))
    summary = json.loads((tmp_path / "a_b" / "summary.json").read_text())
    assert len(rows) == 1 and rows[0]["agent"] == summary["agent"]
    score = summary["offline"]["score"]
    found = [float(rows[0][f"offline score {end}"]) for end in ("iqm", "low", "high")]
    np.testing.assert_allclose(found, [score["iqm"], *score["ci95"]])


def test_a_table_for_a_paper(tmp_path, capsys):
    text = table_of("latex", tmp_path, capsys)
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert lines[0].startswith(r"\begin{tabular}{l") and lines[-1] == r"\end{tabular}"
    body = [line for line in lines if line.endswith(r"\\")]
    assert len({line.count(" & ") for line in body}) == 1
    assert tables._latex_row(["a_b", "50%"]) == r"a\_b & 50\% \\"


@pytest.mark.parametrize("suffix, start", [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_for_a_paper(suffix, start, tmp_path):
    run = write_run(tmp_path / "run", config(), CURVES)
    path = tmp_path / f"curves.{suffix}"
    assert main([str(run), f"--out={path}"]) == 0
    assert path.read_bytes().startswith(start)


# What some library would read as markup: mathtext, a hidden label, tables, LaTeX, rich.
NAMES = ("my$_$x", "_mine", "a|b", "[/y]", "50%&", "{x}^~\\", "`*a*`", "<b>", "\u65e5")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [".png", ".svg"])
def test_figures_show_names_as_they_are(name, kind, tmp_path):
    run = write_run(tmp_path / "run", config(algorithm=name, dataset=name), CURVES)
    report.draw([report.read(run)], tmp_path / f"out{kind}")
    assert (tmp_path / f"out{kind}").stat().st_size > 10_000


@pytest.mark.parametrize("name", NAMES)
def test_legends_leave_no_name_out(name, tmp_path, monkeypatch):
    seen = []
    legend = Figure.legend

    def note(*given, **how):
        seen.append(legend(*given, **how))
        return seen[0]

    monkeypatch.setattr(Figure, "legend", note)
    run = write_run(tmp_path / "run", config(algorithm=name), CURVES)
    figures.draw([report.read(run)], tmp_path / "out.png")
    [text] = seen[0].get_texts()
    assert text.get_text().strip().startswith(f"{name}, counter-random")
    assert not text.get_parse_math()


@pytest.mark.parametrize("name", NAMES)
def test_tables_keep_their_columns_whatever_names_hold(name, tmp_path):
    directory = tmp_path / "run"
    result = report.read(write_run(directory, config(algorithm=name), CURVES))
    _, _, header, rule, row = report.markdown([result.summary]).splitlines()
    cells = re.split(r"(?<!\\)\|", row)
    assert len(cells) == header.count("|") + 1 == rule.count("|") + 1
    assert re.sub(r"\\(.)", r"\1", cells[1].strip()) == name
    line = report.latex([result.summary]).splitlines()[5]
    assert len(re.findall(r"(?<!\\)&", line)) == 7
    table = list(csv.reader(io.StringIO(report.csv([result.summary]))))
    assert table[1][0] == name and len(table[1]) == len(table[0])
    assert name in printed(report.table([result.summary]))


def test_marks_that_mean_nothing_in_markdown():
    assert report.unmarked("a_b [1, 2] c.d") == "a_b [1, 2] c.d"
    assert report.unmarked("_a_ |$*<`\\\n x") == r"\_a\_ \|\$\*\<\`\\ x"
