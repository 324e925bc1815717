"""Runs of several processes: connecting, agreeing and terminating together.

Every process runs the same command and the same programs on its own devices. Only
process 0 writes results and shows progress.
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

from o2ojax.errors import OTHER_FAILED, UserError, first_line

MEETING = 300  # s, timeout for all processes to start
PATIENCE = 60.0  # s, timeout for connecting to a started process
GREETING = 5.0  # s, timeout for the first message of a new connection
GRACE = 2.0  # s between failure and exit, so that all failing processes report first


def leads() -> bool:
    """Whether this is process 0, which writes results and shows progress."""
    return jax.process_index() == 0


def meet() -> None:
    """Waits until all processes have called this."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("meet")


def any_of(flag: bool) -> bool:
    """Whether `flag` is set in any process. All processes must call this together."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def agree(text: str, otherwise: str) -> None:
    """Checks that `text` is equal in all processes, which must call this together.

    Raises:
        UserError: a process has another text; `otherwise` ends the message.
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
    """Connects the processes of a run. It must be called before other uses of JAX.

    Without arguments, JAX reads them from the environment of the cluster.

    Args:
        coordinator: HOST:PORT of process 0.
        count: number of processes.
        index: number of this process.
    Raises:
        UserError: the processes cannot connect, or have different numbers of devices.
            (If a process is missing, JAX itself aborts the others after MEETING.)
    """
    jax.config.update("jax_enable_preemption_service", False)  # we handle SIGTERM
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
    """Waits until process 0 listens. JAX would abort without naming the process."""
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
    """Context in which the loss of one process ends all others with a message.

    Otherwise they would wait for it until JAX aborts them after minutes. The context
    yields a function (status) that ends this process and reports its failure to the
    others.

    Args:
        advice: returns text that says what to do after a loss.
    """
    if jax.process_count() == 1:
        yield lambda status: None
        return
    lifelines = Lifelines(advice)
    try:
        yield lifelines.fail
    except Exception:  # most likely it waited for a lost process
        time.sleep(GRACE)  # then `Lifelines` learns of the loss and exits first
        traceback.print_exc()
        lifelines.fail(1)
    lifelines.leave()


class Lifelines:
    """Connections of every process to process 0, which break if either end dies.

    A process that learns of a loss exits at once, since its main thread may wait for
    the lost process for ever. Each message is one integer: the number i >= 0 of a lost
    process, BYE for a normal exit, or FAILED - i if process i has failed.

    Args:
        advice: returns text that says what to do after a loss.
    Raises:
        UserError: a process cannot be reached.
    """

    BYE, FAILED = -1, -2

    def __init__(self, advice: Callable[[], str]):
        self._advice, self._leaving = advice, False
        self._lock = threading.Lock()
        self._lines: dict[int, socket.socket] = {}  # by number of the other process
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
        if other is None:  # not a process of this run
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
        with self._lock:  # not released, so only one loss is handled
            if self._leaving:
                return
            self._tell(said)
            if said <= self.FAILED:
                who, what = self.FAILED - said, "failed, and has said why"
            else:
                who, what = said, f"was lost; {self._advice()}"
            count = jax.process_count()
            print(f"error: process {who} of {count} {what}", file=sys.stderr)
            _leave_at_once(OTHER_FAILED)

    def _tell(self, number: int) -> None:
        for line in self._lines.values():
            try:
                line.sendall(struct.pack("!i", number))
            except OSError:
                pass  # this process is lost, too

    def leave(self) -> None:
        """Tells the other processes that this one exits normally."""
        with self._lock:
            self._leaving = True
            self._tell(self.BYE)

    def fail(self, status: int) -> None:
        """Ends this process after GRACE, and reports its failure to the others."""
        with self._lock:
            self._leaving = True
        time.sleep(GRACE)
        self._tell(self.FAILED - jax.process_index())
        _leave_at_once(status)


def _leave_at_once(status: int) -> None:
    """Exits without the shutdown of JAX, which waits for all processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _first_host() -> str:
    from jax._src.distributed import global_state  # JAX has no public API for it

    return global_state.coordinator_address.rsplit(":", 1)[0].strip("[]")


def _serve() -> socket.socket:
    """Opens a listening port of this host, on IPv4 and, if available, IPv6."""
    try:
        return socket.create_server(
            ("", 0), family=socket.AF_INET6, dualstack_ipv6=True
        )
    except (OSError, ValueError):  # IPv6 is not available
        return socket.create_server(("", 0))


def _greeted(line: socket.socket, secret: list[int]) -> int | None:
    """Reads the number of the process at the other end; None without the secret.

    The read times out after GREETING seconds.
    """
    line.settimeout(GREETING)
    try:
        *said, other = struct.unpack("!5i", _receive(line, 20))
    except OSError:
        return None
    return other if said == secret else None


def _hear(line: socket.socket) -> int:
    """Reads the next message of a connection. Raises OSError if it has broken."""
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
    """Makes a connection break if the other host is silent for half a minute."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("IDLE", 10), ("INTVL", 5), ("CNT", 4)):
        option = getattr(socket, f"TCP_KEEP{name}", None)  # not on every system
        if option is not None:
            line.setsockopt(socket.IPPROTO_TCP, option, seconds)
