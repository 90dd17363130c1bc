"""The chat as people see it: a test for each row of the protocol, and for their mistakes."""

import json
import random
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.invocation import invocation
from tests.conftest import Chat, Person

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


# Conflicts


def test_a_frame_in_endless_conflict_is_given_up_soon_and_without_an_error(
    john: Person,
    chat: Chat,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Other frames of the connection keep changing its row."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    client = chat.storage.table.meta.client
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


def test_a_frame_that_others_overtake_for_ever_ends_before_the_deadline(
    john: Person, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt meets conflicts, and then a connection that has changed."""
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    def longest(low: float, high: float) -> float:
        return high

    now = time.monotonic
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now() + slept)
    monkeypatch.setattr(random, "uniform", longest)
    client = chat.storage.table.meta.client
    codes = cycle([*["TransactionConflict"] * 7, "ConditionalCheckFailed"])

    def refuse(**request: Any) -> None:
        code = next(codes)
        reasons = [{"Code": code, "Item": {}} for _ in request["TransactItems"]]
        error = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
        raise client.exceptions.TransactionCanceledException(error, "TransactWriteItems")

    monkeypatch.setattr(client, "transact_write_items", refuse)
    with invocation(seconds=10):
        john.says("/quit")
    assert 3.2 < slept <= 9 + 1.6  # the last pause may begin just before the last second


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


def test_people_of_the_tutorials_chat_only_have_to_join_again(chat: Chat) -> None:
    """Its rows have no expiry, and its members no names; some vanished long ago."""
    for id, name in (("c1", "John"), ("c2", "Ghost")):
        chat.write([{"PK": id, "SK": f"username_{name}"}, {"PK": id, "SK": "room_tea"}])
    john, zoe = Person(chat, "c1"), chat.person("Zoe", "tea")
    zoe.says("/ls")
    zoe.hears("Zoe")
    john.says("/join tea")
    john.hears('Joined chat room "tea"')
    zoe.hears("John joined room.")
    john.says("Hi")
    for person in (john, zoe):
        person.hears("John: Hi")
