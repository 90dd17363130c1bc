"""Any text, on any connection, in any state: an answer, and the connection goes on working."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Chat, Person

# What tends to break chats: empty, huge, controls, other scripts, what looks like an answer.
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


def answers_and_goes_on(chat: Chat, state: str, frames: list[str]) -> None:
    """Every frame is answered, by something other than an excuse, and the chat goes on."""
    person = somebody(chat, state)
    for frame in frames:
        person.says(frame)
        answers = chat.connections.received(person.id)
        outside = chat.storage.get_record_by_connection(person.id).get("room") is None
        assert answers or (frame.lower().startswith("/quit") and outside)
        assert "Something went wrong. Please try again." not in answers
    person.says("Zed")
    person.says("/nick Zed")
    chat.connections.posts.clear()
    person.says("/join lounge")
    person.says("still here")
    assert chat.connections.received(person.id)[-2:] == [
        'Joined chat room "lounge"',
        "Zed: still here",
    ]
    person.disconnects()
    assert chat.rows() == []


@pytest.mark.parametrize("state", STATES)
def test_nasty_texts(chat: Chat, state: str) -> None:
    for frame in NASTY:
        print(f"{frame[:40]!a}")  # shown if it fails
        answers_and_goes_on(chat, state, [frame])


words = st.text(max_size=40) | st.text(string.ascii_letters + "/:_ \t", max_size=10)
commands = st.sampled_from(["/join ", "/nick ", "/ls", "/quit", "/room", "/help", "/", "/JOIN\t"])
frames = st.one_of(st.sampled_from(NASTY[:-2]), words, st.builds(str.__add__, commands, words))


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(state=st.sampled_from(STATES), frames=st.lists(frames, min_size=1, max_size=5))
def test_any_texts(chat: Chat, state: str, frames: list[str]) -> None:
    answers_and_goes_on(chat, state, frames)
