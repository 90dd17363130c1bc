"""A local `@connections` API in simulated time: exact, and as quick as the machine."""

import heapq
import math
import selectors
import socket
from dataclasses import dataclass
from io import BytesIO

from chalicelib.posting.pool import Clock
from tests.connections import Answer, Api, Request

# Real time in which bytes on their way between two local sockets arrive, on any system.
SETTLE_SECONDS = 0.002

# Each turn takes this long: where rounding puts an event just after the present, it still comes.
TICK = 1e-6


class Simulation(Api, Clock):
    """The API, and the clock for the poster that posts to it. Both run in the test's thread.

    Time passes only while both wait, and is then the time of the next event.

    :ivar answer_seconds: the time that one answer takes.
    :ivar one_at_a_time: an answer begins once the one before has left.
    :ivar heard_at: when each connection was posted to last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.answer_seconds = 0.01
        self.one_at_a_time = False
        self.heard_at: dict[str, float] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._sockets: dict[socket.socket, _Served] = {}
        self._due: list[tuple[float, int, socket.socket, Answer]] = []
        self._last = 0.0  # answer: when it leaves

    def monotonic(self) -> float:
        return self.now

    wall = monotonic

    def select(
        self, selector: selectors.BaseSelector, timeout: float | None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += TICK
        end = math.inf if timeout is None else self.now + timeout
        while True:
            self._serve(0)
            ready = selector.select(0)
            if ready or self.now >= end:
                return ready
            event = min(end, self._due[0][0] if self._due else math.inf)
            is_long = event > self.now + self.answer_seconds
            if not self._serve(SETTLE_SECONDS if is_long else 0) and not selector.select(0):
                self._advance(event)

    def answer(self, method: str, connection_id: str, body: str) -> Answer:
        answer = super().answer(method, connection_id, body)
        if answer == 200:
            self.heard_at[connection_id] = self.now
        return answer

    def say_unasked(self, data: bytes) -> int:
        """Send this on the connections that wait for no answer; returns how many they are."""
        self._serve(0)
        idle = [sock for sock, served in self._sockets.items() if served.is_idle]
        for sock in idle:
            sock.send(data)
        return len(idle)

    def close_connections(self) -> None:
        """Close the HTTP connections from the server's side."""
        for sock in list(self._sockets):
            self._drop(sock)

    def close(self) -> None:
        self.close_connections()
        self._listener.close()
        self._selector.close()

    def _advance(self, now: float) -> None:
        assert now < math.inf, "nothing will ever happen"
        self.now = now
        while self._due and self._due[0][0] <= self.now:
            _, _, sock, answer = heapq.heappop(self._due)
            if sock in self._sockets:
                self._answer(sock, answer)

    def _serve(self, seconds: float) -> bool:
        """Read what has arrived; returns whether anything had."""
        ready = self._selector.select(seconds)
        for key, _ in ready:
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.fileobj, socket.socket):
                self._read(key.fileobj)
        return bool(ready)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        self._sockets[sock] = _Served()
        self.opened += 1
        self.most_open = max(self.most_open, len(self._sockets))

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65_536)
        except ConnectionResetError:  # the client did not read all
            data = b""
        if not data:
            self._drop(sock)
            return
        served = self._sockets[sock]
        served.incoming += data
        request = Request.read(BytesIO(served.incoming))
        if not request:
            return
        served.incoming = b""
        served.is_idle = False
        answer = self.handle(request)
        if answer != "slow":
            begin = max(self.now, self._last) if self.one_at_a_time else self.now
            self._last = begin + self.answer_seconds
            heapq.heappush(self._due, (self._last, len(self.requests), sock, answer))

    def _answer(self, sock: socket.socket, answer: Answer) -> None:
        writes, stays_open = self.written(answer)
        for data in writes:
            sock.send(data)
        served = self._sockets[sock]
        served.is_idle = True
        served.answers += 1
        if not stays_open or served.answers == self.answers_a_connection:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()
        del self._sockets[sock]


@dataclass
class _Served:
    """What a connection has sent of its next request, and how often it was answered."""

    incoming: bytes = b""
    is_idle: bool = False
    answers: int = 0
