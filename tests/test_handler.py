"""The chat as people see it: a test for each row of the protocol, and for their mistakes."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Chat, Crash, Person, at_request, crash, requests
from tests.tables import problems

TRANSCRIPT_FILE = Path(__file__).parent.parent / "scripts" / "transcript.json"
TRANSCRIPT = json.loads(TRANSCRIPT_FILE.read_text())
INVALID_NICKNAME = (
    'Nicknames are 1 to 32 printable characters, without spaces or ":", and do not start with "/".'
)


def test_the_transcript_of_the_tutorial(chat: Chat) -> None:
    people = {"client-1": chat.somebody(), "client-2": chat.somebody()}
    for step in TRANSCRIPT:
        people[step["client"]].says(step["sends"])
        for name, person in people.items():
            person.hears(*step["receives"].get(name, []))


# Logging in


def test_the_first_frame_is_the_nickname(chat: Chat) -> None:
    somebody = chat.somebody()
    somebody.says("John")
    somebody.hears("Using nickname: John\nType /help for list of commands.")
    somebody.says("/nick")
    somebody.hears("Current nickname: John")


@pytest.mark.parametrize(
    "frame", ["", "/help", "John Smith", "a:", "x" * 33, "\x00", "\u202e", "x" * 5000]
)
def test_a_bad_nickname_can_be_followed_by_a_good_one(chat: Chat, frame: str) -> None:
    somebody = chat.somebody()
    somebody.says(frame)
    somebody.hears(INVALID_NICKNAME)
    somebody.says(" John ")
    somebody.hears("Using nickname: John\nType /help for list of commands.")


def test_a_nickname_is_taken_whatever_its_case(chat: Chat, john: Person) -> None:
    somebody = chat.somebody()
    somebody.says("JOHN")
    somebody.hears("Nickname JOHN is already in use.")
    somebody.says("Jack")
    somebody.hears("Using nickname: Jack\nType /help for list of commands.")


def test_an_unknown_connection_is_told_and_closed(chat: Chat) -> None:
    stranger = Person(chat, "stranger")
    stranger.says("Hello?")
    stranger.hears("Your session has expired. Please reconnect.")
    assert chat.connections.closed == {"stranger"}


# Nicknames


def test_a_new_nickname_is_announced(john: Person, jenny: Person) -> None:
    jenny.says("/nick JennyJones")
    jenny.hears("Nickname is: JennyJones")
    john.hears("Jenny is now known as JennyJones.")


def test_a_new_nickname_outside_of_a_room_is_not_announced(chat: Chat, john: Person) -> None:
    jack = chat.person("Jack")
    jack.says("/nick Jim")
    jack.hears("Nickname is: Jim")
    john.hears_nothing()


def test_a_nickname_is_free_after_a_rename(john: Person, jenny: Person) -> None:
    john.says("/nick Jack")
    john.hears("Nickname is: Jack")
    jenny.hears("John is now known as Jack.")
    jenny.says("/nick john")
    jenny.hears("Nickname is: john")


def test_the_old_nickname_stays_if_the_new_one_is_taken(john: Person, jenny: Person) -> None:
    jenny.says("/nick john")
    jenny.hears("Nickname john is already in use.")
    john.hears_nothing()
    jenny.says("/nick")
    jenny.hears("Current nickname: Jenny")


def test_the_holder_may_change_the_case(john: Person, jenny: Person) -> None:
    john.says("/nick JOHN")
    john.hears("Nickname is: JOHN")
    jenny.hears("John is now known as JOHN.")
    jenny.says("/nick John")
    jenny.hears("Nickname John is already in use.")


def test_the_same_nickname_again(john: Person, jenny: Person) -> None:
    john.says("/nick John")
    john.hears("Nickname is: John")
    jenny.hears("John is now known as John.")


@pytest.mark.parametrize("name", ["a:b", "/x", "x" * 33, "\u202ex"])
def test_a_bad_nickname_changes_nothing(john: Person, jenny: Person, name: str) -> None:
    john.says(f"/nick {name}")
    john.hears(INVALID_NICKNAME)
    jenny.hears_nothing()
    john.says("/nick")
    john.hears("Current nickname: John")


def test_the_nickname_of_a_vanished_person_is_free(chat: Chat, john: Person, jenny: Person) -> None:
    john.vanishes()
    jack = chat.person("Jack")
    jack.says("/nick John")
    jack.hears("Nickname is: John")
    jenny.hears("John left room.")


# Rooms


def test_join_without_a_name(john: Person) -> None:
    john.says("/join")
    john.hears("Usage: /join {chat_room_name}")


def test_moving_to_another_room(chat: Chat, john: Person, jenny: Person) -> None:
    jack = chat.person("Jack", "tea")
    john.says("/join tea")
    john.hears('Left chat room "chalice"', 'Joined chat room "tea"')
    jenny.hears("John left room.")
    jack.hears("John joined room.")


def test_joining_the_same_room_again_moves_to_the_end_of_its_list(
    john: Person, jenny: Person
) -> None:
    john.says("/join chalice")
    john.hears('Left chat room "chalice"', 'Joined chat room "chalice"')
    jenny.hears("John left room.", "John joined room.")
    john.says("/ls")
    john.hears("Jenny\nJohn")


@pytest.mark.parametrize("room", ["x" * 65, "a\u200bb", "\x07"])
def test_a_bad_room_changes_nothing(john: Person, jenny: Person, room: str) -> None:
    john.says(f"/join {room}")
    john.hears("Room names are 1 to 64 printable characters, without spaces.")
    jenny.hears_nothing()
    john.says("/room")
    john.hears("chalice")


def test_room_outside_of_one(chat: Chat) -> None:
    john = chat.person("John")
    john.says("/room")
    john.hears("Not currently in a room. Type /join {room_name} to do so.")


def test_quit_outside_of_a_room_says_nothing(chat: Chat) -> None:
    john = chat.person("John")
    john.says("/quit")
    john.hears_nothing()


def test_members_are_listed_in_the_order_in_which_they_joined(chat: Chat) -> None:
    names = ["Zoe", "Adam", "Mia", "Bert"]
    people = [chat.person(name, "chalice") for name in names]
    people[1].says("/ls")
    people[1].hears("Zoe\nAdam\nMia\nBert")
    people[0].says("/nick Aaron")
    people[1].hears("Zoe is now known as Aaron.")
    people[1].says("/ls")
    people[1].hears("Aaron\nAdam\nMia\nBert")


def test_rooms_are_listed_sorted(chat: Chat) -> None:
    for name, room in [("Zoe", "tea"), ("Adam", "chalice"), ("Mia", "Tea"), ("Bert", "tea")]:
        chat.person(name, room)
    john = chat.person("John")
    john.says("/ls")
    john.hears("Tea\nchalice\ntea")


def test_a_room_is_not_listed_after_its_last_member_left(
    chat: Chat, john: Person, jenny: Person
) -> None:
    for person in (john, jenny):
        person.says("/quit")
    chat.connections.posts.clear()
    john.says("/ls")
    john.hears("No chat rooms open. Type /join {room_name} to open one.")


@pytest.mark.parametrize("rooms", [10, 11, 30])
def test_ls_outside_lists_only_so_many_rooms(
    chat: Chat, rooms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.handler.MOST_ROOMS", 10)
    john = chat.person("John")
    expires_at = int(chat.clock()) + 100
    names = [f"room{n:04}" for n in range(rooms)]
    chat.write(
        {"PK": "rooms", "SK": f"open_{name}", "members": 1, "expires_at": expires_at}
        for name in names
    )
    with requests(chat.storage) as sent:
        john.says("/ls")
    more = ["... and more rooms."] if rooms > 10 else []
    john.hears("\n".join(names[:10] + more))
    assert sent.total() <= 2


def test_a_list_that_is_too_long_for_one_message_comes_in_several(chat: Chat) -> None:
    john = chat.person("John", "chalice")
    chat.write(
        {
            "PK": f"c{n}",
            "SK": "room_chalice",
            "username": f"{n:04}" + "𝄞" * 28,
            "joined_at": n,
            "expires_at": int(chat.clock()) + 100,
        }
        for n in range(2_000)
    )
    john.says("/ls")
    messages = chat.connections.received(john.id)
    assert len(messages) == 8
    assert all(len(message.encode()) <= 32_768 for message in messages)
    lines = "\n".join(messages).split("\n")
    assert [line[:4] for line in lines] == [f"{n:04}" for n in range(2_000)] + ["John"]


# Conflicts


def test_a_frame_in_endless_conflict_is_given_up_soon_and_without_an_error(
    john: Person,
    chat: Chat,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Other frames of the connection keep changing its row."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    client = chat.storage._client
    attempts = 0

    def conflict(**request: Any) -> None:
        nonlocal attempts
        attempts += 1
        reasons = [{"Code": "TransactionConflict"} for _ in request["TransactItems"]]
        error = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
        raise client.exceptions.TransactionCanceledException(error, "TransactWriteItems")

    monkeypatch.setattr(client, "transact_write_items", conflict)
    john.says("/join tea")
    john.hears("You are sending too fast. Wait a moment.")
    assert attempts == 8
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# Texts


def test_a_text_goes_to_everybody_in_the_room_once(chat: Chat, john: Person, jenny: Person) -> None:
    jack = chat.person("Jack", "tea")
    john.says("Hi\n there ")
    for person in (john, jenny):
        person.hears("John: Hi\nJohn:  there ")
    jack.hears_nothing()


def test_a_text_outside_of_a_room(chat: Chat) -> None:
    john = chat.person("John")
    john.says("Hi")
    john.hears("Cannot send message if not in chatroom.")


def test_a_text_that_just_fits_and_one_that_does_not(john: Person, jenny: Person) -> None:
    longest = "x" * (32_768 - len("John: "))
    john.says(longest)
    jenny.hears(f"John: {longest}")
    john.hears(f"John: {longest}")
    john.says("ü" + longest)
    john.hears("Message too long: 32770 bytes, the limit is 32768.")
    jenny.hears_nothing()


def test_the_sender_hears_its_own_line_though_the_index_lags(
    chat: Chat, john: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat.storage, "iter_members", lambda room, **_: iter(()))
    john.says("Hi")
    john.hears("John: Hi")
    john.says("/ls")
    john.hears("John")


# Commands


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        ("/foo", "Unknown command: foo"),
        ("/FOO bar", "Unknown command: foo"),
        ("/", "Unknown command: "),
        ("/ help", "Unknown command: "),
        ("//", "Unknown command: /"),
        ("/help\u0000", "Unknown command: help\ufffd"),
        ("/" + "x" * 32_768, "Message too long: 32785 bytes, the limit is 32768."),
        ("/" + "x" * 131_071, "Message too long: 131088 bytes, the limit is 32768."),
    ],
)
def test_unknown_commands(john: Person, jenny: Person, frame: str, reply: str) -> None:
    john.says(frame)
    john.hears(reply)
    jenny.hears_nothing()


@pytest.mark.parametrize(
    "frame", ["/JOIN tea", "/join  tea", "/join\ttea ", "/Join\u3000tea cups", "/join\n tea"]
)
def test_case_and_white_space_do_not_matter(chat: Chat, frame: str) -> None:
    john = chat.person("John")
    john.says(frame)
    john.hears('Joined chat room "tea"')


@pytest.mark.parametrize("command", ["/help me", "/room 7", "/ls -la", "/quit now"])
def test_superfluous_arguments_are_ignored(john: Person, command: str) -> None:
    john.says(command)
    with_arguments = john.chat.connections.received(john.id)
    john.says("/join chalice")
    john.chat.connections.posts.clear()
    john.says(command.split()[0])
    john.hears(*with_arguments)


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
    assert {member.username for member in chat.storage.iter_members("chalice")} == {"John", "Jenny"}


def test_departures_fill_several_messages_if_one_cannot_hold_them(
    chat: Chat, john: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.texts.MESSAGE_BYTES", 40)
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
    monkeypatch.setattr("chalicelib.departures.DEPARTURES", 3)
    monkeypatch.setattr("chalicelib.handler.REMOVED_AT_ONCE", 6)
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
    monkeypatch.setattr("chalicelib.handler.AUDIENCE", 2)
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


# Server failures


def test_only_the_sender_hears_of_a_server_failure(
    chat: Chat, john: Person, jenny: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "Query")

    with monkeypatch.context() as patch:
        patch.setattr(chat.storage, "iter_members", fail)
        john.says("Hi")
    john.hears("Something went wrong. Please try again.")
    jenny.hears_nothing()
    john.says("Hi")
    jenny.hears("John: Hi")


def test_a_lone_surrogate_is_replaced(john: Person, jenny: Person) -> None:
    john.says("a\ud83db \ud83d\ude00")
    jenny.hears("John: a\ufffdb 😀")
