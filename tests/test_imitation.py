"""The search for lines of machines that a person can make with a name.

People put these lines on the screens of others: `{name}: {text}`; `{name} left room.` and its like;
and, in a list, a nickname or a room alone. A terminal shows the later lines of a message bare, so
each of them could pass for the line of a program. The machines' lines are collected from the code
that prints them; only those of API Gateway are listed here.
"""

import ast
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from types import ModuleType, SimpleNamespace

import pytest
import websocket
from botocore.exceptions import ClientError
from websocket import ABNF, _wsdump

from chalicelib import announcer, commands, handler
from chalicelib.pace import BURST, MOST_DROPPED, Pace
from chalicelib.page import template
from chalicelib.storage.rows import Account
from chalicelib.text import names
from scripts import chat as make_chat
from tests.conftest import Chat, Person

SPOKEN = re.compile(r"(.+?)(?:: .*| (?:left|joined) room\.| is now known as .+\.)")


def makers(lines: Iterable[str]) -> set[str]:
    """The names with which a person makes one of the lines, but for blanks at its end."""
    found = set()
    for line in lines:
        if spoken := SPOKEN.fullmatch(line):
            found |= valid(names.nickname, spoken[1])
        found |= valid(names.room, line.rstrip(" "))  # as every nickname is
    return found


def valid(check: Callable[[str], str], name: str) -> set[str]:
    with suppress(names.InvalidName):
        return {check(name)} & {name}
    return set()


def sentences(module: ModuleType) -> Iterator[str]:
    """The lines of a module, without docstrings and log messages: texts that hold a space, and
    f-strings, in which every nickname is Ann and every other value is 7."""
    tree = ast.parse(inspect.getsource(module))
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    docstrings = [node for node in statements if isinstance(node.value, ast.Constant)]
    logged = [node for node in statements if ast.unparse(node).startswith("log.")]
    composed = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    silent = {id(part) for node in [*docstrings, *logged] for part in ast.walk(node)}
    parts = {id(part) for node in composed for part in node.values}
    for node in ast.walk(tree):
        if id(node) in silent | parts:
            continue
        if isinstance(node, ast.JoinedStr):
            yield from "".join(map(filled, node.values)).split("\n")
        elif isinstance(node, ast.Constant) and " " in str(node.value):
            yield from str(node.value).split("\n")


def filled(part: ast.expr) -> str:
    """A part of an f-string, with an example for a value."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return "Ann" if ast.unparse(part.value).endswith("nickname") else "7"


# The server


def replies(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The lines that people hear while they do whatever has an answer: each command, in a room and
    outside, and what can go wrong."""
    ann, bob, flooder = chat.somebody(), chat.somebody(), chat.somebody()
    zoe, stranger = Person(chat, "zoe"), Person(chat, "stranger")
    for id in ("older", zoe.id):
        chat.handler.connect(id, Account("account", "Zoe"))
    zoe.says("/join tea")
    for frame in ["/", "Ann", "/help", "/nick", "/nick Zoe", "/join", "/join \0", "/foo", "Hi"]:
        ann.says(frame)
    for frame in ["/room", "/ls", "/join tea", "Hi", "x" * 200_000, "/room", "/ls", "/nick Ann"]:
        ann.says(frame)
    ann.says("/quit")
    bob.says("Bob")
    for command in chat.handler._commands._table:
        for frame in ["/join tea", f"/{command}", "/quit", f"/{command}", f"/{command} tea"]:
            bob.says(frame)
    zoe.says("/nick Eve")
    with monkeypatch.context() as patch:
        patch.setattr(commands, "MOST_ROOMS", 0)
        ann.says("/ls")
    zoe.disconnects()
    ann.says("/ls")
    stranger.says("Hi")
    with monkeypatch.context() as patch:
        patch.setattr(chat.storage, "find_connection", fail)
        ann.says("Hi")
    chat.handler._pace = Pace(clock=lambda: 0)
    for _ in range(BURST + MOST_DROPPED):
        flooder.says("/")
    posts = [post for posts in chat.connections.posts.values() for post in posts]
    return {line for post in posts for line in post.split("\n")}


def fail(_: str) -> None:
    raise ClientError({"Error": {"Code": "InternalServerError"}}, "Query")


