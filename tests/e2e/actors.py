"""People for the tests: one behind a WebSocket client, one at a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import websocket

PATIENCE = 20.0  # seconds to wait for an expected event; a function's first call takes one or two
SILENCE = 0.2  # seconds in which an unwanted event would have come


class Person:
    """Someone with a WebSocket client, who hears each frame once and in order.

    An unexpected frame fails the next `hears`, or the end of the `with`.
    """

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=PATIENCE)
        self._socket.settimeout(None)
        self._heard: queue.Queue[str | None] = queue.Queue()
        self._has_left = False
        threading.Thread(target=self._listen, daemon=True).start()

    def says(self, text: str) -> None:
        self._socket.send(text)

    def says_in_frames(self, *parts: str) -> None:
        """One message in several frames."""
        for n, part in enumerate(parts):
            opcode = websocket.ABNF.OPCODE_CONT if n else websocket.ABNF.OPCODE_TEXT
            is_last = int(n == len(parts) - 1)
            frame = websocket.ABNF.create_frame(part.encode(), opcode, is_last)
            self._socket.send_frame(frame)

    def hears(self, *texts: str) -> None:
        """These are the next frames; they have come, or come soon."""
        for text in texts:
            heard = self._next(PATIENCE)
            assert heard == text, f"heard {heard!r}, not {text!r}"

    def hears_a_line(self) -> str:
        """The next frame, whatever it is."""
        return self._next(PATIENCE) or ""

    def hears_of_a_failure(self) -> None:
        """The next frame is the one that API Gateway sends if a function fails."""
        frame = json.loads(self._next(PATIENCE) or "")
        assert frame.keys() == {"message", "connectionId", "requestId"}
        assert frame["message"] == "Internal server error"

    def hears_nothing(self) -> None:
        """No further frame has come, and none comes soon."""
        with contextlib.suppress(queue.Empty):
            raise AssertionError(f"heard {self._next(SILENCE)!r}")

    def is_disconnected(self) -> None:
        """The server has closed the connection, or closes it soon."""
        assert self._next(PATIENCE) is None

    def leaves(self) -> None:
        self._has_left = True
        self._socket.close()

    def __enter__(self) -> Person:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.hears_nothing()
        finally:
            self.leaves()

    def _next(self, seconds: float) -> str | None:
        return self._heard.get(timeout=seconds)

    def _listen(self) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while True:
                opcode, data = self._socket.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    break
                self._heard.put(data.decode() if isinstance(data, bytes) else data)
        if not self._has_left:
            self._heard.put(None)


@contextmanager
def company(url: str) -> Iterator[Callable[[], Person]]:
    """Connects people who leave together: none of them hears another leave."""
    people: list[Person] = []

    def connect() -> Person:
        people.append(Person(url))
        return people[-1]

    try:
        yield connect
        for person in people:
            person.hears_nothing()
    finally:
        for person in people:
            person.leaves()


def as_from_a_terminal() -> None:
    """Reset the signals that nohup or a shell's background job made this process ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """A program on a pseudo-terminal, and its screen.

    wsdump replaces its prompt by each frame that it receives; `screen` shows the result. If an
    answer comes before the prompt, wsdump prints two, which `screen` shows as one.
    """

    def __init__(self, *command: str | Path, cwd: Path | None = None) -> None:
        self._keyboard, terminal = pty.openpty()
        self._written = b""
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"TERM": "dumb"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=as_from_a_terminal,
        )
        os.close(terminal)
        threading.Thread(target=self._watch, daemon=True).start()

    def types(self, line: str) -> None:
        self.types_bytes(f"{line}\n".encode())

    def types_bytes(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def presses_control_d(self) -> None:
        os.write(self._keyboard, b"\x04")

    def sees(self, screen: str) -> None:
        """This, and nothing else, is on the screen soon."""
        deadline = time.monotonic() + PATIENCE
        while self.screen != screen and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.screen == screen

    @property
    def screen(self) -> str:
        text = self._written.decode(errors="replace").replace("\r\n", "\n")
        text = re.sub(r"(?m)^(> )+", "> ", text)
        text = re.sub(r"> \x1b\[2K\x1b\[E", "", text)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    def ends(self) -> int:
        """The exit status of the program, which ends soon."""
        return self._process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # raised on Linux when the terminal closes
            while data := os.read(self._keyboard, 4096):
                self._written += data
        os.close(self._keyboard)
