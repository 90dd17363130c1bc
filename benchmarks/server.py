"""A local stand-in for API Gateway's @connections: cheap, and with configurable errors.

    python -m benchmarks.server --delay 0.008 --gone 0.01 --throttled 0.01

prints the port it listens on (127.0.0.1 only). A GET returns its counts as JSON and resets them.
"""

import argparse
import asyncio
import json
import random
import ssl
import zlib
from collections import Counter

NO_BODY = (
    b"Content-Length: 0\r\nConnection: keep-alive\r\n"
    b"x-amzn-RequestId: 0b1ca1f6-6a2f-4d6f-9a7c-5e3a8c1b2d4e\r\n\r\n"
)
DELIVERED = b"HTTP/1.1 200 OK\r\n" + NO_BODY
GONE = b"HTTP/1.1 410 Gone\r\nx-amzn-ErrorType: GoneException\r\n" + NO_BODY
THROTTLED = (
    b"HTTP/1.1 429 Too Many Requests\r\nx-amzn-ErrorType: LimitExceededException\r\n" + NO_BODY
)


class Counts:
    """The counts since the last GET."""

    def __init__(self) -> None:
        self.delivered: Counter[bytes] = Counter()
        self.gone = 0

    def as_json(self) -> bytes:
        return json.dumps(
            {
                "delivered": self.delivered.total(),
                "reached": len(self.delivered),
                "gone": self.gone,
            }
        ).encode()


class Connections(asyncio.Protocol):
    """One keep-alive connection; its client must wait for each answer before the next request."""

    counts = Counts()
    transport: asyncio.Transport

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self.buffer[:head_end].lower()
        _, found, rest = head.partition(b"\r\ncontent-length:")
        length = int(rest.partition(b"\r\n")[0]) if found else 0
        if len(self.buffer) < head_end + 4 + length:
            return
        method, path, _ = self.buffer.split(b" ", 2)
        self.buffer = b""
        if method == b"GET":
            self.answer_counts()
        else:
            self.loop.call_later(self.options.delay, self.answer, path.rsplit(b"/", 1)[1])

    def answer(self, connection_id: bytes) -> None:
        if zlib.crc32(connection_id) < self.options.gone * 2**32:
            self.counts.gone += 1
            self.transport.write(GONE)
        elif random.random() < self.options.throttled:
            self.transport.write(THROTTLED)
        else:
            self.counts.delivered[connection_id] += 1
            self.transport.write(DELIVERED)

    def answer_counts(self) -> None:
        body = self.counts.as_json()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        Connections.counts = Counts()


async def serve(options: argparse.Namespace) -> None:
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connections(options), "127.0.0.1", 0, ssl=tls, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delay", type=float, default=0.008, help="seconds before an answer")
    parser.add_argument(
        "--gone", type=float, default=0, help="share of ids answering 410, always the same ones"
    )
    parser.add_argument(
        "--throttled", type=float, default=0, help="share of posts answering 429, at random"
    )
    parser.add_argument("--certificate", help="serve TLS with this PEM file (with its key)")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
