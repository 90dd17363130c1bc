"""Local stand-ins for API Gateway's @connections and for DynamoDB: cheap, with settable delays.

    python -m benchmarks.server connections --delay 0.008 --gone 0.01 --throttled 0.01
    python -m benchmarks.server table --delay 0.004

Each prints the port it listens on (127.0.0.1 only). A GET returns its counts as JSON, and resets
them.
"""

import argparse
import asyncio
import json
import random
import ssl
import time
import zlib
from abc import ABC, abstractmethod
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
FOUND = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"


class Counts:
    """The counts since the last GET; times are those of the machine's monotonic clock."""

    def __init__(self) -> None:
        self.delivered: Counter[bytes] = Counter()
        self.gone = 0
        self.first = self.last = 0.0  # of the first request, and of the last answer

    def as_json(self) -> bytes:
        return json.dumps(
            {
                "delivered": self.delivered.total(),
                "reached": len(self.delivered),
                "gone": self.gone,
                "first": self.first,
                "last": self.last,
            }
        ).encode()


class Server(asyncio.Protocol, ABC):
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
        body = self.buffer[head_end + 4 :]
        self.buffer = b""
        if method == b"GET":
            self.answer_counts()
        else:
            Server.counts.first = Server.counts.first or time.monotonic()
            self.loop.call_later(self.options.delay, self.respond, path, body)

    def respond(self, path: bytes, body: bytes) -> None:
        self.transport.write(self.answer(path, body))
        Server.counts.last = time.monotonic()

    @abstractmethod
    def answer(self, path: bytes, body: bytes) -> bytes:
        """The whole response to a request."""

    def answer_counts(self) -> None:
        body = self.counts.as_json()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        Server.counts = Counts()


class Connections(Server):
    """The @connections API."""

    def answer(self, path: bytes, body: bytes) -> bytes:
        connection_id = path.rsplit(b"/", 1)[1]
        if zlib.crc32(connection_id) < self.options.gone * 2**32:
            self.counts.gone += 1
            return GONE
        if random.random() < self.options.throttled:
            return THROTTLED
        self.counts.delivered[connection_id] += 1
        return DELIVERED


ROWS_A_PAGE = 8_000  # a page of DynamoDB holds 1 MB


class Table(Server):
    """DynamoDB with the rows of rooms, each named after the number of its members."""

    def answer(self, path: bytes, body: bytes) -> bytes:
        query = json.loads(body)
        key = query["ExpressionAttributeValues"]
        start = query.get("ExclusiveStartKey", {}).get("PK", {}).get("S", "")
        more = {}
        if "IndexName" in query:
            room = next(value["S"] for value in key.values() if "S" in value)
            rows = members(int(room.removeprefix("room_")), after=start)
            if len(rows) == ROWS_A_PAGE:
                more = {"LastEvaluatedKey": {name: rows[-1][name] for name in ("PK", "SK")}}
        else:
            rows = sender(next(iter(key.values()))["S"])
        if "begins_with" in query["KeyConditionExpression"]:
            rows = rows[:1]
        if "ProjectionExpression" in query:
            wanted = query["ProjectionExpression"].split(", ")
            rows = [{name: row[name] for name in wanted} for row in rows]
        counts = {"Count": len(rows), "ScannedCount": len(rows)}
        items = json.dumps({"Items": rows, **counts, **more}).encode()
        checksum = b"x-amz-crc32: %d\r\nContent-Length: %d\r\n\r\n" % (
            zlib.crc32(items),
            len(items),
        )
        return FOUND + checksum + items


Row = dict[str, dict[str, str]]
EXPIRY = {"N": "4102444800"}  # in 2100


def sender(connection_id: str) -> list[Row]:
    """The rows of a connection, whose id begins with its room's name."""
    name, pk, room = "username_John", {"S": connection_id}, connection_id.partition("-")[0]
    return [
        {"PK": pk, "SK": {"S": name}, "room": {"S": room}, "expires_at": EXPIRY},
        {"PK": pk, "SK": {"S": f"room_{room}"}},
    ]


def members(count: int, after: str = "") -> list[Row]:
    """The next page of a room's rows."""
    begin = int(after.partition("-")[2].removesuffix("c=")) + 1 if after else 0
    return [
        {
            "PK": {"S": f"{count}-{number:09d}c="},
            "SK": {"S": f"room_{count}"},
            "username": {"S": f"member{number}"},
            "joined_at": {"N": str(1_700_000_000_000_000 + number)},
            "expires_at": EXPIRY,
        }
        for number in range(begin, min(begin + ROWS_A_PAGE, count))
    ]


async def serve(options: argparse.Namespace) -> None:
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)
    kind = {"connections": Connections, "table": Table}[options.api]
    server = await asyncio.get_running_loop().create_server(
        lambda: kind(options), "127.0.0.1", 0, ssl=tls, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("api", choices=["connections", "table"])
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