def test_nobody_makes_a_line_of_the_server(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the lines that are heard, names belong to people and rooms; so they do in the code, where
    a reply that nobody hears here is found too."""
    assert makers(replies(chat, monkeypatch)) == {"Ann", "Bob", "Zoe", "tea"}
    spoken = chain.from_iterable(map(sentences, (announcer, commands, handler)))
    assert makers(spoken) == {"Ann", "Ann:"}  # her own, and the beginning of her texts


@pytest.mark.parametrize("wish", ["Usage", "USAGE", "U\u200dsage", "Uѕage"])
def test_the_nickname_with_which_the_server_speaks_is_in_use(chat: Chat, wish: str) -> None:
    john = chat.person("John")
    john.says(f"/nick {wish}")
    john.hears(f"Nickname {names.nickname('x' + wish)[1:]} is already in use.")


# API Gateway

MESSAGES = [  # as clients of public projects got them, or as of gateway responses
    *("Bad Request", "Endpoint request timed out", "Forbidden", "Internal server error"),
    *("Limit Exceeded", "Too Many Requests", "Unauthorized"),
]
FRAMES = [
    f'{{"message": "{message}", "connectionId":"a=", "requestId":"b="}}' for message in MESSAGES
]
SHORT = '{"message":"x","connectionId":"a=","requestId":"b="}'  # as short as a room


def test_nobody_makes_a_frame_of_api_gateway() -> None:
    assert makers([*FRAMES, SHORT]) == set()
    assert makers([SHORT[1:]]) == {SHORT[1:]}  # only the beginning is not valid


def test_nobody_speaks_for_api_gateway(chat: Chat) -> None:
    somebody = chat.somebody()
    somebody.says('{"message"')
    somebody.says("John")
    somebody.says('/nick {"message"')
    somebody.says(f"/join {SHORT}")
    somebody.hears(
        names.INVALID_NICKNAME,
        "Using nickname: John\nType /help for list of commands.",
        names.INVALID_NICKNAME,
        names.INVALID_ROOM,
    )


# Programs that show the lines


def test_nobody_makes_a_line_of_the_page_or_of_make_chat() -> None:
    on_page = re.findall(r"""["'`]([A-Z][^"'`\n]* [^"'`\n]*)""", template())
    assert makers(on_page) == set()
    assert makers(part for part in sentences(make_chat) if part[0].isalpha()) == set()


class Connection:
    """Receives a text of John and a ping after the prompt, and is closed or reset."""

    def __init__(self, is_reset: bool) -> None:
        self.is_prompted = threading.Event()
        end = (ABNF.OPCODE_CLOSE, b"")
        frames = [(ABNF.OPCODE_TEXT, b"John: Hi"), (ABNF.OPCODE_PING, b""), end]
        self._frames = iter(frames[:2] if is_reset else frames)

    def recv_frame(self) -> SimpleNamespace:
        self.is_prompted.wait()
        for opcode, data in self._frames:
            return SimpleNamespace(opcode=opcode, data=data)
        raise ConnectionResetError("Connection reset by peer")

    def pong(self, data: bytes) -> None: ...

    def send_close(self) -> None: ...


@pytest.mark.parametrize(
    ("options", "is_reset", "found"),
    [
        ("", False, {"<", ">"}),  # in a list: the prompt, and an empty frame
        ("-v", False, {">"}),
        ("--timings", False, {">"}),
        ("", True, {">", "ConnectionResetError"}),
        ("--raw", False, {"John", "b''"}),  # John is himself
        ("--raw -v", False, {"text", "ping", "close", "close:"}),
        ("--raw --timings", False, {"0.0", "0.0:"}),
    ],
)
def test_lines_of_wsdump_that_a_person_can_make(
    options: str,
    is_reset: bool,
    found: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without options, each message begins with a mark, and its later lines do not."""

    def until_the_end(prompt: str) -> str:
        print(prompt, end="")
        connection.is_prompted.set()
        for thread in threading.enumerate():
            if "recv_ws" in thread.name:
                thread.join()
        raise EOFError

    connection = Connection(is_reset)
    monkeypatch.setattr(sys, "argv", ["wsdump", "ws://chat", *options.split()])
    monkeypatch.setattr(websocket, "create_connection", lambda *_, **__: connection)
    monkeypatch.setattr("builtins.input", until_the_end)
    monkeypatch.setattr(_wsdump, "time", SimpleNamespace(time=lambda: 0.0, sleep=lambda _: None))
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    _wsdump.main()
    printed = "".join(capsys.readouterr()).replace("\x1b[E", "\n")
    assert makers(re.sub(r"\x1b\[\d*\w", "", printed).split("\n")) == found
