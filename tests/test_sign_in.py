"""Connections of people who have signed in: a nickname from the start, and one at a time."""

import logging
from collections import Counter

import pytest
from botocore.exceptions import ClientError

from chalicelib.storage.membership import HANDSHAKE_SECONDS
from chalicelib.storage.rows import LIFETIME_SECONDS, Account
from tests.conftest import Chat, Person, requests
from tests.tables import problems


def test_the_first_frame_is_a_command_or_a_text(chat: Chat) -> None:
    john = chat.signs_in("a", "John")
    john.hears_nothing()
    john.says("Jenny")
    john.hears("Cannot send message if not in chatroom.")
    john.says("/join tea")
    john.hears('Joined chat room "tea"')
    john.says("Hi")
    john.hears("John: Hi")


@pytest.mark.parametrize("frame", ["/nick Jack", "/nick John", "/NICK a:b", "/nick Jack Jones"])
def test_a_nickname_comes_from_the_account(chat: Chat, jenny: Person, frame: str) -> None:
    john = chat.signs_in("a", "Jack", "chalice")
    john.says(frame)
    john.hears("Your nickname comes from your account.")
    jenny.hears_nothing()
    john.says("/nick")
    john.hears("Current nickname: Jack")


def test_the_account_stays_with_the_connection(chat: Chat) -> None:
    john = chat.signs_in("a", "John", "tea")
    for command in ("/join chalice", "/quit"):
        john.says(command)
        chat.connections.posts.clear()
        john.says("/nick Jack")
        john.hears("Your nickname comes from your account.")


@pytest.mark.parametrize("nickname", ["Johnny", "JOHNNY", "Jack"])
def test_the_same_person_takes_over(chat: Chat, jenny: Person, nickname: str) -> None:
    """Whatever the account's nickname is by now."""
    older = chat.signs_in("a", "Johnny", "chalice")
    newer = chat.signs_in("a", nickname)
    older.hears("You have connected from elsewhere.")
    jenny.hears("Johnny left room.")
    newer.hears_nothing()
    assert chat.connections.closed == {older.id}
    newer.says("/nick")
    newer.hears(f"Current nickname: {nickname}")
    assert problems(chat.rows(), chat.clock.now) == []
    older.disconnects()
    jenny.hears_nothing()


def test_a_vanished_connection_is_taken_over_silently(chat: Chat, jenny: Person) -> None:
    older = chat.signs_in("a", "Johnny", "chalice")
    older.vanishes()
    chat.signs_in("a", "Johnny")
    older.hears_nothing()
    jenny.hears("Johnny left room.")
    assert problems(chat.rows(), chat.clock.now) == []


@pytest.mark.parametrize("seconds", [60, LIFETIME_SECONDS])
def test_somebody_who_left_comes_back(chat: Chat, seconds: float) -> None:
    chat.signs_in("a", "John", "tea").disconnects()
    chat.clock.advance(seconds)
    john = chat.signs_in("a", "John")
    john.says("/nick")
    john.hears("Current nickname: John")
    assert problems(chat.rows(), chat.clock.now) == []


def test_an_older_connection_that_cannot_be_told_does_not_keep_the_new_one_out(
    chat: Chat, jenny: Person, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ClientError({"Error": {"Code": "Any"}}, "DeleteConnection")

    older = chat.signs_in("a", "Johnny", "chalice")
    monkeypatch.setattr(chat.sender, "close", fail)
    chat.signs_in("a", "Johnny")
    older.hears("You have connected from elsewhere.")
    jenny.hears("Johnny left room.")
    assert caplog.records[-1].getMessage() == "an older connection could not be closed"
    older.says("Hi")
    assert chat.connections.received(older.id)[0] == "Your session has expired. Please reconnect."


@pytest.mark.parametrize("name", ["John", "JOHN", "J\u043ehn"])
def test_an_account_whose_nickname_looks_like_anothers_is_refused(
    chat: Chat, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    john = chat.signs_in("a", "John")
    before = chat.rows()
    assert chat.refuses("b", name)
    john.hears_nothing()
    assert chat.rows() == before
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        "the nickname of an account is in use",
    )
    john.disconnects()
    assert not chat.refuses("b", name)


def test_a_vanished_holder_gives_way_once_its_handshake_must_be_over(
    chat: Chat, jenny: Person
) -> None:
    """During a handshake, API Gateway says that the connection is gone."""
    john = chat.signs_in("a", "Johnny", "chalice")
    john.vanishes()
    assert chat.refuses("b", "Johnny")
    jenny.hears_nothing()
    chat.clock.advance(HANDSHAKE_SECONDS + 1)
    assert not chat.refuses("b", "Johnny")
    jenny.hears("Johnny left room.")
    assert problems(chat.rows(), chat.clock.now) == []


def test_the_cost_of_signing_in(chat: Chat) -> None:
    def cost(connection_id: str) -> Counter[str]:
        with requests(chat.storage) as sent:
            chat.storage.sign_in(connection_id, Account("a", "John"))
        return sent

    assert cost("first") == {"TransactWriteItems": 1}
    assert cost("second") == {"TransactWriteItems": 2, "Query": 1}
    chat.storage.delete_connection("second")
    assert cost("third") == {"TransactWriteItems": 2, "Query": 2}  # a missing row is read twice
