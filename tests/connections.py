"""A local `@connections` API: it records the posts to each connection, and answers as told."""

import json
import socket
import ssl
import threading
import time
from collections import defaultdict
from contextlib import suppress
from io import BufferedIOBase
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

# A status; or exactly these bytes, in so many writes; no answer until the client gives up; half an
# answer; bytes outside TLS; or a connection that closes.
Answer = int | tuple[bytes, ...] | Literal["slow", "half", "plain", "drop"]

ODD_LENGTHS = [
    *(b"", b"-1", b"+5", b"5 5", b"5,5", b"5, 5", b"0x5", b"5.0", b"1e3", b"abc", b"5;"),
    *(b"\xb2", "٥".encode(), b"9" * 5_000),
]
ODD_ANSWERS = [
    b"SSH-2.0-OpenSSH\r\n\r\n",
    b"\r\n\r\n",
    b"<html>\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.12 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    *(
        b"HTTP/1.1 %b OK\r\nContent-Length: 0\r\n\r\n" % status
        for status in (
            b"000",
            b"099",
            b"99",
            b"600",
            b"999",
            b"2000",
            b"+20",
            b"20x",
            "٢٠٠".encode(),
        )
    ),
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000,
    *(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n12345" % length for length in ODD_LENGTHS),
    *(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n\r\n" % line
        for line in (
            *(b"Content-Length: 0", b"content-length: 5", b"Transfer-Encoding: chunked"),
            *(b"X : y", b" X: y", b"X: y\r\n folded", b"X", b": y", b"X y: z", b"\xc3\xa9: y"),
            *(b"X: \0", b"X: \x1b", b"X: y\nZ: z", b"X: y\rZ: z", b"\n"),
        )
    ),
    b"HTTP/1.1 200 \0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n" + b" " * 65_536,
]

ERRORS = {
    403: "ForbiddenException",
    410: "GoneException",
    413: "PayloadTooLargeException",
    429: "LimitExceededException",
    500: "InternalServerError",
}


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @classmethod
    def read(cls, file: BufferedIOBase) -> "Request | None":
        """The next request; None if the file ends before it is complete."""
        start = file.readline().decode("latin-1").split(" ")
        if len(start) != 3:  # the end, or not HTTP
            return None
        headers = {}
        while (line := file.readline()) != b"\r\n":
            if not line.endswith(b"\n"):
                return None
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        body = file.read(length)
        return cls(start[0], start[1], headers, body) if len(body) == length else None


class Api:
    """The answers, and the posts to the connections since the last check."""

    def __init__(self) -> None:
        self.posts: defaultdict[str, list[str]] = defaultdict(list)
        self.attempts: defaultdict[str, int] = defaultdict(int)
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        self.gone: set[str] = set()
        self.closed: set[str] = set()
        self.otherwise: Answer = 200
        self.requests: list[Request] = []
        self.opened = 0  # HTTP connections
        self.most_open = 0  # of them, at a time
        self.answers_a_connection = 1_000_000  # then it is closed without notice
        self.says_length = True
        self.names_errors = True

    def received(self, connection_id: str) -> list[str]:
        """The posts to a connection since the last call."""
        return self.posts.pop(connection_id, [])

    def will_answer(self, connection_id: str, *answers: Answer) -> None:
        """Answer the next posts and closes of a connection with these, then as usual."""
        self.answers[connection_id] += answers

    def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        connection_id = unquote(request.path.rpartition("/@connections/")[2])
        return self.answer(request.method, connection_id, request.body.decode(errors="replace"))

    def answer(self, method: str, connection_id: str, body: str) -> Answer:
        self.attempts[connection_id] += 1
        if connection_id in self.gone:
            return 410
        answers = self.answers[connection_id]
        if method == "DELETE":
            if answers:
                return answers.pop(0)
            self.closed.add(connection_id)
            self.gone.add(connection_id)
            return 204
        if method == "GET":
            return 200
        answer = answers.pop(0) if answers else self.otherwise
        if answer == 200:
            self.posts[connection_id].append(body)
        return answer

    def written(self, answer: Answer) -> tuple[tuple[bytes, ...], bool]:
        """The writes of an answer, and whether the connection stays open."""
        match answer:
            case tuple():
                return answer, True
            case int():
                return (reply(answer, self.says_length, self.names_errors),), self.says_length
            case "half":
                return (b"HTTP/1.1 200 OK\r\nContent-Le",), False
            case _:
                return (), False


class Connections(Api):
    """A server with a thread for each HTTP connection."""

    def __init__(self, tls: ssl.SSLContext | None = None, receive_buffer: int = 0) -> None:
        super().__init__()
        self._server = _Server(self, tls, receive_buffer)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/api"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    def __enter__(self) -> "Connections":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.close_connections()

    def close_connections(self) -> None:
        """Close the HTTP connections from the server's side."""
        for connection in list(self._server.sockets):
            with suppress(OSError):  # it may be closed already
                connection.shutdown(socket.SHUT_RDWR)
        while self._server.sockets:
            time.sleep(0.001)


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, api: Connections, tls: ssl.SSLContext | None, receive_buffer: int) -> None:
        self.api = api
        self.tls = tls
        self.receive_buffer = receive_buffer
        self.sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        if self.receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        self.api.opened += 1  # here, in the server's single thread
        return super().get_request()


class _Handler(StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True

    def setup(self) -> None:
        if self.server.tls:
            self.request = self.server.tls.wrap_socket(
                self.request, server_side=True, do_handshake_on_connect=False
            )
        super().setup()
        self.server.sockets.add(self.request)
        self.server.api.most_open = max(self.server.api.most_open, len(self.server.sockets))

    def handle(self) -> None:
        try:
            if self.server.tls:
                self.request.do_handshake()
            for _ in range(self.server.api.answers_a_connection):
                if not self.answer():
                    break
        except OSError:
            pass  # the client has gone, or does not trust the certificate

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.request.close()
            self.server.sockets.discard(self.request)

    def answer(self) -> bool:
        """Answer a request; returns whether the connection stays open."""
        request = Request.read(self.rfile)
        if request is None:
            return False
        answer = self.server.api.handle(request)
        if answer == "slow":
            self.rfile.read(1)
        if answer == "plain":
            socket.socket.send(self.request, reply(200, True, True))
        writes, stays_open = self.server.api.written(answer)
        for data in writes:
            self.wfile.write(data)
        return stays_open


def reply(status: int, says_length: bool, names_errors: bool) -> bytes:
    head = f"HTTP/1.1 {status} Some Reason\r\n"
    if status == 204:
        return f"{head}\r\n".encode()
    body = "{}"
    if status != 200 and names_errors:
        error = ERRORS.get(status, "Exception")
        head += f"x-amzn-ErrorType: {error}\r\n"
        body = json.dumps({"message": error})
    if says_length:
        head += f"Content-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode()
