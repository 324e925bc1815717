"""A run of many processes: how they find each other, agree, and end together.

Every process runs the same command and the same programs, on its own devices. The first
one, number 0, is the only one that writes results and shows progress.
"""

import collections
import os
import socket
import struct
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from o2ojax.errors import UserError, first_line

MEETING = 300  # seconds in which all processes must have begun
PATIENCE = 60.0  # seconds in which a process must then be reached
GREETING = 5.0  # seconds that whoever connects may be silent
GRACE = 2.0  # seconds between failing and leaving: all that fail alike say so first


def leads() -> bool:
    """Whether this process writes and speaks: the first one, or the only one."""
    return jax.process_index() == 0


def meet() -> None:
    """Waits until all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("meet")


def any_of(flag: bool) -> bool:
    """Whether it is set in any process; all must ask at once."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def agree(text: str, otherwise: str) -> None:
    """Makes sure that all processes say the same; all must call it at once.

    Raises:
        UserError: they do not. `otherwise` is what to tell of it.
    """
    if jax.process_count() == 1:
        return
    said = multihost_utils.process_allgather(np.uint32(zlib.crc32(text.encode())))
    different = np.flatnonzero(said != said[0])
    if different.size:
        raise UserError(
            f"process {different[0]} of {len(said)} does not agree with process 0:"
            f" {otherwise}"
        )


def join(
    coordinator: str | None = None, count: int | None = None, index: int | None = None
) -> None:
    """Meets the other processes; before anything else is asked of jax.

    Without arguments, as the cluster's environment has it.

    Args:
        coordinator: HOST:PORT of process 0.
        count: of processes.
        index: of this one.
    Raises:
        UserError: they cannot be met. (Where one of several does not come, jax itself
            aborts those that wait, after MEETING.)
    """
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator and count > 1:
        print(
            f"process {index} waits for the other {count - 1} at {coordinator}",
            file=sys.stderr,
        )
        if index:
            _await_first(coordinator, index)
    try:
        jax.distributed.initialize(
            coordinator, count, index, initialization_timeout=MEETING
        )
        by_process = collections.Counter(x.process_index for x in jax.devices())
    except (ValueError, RuntimeError) as error:
        raise UserError(
            "the processes cannot meet"
            f" ({first_line(error)}): on a cluster that jax knows (SLURM, Open"
            " MPI, Kubernetes, Cloud TPU) give --distributed; elsewhere give each"
            " process --coordinator=HOST:PORT --processes=N --process=I"
        ) from error
    if len(set(by_process.values())) > 1:
        told = ", ".join(f"process {at} has {n}" for at, n in by_process.items())
        raise UserError(f"all processes need as many devices each, but {told}")


