"""Departures and other announcements, and who hears them."""

from contextlib import suppress

import pytest

from tests.conftest import Chat, Crash, Person, at_request, crash, requests
from tests.invariants import problems

# Departures


def test_a_departure_is_announced(john: Person, jenny: Person) -> None:
    jenny.disconnects()
    john.hears("Jenny left room.")
    jenny.hears_nothing()
    john.says("/ls")
    john.hears("John")


def test_departures_without_a_name_or_a_room_are_not_announced(chat: Chat, john: Person) -> None:
    chat.somebody().disconnects()
    chat.person("Jack").disconnects()
    john.hears_nothing()


def test_the_next_text_finds_vanished_members(chat: Chat, john: Person, jenny: Person) -> None:
    others = [chat.person(name, "chalice") for name in ("Jack", "Jim", "Joe")]
    chat.connections.posts.clear()
    for person in others[:2]:
        person.vanishes()
    john.says("Hi")
    for person in (john, jenny, others[2]):
        first, departures = chat.connections.received(person.id)
        assert first == "John: Hi"
        assert sorted(departures.split("\n")) == ["Jack left room.", "Jim left room."]
    for person in others[:2]:
        person.disconnects()
    john.hears_nothing()


def test_members_found_gone_by_an_announcement_are_announced_too(
    chat: Chat, john: Person, jenny: Person
) -> None:
    """Announcing that Jack left finds Jim gone; announcing that Jim left finds Joe gone."""
    jack, jim, joe = (chat.person(name, "chalice") for name in ("Jack", "Jim", "Joe"))
    chat.connections.posts.clear()
    jim.vanishes()
    chat.connections.will_answer(joe.id, 200, 410)
    jack.disconnects()
    jenny.hears("Jack left room.", "Jim left room.", "Joe left room.")
    assert {member.nickname for member in chat.storage.iter_members("chalice")} == {"John", "Jenny"}


def test_departures_fill_several_messages_if_one_cannot_hold_them(
    chat: Chat, john: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.text.texts.MESSAGE_BYTES", 40)
    people = [chat.person(f"p{n}", "chalice") for n in range(5)]
    for person in people:
        person.vanishes()
    chat.connections.posts.clear()
    john.says("Hi")
    _, *departures = chat.connections.received(john.id)
    assert sorted("\n".join(departures).split("\n")) == [f"p{n} left room." for n in range(5)]
    assert [len(message) for message in departures] == [27, 27, 13]


@pytest.mark.parametrize(("gone", "present", "posts"), [(34, 1, 38), (34, 34, 105)])
def test_the_cost_of_many_gone_members(chat: Chat, gone: int, present: int, posts: int) -> None:
    chat.has_members("chalice", gone + present - 1)
    john = chat.person("John", "chalice")
    chat.connections.gone = {f"c{n}" for n in range(gone)}
    chat.connections.attempts.clear()
    with requests(chat.storage) as sent:
        john.says("Hi")
    text, *departures = chat.connections.received(john.id)
    assert text == "John: Hi"
    assert sorted("\n".join(departures).split("\n")) == sorted(
        f"p{n} left room." for n in range(gone)
    )
    assert sum(chat.connections.attempts.values()) <= posts
    assert sent.total() <= 10
    assert len(chat.storage.get_connection_ids_by_room("chalice")) == present
    assert problems(chat.rows(), chat.clock.now) == []


@pytest.mark.parametrize("number", range(3, 15, 2))
def test_a_crash_while_many_are_removed_loses_few_announcements(
    chat: Chat, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.storage.membership.DEPARTURES", 3)
    monkeypatch.setattr("chalicelib.storage.membership.REMOVED_AT_ONCE", 6)
    chat.has_members("chalice", 20)
    john = chat.person("John", "chalice")
    chat.connections.gone = {f"c{n}" for n in range(20)}
    with suppress(Crash), at_request(chat, number, "after-call", crash):
        john.says("Hi")
    _, *departures = chat.connections.received(john.id)
    announced = "\n".join(departures).count("left room.")
    removed = 20 - (len(chat.storage.get_connection_ids_by_room("chalice")) - 1)
    assert 0 < removed - announced <= 6
    assert problems(chat.rows(), chat.clock.now, high_counts=True) == []


# Announcements in a crowd


@pytest.fixture
def crowd(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> list[Person]:
    """Three people in a room, where announcements to more than two are not made."""
    monkeypatch.setattr("chalicelib.announcer.AUDIENCE", 2)
    people = [chat.person(name, "chalice") for name in ("John", "Jenny", "Zoe")]
    chat.connections.posts.clear()
    return people


def test_a_small_audience_hears_announcements(chat: Chat, crowd: list[Person]) -> None:
    john, jenny, zoe = crowd
    john.says("/nick Jack")
    john.says("/quit")
    zoe.disconnects()
    jenny.hears("John is now known as Jack.", "Jack left room.", "Zoe left room.")


def test_a_large_audience_hears_no_announcements(chat: Chat, crowd: list[Person]) -> None:
    adam = chat.person("Adam", "chalice")
    adam.says("/nick Bert")
    adam.hears("Nickname is: Bert")
    adam.says("/quit")
    adam.hears('Left chat room "chalice"')
    chat.person("Mia", "chalice").disconnects()
    for person in crowd:
        person.hears_nothing()


def test_a_text_reaches_all_of_a_crowd(chat: Chat, crowd: list[Person]) -> None:
    adam = chat.person("Adam", "chalice")
    adam.says("Hi")
    for person in [*crowd, adam]:
        person.hears("Adam: Hi")
