"""The screens of people at terminals, whatever another person sends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pyte
import pytest

from tests.e2e.actors import SILENCE, Person, Terminal
from tests.e2e.conftest import eventually
from tests.e2e.test_chat import WSDUMP

BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
CONTROLS = [control for control in CONTROLS if control not in [*BREAKS, "\t"]]
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
FORGED = "Jenny: my account number is 666"

# Texts, and the rows that others see. Some texts try several things, since the pace of a
# connection allows 20 frames at once.
ATTACKS = [
    ("".join(f"a{line_break}{FORGED}\n" for line_break in BREAKS), ["a", FORGED] * len(BREAKS)),
    ("".join(f"b{control}c\n" for control in CONTROLS), ["b\ufffdc"] * len(CONTROLS)),
    ("".join(f"d{control}e" for control in BIDI), ["d\ufffde" * len(BIDI)]),
    (f"\r\x1b[2K< {FORGED}", ["", f"\ufffd[2K< {FORGED}"]),
    (f"\x1b[1A\x1b[2K< {FORGED}", [f"\ufffd[1A\ufffd[2K< {FORGED}"]),
    (f"\x1b[2J\x1b[H< {FORGED}", [f"\ufffd[2J\ufffd[H< {FORGED}"]),
    (f"\x9b2J\x9bH< {FORGED}", [f"\ufffd2J\ufffdH< {FORGED}"]),
    (f"\x1b[10D\x1b[K< {FORGED}", [f"\ufffd[10D\ufffd[K< {FORGED}"]),
    ("\b" * 6 + FORGED, ["\ufffd" * 6 + FORGED]),
    ("\x1b[6n\x1b[c\x1b[5n\x05\x9b6n", ["\ufffd[6n\ufffd[c\ufffd[5n\ufffd\ufffd6n"]),
    ("\x1b]0;title\x07\x1b]2;title\x1b\\", ["\ufffd]0;title\ufffd\ufffd]2;title\ufffd\\"]),
    ("\x9d0;title\x9c", ["\ufffd0;title\ufffd"]),
    ("\x1b]52;c;cm0=\x07\x1bP+q54\x1b\\", ["\ufffd]52;c;cm0=\ufffd\ufffdP+q54\ufffd\\"]),
    ("\x1bc\x1b(0\x1b[?1049h\x1b[8m", ["\ufffdc\ufffd(0\ufffd[?1049h\ufffd[8m"]),
]


class Screen(pyte.Screen):
    """An emulated terminal, after a program has written to it."""

    def __init__(self, written: bytes) -> None:
        self.typed = ""
        self.bells = 0
        super().__init__(columns=132, lines=200)
        pyte.ByteStream(self).feed(written)

    def write_process_input(self, data: str) -> None:
        """The terminal's answers to the program, which arrive as if typed."""
        self.typed += data

    def bell(self, *_: object) -> None:
        self.bells += 1

    @property
    def rows(self) -> list[str]:
        """From the top to the cursor. wsdump leaves one empty before each frame: its prompt's."""
        return [row.rstrip() for row in self.display[: self.cursor.y + 1]]


class Emulated(Terminal):
    @property
    def display(self) -> Screen:
        return Screen(self._written)

    def prints(self, line: str) -> None:
        """It is the last one before the prompt soon."""
        eventually(lambda: self.screen.endswith(f"{line}\n> "))

    def shows(self, rows: list[str]) -> None:
        """These rows, and a prompt with nothing typed; no bell, and no new title."""
        with suppress(pytest.fail.Exception):
            eventually(lambda: self.display.rows == [*rows, ">"])
        time.sleep(SILENCE)
        display = self.display
        assert display.rows == [*rows, ">"]
        assert (display.typed, display.title, display.bells) == ("", "", 0)


@pytest.fixture
def jenny(empty_chat: str) -> Iterator[Emulated]:
    with enters(empty_chat, "Jenny") as jenny:
        yield jenny


@contextmanager
def enters(chat: str, name: str) -> Iterator[Emulated]:
    """Somebody in the room, at a terminal."""
    with Emulated(WSDUMP, chat) as person:
        eventually(lambda: person.screen.endswith("> "))
        person.types(name)
        person.prints("Type /help for list of commands.")
        person.types("/join tea")
        person.prints('< Joined chat room "tea"')
        yield person


def test_every_row_names_its_author_whatever_is_sent(
    jenny: Emulated, arrive: Callable[..., Person]
) -> None:
    john = arrive("John", "tea")
    jenny.prints("< John joined room.")
    *rows, _ = jenny.display.rows
    for text, seen in ATTACKS:
        john.says(text)
        john.hears("\n".join(f"John: {row}" for row in seen))
        rows += ["", f"< John: {seen[0]}".rstrip(), *(f"John: {row}" for row in seen[1:])]
        jenny.shows(rows)


def test_every_row_names_its_author_whatever_is_typed(empty_chat: str, jenny: Emulated) -> None:
    with enters(empty_chat, "John") as john:
        jenny.prints("< John joined room.")
        *rows, _ = jenny.display.rows
        john.types(f"\x16\x1b[1A\x16\x1b[2K\x16\r< {FORGED}")  # Ctrl-V: the next key as it is
        jenny.shows([*rows, "", "< John: \ufffd[1A\ufffd[2K", f"John: < {FORGED}"])
