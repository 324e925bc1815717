"""The table and the picture of a dataset."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import inspect
from experiments.inspect import main
from o2ojax import data
from o2ojax.envs import antmaze

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "data"


def columns(**changes):
    """Three episodes of four steps in two dimensions, one of which is constant."""
    serial = np.arange(12, dtype=np.float32)
    plain = {
        "observations": np.stack([serial, np.ones(12)], axis=1),
        "actions": serial[:, None] / 100,
        "rewards": serial,
        "terminals": serial == 7,
        "timeouts": serial % 4 == 3,
        "next_observations": np.stack([serial + 1, np.ones(12)], axis=1),
    }
    return plain | changes


def stored(tmp_path, name="robot", **changes):
    path = tmp_path / f"{name}.npz"
    np.savez(path, **columns(**changes))
    return path


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_a_table_and_a_picture_are_made(tmp_path, capsys):
    picture = tmp_path / "robot.png"
    assert main([str(stored(tmp_path)), f"--out={picture}"]) == 0
    told = capsys.readouterr()
    for row in (
        ("rows", "12"),
        ("episodes", "3"),
        ("returns", "min 6, mean 22, max 38"),
        ("lengths of episodes", "min 4, mean 4, max 4"),
        ("episodes that end at a terminal", "1"),
        ("episodes that are cut", "2"),
        ("rewards", "min 0, mean 5.5, max 11"),
        ("observations", "2 numbers; from 0 (dimension 0) to 11 (dimension 0)"),
        ("constant dimensions", "1"),
        ("actions", "1 numbers; from 0 to 0.11"),
        ("rows with an action beyond [-1, 1]", "0.0%"),
    ):
        assert row in cells(told.out)
    assert "scores" not in told.out
    assert told.out.endswith("What looks wrong:\n* nothing\n")
    assert told.err == f"wrote {picture}\n"
    assert is_png(picture)


def test_the_tasks_of_a_meta_dataset_are_told(tmp_path, capsys):
    given = columns(tasks=np.repeat([0, 1], [4, 8]))
    given["task_parameters"] = np.float32([[-0.5, 2], [3, 1]])
    np.savez(tmp_path / "meta.npz", **given)
    assert main([str(tmp_path / "meta.npz"), f"--out={tmp_path / 'a.png'}"]) == 0
    told = cells(capsys.readouterr().out)
    assert ("tasks", "2") in told
    assert ("rows of each task", "min 4, mean 6, max 8") in told
    assert ("parameters of tasks", "2 numbers; from -0.5 to 3") in told
    assert main([str(stored(tmp_path)), f"--out={tmp_path / 'a.png'}"]) == 0
    assert "tasks" not in capsys.readouterr().out


def cells(printed):
    """The rows of a printed table."""
    lines = [line.split("│")[1:-1] for line in printed.splitlines() if "│" in line]
    return [tuple(map(str.strip, line)) for line in lines]


def test_the_same_in_markdown(tmp_path, capsys):
    path = stored(tmp_path, rewards=np.ones(12))
    assert main([str(path), f"--out={tmp_path / 'a.png'}", "--markdown"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("| robot | |\n| --- | --- |\n| rows | 12 |\n")
    assert "\n\nWhat looks wrong:\n\n* Every reward is 1:" in told


def test_the_picture_lies_here_under_the_name_of_the_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(stored(tmp_path))]) == 0
    assert is_png(tmp_path / "inspect-robot.png")


def test_scores_are_shown_where_there_is_a_reference(tmp_path, capsys):
    picture = tmp_path / "a.png"
    assert main(["hopper-medium-replay", f"--out={picture}"]) == 0
    returns = data.episode_returns(data.read("hopper-medium-replay").transitions)
    mean = data.score("hopper", returns).mean()
    [(_, scores)] = [
        row for row in cells(capsys.readouterr().out) if row[0] == "scores (hopper)"
    ]
    assert f"mean {mean:.6g}" in scores


def test_minaris_datasets_are_inspected_too(tmp_path, monkeypatch, capsys):
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    data.write("minari:robot/one-v0", data.from_arrays(**columns()))
    assert main(["minari:robot/one-v0"]) == 0
    assert ("returns", "min 6, mean 22, max 38") in cells(capsys.readouterr().out)
    assert is_png(tmp_path / "inspect-robot-one-v0.png")


def test_actions_beyond_the_limits_are_shown(tmp_path, capsys):
    loud = stored(tmp_path, actions=np.linspace(-4, 1, 12)[:, None])
    picture = f"--out={tmp_path / 'a.png'}"
    assert main([str(loud), picture]) == 0
    told = capsys.readouterr().out
    assert ("rows with an action beyond [-1, 1]", "58.3%") in cells(told)  # 7 of 12
    assert "* 58.3% of the rows have actions beyond [-1, 1], from -4 to 1:" in told
    assert main([str(loud), picture, "--clip-actions"]) == 0
    told = capsys.readouterr().out
    assert ("actions", "1 numbers; from -0.99999 to 0.99999") in cells(told)
    assert ("numbers in actions at -1 or 1, or beyond", "66.7%") in cells(told)
    assert told.endswith("* nothing\n")


@pytest.mark.parametrize("value", [0.0, 1e30, -1e-30])
def test_numbers_that_are_all_the_same_are_drawn(tmp_path, value):
    same = stored(
        tmp_path,
        rewards=np.full(12, value),
        observations=np.full((12, 2), value),
        next_observations=np.full((12, 2), value),
        actions=np.zeros((12, 1)),
    )
    assert main([str(same), f"--out={tmp_path / 'a.png'}"]) == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rewards": np.full(12, np.nan)}, "robot.npz: rewards: row 0 is nan"),
        ({"observations": np.full((12, 2), np.inf)}, "row 0, column 0 is inf"),
        ({"masks": np.ones(11), "timeouts": np.ones(11)}, "timeouts has 11 rows"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, capsys, changes, message):
    picture = tmp_path / "a.png"
    assert main([str(stored(tmp_path, **changes)), f"--out={picture}"]) == 2
    told = capsys.readouterr()
    *warned, error = told.err.splitlines()
    assert error.startswith("error: ") and message in error
    assert all(line.startswith("warning: ") for line in warned)
    assert told.out == ""
    assert not picture.exists()


@pytest.mark.parametrize(
    "source, message",
    [
        ("none.npz", "none.npz: no such file"),
        ("hoper-medium-replay", "did you mean 'hopper-medium-replay'"),
    ],
)
def test_what_is_not_there_is_told(capsys, source, message):
    assert main([source]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_does_not_exist_is_named(tmp_path, capsys):
    picture = tmp_path / "nowhere" / "a.png"
    assert main([str(stored(tmp_path)), f"--out={picture}"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_picture_that_is_no_png_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["robot.npz", "--out=robot.pdf"])
    assert stopped.value.code == 2
    assert "should end in .png" in capsys.readouterr().err


def test_the_traps_of_a_recording_are_told(tmp_path, capsys):
    path = RECORDINGS / "mujoco_expert" / "Hopper-v4.npz"
    if not path.exists():
        pytest.skip("the recordings are not here")
    assert main([str(path), f"--out={tmp_path / 'a.png'}"]) == 0
    told = capsys.readouterr().out
    assert "have actions beyond [-1, 1], from -5.13232 to 3.94942" in told
    assert "All 2 terminals lie at step 1000" in told


def ant(places):
    """Rows of an ant that has been at places [N, 2]."""
    obs = np.zeros((len(places), 29), np.float32)
    obs[:, :2], obs[:, 3] = places, 1.0
    return {
        "observations": obs,
        "actions": np.zeros((len(obs), 8)),
        "rewards": np.zeros(len(obs)),
        "terminals": np.zeros(len(obs)),
        "timeouts": np.arange(len(obs)) == len(obs) - 1,
    }


def along(*corners, num=50):
    """Places on the way from corner to corner."""
    ways = zip(corners[:-1], corners[1:], strict=True)
    return np.concatenate([np.linspace(start, end, num) for start, end in ways])


WAYS = {
    "antmaze-umaze": along((0, 0), (9, 0), (9, 8), (0, 9)),
    "antmaze-medium": along((0, 0), (4, 0), (4, 8), (12, 8), (12, 4), (20, 4)),
    "antmaze-large": along((0, 0), (0, 8), (12, 8)),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_maze_is_found_by_where_the_ant_has_been_and_drawn(name, tmp_path):
    path = tmp_path / "log.npz"
    np.savez(path, **ant(WAYS[name]))
    seen = data.inspect(data.load(path))
    maze = inspect.find_maze(seen)
    assert maze is antmaze.MAZES[name]
    axes = Figure().subplots()
    inspect.draw_maze(axes, seen, maze)
    boxes = [patch.get_bbox() for patch in axes.patches]
    walls, goal = boxes[:-1], boxes[-1]
    assert len(walls) == sum(row.count("#") for row in maze.rows)
    inside = [[box.contains(x, y) for box in walls] for x, y in WAYS[name]]
    assert not np.any(inside)
    np.testing.assert_array_equal([goal.x0, goal.y0], maze.cells("G")[0] - 2)
    [line] = axes.lines
    np.testing.assert_allclose(line.get_xydata(), seen.transitions.obs[:, :2])
    assert inspect.main([str(path), f"--out={tmp_path / 'ant.png'}"]) == 0
    assert is_png(tmp_path / "ant.png")


def test_the_name_of_the_maze_goes_before_where_the_ant_has_been(tmp_path):
    path = tmp_path / "antmaze-large-play-v2.npz"
    np.savez(path, **ant(along((0, 0), (4, 0))))  # free in each maze
    maze = inspect.find_maze(data.inspect(data.load(path)))
    assert maze is antmaze.MAZES["antmaze-large"]


def test_what_was_elsewhere_is_in_no_maze(tmp_path):
    path = tmp_path / "log.npz"
    np.savez(path, **ant(along((0, 0), (-30, 0))))
    assert inspect.find_maze(data.inspect(data.load(path))) is None
    seen = data.inspect(data.load(stored(tmp_path)))
    assert inspect.find_maze(seen) is None