def _await_first(coordinator: str, index: int) -> None:
    """Waits until process 0 listens: jax would not say who is missing, but abort."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + MEETING
    while True:
        try:
            return socket.create_connection((host.strip("[]"), int(port)), 5).close()
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"process {index} cannot reach process 0 at {coordinator}"
                    f" ({error}): is it running there, and may this host reach that"
                    " port?"
                ) from error
        time.sleep(0.5)


@contextmanager
def together(advice: Callable[[], str]) -> Iterator[Callable[[int], None]]:
    """While inside, the loss of one process ends all the others, with a message.

    Else they would wait for it, and be aborted by jax after minutes. What is yielded
    ends this process with a status, as a failure that the others shall hear of.

    Args:
        advice: what to do after a loss, in words.
    """
    if jax.process_count() == 1:
        yield lambda status: None
        return
    lifelines = Lifelines(advice)
    try:
        yield lifelines.fail
    except Exception:  # the likeliest is that it waited for one that is lost
        time.sleep(GRACE)  # in which that is heard of, and this process ends
        traceback.print_exc()
        lifelines.fail(1)
    lifelines.leave()


class Lifelines:
    """A connection from every process to the first, which breaks when either dies.

    Whoever hears of a loss ends its own process at once: its main thread may be waiting
    for the lost one for ever. What is said on a line is a number: of a process that
    was lost, BYE, or, below that, FAILED less the number of one that failed.

    Args:
        advice: what to do after a loss, in words.
    Raises:
        UserError: a process cannot be reached.
    """

    BYE, FAILED = -1, -2

    def __init__(self, advice: Callable[[], str]):
        self._advice, self._leaving = advice, False
        self._lock = threading.Lock()
        self._lines: dict[int, socket.socket] = {}  # by the other's number
        try:
            self._connect()
        except OSError as error:
            raise UserError(
                f"process {jax.process_index()} of {jax.process_count()} cannot be"
                f" connected with the others: {error}"
            ) from error
        for other, line in self._lines.items():
            _notice_vanished_hosts(line)
            threading.Thread(target=self._listen, args=(other,), daemon=True).start()

    def _connect(self) -> None:
        count, index = jax.process_count(), jax.process_index()
        server = _serve() if index == 0 else None
        port = server.getsockname()[1] if server else 0
        told = np.array([port, *np.frombuffer(os.urandom(16), np.int32)], np.int32)
        port, *secret = map(int, multihost_utils.broadcast_one_to_all(told))
        if server is None:
            line = socket.create_connection((_first_host(), port), PATIENCE)
            line.sendall(struct.pack("!5i", *secret, index))
            self._lines[0] = line
            return
        until = time.monotonic() + PATIENCE
        with server:
            server.settimeout(0.1)
            while len(self._lines) < count - 1:
                if time.monotonic() > until:
                    missing = sorted(set(range(1, count)) - set(self._lines))
                    raise TimeoutError(f"nothing was heard of processes {missing}")
                try:
                    line, _ = server.accept()
                except TimeoutError:
                    continue
                threading.Thread(
                    target=self._greet, args=(line, secret), daemon=True
                ).start()

    def _greet(self, line: socket.socket, secret: list[int]) -> None:
        other = _greeted(line, secret)
        if other is None:  # no process of ours
            line.close()
        else:
            self._lines[other] = line

    def _listen(self, other: int) -> None:
        line = self._lines[other]
        line.settimeout(None)
        try:
            said = _hear(line)
        except OSError:
            said = other
        if said != self.BYE:
            self._end(said)

    def _end(self, said: int) -> None:
        with self._lock:  # never let go: one loss is enough
            if self._leaving:
                return
            self._tell(said)
            if said <= self.FAILED:
                who, what = self.FAILED - said, "failed, and has said why"
            else:
                who, what = said, f"was lost; {self._advice()}"
            count = jax.process_count()
            print(f"error: process {who} of {count} {what}", file=sys.stderr)
            _leave_at_once(1)

    def _tell(self, number: int) -> None:
        for line in self._lines.values():
            try:
                line.sendall(struct.pack("!i", number))
            except OSError:
                pass  # gone as well

    def leave(self) -> None:
        """All is done here: the others need not miss this process."""
        with self._lock:
            self._leaving = True
            self._tell(self.BYE)

    def fail(self, status: int) -> None:
        """Ends this process; those that do not fail alike are told of it."""
        with self._lock:
            self._leaving = True
        time.sleep(GRACE)
        self._tell(self.FAILED - jax.process_index())
        _leave_at_once(status)


def _leave_at_once(status: int) -> None:
    """Without jax's own farewell, which waits for all processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _first_host() -> str:
    from jax._src.distributed import global_state  # jax says it nowhere else

    return global_state.coordinator_address.rsplit(":", 1)[0].strip("[]")


def _serve() -> socket.socket:
    """A port of this host, of IPv6 too where it can."""
    try:
        return socket.create_server(
            ("", 0), family=socket.AF_INET6, dualstack_ipv6=True
        )
    except (OSError, ValueError):  # not here
        return socket.create_server(("", 0))


def _greeted(line: socket.socket, secret: list[int]) -> int | None:
    """The number of the process at the other end; None if it does not say the secret.

    It may be silent for GREETING seconds.
    """
    line.settimeout(GREETING)
    try:
        *said, other = struct.unpack("!5i", _receive(line, 20))
    except OSError:
        return None
    return other if said == secret else None


def _hear(line: socket.socket) -> int:
    """The next number said on a line. Raises OSError where the line has broken."""
    return struct.unpack("!i", _receive(line, 4))[0]


def _receive(line: socket.socket, num: int) -> bytes:
    heard = b""
    while len(heard) < num:
        part = line.recv(num - len(heard))
        if not part:
            raise ConnectionResetError("the other end is gone")
        heard += part
    return heard


def _notice_vanished_hosts(line: socket.socket) -> None:
    """A line breaks, too, if the other's host is silent for half a minute."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("IDLE", 10), ("INTVL", 5), ("CNT", 4)):
        option = getattr(socket, f"TCP_KEEP{name}", None)  # not on every system
        if option is not None:
            line.setsockopt(socket.IPPROTO_TCP, option, seconds)
