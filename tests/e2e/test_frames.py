"""Frames and handshakes that API Gateway refuses or changes, and the emulator too.

The numbers are those of "Quotas for configuring and running a WebSocket API in API Gateway".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import websocket
from botocore.exceptions import ClientError
from websocket import ABNF

from tests.e2e.actors import PATIENCE, Person
from tests.e2e.conftest import Cloud, eventually

FRAME, MESSAGE = 32_768, 131_072  # bytes
NOT_A_NAME = 'Nicknames are 1 to 32 printable characters, without spaces or ":", and do not start'


@pytest.fixture
def client(empty_chat: str) -> Iterator[websocket.WebSocket]:
    """A connection to the chat, frame by frame."""
    client = websocket.create_connection(empty_chat, timeout=PATIENCE)
    yield client
    client.close()


def send(client: websocket.WebSocket, *frames: bytes, opcode: int = ABNF.OPCODE_TEXT) -> None:
    """Sends one message."""
    for number, frame in enumerate(frames, 1):
        opcode_of_frame = opcode if number == 1 else ABNF.OPCODE_CONT
        client.send_frame(ABNF(number == len(frames), 0, 0, 0, opcode_of_frame, 1, frame))


def receive(client: websocket.WebSocket) -> tuple[int, int, bytes]:
    """A frame: what it is, whether it is its message's last, and its data."""
    frame: Any = client.recv_frame()  # type: ignore[no-untyped-call]
    return frame.opcode, frame.fin, frame.data


