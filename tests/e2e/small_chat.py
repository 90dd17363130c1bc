"""A small chat for tests of the page: it misbehaves as they say, and needs no emulator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from chalice import Response

from chalicelib.aws import ENDPOINT_VARIABLE
from chalicelib.page import chat_page
from tests.web_sockets import WebSocket, web_socket_server

WELCOME = "Using nickname: {}\nType /help for list of commands."
TOO_FAST = "You are sending too fast. Wait a moment."
WENT_WRONG = "Something went wrong. Please try again."


class SmallChat:
    """One person, in front of the page. The test speaks for everybody else.

    The chat answers frames as the real one does, except for those in `instead`: each of these gets
    the next of its lists of answers, which may be empty. So a test drops, delays, reorders and
    repeats answers: what it drops, `sends` can send later.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.instead: dict[str, list[list[str]]] = {}
        self.members: list[str] = []  # besides the person
        self.rooms: list[str] = []
        self.is_up = True
        self.url = ""  # of the page
        self._sockets: list[WebSocket] = []
        self._lock = threading.Lock()

    def sends(self, *frames: str) -> None:
        with self._lock, suppress(OSError):  # the page has closed the connection
            for frame in frames:
                self._sockets[-1].send(frame)

    def drops(self) -> None:
        """Loses the connection."""
        self._sockets[-1].close()

    def serve(self, socket: WebSocket) -> None:
        if not self.is_up:
            return
        self._sockets.append(socket)
        person = Person()
        while (frame := socket.receive()) is not None:
            self.heard.append(frame)
            if self.instead.get(frame):
                answers = self.instead[frame].pop(0)
            else:
                answers = self._answers(person, frame)
            self.sends(*answers)

    def _answers(self, person: Person, frame: str) -> list[str]:
        word, _, rest = frame.partition(" ")
        if not person.name:
            person.name = frame
            return [WELCOME.format(frame)]
        if word == "/join":
            left = [f'Left chat room "{person.room}"'] if person.room else []
            person.room = rest.split()[0]
            return [*left, f'Joined chat room "{person.room}"']
        if word == "/nick":
            person.name = rest
            return [f"Nickname is: {rest}"]
        if word == "/quit":
            left, person.room = [f'Left chat room "{person.room}"'], ""
            return left
        if word == "/ls":
            names = [*self.members, person.name] if person.room else self.rooms
            return ["\n".join(names) or "No chat rooms open. Type /join {room_name} to open one."]
        if word == "/room":
            return [person.room or "Not currently in a room. Type /join {room_name} to do so."]
        if word.startswith("/"):
            return [f"Unknown command: {word[1:].lower()}"]
        lines = frame.split("\n")
        return ["\n".join(f"{person.name}: {line}" for line in lines)]


class Person:
    name = ""
    room = ""


@contextmanager
def small_chat() -> Iterator[SmallChat]:
    chat = SmallChat()
    with web_socket_server(chat.serve) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENDPOINT_VARIABLE, address.replace("ws:", "http:"))
        with web_server(chat_page()) as chat.url:
            yield chat


@contextmanager
def web_server(page: Response) -> Iterator[str]:
    """The address of a server with one page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = str(page.body).encode()
            self.send_response(200)
            for name, value in page.headers.items():
                self.send_header(name, str(value))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # the browser has gone
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
