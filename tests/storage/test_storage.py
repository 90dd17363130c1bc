"""The table: the methods' promises and costs, expiry, and pages."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.storage import Storage, rows
from chalicelib.storage.rows import LIFETIME_SECONDS, Connection
from chalicelib.storage.transactions import Conflict, NicknameTaken, StaleRecord, pauses
from tests.conftest import Chat, Person, at_request, requests
from tests.invariants import problems


@pytest.fixture
def storage(chat: Chat) -> Storage:
    return chat.storage


def connect(storage: Storage, name: str, room: str | None = None) -> str:
    connection_id = f"id-of-{name}"
    storage.create_connection(connection_id)
    storage.set_username(connection_id, "", name)
    if room is not None:
        storage.set_room(connection_id, room)
    return connection_id


# The tutorial's methods


def test_a_connection_from_beginning_to_end(storage: Storage, table: Any) -> None:
    assert storage.get_record_by_connection("c1") == {}
    storage.create_connection("c1")
    assert storage.get_record_by_connection("c1") == {"username": ""}
    storage.set_username("c1", "", "John")
    assert storage.get_record_by_connection("c1") == {"username": "John"}
    storage.set_room("c1", "chalice")
    assert storage.get_record_by_connection("c1") == {"username": "John", "room": "chalice"}
    assert storage.get_connection_ids_by_room("chalice") == ["c1"]
    assert storage.list_rooms() == {"chalice"}
    storage.set_username("c1", "John", "Jack")
    assert storage.get_record_by_connection("c1") == {"username": "Jack", "room": "chalice"}
    storage.remove_room("c1", "chalice")
    assert storage.get_record_by_connection("c1") == {"username": "Jack"}
    assert storage.get_connection_ids_by_room("chalice") == []
    assert storage.list_rooms() == set()
    storage.delete_connection("c1")
    assert storage.get_record_by_connection("c1") == {}
    assert table.scan()["Items"] == []


def test_the_rows(storage: Storage, chat: Chat) -> None:
    connect(storage, "John", "chalice")
    expires_at = int(chat.clock()) + LIFETIME_SECONDS
    by_key = {(row["PK"], row["SK"]): row for row in chat.rows()}
    assert set(by_key) == {
        ("id-of-John", "username_John"),
        ("id-of-John", "room_chalice"),
        ("rooms", "open_chalice"),
        ("usernames", "taken_john"),
    }
    assert all(row["expires_at"] == expires_at for row in by_key.values())
    assert by_key["id-of-John", "username_John"]["room"] == "chalice"
    assert by_key["id-of-John", "room_chalice"]["username"] == "John"
    assert by_key["rooms", "open_chalice"]["members"] == 1
    assert by_key["usernames", "taken_john"]["connection_id"] == "id-of-John"


def test_delete_returns_the_connection_to_one_caller_only(storage: Storage) -> None:
    john = connect(storage, "John", "chalice")
    removed = storage.delete_connection(john)
    assert removed is not None
    assert (removed.nickname, removed.room) == ("John", "chalice")
    assert storage.delete_connection(john) is None


def test_names_that_look_like_keys_stay_apart(storage: Storage, chat: Chat) -> None:
    connect(storage, "room_tea", "username_x")
    connect(storage, "taken_x", "open_tea")
    assert storage.get_connection_ids_by_room("tea") == []
    assert storage.list_rooms() == {"username_x", "open_tea"}
    assert problems(chat.rows(), chat.clock()) == []


# Nicknames


def test_a_nickname_has_one_holder(storage: Storage, chat: Chat) -> None:
    john = connect(storage, "John")
    with pytest.raises(NicknameTaken) as taken:
        connect(storage, "JOHN")
    assert taken.value.holder == john
    assert storage.get_record_by_connection("id-of-JOHN") == {"username": ""}
    assert problems(chat.rows(), chat.clock()) == []


def test_a_nickname_is_free_after_a_rename_and_after_a_removal(storage: Storage) -> None:
    john = connect(storage, "John")
    storage.set_username(john, "John", "Jack")
    storage.create_connection("other")
    storage.set_username("other", "", "John")
    storage.delete_connection("other")
    storage.set_username(john, "Jack", "John")


def test_a_nickname_of_an_expired_connection_is_free(storage: Storage, chat: Chat) -> None:
    old = connect(storage, "John", "chalice")
    chat.clock.advance(LIFETIME_SECONDS + 1)
    storage.create_connection("new")
    storage.set_username("new", "", "John")
    assert storage.delete_connection(old) is None
    with pytest.raises(NicknameTaken):
        connect(storage, "john")
    assert [row["PK"] for row in chat.rows() if row["PK"] == old] == []


def test_a_wrong_old_name_is_stale(storage: Storage) -> None:
    john = connect(storage, "John")
    with pytest.raises(StaleRecord):
        storage.set_username(john, "", "Jack")
    with pytest.raises(StaleRecord):
        storage.set_username("unknown", "", "Jack")
    assert storage.get_record_by_connection(john) == {"username": "John"}


def test_a_nickname_is_released_by_its_holder_only(storage: Storage) -> None:
    john = connect(storage, "John")
    storage.release_nickname("John", "somebody else")
    with pytest.raises(NicknameTaken):
        connect(storage, "JOHN")
    storage.release_nickname("John", john)
    storage.set_username("id-of-JOHN", "", "JOHN")


# Stale records: another frame has changed the connection since the caller read it


def renames(storage: Storage, john: str) -> None:
    storage.set_username(john, "John", "Jack")


def moves(storage: Storage, john: str) -> None:
    storage.set_room(john, "tea")


def leaves(storage: Storage, john: str) -> None:
    storage.remove_room(john, "chalice")


def dies(storage: Storage, john: str) -> None:
    storage.delete_connection(john)


@pytest.mark.parametrize("first", [renames, moves, leaves, dies])
@pytest.mark.parametrize(
    "then",
    [
        lambda storage, john: storage.rename(john, "Zed"),
        lambda storage, john: storage.enter(john, "den"),
        lambda storage, john: storage.leave(john),
    ],
    ids=["rename", "enter", "leave"],
)
def test_a_write_on_a_stale_record_changes_nothing(
    storage: Storage,
    chat: Chat,
    first: Callable[[Storage, str], None],
    then: Callable[[Storage, Connection], Connection],
) -> None:
    connection_id = connect(storage, "John", "chalice")
    john = storage.find_connection(connection_id)
    assert john is not None
    first(storage, connection_id)
    before = chat.rows()
    with pytest.raises(StaleRecord):
        then(storage, john)
    assert sorted(chat.rows(), key=str) == sorted(before, key=str)


# Expiry


def test_expired_rows_are_ignored_by_every_read(storage: Storage, chat: Chat) -> None:
    john = connect(storage, "John", "chalice")
    chat.clock.advance(LIFETIME_SECONDS + 1)
    assert chat.rows()
    assert storage.get_record_by_connection(john) == {}
    assert storage.get_connection_ids_by_room("chalice") == []
    assert storage.list_rooms() == set()


def test_a_count_restarts_after_its_row_has_expired(storage: Storage, chat: Chat) -> None:
    connect(storage, "John", "chalice")
    chat.clock.advance(LIFETIME_SECONDS + 1)
    jenny = connect(storage, "Jenny", "chalice")
    assert storage.list_rooms() == {"chalice"}
    storage.remove_room(jenny, "chalice")
    assert storage.list_rooms() == set()


def test_an_expired_connection_does_not_lower_the_count_of_a_reopened_room(
    storage: Storage, chat: Chat
) -> None:
    john = connect(storage, "John", "chalice")
    chat.clock.advance(LIFETIME_SECONDS + 1)
    connect(storage, "Jenny", "chalice")
    assert storage.delete_connection(john) is None
    assert storage.list_rooms() == {"chalice"}


def test_rows_of_an_older_version_have_no_expiry(storage: Storage, table: Any) -> None:
    table.put_item(Item={"PK": "c1", "SK": "username_John"})
    assert storage.get_record_by_connection("c1") == {"username": "John"}
    storage.set_room("c1", "chalice")
    storage.set_username("c1", "John", "Jack")
    storage.delete_connection("c1")
    assert table.scan()["Items"] == []


# The count of a room is never too low


def test_an_entry_that_may_have_succeeded_is_counted(storage: Storage, chat: Chat) -> None:
    john = storage.find_connection(connect(storage, "John", "chalice"))
    assert john

    def fail() -> None:
        error = {"Code": "InternalServerError", "Message": "perhaps it is done"}
        raise ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": 500}}, "any")

    with at_request(chat, 2, "after-call", fail), pytest.raises(ClientError):
        storage.enter(john, "tea")
    assert storage.get_connection_ids_by_room("tea") == [john.id]
    assert storage.list_rooms() == {"chalice", "tea"}


# Keys


def test_no_sort_key_begins_with_the_prefix_of_another_kind() -> None:
    """The index finds rows by these prefixes. The table at the head of `rows.py` lists them."""
    prefixes = re.findall(r"^\| .*? \| `(\w+_)\{", str(rows.__doc__), re.MULTILINE)
    assert len(prefixes) >= 5
    assert [pair for pair in permutations(prefixes, 2) if pair[0].startswith(pair[1])] == []


# Pages


@pytest.mark.parametrize("members", [700])
def test_a_room_of_several_pages(storage: Storage, chat: Chat, members: int) -> None:
    """Each row has 3 KB, so that a page (1 MB) holds about 350."""
    chat.write(
        {
            "PK": f"c{n}",
            "SK": "room_tea",
            "username": f"p{n}",
            "joined_at": n,
            "expires_at": int(chat.clock()) + 60,
            "ballast": "x" * 3_000,
        }
        for n in range(members)
    )
    with requests(storage) as sent:
        found = storage.iter_members("tea")
        next(found)
        assert sent == {"Query": 1}
        assert len(list(found)) == members - 1
    assert sent["Query"] >= 3
    assert sorted(storage.get_connection_ids_by_room("tea")) == sorted(
        f"c{n}" for n in range(members)
    )


def test_a_directory_of_several_pages(storage: Storage, chat: Chat) -> None:
    chat.write(
        {
            "PK": "rooms",
            "SK": f"open_r{n}",
            "members": 1,
            "expires_at": int(chat.clock()) + 60,
            "ballast": "x" * 3_000,
        }
        for n in range(500)
    )
    assert storage.list_rooms() == {f"r{n}" for n in range(500)}


# Costs, in requests


def test_a_text_costs_two_reads(chat: Chat, john: Person, jenny: Person) -> None:
    with requests(chat.storage) as sent:
        john.says("Hi")
    assert sent == {"Query": 2}


def test_lists_cost_two_reads(chat: Chat) -> None:
    people = [chat.person(f"p{n}", f"room{n % 3}") for n in range(12)]
    with requests(chat.storage) as sent:
        people[0].says("/ls")
    assert sent == {"Query": 2}
    people[0].says("/quit")
    with requests(chat.storage) as sent:
        people[0].says("/ls")
    assert sent == {"Query": 2}


@pytest.mark.parametrize(
    ("frame", "cost"),
    [
        ("/help", {"Query": 1}),
        ("/room", {"Query": 1}),
        ("/nick", {"Query": 1}),
        ("/nick Jack", {"Query": 2, "TransactWriteItems": 1}),
        ("/join tea", {"Query": 3, "UpdateItem": 2, "TransactWriteItems": 1}),
        ("/join chalice", {"Query": 3, "TransactWriteItems": 1}),
        ("/quit", {"Query": 2, "UpdateItem": 1, "TransactWriteItems": 1}),
    ],
)
def test_the_cost_of_commands(
    chat: Chat, john: Person, jenny: Person, frame: str, cost: dict[str, int]
) -> None:
    with requests(chat.storage) as sent:
        john.says(frame)
    assert sent == cost


def test_the_cost_of_connecting_and_disconnecting(chat: Chat, john: Person, jenny: Person) -> None:
    with requests(chat.storage) as sent:
        somebody = chat.somebody()
    assert sent == {"PutItem": 1}
    with requests(chat.storage) as sent:
        somebody.says("Jack")
    assert sent == {"Query": 1, "TransactWriteItems": 1}
    with requests(chat.storage) as sent:
        john.disconnects()
    assert sent == {"Query": 2, "TransactWriteItems": 1, "UpdateItem": 1}
    with requests(chat.storage) as sent:
        jenny.disconnects()
    assert sent == {"Query": 2, "TransactWriteItems": 1, "UpdateItem": 1, "DeleteItem": 1}


# Failures


def test_a_conflicting_transaction_is_retried(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.create_connection("c1")
    with _cancelled(storage, "TransactionConflict", times=3):
        storage.set_username("c1", "", "John")
    assert storage.get_record_by_connection("c1") == {"username": "John"}


def test_a_transaction_that_never_succeeds_is_given_up(
    storage: Storage, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    john = connect(storage, "John", "chalice")
    before = sorted(chat.rows(), key=str)
    with (
        _cancelled(storage, "TransactionConflict", times=100) as cancelled,
        pytest.raises(Conflict),
    ):
        storage.set_room(john, "tea")
    assert 4 <= cancelled["times"] <= 10
    assert sorted(chat.rows(), key=str) == before


def test_a_nickname_is_released_although_a_transaction_reads_it(storage: Storage) -> None:
    john = connect(storage, "John", "chalice")
    with _cancelled(storage, "TransactionConflict", times=3):
        storage.release_nickname("John", john)
    connect(storage, "John")


def test_a_transaction_cancelled_for_another_reason_is_not_retried(storage: Storage) -> None:
    storage.create_connection("c1")
    with (
        _cancelled(storage, "ValidationError", times=100) as cancelled,
        pytest.raises(ClientError, match="TransactionCanceled"),
    ):
        storage.set_username("c1", "", "John")
    assert cancelled["times"] == 1


@contextmanager
def _cancelled(storage: Storage, reason: str, times: int) -> Iterator[Counter[str]]:
    """Cancel the next transactions, as often as told."""
    client = storage.table.meta.client
    transact = client.transact_write_items
    cancelled: Counter[str] = Counter()

    def maybe(**request: Any) -> Any:
        if cancelled["times"] == times:
            return transact(**request)
        cancelled["times"] += 1
        error = {"Error": {"Code": "TransactionCanceledException"}}
        reasons = [{"Code": reason}, *({"Code": "None"} for _ in request["TransactItems"][1:])]
        raise client.exceptions.TransactionCanceledException(
            {**error, "CancellationReasons": reasons}, "TransactWriteItems"
        )

    client.transact_write_items = maybe
    try:
        yield cancelled
    finally:
        del client.transact_write_items


def test_pauses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    assert sum(pauses()) < 3.2
    assert len(list(pauses())) == 8
    monkeypatch.setattr("chalicelib.invocation.seconds_left", lambda: 0.5)
    assert len(list(pauses())) == 1
