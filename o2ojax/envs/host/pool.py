"""Live environments as a cache of pure functions of a seed and of the actions since."""

import contextlib
import signal
from collections import OrderedDict
from collections.abc import Iterable
from concurrent import futures
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
from .sources import RAISED, HostError, Source, told
from .spaces import Spaces


class Request(NamedTuple):
    """A step of N episodes; in the compiled loop, of one, without the first axis.

    ticket:   [N, TICKET]  of the episode so far.
    seed:     [N]          of the episode.
    age:      [N]          its steps so far.
    new_seed: [N]          of the next episode, should this one stop here.
    action:   [N, A]       the next one, in [-1, 1].
    """

    ticket: np.ndarray
    seed: np.ndarray
    age: np.ndarray
    new_seed: np.ndarray
    action: np.ndarray


def unpacked(rows: np.ndarray) -> Request:
    """The parts of requests that come as one array of bits, uint32 [N, TICKET + 3 + A].

    A row holds the fields of a `Request` one after another: one array costs a callback
    of JAX a third of what five do.
    """
    rows = np.ascontiguousarray(rows)
    ticket, numbers, action = np.split(rows, [TICKET, TICKET + 3], axis=1)
    return Request(ticket, *numbers.T, np.ascontiguousarray(action).view(np.float32))


def request_width(num_actions: int) -> int:
    """Numbers of a request."""
    return TICKET + 3 + num_actions


EXTRAS = 4  # numbers of an answer besides two observations


def answer_width(obs_words: int) -> int:
    """Words of an answer.

    Args:
        obs_words: words of an observation.
    """
    return 2 * obs_words + EXTRAS + TICKET + 1


