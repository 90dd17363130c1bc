"""`make chat` at terminals of all kinds, and behind a pipe."""

from __future__ import annotations

import select
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import websocket

from chalicelib.pace import ANNOUNCED_WEIGHT, RATE, Pace, Verdict, weight
from scripts.chat import AT_ONCE, Conversation
from tests.e2e.actors import Person, Terminal
from tests.e2e.conftest import eventually
from tests.web_sockets import WebSocket, web_socket_server

FIRST_SCREEN = "The first line that you type is your nickname.\nPress Ctrl+C to quit\n> "
ENCODINGS = [
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONUTF8": "1"},
]


def chat(url: str) -> Terminal:
    return Terminal(sys.executable, "-m", "scripts.chat", "--url", url)


def piped(url: str, lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.chat", "--url", url],
        input=lines,
        capture_output=True,
        text=True,
    )


def test_it_says_what_the_first_line_is(empty_chat: str) -> None:
    with chat(empty_chat) as john:
        john.sees(FIRST_SCREEN)
        john.types("John")
        john.sees(
            f"{FIRST_SCREEN}John\n< Using nickname: John\nType /help for list of commands.\n> "
        )
        john.presses_control_d()
        assert john.ends() == 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_character_ends_it(
    empty_chat: str,
    arrive: Callable[..., Person],
    monkeypatch: pytest.MonkeyPatch,
    encoding: dict[str, str],
) -> None:
    """Neither one that the terminal cannot show, nor a typed byte that is no character."""
    for name, value in encoding.items():
        monkeypatch.setenv(name, value)
    john = arrive("John", "tea")
    with chat(empty_chat) as jenny:
        jenny.sees(FIRST_SCREEN)
        jenny.types("Jenny")
        eventually(lambda: jenny.screen.endswith("commands.\n> "))
        jenny.types("/join tea")
        john.hears("Jenny joined room.")
        john.says("\u20ac and \U0001f600")
        john.hears("John: \u20ac and \U0001f600")
        john.says("Hi")
        john.hears("John: Hi")
        eventually(lambda: jenny.screen.endswith("< John: Hi\n> "))
        assert "< John: " in jenny.screen.splitlines()[-3]
        assert " and " in jenny.screen.splitlines()[-3]
        jenny.types_bytes(b"caf\xe9 \xff\n")
        assert john.hears_a_line().startswith("Jenny: caf")
        jenny.types("Bye")
        john.hears("Jenny: Bye")
        jenny.presses_control_d()
        assert jenny.ends() == 0
        john.hears("Jenny left room.")


def test_what_comes_from_a_pipe_is_answered_before_it_ends(
    empty_chat: str, arrive: Callable[..., Person]
) -> None:
    jenny = arrive("Jenny", "tea")
    ended = piped(empty_chat, "John\n/join tea\nHi\n")
    assert (ended.stdout, ended.stderr, ended.returncode) == (
        "Using nickname: John\nType /help for list of commands.\n"
        'Joined chat room "tea"\nJohn: Hi\n',
        "",
        0,
    )
    jenny.hears("John joined room.", "John: Hi", "John left room.")


def test_lines_from_a_pipe_keep_to_the_pace_of_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with instant replies, and with the frames of a second bunched together."""
    clock = Clock()
    verdicts = Counter[Verdict]()
    pace = Pace(lambda: clock.now // 1)

    def send(conversation: Conversation, line: str, opcode: int) -> int:
        verdicts[pace.judge("John", weight(line))] += 1
        conversation.shown.set()
        return len(line)

    monkeypatch.setattr("scripts.chat.time", clock)
    monkeypatch.setattr("websocket.WebSocket.send", send)
    conversation = Conversation()
    conversation.is_piped = True
    for line in ("John", "/join tea", *map(str, range(100)), *("/nick x", "/join tea") * 20):
        conversation.send(line)
    assert verdicts == {Verdict.ANSWER: 142}
    weighs = 101 + 41 * ANNOUNCED_WEIGHT
    assert clock.now - Clock.now == pytest.approx((weighs - AT_ONCE) / RATE)


class Clock:
    """A stand-in for `time` that advances only in `sleep`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_line_that_is_too_long_fails(empty_chat: str) -> None:
    """The script that sent the line fails too."""
    ended = piped(empty_chat, f"John\n/join tea\n{'x' * 32_769}\n")
    assert ended.stdout.endswith('\nJoined chat room "tea"\n')
    assert ended.stderr == (
        "Disconnected by the server: a line has 32,768 bytes at most (code 1009)\n"
    )
    assert ended.returncode == 1


def test_a_pipe_that_closes_is_no_error(empty_chat: str) -> None:
    chat = f"{shlex.quote(sys.executable)} -m scripts.chat --url {empty_chat}"
    ended = subprocess.run(
        ["sh", "-c", f"printf 'John\\n/nick\\n/nick\\n' | {chat} | head -n 1"],
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.stderr) == ("Using nickname: John\n", "")


@pytest.fixture
def resetting() -> Iterator[str]:
    """The address of a server that resets the connection after one line."""

    def serve(person: WebSocket) -> None:
        person.receive()
        person.reset()

    with web_socket_server(serve) as url:
        yield url


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_broken_connection_is_reported(resetting: str, handler: signal.Handlers) -> None:
    """Background jobs of a script report it too, though they ignore SIGINT."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        ended = piped(resetting, "John\nHi\n" * 3)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.stdout == ""
    assert ended.stderr.startswith("Disconnected by the server: the connection broke: ")
    assert ended.returncode == 1


def test_typing_after_the_break_does_not_hide_the_report(
    resetting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals: list[int] = []
    monkeypatch.setattr("os.kill", lambda _, number: signals.append(number))
    monkeypatch.setattr(Conversation, "end", None)
    conversation = websocket.create_connection(resetting, class_=Conversation)
    conversation.send("John")
    select.select([conversation], [], [])
    conversation.send("Hi")
    with pytest.raises(SystemExit):
        conversation.recv()
    conversation.send("Hi")
    assert str(Conversation.end).startswith("Disconnected by the server: the connection broke: ")
    assert signals == [signal.SIGUSR1]
