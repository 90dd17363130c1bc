"""Any text on any connection in any state gets an answer, and the connection keeps working."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Chat, Person

# Texts that tend to break chats: empty, huge, controls, other scripts, imitated answers.
NASTY = [
    "",
    " ",
    "\n",
    "\x00",
    "\x1b[2J",
    "\r\n.\r\n",
    "\u202egnp.exe",
    "\u200b",
    "\ufeff",
    "\ufffe",
    "\ud800",
    "Z\u0351\u034b\u0351a\u0315",
    "ﷺ" * 300,
    "𝕵𝖔𝖍𝖓",
    "👩‍👩‍👧‍👦",
    "None",
    "null",
    "{}",
    '{"action": "$disconnect"}',
    '{"action": "$connect"}',
    "%s%n{0}{name}",
    "../../etc/passwd",
    "'; DROP TABLE rooms; --",
    "${jndi:ldap://x}",
    "<script>alert(1)</script>",
    "John: Hi",
    "John left room.",
    "username_",
    "room_chalice",
    "rooms",
    "/",
    "//",
    "/ ",
    "/\x00",
    "/join",
    "/join ",
    "/join \u200b",
    "/join " + "x" * 1_000,
    "/join room_",
    "/nick " + "🙂" * 33,
    "/nick username_",
    "/nick rooms",
    "/nick /nick",
    "/İ",
    "/LS",
    "/quit /quit",
    "/help\t",
    "x" * 131_073,
    "/" + "x" * 131_073,
]

STATES = ["unnamed", "named", "in a room"]


def somebody(chat: Chat, state: str) -> Person:
    if state == "unnamed":
        return chat.somebody()
    return chat.person("Ann", "tea" if state == "in a room" else None)


def gets_an_answer(person: Person, frame: str) -> None:
    """The answer is not an excuse; only `/quit` outside of a room has none."""
    outside = "room" not in person.chat.storage.get_record_by_connection(person.id)
    person.says(frame)
    heard = person.chat.connections.received(person.id)
    assert heard or (frame.lower().startswith("/quit") and outside)
    assert "Something went wrong. Please try again." not in heard


def keeps_working(person: Person) -> None:
    person.says("Zed")
    person.says("/nick Zed")
    person.chat.connections.posts.clear()
    person.says("/join lounge")
    person.says("still here")
    heard = person.chat.connections.received(person.id)
    assert heard[-2:] == ['Joined chat room "lounge"', "Zed: still here"]
    person.disconnects()
    assert person.chat.rows() == []


@pytest.mark.parametrize("state", ["named", "in a room"])
def test_nasty_texts(chat: Chat, state: str) -> None:
    person = somebody(chat, state)
    for frame in NASTY:
        print(f"{frame[:40]!a}")  # shown if it fails
        gets_an_answer(person, frame)
    keeps_working(person)


@pytest.mark.parametrize("frame", NASTY, ids=lambda frame: f"{frame[:20]!a}")
def test_nasty_first_frames(chat: Chat, frame: str) -> None:
    person = chat.somebody()
    gets_an_answer(person, frame)
    keeps_working(person)


words = st.text(max_size=40) | st.text(string.ascii_letters + "/:_ \t", max_size=10)
commands = st.sampled_from(["/join ", "/nick ", "/ls", "/quit", "/room", "/help", "/", "/JOIN\t"])
frames = st.one_of(st.sampled_from(NASTY[:-2]), words, st.builds(str.__add__, commands, words))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(state=st.sampled_from(STATES), frames=st.lists(frames, min_size=1, max_size=5))
def test_any_texts(chat: Chat, state: str, frames: list[str]) -> None:
    person = somebody(chat, state)
    for frame in frames:
        gets_an_answer(person, frame)
    keeps_working(person)
