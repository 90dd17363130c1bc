"""What boto3 sends when a count changes, to a server that fails."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from chalicelib.storage.rooms import Rooms
from tests.conftest import session

Reply = tuple[int, dict[str, str], Any]  # status, headers and content

DROP: Reply = (0, {}, None)  # the connection, without an answer
LEFT: Reply = (200, {}, {"Attributes": {"members": {"N": "2"}}})
CORRUPT: Reply = (200, {"x-amz-crc32": "1"}, LEFT[2])
FAILED: Reply = (500, {}, {"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError"})
UNAVAILABLE: Reply = (503, {}, {})
THROTTLED: Reply = (
    400,
    {},
    {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"},
)
EXPIRED: Reply = (
    400,
    {},
    {"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"},
)


class Server(ThreadingHTTPServer):
    """DynamoDB over HTTP: gives these replies in turn, and keeps the values of all requests."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = list(replies)
        self.values: list[Any] = []


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.values.append(request["ExpressionAttributeValues"])
        status, headers, content = self.server.replies.pop(0)
        if status == 0:
            self.close_connection = True
            return
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def rooms(*replies: Reply) -> Iterator[tuple[Rooms, list[Any]]]:
    """The directory over a server with these replies, and the values that the server has got."""
    with Server(*replies) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        table = session().resource("dynamodb", endpoint_url=url).Table("chat")
        Rooms(table, time.time)  # of another `Storage` over the same client
        try:
            yield Rooms(table, time.time), server.values
        finally:
            server.shutdown()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)


@pytest.mark.parametrize("reply", [DROP, FAILED, UNAVAILABLE, CORRUPT, LEFT, EXPIRED])
@pytest.mark.parametrize("refusals", [0, 1, 3])
def test_a_count_is_lowered_once(
    reply: Reply, refusals: int, caplog: pytest.LogCaptureFixture
) -> None:
    """However the request ends, unless all that DynamoDB does is to refuse it."""
    with rooms(*[THROTTLED] * refusals, reply, LEFT, LEFT, LEFT) as (directory, values):
        directory.count_out("kitchen", members=2)
    assert values == [{":less": {"N": "-2"}}] * (refusals + 1)
    is_lost = reply in (DROP, FAILED, UNAVAILABLE)
    assert len(caplog.records) == is_lost


def test_a_count_that_cannot_be_lowered_stays(caplog: pytest.LogCaptureFixture) -> None:
    with rooms(*[THROTTLED] * 4) as (directory, values):
        directory.count_out("kitchen")
    assert len(values) == 4
    (record,) = caplog.records
    assert record.getMessage() == "a room's count may be too high until its row expires"


@pytest.mark.parametrize("reply", [DROP, FAILED, UNAVAILABLE, THROTTLED])
def test_raising_a_count_is_retried(reply: Reply) -> None:
    with rooms(*[reply] * 3, LEFT) as (directory, values):
        directory.count_in("kitchen")
    assert [each[":one"] for each in values] == [{"N": "1"}] * 4
