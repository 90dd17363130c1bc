"""A local `@connections` API: it keeps what is posted to each connection, and answers as told."""

import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

GONE = 410


class Connections:
    """The server, and what its connections have received since the last look."""

    def __init__(self) -> None:
        self.posts: defaultdict[str, list[str]] = defaultdict(list)
        self.attempts: defaultdict[str, int] = defaultdict(int)
        self.answers: defaultdict[str, list[int]] = defaultdict(list)
        self.gone: set[str] = set()
        self.closed: set[str] = set()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"
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

    def received(self, connection_id: str) -> list[str]:
        """What was posted to a connection since the last call."""
        return self.posts.pop(connection_id, [])

    def will_answer(self, connection_id: str, *statuses: int) -> None:
        """Answer the next posts to a connection with these, then with 200 again."""
        self.answers[connection_id] += statuses

    def answer(self, method: str, connection_id: str, body: str) -> int:
        self.attempts[connection_id] += 1
        if connection_id in self.gone:
            return GONE
        if method == "DELETE":
            self.closed.add(connection_id)
            self.gone.add(connection_id)
            return 204
        if method == "POST" and self.answers[connection_id]:
            return self.answers[connection_id].pop(0)
        if method == "POST":
            self.posts[connection_id].append(body)
        return 200


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(connections: Connections) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            connection_id = unquote(self.path.rpartition("/@connections/")[2])
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status = connections.answer(self.command, connection_id, body)
            reply = b"" if status == 204 else json.dumps(_REPLIES.get(status, {})).encode()
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(reply)))
            if status in _ERRORS:
                self.send_header("x-amzn-ErrorType", _ERRORS[status])
            self.end_headers()
            self.wfile.write(reply)

        do_POST = do_GET = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


_ERRORS = {
    403: "ForbiddenException",
    410: "GoneException",
    413: "PayloadTooLargeException",
    429: "LimitExceededException",
    500: "InternalServerError",
}
_REPLIES = {status: {"message": error} for status, error in _ERRORS.items()}
