"""In wsdump, every line has its author: each message to a client fits one frame of API Gateway.

wsdump shows each frame by itself. The rest of a longer message would have no author, or end wsdump.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from chalicelib import texts
from chalicelib.handler import AUDIENCE, MOST_ROOMS, REMOVED_AT_ONCE
from chalicelib.names import NICKNAME_LENGTH, ROOM_LENGTH
from chalicelib.rows import LIFETIME_SECONDS, directory_key
from tests.conftest import Chat, Person
from tests.e2e.actors import PATIENCE, Terminal
from tests.web_sockets import FRAME_BYTES, WebSocket, web_socket_server

LAST = "This is the last line."


class Screen:
    """wsdump in a terminal, behind API Gateway's frames."""

    def __init__(self, terminal: Terminal, web_socket: WebSocket) -> None:
        self._terminal = terminal
        self._web_socket = web_socket

    def shows(self, chat: Chat, person: Person) -> list[str]:
        """The lines, after wsdump has received everything that was posted to a person."""
        for message in [*chat.connections.received(person.id), LAST]:
            self._web_socket.send(message)
        self.ends_with(f"< {LAST}\n> ")
        _, *lines, _, _ = self._terminal.screen.split("\n")
        return [line.removeprefix("< ") for line in lines]

    def ends_with(self, end: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._terminal.screen.endswith(end):
            assert time.monotonic() < deadline, "wsdump has stopped"
            time.sleep(0.02)


@pytest.fixture
def screen() -> Iterator[Screen]:
    opened: SimpleQueue[WebSocket] = SimpleQueue()

    def serve(web_socket: WebSocket) -> None:
        opened.put(web_socket)
        web_socket.receive()

    wsdump = (sys.executable, "-m", "websocket._wsdump")
    with web_socket_server(serve) as url, Terminal(*wsdump, url) as terminal:
        screen = Screen(terminal, opened.get(timeout=PATIENCE))
        screen.ends_with("> ")
        yield screen


def longest_name(number: int, length: int) -> str:
    """A name of the most bytes."""
    return f"{chr(0x20000 + number)}{'𠀀' * (length - 1)}"


def nickname(number: int) -> str:
    return longest_name(number, NICKNAME_LENGTH)


def largest(text: str) -> str:
    """As much of a text, in lines of `John`, as one message may hold."""
    most = texts.MESSAGE_BYTES - len(b"John: ") * (1 + text.count("\n"))
    return text.encode()[:most].decode(errors="ignore")


@pytest.mark.parametrize(
    "text",
    [
        largest("x" * (FRAME_BYTES - len("John: ")) + "Jenny: my account number is 666" * 4_000),
        largest("x" + "é" * 100_000),  # a frame of 32 KB would end in half a character
        largest("lines\n" * (texts.MESSAGE_BYTES // len("John: lines\n")) + "x" * 10),
    ],
    ids=["one line", "half a character", "lines"],
)
def test_the_largest_text(
    chat: Chat, john: Person, jenny: Person, screen: Screen, text: str
) -> None:
    john.says(text)
    is_shown = screen.shows(chat, jenny) == [f"John: {line}" for line in text.split("\n")]
    assert is_shown  # without the texts, which pytest would compare for minutes


def test_a_text_that_is_larger(chat: Chat, john: Person, jenny: Person, screen: Screen) -> None:
    """API Gateway delivers up to 128 KB, in frames of 32 KB."""
    john.says("x" * 131_072)
    assert screen.shows(chat, john) == ["Message too long: 131078 bytes, the limit is 32768."]
    jenny.hears_nothing()


def test_the_largest_list_of_rooms(chat: Chat, screen: Screen) -> None:
    rooms = [longest_name(number, ROOM_LENGTH) for number in range(MOST_ROOMS + 1)]
    expires_at = int(chat.clock()) + LIFETIME_SECONDS
    chat.write({**directory_key(room), "members": 1, "expires_at": expires_at} for room in rooms)
    john = chat.person("John")
    john.says("/ls")
    is_shown = screen.shows(chat, john) == [*rooms[:MOST_ROOMS], "... and more rooms."]
    assert is_shown


def test_a_large_list_of_members(chat: Chat, screen: Screen) -> None:
    members = [nickname(number) for number in range(1_000)]
    chat.has(*((f"c{n}", name, "tea") for n, name in enumerate(members)))
    john = chat.person("John")
    john.says("/join tea")
    john.says("/ls")
    is_shown = screen.shows(chat, john) == ['Joined chat room "tea"', *members, "John"]
    assert is_shown


def test_the_most_departures(
    chat: Chat, john: Person, jenny: Person, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat.storage, "delete_connections", list)  # moto would take seconds
    leavers = [nickname(number) for number in range(REMOVED_AT_ONCE + 1)]
    chat.has(*((f"c{n}", name, "chalice") for n, name in enumerate(leavers)))
    chat.connections.gone |= {f"c{n}" for n in range(len(leavers))}
    assert len(leavers) > AUDIENCE  # so many leave, but few hear of it
    john.says("Hi")
    _, *departures = lines = screen.shows(chat, jenny)
    assert lines[0] == "John: Hi"
    is_shown = sorted(departures) == sorted(f"{name} left room." for name in leavers)
    assert is_shown
