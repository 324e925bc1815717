"""How peers are timed: the protocol, on peers that are made up, and what is compared.

Nothing is installed, and no time is asserted.
"""

import ast
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import peers, peers_protocol
from benchmarks.peers_protocol import PeerError, running
from o2ojax import agents
from o2ojax.types import EnvSpec

SPEC = EnvSpec("made up", obs_dim=3, action_dim=2, horizon=50)


def peer(code):
    return running("made up", [sys.executable, "-c", code])


COUNTS = """
from benchmarks.peers_protocol import serve
done = []
def prepare():
    print("chatter")
    return {"versions": {"made up": "1.0"}}, lambda: (done.append(0), print(len(done)))
serve(prepare)
"""


def test_a_peer_says_what_it_is_and_works_when_asked():
    with peer(COUNTS) as process:
        assert process.ready == {"versions": {"made up": "1.0"}}
        for num in (1, 20):
            assert process.go(num) > 0
        process.errors.seek(0)
        assert process.errors.read().split() == [
            b"chatter",
            *map(b"%d".__mod__, range(1, 22)),
        ]
    assert process.process.returncode == 0


def test_a_peer_that_dies_is_named_with_its_last_words():
    with pytest.raises(PeerError, match="'made up'.*status 3.*'ready'.*no torch"):
        with peer("import sys; print('no torch', file=sys.stderr); sys.exit(3)"):
            pass
    dies = (
        "print('{\"ready\": {}}', flush=True); input(); raise MemoryError('too much')"
    )
    with peer(dies) as process:
        with pytest.raises(PeerError, match="(?s)status 1.*'seconds'.*too much"):
            process.go(1)
        with pytest.raises(PeerError, match="too much"):  # nor does it live again
            process.go(1)


@pytest.mark.parametrize("said", ["hello", "[1]", '{"seconds": 1}', "3"])
def test_what_is_no_answer_is_shown(said):
    with pytest.raises(PeerError, match="where 'ready' was due"):
        with peer(f"print({said!r}, flush=True); input()"):
            pass


def test_a_peer_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(peers_protocol, "PATIENCE", 0.1)
    code = "import time; print('{\"ready\": {}}', flush=True); time.sleep(1_000)"
    with peer(code) as process:
        pass
    assert process.process.returncode < 0


def test_windows_are_taken_in_turn_and_ratios_are_of_the_same_turn(monkeypatch):
    monkeypatch.setattr(peers, "SECONDS", 2.0)
    asked = []

    def work(name, seconds, each):
        def go(num):
            asked.append((name, num))
            return num * next(seconds)

        return peers.Work(go, each)

    # three calls to warm up take 0.5 s each, then come the windows
    ours = work("ours", iter([9.0, 0.5, 0.1, 0.2, 0.4]), 10)
    theirs = work("theirs", iter([9.0, 0.25, 0.2, 0.2, 0.2]), 1)
    found = peers.compare({"ours": ours, "theirs": theirs}, windows=3)
    warm = [("ours", 1), ("ours", 3), ("theirs", 1), ("theirs", 3)]
    # windows of 2 s: 4 calls of 0.5 s, 8 of 0.25 s
    assert asked == warm + 3 * [("ours", 4), ("theirs", 8)]
    # 10 / 0.1, 10 / 0.2, 10 / 0.4 a second; 1 / 0.2
    assert found["per_second"]["ours"] == {"median": 50.0, "min": 25.0, "max": 100.0}
    assert found["per_second"]["theirs"] == {"median": 5.0, "min": 5.0, "max": 5.0}
    assert found["ratio"] == {"theirs": {"median": 10.0, "min": 5.0, "max": 20.0}}