def close_code(client: websocket.WebSocket) -> int:
    opcode, _, data = receive(client)
    assert opcode == ABNF.OPCODE_CLOSE
    return int.from_bytes(data[:2], "big")


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([b"x" * FRAME], id="a frame"),
        pytest.param([b"x" * FRAME] * (MESSAGE // FRAME), id="a message"),
        pytest.param(["ä".encode() * (FRAME // 2)], id="a frame of other characters"),
    ],
)
def test_the_largest_arrive(client: websocket.WebSocket, frames: list[bytes]) -> None:
    send(client, *frames)
    for _ in range(2):  # the count begins again
        send(client, *frames)
        assert NOT_A_NAME in str(client.recv())


@pytest.mark.parametrize(
    ("frames", "opcode", "code"),
    [
        pytest.param([b"x" * FRAME + b"x"], ABNF.OPCODE_TEXT, 1009, id="a long frame"),
        pytest.param(
            ["ä".encode() * (FRAME // 2) + b"x"], ABNF.OPCODE_TEXT, 1009, id="of other characters"
        ),
        pytest.param([b"x", b"x" * FRAME + b"x"], ABNF.OPCODE_TEXT, 1009, id="a long second frame"),
        pytest.param([b"x" * FRAME] * 4 + [b"x"], ABNF.OPCODE_TEXT, 1009, id="a long message"),
        pytest.param([b"x"], ABNF.OPCODE_BINARY, 1003, id="a binary frame"),
        pytest.param([b"", b"x"], ABNF.OPCODE_BINARY, 1003, id="two binary frames"),
    ],
)
def test_what_is_too_long_or_not_text_closes_the_connection(
    client: websocket.WebSocket,
    arrive: Callable[..., Person],
    frames: list[bytes],
    opcode: int,
    code: int,
) -> None:
    """And the others hear that somebody left."""
    jenny = arrive("Jenny", "frames")
    for text in ("John", "/join frames"):
        client.send(text)
        assert client.recv()
    jenny.hears("John joined room.")
    send(client, *frames, opcode=opcode)
    assert close_code(client) == code
    jenny.hears("John left room.")


def test_frames_that_wait_when_the_server_closes_the_connection_are_dropped(
    cloud: Cloud, client: websocket.WebSocket
) -> None:
    """Too many frames at once: at frame 220 or later, the chat closes the connection."""
    already = len(cloud.functions_output.read_text())
    for _ in range(500):
        client.send("no name")
    eventually(lambda: "route=$disconnect" in cloud.functions_output.read_text()[already:])
    handled = cloud.functions_output.read_text()[already:].count("route=$default")
    assert 220 <= handled < 300


def api(cloud: Cloud, url: str) -> Any:
    """The `@connections` API of a chat."""
    return cloud.client("apigatewaymanagementapi", f"http://{url.removeprefix('ws://')}")


def post(cloud: Cloud, url: str, connection: str, data: bytes) -> None:
    api(cloud, url).post_to_connection(ConnectionId=connection, Data=data)


def connections(cloud: Cloud) -> list[str]:
    rows = cloud.client("dynamodb").scan(TableName="ChaliceChat", ConsistentRead=True)["Items"]
    return [row["PK"]["S"] for row in rows if row["SK"]["S"].startswith("username_")]


def test_messages_posted_before_the_server_closes_the_connection_arrive(
    cloud: Cloud, empty_chat: str, client: websocket.WebSocket
) -> None:
    eventually(lambda: connections(cloud) != [])
    (connection,) = connections(cloud)
    for number in range(100):  # more than fits into the buffers on the way to the client
        post(cloud, empty_chat, connection, f"{number} ".encode().ljust(MESSAGE))
    api(cloud, empty_chat).delete_connection(ConnectionId=connection)
    with pytest.raises(ClientError) as refused:
        post(cloud, empty_chat, connection, b"too late")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 410
    assert [str(client.recv()).split()[0] for _ in range(100)] == list(map(str, range(100)))
    assert close_code(client) == 1000


@pytest.mark.parametrize(
    ("size", "frames"),
    [
        (FRAME, [FRAME]),
        (FRAME + 1, [FRAME, 1]),
        (MESSAGE, [FRAME] * 4),
    ],
)
def test_a_long_message_to_a_client_leaves_in_several_frames(
    cloud: Cloud, empty_chat: str, client: websocket.WebSocket, size: int, frames: list[int]
) -> None:
    """Wherever the bytes end: here inside of a character."""
    eventually(lambda: connections(cloud) != [])
    (connection,) = connections(cloud)
    message = ("x" + "ä" * ((size - 1) // 2)).encode().ljust(size, b"x")
    post(cloud, empty_chat, connection, message)
    opcodes, ends, data = zip(*(receive(client) for _ in frames), strict=True)
    assert opcodes == (ABNF.OPCODE_TEXT, *[ABNF.OPCODE_CONT] * (len(frames) - 1))
    assert ends == (*[0] * (len(frames) - 1), 1)
    assert [len(each) for each in data] == frames
    assert b"".join(data) == message


def test_a_message_that_is_too_long_is_not_posted(
    cloud: Cloud, empty_chat: str, client: websocket.WebSocket
) -> None:
    eventually(lambda: connections(cloud) != [])
    (connection,) = connections(cloud)
    with pytest.raises(ClientError) as refused:
        post(cloud, empty_chat, connection, b"x" * MESSAGE + b"x")
    assert refused.value.response["Error"]["Code"] == "PayloadTooLargeException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    post(cloud, empty_chat, connection, b"short")
    assert client.recv() == "short"


# Handshakes


def address(url: str, length: int) -> str:
    return f"{url}/?token=".ljust(length, "x")


def test_an_address_may_have_4096_characters(empty_chat: str) -> None:
    websocket.create_connection(address(empty_chat, 4096), timeout=PATIENCE).close()
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(address(empty_chat, 4097), timeout=PATIENCE)
    assert refused.value.status_code == 414


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_an_address_ends_in_the_stage(empty_chat: str, path: str) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(empty_chat.removesuffix("/api") + path, timeout=PATIENCE)
    assert refused.value.status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_plain_http_reaches_no_route(cloud: Cloud, empty_chat: str, method: str) -> None:
    already = len(cloud.functions_output.read_text())
    url = empty_chat.replace("ws://", "http://")
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(url, method=method, data=b"Hi" if method == "POST" else None))
    with refused.value as answer:
        assert (answer.code, json.load(answer)) == (403, {"message": "Forbidden"})
    assert "route=$default" not in cloud.functions_output.read_text()[already:]
