"""`make smoke` passes for the chat. For a chat with a fault, it fails and names the fault."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from scripts.emulator import HOST
from scripts.smoke import smoke
from tests.e2e.conftest import free_port


def test_it_says_what_it_saw(empty_chat: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke(empty_chat)
    url, *lines = capsys.readouterr().out.splitlines()
    assert url == empty_chat
    assert [line.split("  ")[:2] for line in lines] == [
        ["ok", "two clients, 18 replies as in the tutorial"],
        ["ok", "6 odd texts as they were sent, 4 made safe"],
        ["ok", "50 texts at once, heard by 5 clients, each once"],
        ["ok", "all have left: the rooms are closed, and a name is free again"],
    ]


@pytest.mark.parametrize(
    ("sent", "arrives", "seen", "said"),
    [
        (b"Nickname is: ", b"Nickname was ", 0, ['expected: "Nickname is: J', '"Nickname was J']),
        (b"between s", b"between S", 1, ["  between spaces  "]),
        (b"\xef\xbf\xbdabc", b"\xe2\x80\xaeabc", 1, ["\u202eabc"]),
        (b": text 7", b": text 8", 2, ["missing:", ": text 7", "too many:", ": text 8"]),
        (b"Left chat room", b"left chat room", 0, ['said "/quit"', '"left chat room']),
    ],
)
def test_it_stops_at_the_first_difference(
    empty_chat: str,
    capsys: pytest.CaptureFixture[str],
    sent: bytes,
    arrives: bytes,
    seen: int,
    said: list[str],
) -> None:
    with altered(empty_chat, sent, arrives) as url:
        assert not smoke(url)
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in lines[: seen + 1]] == ["ok "] * seen + ["FAI"]
    for words in said:
        assert words in "\n".join(lines[seen:])


def test_where_nothing_is_it_fails_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert not smoke(f"ws://{HOST}:{free_port()}/api")
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("FAILED  John-")


@contextmanager
def altered(url: str, sent: bytes, arrives: bytes) -> Iterator[str]:
    """The address of a server that passes everything on, with other bytes for some that it sends."""
    assert len(sent) == len(arrives)
    port = urlsplit(url).port
    assert port is not None
    with socket.create_server((HOST, 0)) as server:
        own, real = (f":{each}\r\n".encode() for each in (server.getsockname()[1], port))

        def accept() -> None:
            with contextlib.suppress(OSError):  # the server is closed
                while True:
                    client, _ = server.accept()
                    chat = socket.create_connection((HOST, port))
                    for way in ((client, chat, own, real), (chat, client, sent, arrives)):
                        threading.Thread(target=pass_on, args=way, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield url.replace(f":{port}/", f":{server.getsockname()[1]}/")
        server.shutdown(socket.SHUT_RDWR)


def pass_on(source: socket.socket, target: socket.socket, old: bytes, new: bytes) -> None:
    with contextlib.suppress(OSError), source, target:
        while data := source.recv(65536):
            target.sendall(data.replace(old, new))
        target.shutdown(socket.SHUT_RDWR)