def test_ours_and_theirs_are_the_same_transitions(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "NUM_EPISODES", 3)
    monkeypatch.setattr(peers, "EPISODE", 4)
    rows = peers.episodes(SPEC)
    path = tmp_path / "episodes.npz"
    peers.write_episodes(path, rows)
    ours = jax.tree.map(np.asarray, peers.transitions(rows))
    theirs = np.load(path)
    assert theirs["last"].nonzero()[0].tolist() == [4, 9, 14]
    at = np.flatnonzero(~theirs["last"])  # rows that have a next one
    assert len(at) == len(ours.reward) == 12
    np.testing.assert_array_equal(ours.obs, theirs["obs"][at])
    np.testing.assert_array_equal(ours.next_obs, theirs["obs"][at + 1])
    np.testing.assert_array_equal(ours.action, theirs["action"][at])
    np.testing.assert_array_equal(ours.reward, theirs["reward"][at])
    np.testing.assert_array_equal(ours.last, theirs["last"][at + 1])
    assert (ours.discount == 1).all()


@pytest.mark.parametrize("algorithm", peers.ALGORITHMS)
def test_every_algorithm_has_the_sizes_compared(algorithm):
    settings = peers.compiled_in(peers.sized(algorithm))
    assert settings["num_critics"] == peers.NUM_CRITICS
    widths = {value for name, value in settings.items() if name.endswith("widths")}
    assert widths == {peers.WIDTHS}
    assert algorithm in peers.D3RLPY and agents.find(algorithm)


def test_the_peers_side_knows_every_algorithm():
    tree = ast.parse(Path(peers.__file__).with_name("peers_d3rlpy.py").read_text())
    [table] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ALGORITHMS"
    ]
    assert [key.value for key in table.keys] == list(peers.ALGORITHMS)


def test_the_lock_pins_every_version():
    lines = Path(peers.__file__).with_name("peers.lock").read_text().split()
    assert {"torch", "d3rlpy"} <= {line.split("==")[0] for line in lines}
    assert all(line.count("==") == 1 for line in lines)


def test_unknown_names_are_refused(capsys):
    assert peers.main(["--only=iql,hoper"]) == 2
    assert "'hoper'; did you mean 'hopper'?" in capsys.readouterr().err
    assert peers.chosen("hopper,iql") == ["iql", "hopper"]
    assert peers.chosen(None) == [*peers.ALGORITHMS, *peers.TASKS]
    with pytest.raises(SystemExit):
        peers.main(["--windows=0"])


def test_without_the_peers_environment_nothing_is_timed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peers, "VENV", tmp_path / ".venv-peers")
    monkeypatch.setattr(peers, "bench_learner", None)
    assert peers.main(["--only=iql"]) == 2
    assert "run make bench-peers" in capsys.readouterr().err


def test_what_the_environment_costs(monkeypatch, tmp_path):
    (tmp_path / ".seconds").write_text("44\n")
    (tmp_path / "large").write_bytes(bytes(2_000_000 - 3))
    (tmp_path / "again").symlink_to("large")
    (tmp_path / ".ready").touch()
    monkeypatch.setattr(peers, "VENV", tmp_path)
    assert peers.environment() == {"megabytes": 2.0, "install_seconds": 44.0}


def test_a_peer_that_dies_ends_the_command(monkeypatch, capsys):
    def die(*given):
        raise PeerError("peer 'd3rlpy iql' has ended")

    monkeypatch.setattr(peers, "environment", dict)
    monkeypatch.setattr(peers, "bench_learner", die)
    assert peers.main(["--only=iql"]) == 1
    assert "error: peer 'd3rlpy iql' has ended" in capsys.readouterr().err


def test_tables_name_every_peer(capsys):
    figure = {"median": 2.0, "min": 1.0, "max": 3.0}
    row = {
        "what": "iql",
        "per_second": {peers.OURS: figure | {"median": 1234.5}, "some peer": figure},
        "ratio": {"some peer": figure},
        "told": {peers.OURS: {"threads": 5, "settings": {"batch": 7}}},
    }
    peers.show(
        {
            "machine": {"processor": "some", "cores": 2},
            "load": 1.5,
            "updates": [row],
            "steps": [],
            "environment": {"megabytes": 1180.0, "install_seconds": 44.0},
        }
    )
    said = capsys.readouterr().out
    for words in (
        "some peer",
        "1,234",
        "2.0",
        "2.00 [1.00, 3.00]",
        "threads=5, batch=7",
    ):
        assert words in said
    assert "1,180 MB, installed in 44 s" in said
