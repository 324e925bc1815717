"""Many devices, many processes: the same results as on one, and an end together."""

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import run as command
from o2ojax.envs import physics
from o2ojax.envs.locomotion import load_model
from o2ojax.errors import GO_ON, OTHER_FAILED, UserError
from o2ojax.parallel import devices, processes
from o2ojax.run.config import defaults
from o2ojax.run.resolve import load, resolve

ROOT = Path(__file__).parents[2]
NUM_MEMBERS = 7  # on 4 devices 2 each, on 2 processes 4 each: either way one is a copy
SMALL = (
    "--config=experiments/configs/iql.py:hopper-medium-replay",
    "--config.agent.widths=16,16",
    "--config.batch=32",
    f"--config.seeds={NUM_MEMBERS}",
    "--config.offline.updates=20",
    "--config.online.steps=40",
    "--config.online.envs=2",
    "--config.eval.every=20",
    "--config.eval.episodes=3",
    "--config.checkpoint.every=20",
    "--config.log.every=20",
)
END_OF_OFFLINE = "20"  # the checkpoint from which the online phase can be done again


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def started(*arguments, num_devices=1, **options):
    """A process with so many CPU devices."""
    flags = os.environ["XLA_FLAGS"]
    flags += f" --xla_force_host_platform_device_count={num_devices}"
    cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | cache | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        stdout=options.pop("stdout", subprocess.DEVNULL),
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def two_started(workdir, *overrides, of_the_second=()):
    """A run of two processes, each of one device."""
    coordinator = f"--coordinator=127.0.0.1:{free_port()}"
    common = (*SMALL, *overrides, f"--workdir={workdir}", coordinator, "--processes=2")
    return [
        started("-m", "experiments.run", *common, *own, f"--process={index}")
        for index, own in enumerate([(), of_the_second])
    ]


def ended(process):
    """What it has said, once it has ended."""
    return process.communicate(timeout=240)[1]


def assert_same_results(workdir, other):
    """The same lines with the same numbers: of each member, once."""
    lines, others = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (workdir, other)
    )
    assert [line.keys() for line in lines] == [line.keys() for line in others]
    for line, expected in zip(lines, others, strict=True):
        for name in line.keys() - {"phase"}:
            np.testing.assert_allclose(
                line[name], expected[name], rtol=1e-5, atol=1e-7, err_msg=name
            )
    with np.load(workdir / "returns.npz") as a, np.load(other / "returns.npz") as b:
        assert a["returns"].shape == (3, NUM_MEMBERS, 3)
        np.testing.assert_allclose(a["returns"], b["returns"], rtol=1e-5)


