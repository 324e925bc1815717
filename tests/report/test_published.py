"""Curves that others published: read, chosen, and drawn beside ours."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.report import main
from o2ojax import report
from o2ojax.errors import UserError
from o2ojax.report import figures, layouts, published
from tests.report.test_report import config, curves, is_png, write_run

CURVES = Path(__file__).parents[2].parent / "shared" / "data" / "curves"
theirs = pytest.mark.skipif(not CURVES.is_dir(), reason=f"{CURVES} is not there")

OURS = curves([[0, 0], [50, 30]], [[40, 35], [60, 50]])  # 100 updates, 100 steps
SOLVED = OURS._replace(success=(OURS.returns > 30).astype(np.float32))
LENGTHS = {"offline": 100, "online": 100}
MAZE = dict(env="antmaze-umaze", dataset="antmaze-umaze-fixed")


def corl(*names, evaluations=20):
    """Scores of two seeds for each METHOD/DATASET: they rise, seed 1 is 10 better."""
    rising = np.linspace(0, 80, evaluations, dtype=np.float32)
    phases = {"offline": [rising / 2, rising / 2 + 10], "online": [rising, rising + 10]}
    return {
        f"{name}/{phase}": np.stack(score)
        for name in names
        for phase, score in phases.items()
    }


def write(path, arrays):
    np.savez(path, **arrays)
    return path


def maze(tmp_path, name="run", **fields):
    return write_run(tmp_path / name, config(**(MAZE | fields)), SOLVED)


def found(given, *runs):
    return published.find(str(given), [report.read(run) for run in runs])


def test_fine_tuning_as_corl_keeps_it(tmp_path):
    arrays = corl("IQL/antmaze-umaze-v2") | {"IQL/antmaze-umaze-v2/regret": np.ones(2)}
    [curve] = layouts.read(write(tmp_path / "a.npz", arrays))
    assert curve[:4] == ("IQL", "antmaze-umaze-v2", layouts.SUCCESS, layouts.D4RL)
    assert curve.members == "2 seeds"
    offline, online = curve.tracks["offline"], curve.tracks["online"]
    np.testing.assert_allclose(offline.step[[0, -1]], [50_000, 1_000_000])
    np.testing.assert_allclose(offline.score[-1], [40, 50])
    np.testing.assert_allclose(online.score[-1], [80, 90])


@pytest.mark.parametrize("num, first", [(20, 50_000), (21, 0), (200, 5_000)])
def test_when_corl_evaluated(num, first, tmp_path):
    arrays = corl("ReBRAC/pen-cloned-v1", evaluations=num)
    [curve] = layouts.read(write(tmp_path / "a.npz", arrays))
    step = curve.tracks["online"].step
    assert curve.scale == layouts.NORMALISED
    assert (len(step), step[0], step[-1]) == (num, first, 1_000_000)


def test_returns_of_d3rlpy_are_scaled_as_ours(tmp_path):
    arrays = {
        "halfcheetah-medium-v0/step": np.array([1000, 2000]),
        "halfcheetah-medium-v0/return": np.array([[-280.178953, 12135.0]], np.float32),
        "halfcheetah-medium-v0/seed": np.array([1]),
    }
    [curve] = layouts.read(write(tmp_path / "d4rl_td3_plus_bc.npz", arrays))
    assert curve.method == "td3_plus_bc"
    np.testing.assert_allclose(curve.tracks["offline"].score, [[0], [100]], atol=1e-4)
    official = {
        "hopper-medium-v0/epoch": np.arange(2),
        "hopper-medium-v0/return": np.ones((3, 2), np.float32),
    }
    [curve] = layouts.read(write(tmp_path / "official_cql.npz", official))
    np.testing.assert_array_equal(curve.tracks["offline"].step, [0, 1000])


def test_fine_tuning_of_d3rlpy_is_what_evaluations_measured(tmp_path):
    starts = {
        "IQL/pretraining/antmaze-umaze-v0/environment": [0.0, 0.5],
        "IQL/finetuning/antmaze-umaze-v0/evaluation": [0.6, 0.9],
        "IQL/finetuning/antmaze-umaze-v0/rollout_return": [0.1, 0.1],
    }
    arrays = {f"{start}/value": np.array([value]) for start, value in starts.items()}
    arrays |= {f"{start}/step": np.array([5, 10]) for start in starts}
    [curve] = layouts.read(write(tmp_path / "finetuning.npz", arrays))
    np.testing.assert_allclose(curve.tracks["offline"].score, [[0], [50]])
    np.testing.assert_allclose(curve.tracks["online"].score, [[60], [90]])


def test_means_of_qc_split_where_online_begins(tmp_path):
    arrays = {}
    for method, steps in {"FQL": [0, 1, 1.1, 2], "RLPD": [1, 1.1, 1.5, 2]}.items():
        arrays[f"lift|{method}/steps"] = np.array(steps, np.float32)
        for column, value in {"means": 0.5, "ci_lows": 0.4, "ci_highs": 0.7}.items():
            arrays[f"lift|{method}/{column}"] = np.full(4, value, np.float32)
    fql, rlpd = layouts.read(write(tmp_path / "robomimic-individual.npz", arrays))
    assert fql.world == layouts.ROBOMIMIC
    np.testing.assert_allclose(fql.tracks["offline"].step, [0, 1e6])
    np.testing.assert_allclose(fql.tracks["online"].step, [1e5, 1e6])
    np.testing.assert_allclose(fql.tracks["online"].score, [[50], [50]], rtol=1e-6)
    np.testing.assert_allclose(fql.tracks["online"].bounds, [[40, 70]] * 2, rtol=1e-6)
    assert list(rlpd.tracks) == ["online"]
    np.testing.assert_allclose(rlpd.tracks["online"].step, [0, 1e5, 5e5, 1e6])


def test_final_scores_are_a_point_of_settings(tmp_path):
    arrays = {"TD3 + BC/hopper-medium-v2": np.array([3.0, 60.0, 50.0], np.float32)}
    [curve] = layouts.read(write(tmp_path / "a.npz", arrays))
    assert curve.members == "3 settings of hyper-parameters"
    np.testing.assert_array_equal(curve.tracks["offline"].score, [[3, 60, 50]])


@theirs
@pytest.mark.parametrize("path", sorted(CURVES.glob("*/*.npz")), ids=lambda x: x.stem)
def test_every_published_file_is_read(path):
    read = layouts.read(path)
    assert len({(curve.method, curve.dataset) for curve in read}) == len(read) > 0
    for curve in read:
        for track in curve.tracks.values():
            assert np.isfinite(track.score).all() and track.step[0] >= 0
            assert track.step[-1] in (25_000, 100_000, 499_000, 500_000, 1_000_000)
            if curve.scale == layouts.SUCCESS:
                assert 0 <= track.score.min() and track.score.max() <= 100.001
    assert "github.com" in published.source(path)


@theirs
def test_final_scores_are_those_of_the_tables_published_with_them():
    folder = CURVES / "d3rlpy_benchmarks"
    finetuned = {
        (curve.method, curve.dataset): curve
        for curve in layouts.read(folder / "finetuning.npz")
    }
    with (folder / "finetuning_table.csv").open() as file:
        for row in csv.DictReader(file):
            tracks = finetuned[row["algo"], row["dataset"]].tracks
            for phase, told in {
                "offline": "pretraining",
                "online": "finetuning",
            }.items():
                final = tracks[phase].score[-1].mean()
                assert abs(final - float(row[f"{told} score"])) < 0.06
    scores = {
        curve.dataset: curve.tracks["offline"].score[-1].mean()
        for curve in layouts.read(folder / "d4rl_td3_plus_bc.npz")
    }
    with (folder / "d4rl_table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["algo"] == "TD3+BC"]
    assert len(rows) == len(scores)
    for row in rows:
        told = float(row["final normalized return"])
        assert abs(scores[f"{row['env']}-{row['dataset']}"] - told) < 0.06


NAMES = (
    *("IQL/antmaze-umaze-v2", "IQL/antmaze-umaze-diverse-v2"),
    *("IQL/antmaze-umaze-v0", "IQL/antmaze-medium-play-v2"),
    *("Cal-QL/antmaze-umaze-v2", "TD3 + BC/antmaze-umaze-v2"),
)


@pytest.mark.parametrize(
    "fields, keys, chosen",
    [
        ({}, "", ["IQL/antmaze-umaze-v2"]),
        ({"dataset": "data/antmaze-umaze-diverse.npz"}, "", [NAMES[1]]),
        ({"algorithm": "cal_ql"}, "", ["Cal-QL/antmaze-umaze-v2"]),
        ({"algorithm": "td3_bc"}, "", ["TD3 + BC/antmaze-umaze-v2"]),
        ({}, ":Cal-QL,IQL", ["Cal-QL/antmaze-umaze-v2", "IQL/antmaze-umaze-v2"]),
        ({}, ":antmaze-medium-play-v2", ["IQL/antmaze-medium-play-v2"]),
        ({}, ":iql/antmaze-umaze-v0", ["IQL/antmaze-umaze-v0"]),
    ],
)
def test_what_is_not_named_is_what_is_nearest_to_the_run(
    fields, keys, chosen, tmp_path
):
    path = write(tmp_path / "a.npz", corl(*NAMES))
    run = maze(tmp_path, **fields)
    names = [f"{x.method}/{x.dataset}" for x in found(f"{path}{keys}", run, run).curves]
    assert names == chosen


def test_a_curve_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    path = write(tmp_path / "a.npz", corl(*NAMES))
    with pytest.raises(UserError, match=r"'fowm/antmaze-umaze'.*IQL/antmaze-umaze-v2"):
        found(path, maze(tmp_path, algorithm="fowm"))


def test_the_caption_says_what_theirs_and_ours_are(tmp_path):
    (tmp_path / "README").write_text(
        f"Curves. Source: example.org @ {'a1' * 20}, x.npz. License: MIT. Keys: none.\n"
    )
    path = write(tmp_path / "a.npz", corl(*NAMES))
    _, one, two, last = found(path, maze(tmp_path)).caption.splitlines()
    assert one == (
        "Theirs: IQL on antmaze-umaze-v2; 2 seeds; 1M updates offline, 1M steps online;"
        " D4RL's environments on MuJoCo 2."
    )
    assert two == (
        "Ours: iql on antmaze-umaze-fixed; 2 members; 100 updates offline, 100 steps"
        " online; antmaze-umaze on mujoco."
    )
    assert last == "Source: example.org @ a1a1a1a1a1, x.npz. License: MIT."


def test_the_caption_says_that_a_phase_is_not_shown(tmp_path):
    path = write(tmp_path / "a.npz", corl(*NAMES))
    offline = curves([[0, 0], [1, 1]])
    offline = offline._replace(success=np.zeros_like(offline.returns))
    run = write_run(tmp_path / "run", config(**MAZE), offline)
    caption = found(path, run).caption
    assert "Not shown: what it did online." in caption
    assert "without a README" in caption


def test_many_evaluations_are_averaged_for_each_seed_and_that_is_told(tmp_path):
    step = 1000 * np.arange(1, 251)
    score = np.arange(250.0)[None] + [[0], [1000]]
    arrays = {
        "hopper-medium-v0/step": step,
        "hopper-medium-v0/normalized_return": score,
    }
    path = write(tmp_path / "official_iql.npz", arrays)
    run = write_run(tmp_path / "run", config(env="hopper"), OURS)
    [curve], caption = found(path, run)
    track = curve.tracks["offline"]
    assert len(track.step) == 84  # of three each, the last of one
    np.testing.assert_array_equal(track.step[[0, 1, -1]], [3000, 6000, 250_000])
    np.testing.assert_array_equal(track.score[0], [1, 1001])
    np.testing.assert_array_equal(track.score[-1], [249, 1249])
    assert "250k updates" in caption and "mean of 3 evaluations" in caption


def drawn(path, run):
    """The panels of a figure of 100 updates and 100 steps with published curves."""
    figure = Figure()
    panels = figures._panels(figure, LENGTHS)
    figures._draw_published(panels, LENGTHS, found(path, run).curves)
    return figure, panels


def test_a_published_phase_ends_where_ours_does_on_a_scale_of_its_own(tmp_path):
    path = write(tmp_path / "a.npz", corl("IQL/antmaze-umaze-v2"))
    figure, panels = drawn(path, maze(tmp_path))
    own = [axes for axes in figure.axes if axes not in panels.values()]
    assert len(own) == 2
    for axes, panel in zip(own, panels.values(), strict=True):
        assert axes.get_xlabel().startswith("published: ")
        assert axes.get_zorder() < panel.get_zorder()
        there = axes.transData.transform((1_000_000, 0))
        np.testing.assert_allclose(there, panel.transData.transform((100, 0)))
    [line] = own[1].lines
    np.testing.assert_allclose(line.get_xdata()[:2], [0, 50_000])  # 0: offline's end
    np.testing.assert_allclose(line.get_ydata()[[0, -1]], [45, 85])  # of two seeds


def test_phases_as_long_as_ours_share_its_scale(tmp_path):
    arrays = {
        "halfcheetah-medium-v0/step": np.array([50, 100]),
        "halfcheetah-medium-v0/normalized_return": np.ones((3, 2)),
    }
    path = write(tmp_path / "d4rl_iql.npz", arrays)
    run = write_run(tmp_path / "run", config(env="halfcheetah"), OURS)
    figure, panels = drawn(path, run)
    assert figure.axes == list(panels.values())
    assert len(panels["offline"].lines) == 2  # the curve, and its place in the legend
    assert len(panels["online"].lines) == 0


def test_the_command_draws_them_and_says_what_differs(tmp_path, capsys):
    path = write(tmp_path / "a.npz", corl(*NAMES))
    run, out = maze(tmp_path), tmp_path / "a.png"
    plain = [str(run), f"--out={out}", "--csv"]
    assert main(plain) == 0
    before, table = out.read_bytes(), capsys.readouterr().out
    assert main([*plain, f"--reference={path}:IQL,Cal-QL"]) == 0
    told = capsys.readouterr()
    assert is_png(out) and out.read_bytes() != before
    assert told.out == table
    assert "Theirs: Cal-QL on antmaze-umaze-v2" in told.err


def no_file(path):
    path.unlink()


def truncated(path):
    path.write_bytes(path.read_bytes()[:300])


def pickled(path):
    np.savez(path, **{"IQL/antmaze-umaze-v2/online": np.array([{}])})


def text(path):
    path.write_text("step,return\n")


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def empty(path):
    np.savez(path)


def a_run_of_ours(path):
    np.savez(path, returns=np.ones(3), phase=np.ones(3))


def of_other_lengths(path):
    write(path, corl("IQL/antmaze-umaze-v2", evaluations=7))


def flat(path):
    write(path, {"IQL/antmaze-umaze-v2/online": np.ones(20, np.float32)})


def without_steps(path):
    write(path, {"hopper-medium-v0/return": np.ones((3, 2), np.float32)})


def falling_steps(path):
    arrays = {"hopper-medium-v0/step": np.array([2, 1])}
    write(path, arrays | {"hopper-medium-v0/normalized_return": np.ones((3, 2))})


def of_an_unknown_scale(path):
    arrays = {"kitchen-mixed-v0/step": np.array([1, 2])}
    write(path, arrays | {"kitchen-mixed-v0/return": np.ones((3, 2))})


@pytest.mark.parametrize(
    "damage, message",
    [
        (no_file, "there is no file"),
        (truncated, "no .npz file of numbers, or damaged"),
        (pickled, "no .npz file of numbers, or damaged"),
        (text, "no .npz file of numbers, or damaged"),
        (one_array, "no .npz file of numbers, or damaged"),
        (empty, "no published curves of a known layout"),
        (a_run_of_ours, "no published curves of a known layout"),
        (of_other_lengths, "7 evaluations"),
        (flat, "do not fit"),
        (without_steps, "lacks 'hopper-medium-v0/step'"),
        (falling_steps, "steps do not rise"),
        (of_an_unknown_scale, "returns of kitchen have no reference"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(damage, message, tmp_path, capsys):
    path = write(tmp_path / "a.npz", corl(*NAMES))
    damage(path)
    out = tmp_path / "a.png"
    assert main([str(maze(tmp_path)), f"--out={out}", f"--reference={path}"]) == 2
    told = capsys.readouterr()
    assert message in told.err and str(path) in told.err
    assert told.err.count("\n") == 1 and told.out == ""
    assert not out.exists()


def test_scores_of_another_scale_are_not_drawn_beside_ours(tmp_path):
    path = write(tmp_path / "a.npz", corl("IQL/pen-cloned-v1"))
    with pytest.raises(UserError, match="the run's are success rates"):
        found(f"{path}:pen-cloned-v1", maze(tmp_path))
    plain = write_run(tmp_path / "plain", config(), OURS)
    with pytest.raises(UserError, match="the run's are plain returns"):
        found(f"{path}:pen-cloned-v1", plain)


def test_a_phase_that_we_lack_cannot_be_drawn(tmp_path):
    arrays = corl("IQL/antmaze-umaze-v2")
    del arrays["IQL/antmaze-umaze-v2/offline"]
    path = write(tmp_path / "a.npz", arrays)
    offline = curves([[0, 0], [1, 1]])
    offline = offline._replace(success=np.zeros_like(offline.returns))
    with pytest.raises(UserError, match="only its online phase, which they lack"):
        found(path, write_run(tmp_path / "run", config(**MAZE), offline))


def test_runs_of_several_environments_have_no_curve_in_common(tmp_path):
    path = write(tmp_path / "a.npz", corl(*NAMES))
    other = write_run(tmp_path / "other", config(), OURS)
    with pytest.raises(UserError, match="runs of one environment"):
        found(path, maze(tmp_path), other)


def test_what_draws_no_curves_takes_no_reference(tmp_path, capsys):
    for other in ("--aggregate", "--readiness", "--foretell"):
        with pytest.raises(SystemExit):
            main(["run", other, "--reference=a.npz"])
        assert "goes with" in capsys.readouterr().err
