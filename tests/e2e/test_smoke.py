"""`make smoke` passes for the chat. For a chat with a fault, it fails and names the fault."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from emulator.emulator import HOST, ROOT, STACK
from scripts.smoke import Difference, Smoke, all_hear, main, smoke
from tests.e2e.conftest import Cloud, free_port
from tests.web_sockets import WebSocket, web_socket_server


def test_it_names_the_version_and_says_what_it_saw(
    cloud: Cloud,
    empty_chat: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in cloud.emulator.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["smoke", "--stack", STACK])
    assert main() == 0
    url, version, *lines = capsys.readouterr().out.splitlines()
    assert url == empty_chat
    output = json.loads((ROOT / "resources.json").read_text())["Outputs"]["Version"]["Value"]
    assert version == f"version {output}"
    assert [line.split("  ")[:2] for line in lines] == [
        ["ok", "two clients, 18 replies as in the tutorial"],
        ["ok", "5 odd texts as they were sent, 4 made safe"],
        ["ok", "50 texts, 8 at once, one of 32 KB: 5 clients hear each once"],
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


def test_where_nothing_is_it_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["smoke", "--url", f"ws://{HOST}:{free_port()}/api"])
    assert main() == 1
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("FAILED  John-")


def test_a_broken_connection_is_a_failure() -> None:
    def serve(person: WebSocket) -> None:
        person.receive()
        person.reset()

    with web_socket_server(serve) as url:
        ended = subprocess.run(
            [sys.executable, "-m", "scripts.smoke", "--url", url], capture_output=True, text=True
        )
    assert ended.returncode == 1
    assert re.search(r"^FAILED  John-\w+ said .*, and lost the connection: ", ended.stdout, re.M)


class SmallAccount:
    """A chat whose account runs few functions at once, and loses the frames beyond.

    Functions end in groups of `together`, soon after the last frame.
    """

    def __init__(self, functions: int, together: int = 1, answer_to_others: str = "") -> None:
        self.most_at_once = 0
        self._functions = functions
        self._together = together
        self._waiting: list[tuple[WebSocket, str]] = []
        self._answer_to_others = answer_to_others
        self._running = 0
        self._people: dict[str, WebSocket] = {}
        self._lock = threading.Lock()

    def serve(self, person: WebSocket) -> None:
        name = person.receive()
        person.send(f"Using nickname: {name}\nType /help for list of commands.")
        _, room = (person.receive() or "").split()
        self._tell_everybody(f"{name} joined room.")
        with self._lock:
            self._people[str(name)] = person
            person.send(f'Joined chat room "{room}"')
        while text := person.receive():
            with self._lock:
                self._running += 1
                self.most_at_once = max(self.most_at_once, self._running)
                is_lost = self._running > self._functions
                self._waiting.append((person, "" if is_lost else f"{name}: {text}"))
                if len(self._waiting) >= self._together:
                    for invocation in self._waiting:
                        threading.Timer(0.05, self._end, invocation).start()
                    self._waiting = []

    def _end(self, person: WebSocket, line: str) -> None:
        with self._lock:
            self._running -= 1
        if line:
            self._tell_everybody(line)
        elif self._answer_to_others:
            person.send(self._answer_to_others)

    def _tell_everybody(self, line: str) -> None:
        with self._lock:
            for person in self._people.values():
                person.send(line)


def test_a_new_account_has_enough_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.smoke.SILENCE", 0.1)
    account = SmallAccount(functions=8)
    with web_socket_server(account.serve) as url:
        Smoke(url).burst()
    assert account.most_at_once <= 8


LAMBDA = "Lambda: concurrent executions, 10 in a new account"
STAGE = "this stack: RequestRate and RequestBurst"
ACCOUNT = "API Gateway: requests a second of the account"


@pytest.mark.parametrize(
    ("answer", "quotas"),
    [
        ("Internal server error", [LAMBDA]),
        ("Too Many Requests", [ACCOUNT, STAGE]),
        ("", [LAMBDA, ACCOUNT, STAGE]),
    ],
)
def test_for_lost_frames_it_names_the_quota(
    monkeypatch: pytest.MonkeyPatch, answer: str, quotas: list[str]
) -> None:
    def impatient(*arguments: Any) -> None:
        monkeypatch.setattr("scripts.smoke.PATIENCE", 3.0)  # only now: arrivals may take longer
        monkeypatch.setattr("scripts.smoke.SILENCE", 0.1)
        all_hear(*arguments)

    monkeypatch.setattr("scripts.smoke.all_hear", impatient)
    frame = f'{{"message": "{answer}", "connectionId": "c", "requestId": "r"}}' if answer else ""
    # The first writer hears of no loss.
    account = SmallAccount(functions=6, together=8, answer_to_others=frame)
    with web_socket_server(account.serve) as url, pytest.raises(Difference) as difference:
        Smoke(url).burst()
    said = str(difference.value).splitlines()
    assert said[0].endswith("was to hear 8 texts, each once")
    assert [line.strip() for line in said[-len(quotas) :]] == quotas
    assert said[-len(quotas) - 1].strip() == "A frame was lost. Perhaps a quota is used up:"


def test_a_line_that_comes_in_two_frames_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.web_sockets.FRAME_BYTES", 32_767)
    account = SmallAccount(functions=8)
    with web_socket_server(account.serve) as url, pytest.raises(Difference, match=r"missing:.*xxx"):
        Smoke(url).burst()


@contextmanager
def altered(url: str, sent: bytes, arrives: bytes) -> Iterator[str]:
    """The address of a server that passes everything on, but replaces some of what it sends."""
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
