"""The server's end of WebSocket connections, which sends messages in frames as API Gateway does."""

from __future__ import annotations

import re
import socket
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha1
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

from websocket import ABNF
from websocket._abnf import frame_buffer

FRAME_BYTES = 32_768  # API Gateway quotas: "WebSocket frame size", 32 KB

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class WebSocket:
    """An open connection. Its client has to send each message in one frame."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = frame_buffer(self._receive, skip_utf8_validation=True)
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += self._receive(1)
        (key,) = re.findall(rb"(?i)sec-websocket-key: *(\S+)", request)
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + b64encode(sha1(key + GUID).digest()) + b"\r\n\r\n"
        )

    def receive(self) -> str | None:
        """The client's next message; None if it closes the connection instead."""
        frame = self._frames.recv_frame()
        assert isinstance(frame.data, bytes)
        return frame.data.decode() if frame.opcode == ABNF.OPCODE_TEXT else None

    def send(self, message: str) -> None:
        data = message.encode()
        opcode = ABNF.OPCODE_TEXT
        while len(data) > FRAME_BYTES:
            self._send(0, opcode, data[:FRAME_BYTES])
            data, opcode = data[FRAME_BYTES:], ABNF.OPCODE_CONT
        self._send(1, opcode, data)

    def close(self) -> None:
        """Without a closing handshake, as when a network is gone."""
        self._connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """As when a server crashes: the client's next messages fail."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def _send(self, is_last: int, opcode: int, data: bytes) -> None:
        self._connection.sendall(ABNF(is_last, 0, 0, 0, opcode, 0, data).format())

    def _receive(self, size: int) -> bytes:
        data = self._connection.recv(size)
        if not data:
            raise ConnectionError("the client has gone")
        return data


@contextmanager
def web_socket_server(serve: Callable[[WebSocket], None]) -> Iterator[str]:
    """The address of a server, in which each connection is served in a thread of its own."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client has gone
                serve(WebSocket(self.request))

    class Server(ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"ws://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
