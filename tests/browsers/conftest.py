"""Somebody in front of the page, in each of the three engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import pytest

from chalicelib.aws import ENDPOINT_VARIABLE
from chalicelib.page import chat_page
from scripts.browser import OTHERS, other
from tests.browsers.engines import ENGINES, NewWindow, Window
from tests.conftest import Chat
from tests.connections import Connections
from tests.e2e.conftest import eventually
from tests.e2e.small_chat import SmallChat, small_chat, web_server
from tests.e2e.tabs import LINES
from tests.web_sockets import WebSocket, web_socket_server

# WebKit reports its own request for an icon. Problems are kept in the document, since each script
# of Firefox's driver has a global object of its own.
WATCH = """() => {
    const { dataset } = document.documentElement;
    dataset.problems = "";
    const add = (problem) => { dataset.problems += `${problem}\\n`; };
    addEventListener("error", ({ message }) => add(message));
    addEventListener("unhandledrejection", ({ reason }) => add(reason));
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
        if (!blockedURI.endsWith("/favicon.ico")) add(`${violatedDirective} ${blockedURI}`);
    });
}"""


class Visitor:
    """Somebody in front of a window with the page."""

    def __init__(self, window: Window, url: str) -> None:
        self.window = window
        self.url = url

    def opens(self) -> Visitor:
        """Opens the page, or loads it again."""
        self.window.goes_to("about:blank")
        self.window.goes_to(self.url)
        self.window.runs(WATCH)
        return self

    def asks_for(self, name: str, room: str = "") -> None:
        self.window.fills("#nickname", name)
        self.window.fills("#room", room)
        self.presses_button("Chat")

    def enters(self, name: str, room: str) -> Visitor:
        """Asks to enter, and is let in."""
        self.asks_for(name, room)
        self.shows("Also here: ", "Nobody else is here yet.")
        return self

    def presses_button(self, label: str) -> None:
        self.window.clicks(f'//button[normalize-space()="{label}"]')

    def says(self, *lines: str) -> None:
        """Types the lines, and sends them together."""
        for n, line in enumerate(lines):
            if n:
                self.window.presses("#text", "Shift+Enter")
            self.window.types("#text", line)
        self.window.presses("#text", "Enter")

    def sees(self, *lines: str) -> None:
        """Exactly these lines are on the page soon."""
        eventually(lambda: self.lines == list(lines))

    def reads(self, line: str) -> None:
        """It is the last line soon."""
        eventually(lambda: self.lines[-1:] == [line])

    def shows(self, *texts: str) -> None:
        """One of the texts is on the page soon."""
        eventually(lambda: any(text in self.text("body") for text in texts))

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.window.runs("(it) => document.querySelector(it).innerText", selector))

    def value(self, selector: str) -> str:
        """The content of an input."""
        return str(self.window.runs("(it) => document.querySelector(it).value", selector))

    @property
    def lines(self) -> list[str]:
        lines: list[str] = self.window.runs(LINES)
        return lines


OpenWindow = Callable[..., Visitor]

# `make browsers` installs the others, or says which are left out.
INSTALLED = [engine for engine in ENGINES if engine not in OTHERS or other(engine)]


@pytest.fixture(scope="session", params=INSTALLED)
def new_window(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewWindow]:
    with ENGINES[request.param](tmp_path_factory.mktemp("profile")) as new_window:
        yield new_window


@pytest.fixture
def chat() -> Iterator[SmallChat]:
    with small_chat() as chat:
        yield chat


@pytest.fixture
def open_window(new_window: NewWindow) -> Iterator[OpenWindow]:
    """Opens windows. An error in the page of one is a failure."""
    opened: list[Visitor] = []

    def open_window(url: str) -> Visitor:
        opened.append(Visitor(new_window(), url))
        return opened[-1].opens()

    try:
        yield open_window
        for visitor in opened:
            assert visitor.window.runs("() => document.documentElement.dataset.problems") == ""
    finally:
        for visitor in opened:
            visitor.window.closes()


@pytest.fixture
def real_chat(table: Any, connections: Connections) -> Iterator[str]:
    """The address of the page of a chat with the server's own parts, over moto's table."""
    chat = Chat(table, connections)
    sockets: dict[str, WebSocket] = {}
    lock = Lock()

    def deliver() -> None:
        for id, socket in sockets.items():
            for text in connections.received(id):
                socket.send(text)

    def serve(socket: WebSocket) -> None:
        with lock:
            person = chat.somebody()
            sockets[person.id] = socket
        while (frame := socket.receive()) is not None:
            with lock:
                person.says(frame)
                deliver()
        with lock:
            del sockets[person.id]
            person.disconnects()
            deliver()

    with web_socket_server(serve) as address:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(ENDPOINT_VARIABLE, address.replace("ws:", "http:"))
            page = chat_page()
        with web_server(page) as url:
            yield url


@pytest.fixture
def two_windows(real_chat: str, open_window: OpenWindow) -> list[Visitor]:
    return [open_window(real_chat), open_window(real_chat)]


@pytest.fixture
def john(open_window: OpenWindow, chat: SmallChat) -> Visitor:
    """In the room tea."""
    return open_window(chat.url).enters("John", "tea")
