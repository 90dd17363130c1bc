"""A local `@connections` API in simulated time: exact, and as quick as the machine."""

import heapq
import math
import selectors
import socket
from urllib.parse import unquote

from chalicelib.posting.pool import Clock
from tests.connections import Answer, Api, reply

# Real time in which bytes on their way between two local sockets arrive.
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
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._incoming: dict[socket.socket, bytes] = {}
        self._due: list[tuple[float, int, socket.socket, Answer]] = []
        self._answers = 0
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
            if not self._serve(SETTLE_SECONDS) and not selector.select(0):
                self._advance(end)

    def answer(self, method: str, connection_id: str, body: str) -> Answer:
        answer = super().answer(method, connection_id, body)
        if answer == 200:
            self.heard_at[connection_id] = self.now
        return answer

    def close(self) -> None:
        for sock in [self._listener, *self._incoming]:
            sock.close()
        self._selector.close()

    def _advance(self, end: float) -> None:
        """Let time pass until the next answer, or until `end` if that is earlier."""
        self.now = min(end, self._due[0][0] if self._due else math.inf)
        assert self.now < math.inf, "nothing will ever happen"
        while self._due and self._due[0][0] <= self.now:
            _, _, sock, answer = heapq.heappop(self._due)
            if sock in self._incoming:
                self._send(sock, answer)

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
        self._incoming[sock] = b""
        self.opened += 1
        self.most_open = max(self.most_open, len(self._incoming))

    def _read(self, sock: socket.socket) -> None:
        data = sock.recv(65_536)
        if not data:
            self._drop(sock)
            return
        head, end, body = (self._incoming[sock] + data).partition(b"\r\n\r\n")
        length = int(head.rpartition(b"content-length:")[2].partition(b"\r\n")[0]) if end else 0
        if not end or len(body) < length:
            self._incoming[sock] += data
            return
        self._incoming[sock] = b""
        method, path, _ = head.partition(b"\r\n")[0].decode().split(" ")
        answer = self.answer(method, unquote(path.rpartition("/@connections/")[2]), body.decode())
        if answer != "slow":
            self._answers += 1
            self._last = self.answer_seconds + (
                max(self.now, self._last) if self.one_at_a_time else self.now
            )
            heapq.heappush(self._due, (self._last, self._answers, sock, answer))

    def _send(self, sock: socket.socket, answer: Answer) -> None:
        if isinstance(answer, int):
            sock.send(reply(answer))
        else:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()
        del self._incoming[sock]
