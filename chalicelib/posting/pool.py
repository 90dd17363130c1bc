"""Carries requests over a pool of kept channels to one endpoint, in one thread."""

import selectors
import socket
import ssl
import time
from itertools import islice
from typing import Generic, TypeVar

from .channel import Address, Channel, Failure, Unreachable
from .http1 import Answer, Endpoint

# Requests in flight at once. At 8 ms an answer, 64 make 8,000 posts a second: near the account's
# default of 10,000, which all its APIs share, and far below a function's 1,024 file descriptors.
POOL_SIZE = 64

# Channels opened at once when none is idle; every second answer allows one more. A TLS handshake
# costs as much CPU as 20 posts, so a small room should not pay for a large pool: with an eighth of
# a CPU, a first message to 100 members took 0.34 s over 64 channels, 0.24 s this way; with a whole
# CPU, both took 0.07 s.
FIRST_CHANNELS = 8

# A request in flight for longer than this takes up no room: otherwise a few that hang would hold up
# the others. A slow API gets PATIENCE times its usual time (API Gateway's is milliseconds), because
# more requests at once would only make it slower.
SLOW_SECONDS = 0.25
PATIENCE = 4

# The limit, slow requests included: half of Lambda's 1,024 file descriptors.
MAX_IN_FLIGHT = 512

# A channel that was idle for longer is not reused: a load balancer or a NAT may have closed it
# silently while Lambda froze the process. AWS's own proxies allow 60 s.
IDLE_SECONDS = 50.0

Ticket = TypeVar("Ticket")


