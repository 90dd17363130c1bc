"""How fast a person may send, and what happens to the frames above that."""

from collections import Counter

import pytest

from chalicelib import Handler
from chalicelib.pace import REMEMBERED, Pace, Verdict
from tests.conftest import Chat, Clock, Person, requests

WARNING = "You are sending too fast. Wait a moment."
GOODBYE = "You have been disconnected for sending too fast."


@pytest.fixture
def clock(chat: Chat) -> Clock:
    """The clock by which the pace is kept."""
    clock = Clock()
    chat.handler = Handler(chat.storage, chat.sender, Pace(clock))
    return clock


@pytest.fixture
def john(clock: Clock, chat: Chat) -> Person:
    john = chat.person("John", "chalice")
    clock.advance(60)
    return john


def repeats(times: int, person: Person, frame: str) -> None:
    for _ in range(times):
        person.says(frame)


def lines(person: Person) -> Counter[str]:
    return Counter(person.chat.connections.received(person.id))


def test_twenty_frames_may_come_at_once(john: Person) -> None:
    repeats(22, john, "Hi")
    assert lines(john) == {"John: Hi": 20, WARNING: 1}


def test_five_a_second_may_come_in_the_long_run() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(1_000):
        assert pace.judge("c1", 1) == Verdict.ANSWER
        clock.advance(0.2)


def test_after_a_pause_it_goes_on(john: Person, clock: Clock) -> None:
    repeats(25, john, "Hi")
    clock.advance(2)
    lines(john)
    repeats(12, john, "Hi again")
    assert lines(john) == {"John: Hi again": 10, WARNING: 1}


def test_the_warning_comes_once_a_second(john: Person, clock: Clock) -> None:
    repeats(30, john, "/room")
    assert lines(john)[WARNING] == 1
    for _ in range(50):
        clock.advance(0.05)
        john.says("/room")
    assert lines(john)[WARNING] == 2


@pytest.mark.parametrize(
    "frame", ["/join tea", "/JOIN\ttea", "/quit", "/nick Jack", "/nick  Jack x"]
)
def test_what_a_room_hears_of_counts_as_three_frames(john: Person, frame: str) -> None:
    john.says(frame)
    repeats(17, john, "/room")
    assert lines(john)[WARNING] == 0
    john.says("/room")
    assert lines(john) == {WARNING: 1}


@pytest.mark.parametrize("frame", ["/nick", "/nick ", "/room", "/ls", "/help", "/joins", " /quit"])
def test_everything_else_counts_as_one(john: Person, frame: str) -> None:
    repeats(20, john, frame)
    assert lines(john)[WARNING] == 0


def test_after_200_dropped_frames_the_connection_is_closed(
    john: Person, jenny: Person, chat: Chat
) -> None:
    repeats(20 + 199, john, "/room")
    assert lines(john) == {"chalice": 20, WARNING: 1}
    assert john.id not in chat.connections.closed
    john.says("/room")
    assert lines(john) == {GOODBYE: 1}
    assert john.id in chat.connections.closed
    john.says("/room")
    assert lines(john) == {}
    john.disconnects()
    jenny.hears("John left room.")


def test_nobody_pays_for_somebody_elses_pace(john: Person, jenny: Person) -> None:
    repeats(100, john, "/room")
    jenny.says("Hi")
    jenny.hears("Jenny: Hi")


def test_a_dropped_frame_costs_no_request_to_the_table(john: Person, chat: Chat) -> None:
    repeats(20, john, "/room")
    with requests(chat.storage) as sent:
        for _ in range(100):
            john.says("/ls")
    assert not sent


def test_a_flooder_who_is_gone_is_removed(john: Person, jenny: Person) -> None:
    repeats(20, john, "/room")
    john.vanishes()
    john.says("/room")
    jenny.hears("John left room.")


def test_a_clock_that_is_set_back_costs_nothing(john: Person, clock: Clock) -> None:
    repeats(10, john, "/room")
    clock.advance(-3_600)
    repeats(10, john, "/room")
    assert lines(john) == {"chalice": 20}


def test_memory_is_bounded() -> None:
    pace = Pace()
    for n in range(REMEMBERED + 10):
        pace.judge(f"c{n}", 1)
    assert len(pace._senders) == REMEMBERED
