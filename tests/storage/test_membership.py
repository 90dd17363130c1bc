"""Connections of people who have signed in: one at a time. Connections that are gone: many."""

import logging
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.storage import Storage
from chalicelib.storage.membership import HANDSHAKE_SECONDS
from chalicelib.storage.rows import LIFETIME_SECONDS, Account, Connection
from tests.conftest import Chat, Person, requests
from tests.invariants import problems
from tests.storage.test_storage import connect, dies, leaves, moves, renames


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
    assert chat.connections.received(older.id)[0] == "You have connected from elsewhere."


def test_a_frame_that_meets_a_newer_connection_is_not_told_to_reconnect(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to reconnect, a page would disconnect the newer connection."""
    older = chat.signs_in("a", "John")
    with monkeypatch.context() as between:  # the newer one is there, and the older one not told yet
        between.setattr(chat.sender, "post", lambda *_: [])
        between.setattr(chat.sender, "close", lambda _: None)
        chat.signs_in("a", "John")
    older.says("Hi")
    older.hears("You have connected from elsewhere.")
    assert chat.connections.closed == {older.id}


def test_a_connection_that_was_removed_and_not_replaced_is_told_to_reconnect(chat: Chat) -> None:
    john = chat.signs_in("a", "John")
    chat.storage.delete_connection(john.id)
    john.says("Hi")
    john.hears("Your session has expired. Please reconnect.")


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


# Departures in bulk


def crowd(chat: Chat, members: int) -> list[Connection]:
    chat.has_members("chalice", members)
    return list(chat.storage.iter_members("chalice"))


def delete_gone(storage: Storage, connections: list[Connection]) -> list[Connection]:
    return list(chain.from_iterable(storage.delete_gone(connections)))


def test_many_are_removed_in_few_requests_and_without_a_read(storage: Storage, chat: Chat) -> None:
    people = crowd(chat, 35)
    with requests(storage) as sent:
        removed = delete_gone(storage, people[:34])
    assert removed == people[:34]
    assert sent == {"TransactWriteItems": 2, "UpdateItem": 1}
    assert [row["SK"] for row in chat.rows() if row["PK"] == people[34].id] != []
    assert problems(chat.rows(), chat.clock()) == []
    assert delete_gone(storage, people[34:]) == people[34:]
    assert chat.rows() == []


@pytest.mark.parametrize(
    ("change", "is_removed"),
    [(renames, False), (moves, True), (leaves, True), (dies, False)],
    ids=["renamed", "moved", "left", "died"],
)
def test_a_changed_connection_does_not_stop_the_removal_of_the_others(
    storage: Storage, chat: Chat, change: Callable[[Storage, str], None], is_removed: bool
) -> None:
    """A renamed one stays for the next reader of its room, who sees the new name."""
    chat.has_members("chalice", 10)
    connect(storage, "John", "chalice")
    people = list(storage.iter_members("chalice"))
    assert len(people) == 11
    change(storage, "id-of-John")
    with requests(storage) as sent:
        removed = delete_gone(storage, people)
    assert len(removed) == 10 + is_removed
    assert sent["TransactWriteItems"] == 2
    assert "Query" not in sent
    assert problems(chat.rows(), chat.clock()) == []


def test_a_bare_id_is_looked_up(storage: Storage, chat: Chat) -> None:
    john = connect(storage, "John", "chalice")
    (removed,) = delete_gone(storage, [Connection(john)])
    assert (removed.nickname, removed.room) == ("John", "chalice")
    assert delete_gone(storage, [Connection("unknown")]) == []
    assert chat.rows() == []


def test_an_expired_claim_of_somebody_else_stays(storage: Storage, chat: Chat) -> None:
    john = connect(storage, "John", "chalice")
    members = list(storage.iter_members("chalice"))
    chat.table.put_item(
        Item={"PK": "usernames", "SK": "taken_john", "connection_id": "new", "expires_at": 2**40}
    )
    assert delete_gone(storage, members) == members
    assert [row["connection_id"] for row in chat.rows()] == ["new"]
    assert storage.delete_connection(john) is None


def test_a_failure_ends_the_removal_and_returns_those_removed_by_then(
    storage: Storage, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = crowd(chat, 40)
    transact = storage.table.meta.client.transact_write_items
    calls = iter([transact])

    def fail_later(**request: Any) -> Any:
        for call in calls:
            return call(**request)
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "TransactWriteItems")

    monkeypatch.setattr(storage.table.meta.client, "transact_write_items", fail_later)
    assert delete_gone(storage, people) == people[:33]
    assert len(storage.get_connection_ids_by_room("chalice")) == 7
    assert problems(chat.rows(), chat.clock()) == []


def test_near_the_deadline_no_removal_starts(
    storage: Storage, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = crowd(chat, 40)
    left = iter([5.0, 0.5])
    monkeypatch.setattr("chalicelib.invocation.seconds_left", lambda: next(left))
    assert delete_gone(storage, people) == people[:33]
