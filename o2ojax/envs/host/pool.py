"""Live environments as a cache of pure functions of a seed and of the actions since."""

import contextlib
import signal
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from .live import (
    TICKET,
    EpisodeError,
    Live,
    Step,
    generators_kept,
    next_ticket,
    ticket_of,
    told_of,
)
from .sources import HostError, Source, told
from .spaces import Spaces


class Request(NamedTuple):
    """A step of N episodes; arrays as the compiled loop has them.

    ticket:   [N, TICKET]  of the episode so far.
    seed:     [N]          of the episode.
    actions:  [N, T, A]    its actions so far, `age` of them.
    age:      [N]
    action:   [N, A]       the next one, in [-1, 1].
    new_seed: [N]          of the next episode, should this one stop here.
    """

    ticket: np.ndarray
    seed: np.ndarray
    actions: np.ndarray
    age: np.ndarray
    action: np.ndarray
    new_seed: np.ndarray


EXTRAS = 4  # numbers of an answer besides two observations


class Pool:
    """Live environments, found by the ticket of what they have played.

    Equal requests get equal answers, however often they are asked. An episode that is
    not live is played again.
    """

    def __init__(
        self, source: Source, spaces: Spaces, horizon: int, owns_generators: bool
    ):
        self.source, self.spaces, self.horizon = source, spaces, horizon
        self.owns_generators = owns_generators
        self.live: OrderedDict[bytes, Live] = OrderedDict()  # least recent first
        self.idle: list[Live] = []
        self.over: OrderedDict[bytes, Step] = OrderedDict()  # last steps of episodes
        self.most = 0  # rows of the largest request
        self.replayed = 0  # steps that were played again

    def reset(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First observations [N, O] and tickets [N, TICKET] of these seeds [N]."""
        self.most = max(self.most, len(seeds))
        found = [self._begun(int(seed)) for seed in seeds]
        return np.stack([obs for obs, _ in found]), _numbers([x for _, x in found])

    def step(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        """Rows [N, 2 O + EXTRAS] and tickets [N, TICKET].

        A row is the next observation, the one to go on from (another where the episode
        stopped), the reward, whether the task ended, whether the episode stopped, and
        the episode's success so far.
        """
        self.most = max(self.most, len(request.seed))
        kept = generators_kept() if self.owns_generators else contextlib.nullcontext()
        with kept:
            found = [self._stepped(Request(*row)) for row in zip(*request, strict=True)]
        return np.stack([row for row, _ in found]), _numbers([x for _, x in found])

    def close(self) -> None:
        """Closes its environments."""
        for live in (*self.idle, *self.live.values()):
            live.close()

    def _begun(self, seed: int) -> tuple[np.ndarray, bytes]:
        ticket = ticket_of(seed)
        if ticket not in self.live:
            self.live[ticket] = self._fresh(seed)
        self.live.move_to_end(ticket)
        return self.live[ticket].last.obs, ticket

    def _fresh(self, seed: int) -> Live:
        live = self._unused()
        with told_of(live), generators_kept():
            live.begin(seed, self.owns_generators)
        return live

    def _unused(self) -> Live:
        if self.idle:
            return self.idle.pop()
        if len(self.live) >= 2 * self.most:  # those of training, and of an evaluation
            return self.live.popitem(last=False)[1]
        return Live(self.source, self.spaces)

    def _stepped(self, row: Request) -> tuple[np.ndarray, bytes]:
        before = row.ticket.tobytes()
        ticket = next_ticket(before, row.action)
        last = self._last(row, before, ticket)
        stops = self._stops(last, row)
        obs = last.obs
        if stops:
            obs, ticket = self._begun(int(row.new_seed))
        told = last.reward, last.terminated, stops, last.success
        return np.concatenate([last.obs, obs, np.float32(told)]), ticket

    def _last(self, row: Request, before: bytes, ticket: bytes) -> Step:
        """The step that a request asks for, made unless it was before."""
        if ticket in self.over:
            return self.over[ticket]
        if ticket not in self.live:
            live = self.live.pop(before, None) or self._again(row)
            with told_of(live):
                live.step(row.action.copy(), self.owns_generators)
            if self._stops(live.last, row):
                self.over[ticket] = live.last
                if len(self.over) > 4 * self.most:
                    self.over.popitem(last=False)
                self.idle.append(live)
                return live.last
            self.live[ticket] = live
        self.live.move_to_end(ticket)
        return self.live[ticket].last

    def _stops(self, last: Step, row: Request) -> bool:
        return last.terminated or last.truncated or int(row.age) + 1 >= self.horizon

    def _again(self, row: Request) -> Live:
        """A live environment where the episode of a request is, by playing it again."""
        live = self._fresh(int(row.seed))
        for action in row.actions[: int(row.age)]:
            with told_of(live):
                live.step(action.copy(), self.owns_generators)
            self.replayed += 1
        return live


def _numbers(tickets: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(tickets), np.uint32).reshape(-1, TICKET)


def work(connection: Any) -> None:
    """Answers what a `workers.Worker` asks, until it goes away.

    Plain tuples and arrays go over the connection, so that neither side has to import
    the other's modules.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, which ends us
    pool: Any = None
    while True:
        try:
            what, given = connection.recv()
        except EOFError:
            return
        try:
            if what == "open":
                source, spaces, *sizes = given
                pool, answer = Pool(Source(*source), Spaces(*spaces), *sizes), ()
            elif what == "step":
                answer = pool.step(Request(*given))
            else:
                answer = pool.reset(given)
        except EpisodeError as error:
            answer = "failed", error.said, error.seed, error.actions
        except Exception as error:
            said = str(error) if isinstance(error, HostError) else told(error)
            answer = "failed", said
        connection.send(answer)
