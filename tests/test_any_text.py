"""Any text on any connection in any state gets an answer, and the connection keeps working."""

import re
import string
import time
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalicelib.text import names, texts
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

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

STATES = ["unnamed", "named", "in a room"]


def somebody(chat: Chat, state: str) -> Person:
    name = "" if state == "unnamed" else "Ann"
    return chat.existing(name, "tea" if state == "in a room" else None)


def gets_an_answer(person: Person, frame: str) -> None:
    """The answer is no excuse, and drives no terminal; only `/quit` outside of a room has none."""
    quits = frame.lower().startswith("/quit")
    outside = quits and "room" not in person.chat.storage.get_record_by_connection(person.id)
    person.says(frame)
    heard = person.chat.connections.received(person.id)
    assert heard or outside
    assert "Something went wrong. Please try again." not in heard
    assert not any(map(CONTROLS.search, heard))


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


@given(text=st.text(), prefix=st.text("Jo: ", max_size=4))
def test_every_line_begins_with_the_prefix(text: str, prefix: str) -> None:
    lines = texts.repeated(text, prefix).split("\n")
    assert all(line.startswith(prefix) and len(line.splitlines()) < 2 for line in lines)
    assert not any(map(CONTROLS.search, lines))


@given(name=st.text(max_size=names.NICKNAME_LENGTH))
def test_a_nickname_stays_the_same_however_often_it_is_compared(name: str) -> None:
    claim = names.claim(name)
    assert names.claim(claim) == claim
    assert names.claim(unicodedata.normalize("NFKC", name)) == claim


# Characters that take part in a rule for names.
CRITICAL = (
    "\u200c\u200d\ufe0e\ufe0f\u0301\u0323\u0345\u20dd"
    " \n\u3000:/：／℀{\"'｛＂“Aa\u2126🙂\u200b\u2800"
)


@given(text=st.text(CRITICAL, max_size=12) | st.text())
@example(text="\u200d /x")
@example(text="\u200d \u0301x")
def test_a_name_keeps_every_rule(text: str) -> None:
    """Whatever it was made of: no step of the check undoes another."""
    for check, length in ((names.nickname, 32), (names.room, 64)):
        with suppress(names.InvalidName):
            name = check(text)
            assert check(name) == name == unicodedata.normalize("NFC", name)
            assert 0 < len(name) <= length
            assert name.isprintable()
            assert not set(name) & set(" \u2800\u200c\u200d\ufe0e\ufe0f")
            assert not unicodedata.category(name[0]).startswith("M")
            assert not re.search(r"[\u0301\u0323\u0345\u20dd]{3}", name)
            assert not unicodedata.normalize("NFKC", name).startswith('{"')
            assert check is names.room or not re.search("[:/\\s]", without_slashes(name))


def without_slashes(name: str) -> str:
    """In NFKC, and without the slashes that a nickname may have."""
    return unicodedata.normalize("NFKC", name[0] + name[1:].replace("/", ""))


FRAME = 131_072  # bytes: API Gateway quotas, "WebSocket message payload size"
CPU_SECONDS = 0.5  # for any frame, where 0.05 is usual; NFC of 128 KB of marks takes 7

# Runs of these have cost more than their share somewhere: NFC, NFKC, `lower`, white space.
COSTLY = [
    *("\u0301", "\u0301\u0323", "\u0f71\u0f72", "\u3099", "a\u0345\u0301"),
    *("\u1100", "\u1161", "\u11a8", "\u1100\u1161\u11a8", "가\u11a8"),
    *("\ufdfa", "\u1f82", "\u0958", "İ", "Σ", "Σ\u0301", "ß", "🙂"),
    *("\u200d", "\ufe0f", " \u200d", "\u0301\u200d", "a\u200d"),
    *(" ", "\u3000", " a", "\n", "\r\n", "\u2028", "\x85", "\n\r"),
    *("\0", "\x1b", "\u202e", "\ud800", "/", "/ ", ":", "a"),
]
runs = st.sampled_from(COSTLY) | st.text(min_size=1, max_size=4)
starts = st.sampled_from(
    ["", " ", "a", "/", "/nick ", "/NICK\t", "/join ", "/join a", "/ls ", "\n/"]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(state="unnamed", start="", runs=["\u0301", "\u0323"])  # NFC moves each past 32,000
@example(state="named", start="/nick ", runs=["\u0301", "\u0323"])
@example(state="named", start="/join ", runs=["\u0301", "\u0323"])
@given(state=st.sampled_from(STATES), start=starts, runs=st.lists(runs, min_size=1, max_size=3))
def test_no_frame_costs_much(chat: Chat, state: str, start: str, runs: list[str]) -> None:
    share = FRAME // len(runs)
    person = somebody(chat, state)
    costs_little(person, start + "".join(as_long_as(share, run) for run in runs))
    person.disconnects()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("run", COSTLY, ids=ascii)
def test_no_frame_of_one_costly_run_costs_much(chat: Chat, state: str, run: str) -> None:
    costs_little(somebody(chat, state), as_long_as(FRAME, run))


def as_long_as(size: int, run: str) -> str:
    return run * (size // len(run.encode(errors="surrogatepass")))


def costs_little(person: Person, frame: str) -> None:
    started = time.thread_time()
    gets_an_answer(person, frame)
    assert time.thread_time() - started < CPU_SECONDS
