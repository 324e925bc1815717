"""How peers are timed: the protocol, on peers that are made up, and what is compared.

Nothing is installed, and no time is asserted.
"""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, peers_protocol, record
from benchmarks.peers_protocol import PeerError, running
from o2ojax import data
from o2ojax.agents import AGENTS
from o2ojax.types import EnvSpec, vector

SPEC = EnvSpec("made up", obs=vector(3), action_dim=2, horizon=50)


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


def test_a_peer_says_what_it_is_and_works_when_asked(capfd):
    with peer(COUNTS) as process:
        assert process.ready == {"versions": {"made up": "1.0"}}
        for num in (1, 20):
            assert process.go(num) > 0
    assert capfd.readouterr().err.split() == ["chatter", *map(str, range(1, 22))]


def test_a_peer_that_dies_is_named(capfd):
    with pytest.raises(PeerError, match="'made up'.*status 3.*'ready'"):
        with peer("import sys; print('no torch', file=sys.stderr); sys.exit(3)"):
            pass
    assert "no torch" in capfd.readouterr().err
    dies = (
        "print('{\"ready\": {}}', flush=True); input(); raise MemoryError('too much')"
    )
    with peer(dies) as process:
        with pytest.raises(PeerError, match="status 1.*'seconds'"):
            process.go(1)
        with pytest.raises(PeerError, match="status 1"):  # nor does it live again
            process.go(1)
    assert "too much" in capfd.readouterr().err


@pytest.mark.parametrize("said", ["hello", "[1]", '{"seconds": 1}', "3"])
def test_what_is_no_answer_is_shown(said):
    with pytest.raises(PeerError, match="where 'ready' was due"):
        with peer(f"print({said!r}, flush=True); input()"):
            pass


def test_a_peer_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(peers_protocol, "PATIENCE", 0.1)
    command = [sys.executable, "-c", "import time; time.sleep(1_000)"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    peers_protocol.end(process)
    assert process.wait() < 0


def test_ratios_are_of_windows_in_the_same_turn(monkeypatch):
    rates = {peers.OURS: np.array([100.0, 50.0, 25.0]), "theirs": np.full(3, 5.0)}
    monkeypatch.setattr(peers.timing, "rates", lambda works, windows: dict(rates))
    works = {peers.OURS: (None, {}), "theirs": (None, "known")}
    ours, theirs, ratio = peers.compare(works, {"environments": 8}, "steps/s", 3)
    assert ours["sizes"] == {"environments": 8, "library": peers.OURS}
    assert theirs["unit"] == "steps/s" and theirs["median"] == 5.0
    assert theirs["setup"] == "known"
    assert ratio["sizes"] == {"environments": 8, "peer": "theirs"}
    assert (ratio["median"], ratio["min"], ratio["max"]) == (10.0, 5.0, 20.0)


def test_episodes_are_cut_and_never_end(monkeypatch):
    monkeypatch.setattr(peers, "NUM_EPISODES", 3)
    monkeypatch.setattr(peers, "EPISODE", 4)
    rows = peers.episodes(SPEC)
    assert rows["timeouts"].nonzero()[0].tolist() == [4, 9, 14]
    ours = data.from_arrays(**rows)
    at = np.flatnonzero(rows["timeouts"] == 0)  # rows that have a next one
    assert len(at) == len(ours.reward) == 12
    np.testing.assert_array_equal(ours.obs, rows["observations"][at])
    np.testing.assert_array_equal(ours.next_obs, rows["observations"][at + 1])
    assert (ours.discount == 1).all()


@pytest.mark.parametrize("algorithm", peers.ALGORITHMS)
def test_every_algorithm_has_the_sizes_compared(algorithm):
    settings = peers.compiled_in(peers.sized(algorithm))
    assert settings["num_critics"] == peers.NUM_CRITICS
    widths = {value for name, value in settings.items() if name.endswith("widths")}
    assert widths == {peers.WIDTHS}
    assert algorithm in peers.D3RLPY and AGENTS.find(algorithm)


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
    assert "unknown section or name 'hoper'" in capsys.readouterr().err


def test_without_the_peers_environment_nothing_is_timed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peers, "VENV", tmp_path / ".venv-peers")
    monkeypatch.setattr(peers, "compare", None)
    for name in ("iql", "environment"):
        assert peers.main([f"--only={name}", f"--out={tmp_path / 'found.json'}"]) == 2
        assert "run make bench-peers" in capsys.readouterr().err


def test_what_the_environment_costs(monkeypatch, tmp_path):
    (tmp_path / ".seconds").write_text("44\n")
    (tmp_path / "large").write_bytes(bytes(2_000_000 - 3))
    (tmp_path / "again").symlink_to("large")
    (tmp_path / ".ready").touch()
    monkeypatch.setattr(peers, "VENV", tmp_path)
    size, seconds = peers.measure_environment("", 1)
    assert (size["median"], size["unit"]) == (pytest.approx(2.0, abs=1e-3), "MB")
    assert seconds["median"] == 44.0


def test_a_peer_that_dies_ends_the_command(monkeypatch, tmp_path, capsys):
    def die(*given):
        raise PeerError("peer 'd3rlpy iql' has ended")

    dying = peers.SECTIONS["updates"]._replace(measure=die)
    monkeypatch.setitem(peers.SECTIONS, "updates", dying)
    assert peers.main(["--only=iql", f"--out={tmp_path / 'found.json'}"]) == 1
    assert "error: peer 'd3rlpy iql' has ended" in capsys.readouterr().err


def test_the_table_names_every_peer():
    figures = [
        record.figure({"environments": 8, "library": peers.OURS}, "steps/s", 1234.5),
        record.figure({"environments": 8, "library": "some peer"}, "steps/s", 2.0),
        record.figure({"environments": 8, "peer": "some peer"}, "x", [1.0, 2.0, 3.0]),
    ]
    _, rows = peers.lay_out([{"name": "hopper"} | x for x in figures])
    ratio = "2.00 [1.00, 3.00]"
    assert rows == [["hopper", "8", "some peer", "1,234", "2", ratio]]
