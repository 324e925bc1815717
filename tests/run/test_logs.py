"""Lines of metrics, and TensorBoard's files."""

import json
import resource
import signal
import struct
from contextlib import contextmanager

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from o2ojax.run.logs import Logs


def events(folder):
    """What is in TensorBoard's files, by their format: size, sum, event, sum."""
    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def test_each_member_has_a_curve(tmp_path):
    logs = Logs(tmp_path, 0, step=7)
    logs.write("online", 3, 10, {"loss": np.float32([0.5, np.nan])})
    size = logs.size()
    logs.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert size == len(text)
    assert json.loads(text) == {"phase": "online", "step": 3, "loss": [0.5, None]}
    version, begun, *points = events(tmp_path / "tensorboard")
    assert version.file_version.startswith("brain.Event")
    assert (begun.step, begun.session_log.status) == (8, SessionLog.START)
    told = {x.summary.value[0].tag: x.summary.value[0].simple_value for x in points}
    assert told.keys() == {"loss/member_0", "loss/member_1"}
    assert told["loss/member_0"] == 0.5 and np.isnan(told["loss/member_1"])
    assert {x.step for x in points} == {10}


@contextmanager
def files_of_at_most(num_bytes):
    """A limit, as a disk has one; Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, kept)


@pytest.mark.parametrize("which", ["metrics", "tensorboard"])
def test_what_cannot_be_written_is_raised_and_nothing_waits(tmp_path, which):
    """In tensorboardX's own thread it would be printed, and its queue fill up."""
    logs = Logs(tmp_path, 0, step=0)
    name = "x" * (3_000 if which == "metrics" else 1)
    many = np.zeros(1 if which == "metrics" else 400)
    with files_of_at_most(2_000 if which == "metrics" else 8_000):
        with pytest.raises(OSError):
            for step in range(100):
                logs.write("offline", step, step, {name: many})
        logs.close()