class Pool:
    """Live environments, found by the ticket of what they have played.

    Equal requests get equal answers, however often they are asked. An episode that is
    not live is played again.
    """

    def __init__(
        self,
        source: Source,
        spaces: Spaces,
        horizon: int,
        owns_generators: bool,
        num_threads: int = 1,
        num_callers: int = 1,
    ):
        """
        Args:
            num_threads: that step environments at once.
            num_callers: devices, each of which asks for rows of its own.
        """
        self.num_callers = num_callers
        self.source, self.spaces, self.horizon = source, spaces, horizon
        self.owns_generators, self.num_threads = owns_generators, num_threads
        self.threads = futures.ThreadPoolExecutor(max(1, num_threads - 1))
        self.live: OrderedDict[bytes, Live] = OrderedDict()  # least recent first
        self.idle: list[Live] = []
        self.over: OrderedDict[bytes, Step] = OrderedDict()  # last steps of episodes
        self.most = 0  # rows of the largest request
        self.replayed = 0  # steps that were played again

    def reset(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First observations and tickets of these seeds [N]: uint32 [N, num_words] and
        [N, TICKET].
        """
        self.most = max(self.most, len(seeds))
        found = [self._begun(int(seed)) for seed in seeds]
        tickets = np.frombuffer(b"".join(ticket for _, ticket in found), np.uint32)
        return np.stack([obs for obs, _ in found]), tickets.reshape(-1, TICKET)

    def step(self, rows: np.ndarray, actions: np.ndarray | None = None) -> np.ndarray:
        """Answers, rows of bits, uint32 [N, answer_width].

        An answer is the next observation, the one to go on from (another where the
        episode stopped), the reward, whether the task ended, whether the episode
        stopped, the episode's success so far; the ticket; and 1, or 0 where all this is
        missing: the episode has to be played again, and its actions are not given.

        Args:
            rows: requests, as `unpacked` reads them.
            actions: [N, T, A], those of the episodes so far.
        """
        asked = unpacked(rows)
        self.most = max(self.most, len(rows))
        kept = generators_kept() if self.owns_generators else contextlib.nullcontext()
        with kept:
            return self._answers(asked, self._advance(asked, actions))

    def close(self) -> None:
        """Closes its environments."""
        self.threads.shutdown()
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
        at_once = self.most * self.num_callers
        if len(self.live) >= 2 * at_once:  # those of training, and of an evaluation
            return self.live.popitem(last=False)[1]
        return Live(self.source, self.spaces)

    def _advance(
        self, asked: Request, actions: np.ndarray | None
    ) -> list[tuple[bytes, Step | None]]:
        """Takes the steps that were not taken before: each row's new ticket and step.

        None stands for the step of an episode whose actions are missing.
        """
        tickets, steps, to_do = [], {}, {}
        for at, action in enumerate(asked.action):
            before = asked.ticket[at].tobytes()
            ticket = next_ticket(before, action)
            tickets.append(ticket)
            if ticket in steps or ticket in to_do:
                continue
            if (step := self._taken(ticket)) is not None:
                steps[ticket] = step
                continue
            live = self.live.pop(before, None)
            if live is None and (actions is not None or asked.age[at] == 0):
                played = actions[at, : asked.age[at]] if asked.age[at] else ()
                live = self._replayed(int(asked.seed[at]), played)
            if live is not None:
                to_do[ticket] = live, action.copy()
        try:
            self._step_all(list(to_do.values()))
        except Exception:
            self.idle += [live for live, _ in to_do.values()]  # to be closed
            raise
        for at, ticket in enumerate(tickets):
            if ticket in to_do:
                live, _ = to_do.pop(ticket)
                steps[ticket] = live.last
                self._keep(ticket, live, int(asked.age[at]) + 1)
        return [(ticket, steps.get(ticket)) for ticket in tickets]

    def _taken(self, ticket: bytes) -> Step | None:
        """A step that was taken before, if it is still known."""
        if ticket in self.live:
            self.live.move_to_end(ticket)
            return self.live[ticket].last
        if ticket in self.over:
            self.over.move_to_end(ticket)
        return self.over.get(ticket)

    def _step_all(self, to_do: list[tuple[Live, np.ndarray]]) -> None:
        """Each thread does its share, and this one the first."""
        shares = [to_do[at :: self.num_threads] for at in range(self.num_threads)]
        others = [self.threads.submit(self._step_each, x) for x in shares[1:] if x]
        try:
            self._step_each(shares[0])
        finally:
            futures.wait(others)
        for other in others:
            other.result()

    def _step_each(self, to_do: list[tuple[Live, np.ndarray]]) -> None:
        for live, action in to_do:
            with told_of(live):
                live.step(action, self.owns_generators)

    def _keep(self, ticket: bytes, live: Live, age: int) -> None:
        if self._stops(live.last, age):
            self.over[ticket] = live.last
            if len(self.over) > 4 * self.most * self.num_callers:
                self.over.popitem(last=False)
            self.idle.append(live)
        else:
            self.live[ticket] = live

    def _answers(
        self, asked: Request, taken: list[tuple[bytes, Step | None]]
    ) -> np.ndarray:
        size, after, missing = self.spaces.num_words, [], bytes(4 * (TICKET + 1))
        answers = np.zeros((len(taken), answer_width(size)), np.uint32)
        numbers = answers.view(np.float32)
        for at, (ticket, last) in enumerate(taken):
            if last is None:
                after.append(missing)
                continue
            obs, stops = last.obs, self._stops(last, int(asked.age[at]) + 1)
            if stops:
                obs, ticket = self._begun(int(asked.new_seed[at]))
            answers[at, :size], answers[at, size : 2 * size] = last.obs, obs
            told = last.reward, last.terminated, stops, last.success
            numbers[at, 2 * size : 2 * size + EXTRAS] = told
            after.append(ticket + _FOUND)
        after = np.frombuffer(b"".join(after), np.uint32)
        answers[:, 2 * size + EXTRAS :] = after.reshape(len(taken), -1)
        return answers

    def _stops(self, last: Step, age: int) -> bool:
        return last.terminated or last.truncated or age >= self.horizon

    def _replayed(self, seed: int, actions: Iterable[np.ndarray]) -> Live:
        """A live environment where an episode is, by playing it again."""
        live = self._fresh(seed)
        for action in actions:
            with told_of(live):
                live.step(action.copy(), self.owns_generators)
            self.replayed += 1
        return live


_FOUND = np.uint32(1).tobytes()


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
                answer = pool.step(*given)
            else:
                answer = pool.reset(*given)
            failed: tuple = ()
        except EpisodeError as error:
            answer, failed = None, (error.said, error.seed, error.actions)
        except RAISED as error:
            said = str(error) if isinstance(error, HostError) else told(error)
            answer, failed = None, (said,)
        connection.send((answer, failed))