def copy_of_offline_phase(workdir, copy):
    """A run as it was at the end of its offline phase."""
    shutil.copytree(workdir, copy)
    (copy / "summary.json").unlink()
    for path in (copy / "checkpoints").iterdir():
        if path.name != END_OF_OFFLINE:
            shutil.rmtree(path)
    return copy


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on one device."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    os.chdir(ROOT)
    assert command.main([*SMALL, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def on_four(whole, tmp_path_factory):
    """A run on four devices; one device's run, ended on four; and what was seen."""
    place = tmp_path_factory.mktemp("four")
    begun, back = place / "begun", copy_of_offline_phase(whole, place / "back")
    seen = "--config.native=never"  # what goes through Python
    runs = (*SMALL, f"--workdir={back}", "--", *SMALL, seen, f"--workdir={begun}")
    process = started(
        "tests/parallel/four_devices.py", place / "facts", *runs, num_devices=4
    )
    said = ended(process)
    assert process.returncode == 0, said
    return begun, back, json.loads((place / "facts").read_text())


def test_four_devices_give_what_one_gives(on_four, whole):
    begun, _, _ = on_four
    assert_same_results(begun, whole)


def test_every_device_has_its_own_members_and_makes_its_own_calls(on_four):
    _, _, seen = on_four
    assert seen["shardings"] == [["P('members',)", 2, 2, 2, 2]]
    # 2 environments online, of members in turn; 3 episodes of both in an evaluation
    assert seen["rows"] == [2, 6]
    assert seen["donated"] == [True]


def test_a_checkpoint_of_four_devices_resumes_on_one_and_back(on_four, whole, tmp_path):
    begun, back, _ = on_four
    assert_same_results(back, whole)  # begun on one, ended on four
    on_one = copy_of_offline_phase(begun, tmp_path / "run")
    assert command.main([*SMALL, f"--workdir={on_one}"]) == 0
    assert_same_results(on_one, whole)


def lose_one(workdir, lost):
    """Kills one of two processes: the other must end by itself, and say why."""
    both = two_started(workdir)
    wait_for_offline_phase(workdir, both)
    both[lost].kill()
    said = ended(both[1 - lost])
    assert both[1 - lost].returncode == OTHER_FAILED, said
    assert f"process {lost} of 2 was lost; run the same command" in said
    assert f"resume from checkpoint {END_OF_OFFLINE}" in said
    assert not (workdir / "summary.json").exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_resumes_to_the_same_end(whole, tmp_path):
    workdir = tmp_path / "run"
    lose_one(workdir, 1)
    both = two_started(workdir)
    said = [ended(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert_same_results(workdir, whole)


@pytest.mark.slow
def test_the_first_process_is_missed_like_any_other(tmp_path):
    lose_one(tmp_path / "run", 0)


def wait_for_offline_phase(workdir, both):
    """Until its checkpoint is there, and the directory this run's own."""
    deadline = time.monotonic() + 240
    owner = str(both[0].pid)
    while time.monotonic() < deadline:
        names = []
        for path in Path("/proc", owner, "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it may just have been closed
                names.append(os.readlink(path))
        if any(name.endswith("metrics.jsonl") for name in names):
            if (workdir / "checkpoints" / END_OF_OFFLINE).exists():
                return
        for process in both:
            assert process.poll() is None, ended(process)
        time.sleep(0.05)
    raise TimeoutError(f"no checkpoint in {workdir}")


@pytest.mark.slow
def test_a_signal_to_one_process_stops_and_saves_all(tmp_path):
    long = ("--config.online.steps=40000", "--config.eval.every=40000")
    both = two_started(tmp_path / "run", *long)
    wait_for_offline_phase(tmp_path / "run", both)
    both[1].send_signal(signal.SIGTERM)
    said = [ended(process) for process in both]
    assert [process.returncode for process in both] == [GO_ON] * 2, said
    assert all("interrupted; saved" in one for one in said)


def test_a_process_that_fails_alone_is_not_called_lost(tmp_path):
    both = two_started(tmp_path / "run", of_the_second=["--config.nonsense=1"])
    said = [ended(process) for process in both]
    assert [process.returncode for process in both] == [OTHER_FAILED, 2], said
    assert "process 1 of 2 failed, and has said why" in said[0]
    assert "unknown config field 'nonsense'" in said[1]
    assert not any("was lost" in one for one in said)


@pytest.mark.slow
def test_processes_with_different_commands_are_refused(tmp_path):
    both = two_started(tmp_path / "run", of_the_second=["--config.agent.lr=1e-3"])
    said = [ended(process) for process in both]
    assert [process.returncode for process in both] == [2, 2], said
    assert all("process 1 of 2 does not agree with process 0" in one for one in said)


def test_a_first_process_that_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(processes, "MEETING", 0)
    with pytest.raises(UserError, match="process 1 cannot reach process 0 at 127.0.0"):
        processes._await_first(f"127.0.0.1:{free_port()}", 1)


SECRET = [1, -2, 3, -4]
GREETING = struct.pack("!5i", *SECRET, 1)


@pytest.mark.parametrize(
    "said, heard",
    [
        ([GREETING], 1),
        ([GREETING[:7], GREETING[7:]], 1),
        ([struct.pack("!5i", *SECRET[::-1], 1)], None),
        ([b"GET"], None),
        ([], None),
    ],
)
def test_strangers_are_not_taken_for_processes(monkeypatch, said, heard):
    monkeypatch.setattr(processes, "GREETING", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor() as pool:
        listening = pool.submit(processes._greeted, ours, SECRET)
        for part in said:
            theirs.sendall(part)
            time.sleep(0.05)
        assert listening.result() == heard


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_process_is_heard_beside_a_silent_stranger(monkeypatch, host):
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    told = queue.Queue()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        processes.multihost_utils, "broadcast_one_to_all", lambda x: told.put(x) or x
    )
    lines = processes.Lifelines.__new__(processes.Lifelines)
    lines._lines = {}
    with ThreadPoolExecutor() as pool:
        connecting = pool.submit(lines._connect)
        port, *secret = map(int, told.get(timeout=10))
        with socket.create_connection((host, port)):  # says nothing
            with socket.create_connection((host, port)) as line:
                line.sendall(struct.pack("!5i", *secret, 1))
                connecting.result(timeout=3)
        assert list(lines._lines) == [1]


def test_processes_that_do_not_connect_are_named(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", lambda x: x)
    with pytest.raises(UserError, match=r"nothing was heard of processes \[1, 2\]"):
        processes.Lifelines(lambda: "")


@dataclasses.dataclass(frozen=True)
class Device:
    number: int
    process_index: int = 0


@pytest.mark.parametrize(
    "num_members, by_process, used, places",
    [
        (7, [4], 4, 8),
        (5, [4], 3, 6),  # a fourth device would not make it faster
        (2, [4], 2, 2),
        (8, [4, 4], 8, 8),
        (5, [1, 1], 2, 6),
        (6, [4, 2], 4, 8),  # as many of each process
    ],
)
def test_as_few_devices_are_used_as_are_as_fast(num_members, by_process, used, places):
    all_devices = [
        Device(number, index)
        for index, count in enumerate(by_process)
        for number in range(count)
    ]
    layout = devices.assign_devices(num_members, all_devices)
    assert (layout.mesh.size, layout.num_places) == (used, places)


def test_one_device_needs_no_mesh():
    layout = devices.assign_devices(3, [Device(0)])
    assert layout == devices.Layout(None, 3, 3)
    assert devices.assign_devices(1, [Device(0), Device(1)]).mesh is None


@pytest.mark.parametrize(
    "num_members, by_process, per_batch, shape, places",
    [
        (1, [2], 2, (1, 2), 1),
        (3, [8], 2, (3, 2), 3),  # the seventh and eighth would change nothing
        (3, [4], 2, (2, 2), 4),
        (4, [5, 4], 2, (4, 2), 4),  # never from two processes to one batch
    ],
)
def test_devices_that_share_a_batch_stand_together(
    num_members, by_process, per_batch, shape, places
):
    all_devices = [
        Device(number, index)
        for index, count in enumerate(by_process)
        for number in range(count)
    ]
    layout = devices.assign_devices(num_members, all_devices, per_batch)
    assert layout.mesh.devices.shape == shape and layout.num_places == places
    assert layout.mesh.axis_names == ("members", "batch")
    for together in layout.mesh.devices:
        assert len({device.process_index for device in together}) == 1
    cut = devices.assign_devices(num_members, all_devices, per_batch, cut_dataset=True)
    assert cut.mesh.axis_names == ("members", "rows")


def test_too_few_devices_to_share_a_batch_are_refused():
    with pytest.raises(UserError, match="per_batch=4, and each process has 2 d"):
        devices.assign_devices(1, [Device(0), Device(1)], 4)


def test_two_devices_to_a_batch_give_what_one_gives(whole, tmp_path):
    """IQL's updates draw nothing, and so are the same but for rounding."""
    run = ("-m", "experiments.run", *SMALL, "--config.devices.per_batch=2")
    process = started(*run, f"--workdir={tmp_path}", num_devices=4)
    said = ended(process)
    assert process.returncode == 0, said
    assert_same_results(tmp_path, whole)


DRAWS = """
import json, jax, jax.numpy as jnp, numpy as np
from o2ojax import replay
from o2ojax.parallel import devices
from o2ojax.replay import uniform
from o2ojax.types import Transition

rows = Transition(*[np.arange(11.0)] * 7)  # and no extras
told = {}
for cut in (False, True):
    layout = devices.assign_devices(1, per_batch=2, cut_dataset=cut)
    dataset = devices.replicate(layout, rows)

    def draw(key, dataset):
        store = uniform.offline(dataset, devices.shard_batch_size(64))
        _, batch = replay.divided(store).sample((), key[0])
        axis = devices.ROWS if cut else devices.BATCH
        parts = jax.lax.all_gather(batch.data.reward, axis)
        mean = devices.average(batch.data.reward.mean())
        own = jax.random.uniform(devices.shard_key(key[0]))
        return parts[None], mean[None], jax.lax.all_gather(own, axis)[None]

    draw = devices.over_places(layout.mesh, draw, (0, None))
    key = devices.shard(layout, jax.random.key(0)[None])
    told[str(cut)] = [np.asarray(x)[0].tolist() for x in jax.jit(draw)(key, dataset)]
print(json.dumps(told))
"""


def test_devices_draw_a_batch_together_from_the_same_rows_or_from_their_own():
    process = started("-c", DRAWS, num_devices=2, stdout=subprocess.PIPE)
    said, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    told = json.loads(said)
    for cut in ("False", "True"):
        parts, mean, own = map(np.array, told[cut])
        assert parts.shape == (2, 32)
        np.testing.assert_allclose(mean, parts.mean(), rtol=1e-6)
        assert own[0] != own[1]
    same, cut = np.array(told["False"][0]), np.array(told["True"][0])
    index = jax.random.randint(jax.random.key(0), (64,), 0, 11)
    np.testing.assert_array_equal(same.reshape(-1), index)
    assert set(cut[0]) == {0, 1, 2, 3, 4} and set(cut[1]) == {5, 6, 7, 8, 9}


LEARN = """
import sys
from pathlib import Path

import jax, jax.numpy as jnp, numpy as np
from o2ojax.run.job import prepare
from o2ojax.run.resolve import load, override, resolve

config = load(f"experiments/configs/{sys.argv[1]}.py:hopper-medium-replay")
override(config, sys.argv[2:])
job = prepare(resolve(config), Path("nowhere"))
rest = job.members, job.dataset
run = job.programs.init(*rest)
run, _ = job.programs.offline.learn(run, *rest, np.int32(0), 4)
if config.online.steps:
    run = job.programs.hand_over(run, *rest)
    size = (4, job.sizes.updates_per_round)
    run, _ = job.programs.online.learn(run, *rest, np.int32(0), size)
for leaf in jax.tree.leaves(run):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    first, second = (np.asarray(shard.data) for shard in leaf.addressable_shards)
    np.testing.assert_array_equal(first, second)
"""


@pytest.mark.parametrize(
    "algorithm, overrides",
    [
        pytest.param("off2on", ["--config.agent.num_agents=2"], marks=pytest.mark.slow),
        pytest.param("cql", ["--config.agent.lagrange=True"], marks=pytest.mark.slow),
        pytest.param("bcq", ["--config.agent.vae_widths=8"], marks=pytest.mark.slow),
        ("bc", ["--config.online.steps=0"]),
    ],
)
def test_devices_that_share_a_batch_never_differ(algorithm, overrides):
    """Each draws noise of its own, and yet all learn the same."""
    small = (*SMALL[1:3], "--config.seeds=1", "--config.devices.per_batch=2")
    small += ("--config.online.steps=40", "--config.online.warmup=0")
    small += ("--config.online.round=0", "--config.online.first_round=1")
    process = started("-c", LEARN, algorithm, *small, *overrides, num_devices=2)
    said = ended(process)
    assert process.returncode == 0, said


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["--config.devices.per_batch=0"], "it must be a whole number of at least 1"),
        (["--config.devices.per_batch=3"], "batch is 32, which config.devices.per_b"),
        (["--config.devices.cut_dataset=True"], "per_batch is 1"),
        (
            ["--config.devices.per_batch=2", "--config.devices.cut_dataset=True"],
            "set config.online.steps=0",
        ),
        (["--config.devices.per_batch=2"], "and each process has 1 device"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(overrides, words, capsys, tmp_path):
    assert command.main([*SMALL, *overrides, f"--workdir={tmp_path}"]) == 2
    assert words in capsys.readouterr().err


def test_environments_that_may_differ_are_not_stepped_side_by_side():
    config = defaults("iql", "hopper-medium-replay")
    config.devices.per_batch = 2
    resolve(config)  # all else is right
    config.physics = "mjx-warp"
    with pytest.raises(UserError, match="is not deterministic; take mjx"):
        resolve(config)


@pytest.mark.parametrize(
    "algorithm", ["awac", "td3_bc", "o2ac", "rebrac", "fowm", "smac", "pearl"]
)
def test_agents_whose_batches_are_whole_say_why(algorithm):
    config = load(f"experiments/configs/{algorithm}.py")
    resolve(config)  # all else is right
    config.devices.per_batch = 2
    with pytest.raises(UserError, match="cannot be divided: (it|the)"):
        resolve(config)


def test_a_process_without_a_member_is_refused():
    each = [Device(0, index) for index in range(3)]
    with pytest.raises(UserError, match="2 member.s. cannot be divided over 3 proc"):
        devices.assign_devices(2, each)


def test_several_devices_may_call_the_simulator_at_once():
    """Each caller has workspaces of its own: what it gets is as if it were alone."""
    model, rng = load_model("hopper.xml"), np.random.default_rng(0)
    step = physics.host_step([model], 4, np.zeros(0, np.int32))
    size = model.nq + 2 * model.nv + model.na + model.nu
    given = [rng.uniform(-0.1, 0.1, (50, size)) for _ in range(8)]
    alone = [step(rows, np.zeros(50, int))[0] for rows in given]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            at_once = pool.map(lambda rows: step(rows, np.zeros(50, int))[0], given)
            np.testing.assert_array_equal(list(at_once), alone)


@pytest.mark.parametrize(
    "told", [["--process=1"], ["--distributed", "--processes=2"], ["--distributed"]]
)
def test_processes_that_cannot_meet_are_told_how(told, capsys):
    assert command.main([SMALL[0], *told]) == 2
    error = capsys.readouterr().err
    assert "--coordinator=HOST:PORT --processes=N --process=I" in error


def test_a_cpu_is_as_many_devices_as_asked_for():
    code = "from experiments import execution; execution.divide_cpu(3); import jax"
    code += "; raise SystemExit(jax.device_count())"
    hidden = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | hidden)
    assert done.returncode == 3


@pytest.mark.parametrize("number, words", [(0, "must be at least 1"), (3, "before")])
def test_a_cpu_is_divided_before_anything_else(number, words, capsys):
    jax.devices()  # jax has begun
    assert command.main([*SMALL, f"--cpu-devices={number}"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "told, words",
    [
        (("--coordinator=here", "--processes=2", "--process=0"), "it is HOST:PORT"),
        (("--coordinator=here:1", "--processes=2", "--process=2"), "it is 0 to 1"),
    ],
)
def test_processes_that_cannot_meet_are_refused(told, words, capsys):
    assert command.main([*SMALL, *told]) == 2
    assert words in capsys.readouterr().err
