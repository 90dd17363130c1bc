"""Chatting: the tutorial's session, departures, and odd frames."""

import json
import time
from collections.abc import Callable

from emulator.emulator import BIN, ROOT
from tests.e2e.actors import SILENCE, Person, Terminal

TRANSCRIPT = json.loads((ROOT / "scripts" / "transcript.json").read_text())
WSDUMP = BIN / "wsdump"
CLIENTS = ("client-1", "client-2")


def test_the_tutorials_transcript_over_sockets(connect: Callable[[], Person]) -> None:
    people = {client: connect() for client in CLIENTS}
    for step in TRANSCRIPT:
        people[step["client"]].says(step["sends"])
        for client, person in people.items():
            person.hears(*step["receives"].get(client, []))


def test_the_tutorials_transcript_in_wsdump(empty_chat: str) -> None:
    screens = dict.fromkeys(CLIENTS, "Press Ctrl+C to quit\n> ")
    with Terminal(WSDUMP, empty_chat) as first, Terminal(WSDUMP, empty_chat) as second:
        terminals = dict(zip(CLIENTS, (first, second), strict=True))
        for client in CLIENTS:
            terminals[client].sees(screens[client])
        for step in TRANSCRIPT:
            terminals[step["client"]].types(step["sends"])
            screens[step["client"]] += f"{step['sends']}\n"
            for client, frames in step["receives"].items():
                received = "".join(f"< {frame}\n" for frame in frames)
                screens[client] = screens[client].removesuffix("> ") + f"{received}> "
            for client in CLIENTS:
                terminals[client].sees(screens[client])
        time.sleep(SILENCE)
        for client in CLIENTS:
            terminals[client].sees(screens[client])
            terminals[client].presses_control_d()
            assert terminals[client].ends() == 0


def test_closing_a_connection_is_announced(arrive: Callable[..., Person]) -> None:
    john = arrive("John", "parting")
    jenny = arrive("Jenny", "parting")
    john.hears("Jenny joined room.")
    jenny.leaves()
    john.hears("Jenny left room.")
    john.says("/ls")
    john.hears("John")


ODD_TEXTS = [
    '{"action": "$disconnect"}',
    '{"action": "$connect"}',
    '{"action": "nothing"}',
    '{"action": {"a": [1, null]}}',
    "\u200bgnp.exe \u200f",
    "\U0001f469\u200d\U0001f680 \U0010ffff \ufeff",
    "\\ud800",
    " \t\u3000 ",
    "%s {0} ${TABLE} {chat_room_name}",
    "x" * 32_762,  # 32,768 bytes with the nickname
    "",
]


def test_a_text_without_controls_reaches_the_room_as_it_is(arrive: Callable[..., Person]) -> None:
    john = arrive("John", "odd")
    jenny = arrive("Jenny", "odd")
    john.hears("Jenny joined room.")
    for text in ODD_TEXTS:
        john.says(text)
        for person in (john, jenny):
            person.hears(f"John: {text}")
    john.says("/room")
    john.hears("odd")


def test_a_text_that_comes_in_several_frames(arrive: Callable[..., Person]) -> None:
    john = arrive("John", "odd")
    john.says_in_frames("Good ", "morn", "ing")
    john.hears("John: Good morning")
    john.says_in_frames(*["x" * 32_768] * 4)
    john.hears("Message too long: 131078 bytes, the limit is 32768.")


INVALID_NICKNAMES = [
    '{"action": "$disconnect"}',
    "",
    " ",
    "a b",
    "a:b",
    "/nick",
    "\u202eJohn",
    "J\x00hn",
    "x" * 32_768,
]


def test_an_invalid_nickname_is_refused_and_may_be_replaced(
    connect: Callable[[], Person],
) -> None:
    john = connect()
    for name in INVALID_NICKNAMES:
        john.says(name)
        john.hears(
            'Nicknames are 1 to 32 printable characters, without spaces or ":", '
            'and do not start with "/".'
        )
    john.says("John")
    john.hears("Using nickname: John\nType /help for list of commands.")


INVALID_ROOM = "Room names are 1 to 64 printable characters, without spaces."
ODD_COMMANDS = {
    "/": "Unknown command: ",
    "/NoSuch thing": "Unknown command: nosuch",
    "/\x00": "Unknown command: \ufffd",
    "/join": "Usage: /join {chat_room_name}",
    "/join \u202eroom": INVALID_ROOM,
    "/join " + "x" * 32_000: INVALID_ROOM,
}


def test_an_invalid_command_is_answered(arrive: Callable[..., Person]) -> None:
    john = arrive("John")
    for command, answer in ODD_COMMANDS.items():
        john.says(command)
        john.hears(answer)
    john.says("/nick")
    john.hears("Current nickname: John")
