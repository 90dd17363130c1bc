"""`make chat` at terminals of all kinds, and behind a pipe."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import websocket

from scripts.chat import Conversation
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
    ended = subprocess.run(
        [sys.executable, "-m", "scripts.chat", "--url", empty_chat],
        input="John\n/join tea\nHi\n",
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (
        "Using nickname: John\nType /help for list of commands.\n"
        'Joined chat room "tea"\nJohn: Hi\n',
        "",
        0,
    )
    jenny.hears("John joined room.", "John: Hi", "John left room.")


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


def test_a_broken_connection_is_reported(resetting: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "scripts.chat", "--url", resetting],
        input="John\nHi\n",
        capture_output=True,
        text=True,
    )
    assert "Disconnected by the server: the connection broke: " in ended.stdout
    assert (ended.stderr, ended.returncode) == ("", 0)


def test_typing_after_the_break_does_not_hide_the_report(
    resetting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    signals: list[int] = []
    monkeypatch.setattr("os.kill", lambda _, number: signals.append(number))
    conversation = websocket.create_connection(resetting, class_=Conversation)
    conversation.send("John")
    select.select([conversation], [], [])
    conversation.send("Hi")
    with pytest.raises(SystemExit):
        conversation.recv()
    conversation.send("Hi")
    assert "Disconnected by the server: the connection broke: " in capsys.readouterr().out
    assert signals == [signal.SIGINT]