class Clock:
    """Real time. Tests pass a clock of their own."""

    monotonic = staticmethod(time.monotonic)
    # The monotonic clock may stand still while Lambda freezes the process.
    wall = staticmethod(time.time)

    def select(
        self, selector: selectors.BaseSelector, timeout: float | None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        return selector.select(timeout)


REAL_TIME = Clock()


class Pool(Generic[Ticket]):
    """The channels to one endpoint: busy ones, and idle ones for the next request.

    `start` takes a request and a ticket for it; `wait` returns the ticket with the outcome.

    :ivar answer_seconds: time limit for one answer, connecting included. Once the API has answered,
        the limit is at most `PATIENCE` times the time after which a request counts as slow.
    :ivar answers: number of answers since `refresh`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tls: ssl.SSLContext | None,
        answer_seconds: float,
        clock: Clock = REAL_TIME,
    ) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self.clock = clock
        self.answer_seconds = answer_seconds
        self._selector = selectors.DefaultSelector()
        self._idle: dict[Channel, float] = {}  # since when
        self._busy: dict[Channel, tuple[Ticket, float]] = {}  # since when, earliest first
        self._slow = 0  # of the busy ones, at the last `wait`
        self._usual_seconds = 0.0  # for an answer: a moving average
        self._addresses: list[Address] = []
        self._opened = 0
        self.answers = 0

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    @property
    def has_capacity(self) -> bool:
        """Whether another request may start.

        The limit grows with the answers up to `POOL_SIZE`. Each slow request makes room for two
        others: without answers, the pool more than doubles every `SLOW_SECONDS`, up to
        `MAX_IN_FLIGHT`.
        """
        opened = self._idle or self._slow
        limit = POOL_SIZE if opened else min(POOL_SIZE, FIRST_CHANNELS + self.answers // 2)
        return len(self._busy) < min(MAX_IN_FLIGHT, limit + 2 * self._slow)

    def refresh(self) -> None:
        """Forget addresses, and channels that were closed or idle for too long."""
        self.answers = 0
        self._usual_seconds = 0.0
        self._addresses = []
        oldest = self.clock.wall() - IDLE_SECONDS
        for channel, since in list(self._idle.items()):
            if channel.has_unread() or since < oldest:
                self._drop(channel)

    def start(self, ticket: Ticket, request: bytes, fresh: bool = False) -> None:
        """Send a request, over a new channel if `fresh` is set or none is idle.

        Bytes that arrive unasked after this are taken for the answer.

        :raises Failure: at once; `wait` will not return the ticket.
        """
        kept = None if fresh else self._take_idle()
        channel = kept or self._open()
        channel.begin(request)
        self._busy[channel] = ticket, self.clock.monotonic()
        if kept:
            self._advance(channel)

    def wait(self, until: float | None) -> list[tuple[Ticket, Answer | Failure]]:
        """Wait for progress, or until a time, and return the requests that have ended."""
        ended: list[tuple[Ticket, Answer | Failure]] = []
        for key, _ in self.clock.select(self._selector, self._timeout(until)):
            if key.data not in self._busy:  # an idle one: has unread bytes
                self._drop(key.data)
                continue
            ticket, _ = self._busy[key.data]
            try:
                answer = self._advance(key.data)
            except Failure as failure:
                ended.append((ticket, failure))
            else:
                if answer:
                    ended.append((ticket, answer))
        ended += self._expire()
        self._slow = self._count_slow()
        return ended

    def abandon(self) -> None:
        """Drop the requests in flight; `wait` will not return their tickets."""
        for channel in list(self._busy):
            self._drop(channel)

    def close(self) -> None:
        """Close all channels. The pool can be used again."""
        for channel in [*self._busy, *self._idle]:
            self._drop(channel)

    def _take_idle(self) -> Channel | None:
        while self._idle:
            channel, _ = self._idle.popitem()
            if not channel.has_unread():
                return channel
            self._drop(channel)
        return None

    def _open(self) -> Channel:
        if self._endpoint.secure and self._tls is None:
            self._tls = ssl.create_default_context()  # 20 ms of CPU, so only when needed
        try:
            channel = Channel(self._next_address(), self._endpoint.host, self._tls)
        except OSError as error:
            raise Unreachable(f"no connection: {error}") from error
        self._selector.register(channel.fileno, channel.waits_for, channel)
        return channel

    def _next_address(self) -> Address:
        """Addresses in turn, so that a request refused at one is retried at another."""
        if not self._addresses:
            self._addresses = socket.getaddrinfo(
                self._endpoint.host, self._endpoint.port, type=socket.SOCK_STREAM
            )
        self._opened += 1
        return self._addresses[self._opened % len(self._addresses)]

    def _advance(self, channel: Channel) -> Answer | None:
        waited_for = channel.waits_for
        try:
            answer = channel.advance()
        except Failure:
            self._drop(channel)
            raise
        if answer:
            self._count_answer(channel)
            if answer.reusable and len(self._idle) < POOL_SIZE:
                del self._busy[channel]
                self._idle[channel] = self.clock.wall()
            else:
                self._drop(channel)
        elif channel.waits_for != waited_for:
            self._selector.modify(channel.fileno, channel.waits_for, channel)
        return answer

    def _drop(self, channel: Channel) -> None:
        self._selector.unregister(channel.fileno)
        channel.close()
        self._busy.pop(channel, None)
        self._idle.pop(channel, None)

    def _count_answer(self, channel: Channel) -> None:
        _, since = self._busy[channel]
        self.answers += 1
        weight = 1 / min(self.answers, 16)
        self._usual_seconds += (self.clock.monotonic() - since - self._usual_seconds) * weight

    @property
    def _slow_seconds(self) -> float:
        return max(SLOW_SECONDS, PATIENCE * self._usual_seconds)

    @property
    def _limit_seconds(self) -> float:
        if not self.answers:
            return self.answer_seconds
        return min(self.answer_seconds, PATIENCE * self._slow_seconds)

    def _count_slow(self) -> int:
        """Call this after reading answers: a request whose answer lies unread is not slow."""
        oldest = self.clock.monotonic() - self._slow_seconds
        count = 0
        for _, since in self._busy.values():
            if since > oldest:
                break
            count += 1
        return count

    def _timeout(self, until: float | None) -> float | None:
        """Seconds until `until`, or until a request becomes slow or expires, if that is earlier."""
        times = [] if until is None else [until]
        for _, since in islice(self._busy.values(), 1):
            times.append(since + self._limit_seconds)
        for _, since in islice(self._busy.values(), self._slow, self._slow + 1):
            times.append(since + self._slow_seconds)
        return max(0.0, min(times) - self.clock.monotonic()) if times else None

    def _expire(self) -> list[tuple[Ticket, Answer | Failure]]:
        expired: list[tuple[Ticket, Answer | Failure]] = []
        limit = self._limit_seconds
        oldest = self.clock.monotonic() - limit
        while self._busy:
            channel, (ticket, since) = next(iter(self._busy.items()))
            if since > oldest:
                break
            self._drop(channel)
            expired.append((ticket, channel.timed_out(limit)))
        return expired
