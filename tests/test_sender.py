"""Delivery: the answers to a post, and their effect on the others."""

import json
import logging
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from chalice import WebsocketDisconnectedError

from chalicelib import Sender, Storage
from chalicelib.invocation import JsonFormatter, invocation
from chalicelib.posting import ANSWER_SECONDS, Poster, Result
from chalicelib.posting.delivery import ATTEMPTS
from chalicelib.storage.rows import Connection
from tests.conftest import Chat, Person


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def test_broadcast_posts_to_each(chat: Chat, john: Person, jenny: Person) -> None:
    chat.sender.broadcast(iter([john.id, jenny.id]), "Grüße 🙂")
    for person in (john, jenny):
        person.hears("Grüße 🙂")


def test_a_broadcast_to_nobody_posts_nothing(chat: Chat) -> None:
    chat.sender.broadcast([], "Hi")
    assert not chat.connections.attempts


@pytest.mark.parametrize("status", [429, 500])
def test_transient_errors_are_retried(chat: Chat, john: Person, status: int) -> None:
    chat.connections.will_answer(john.id, status)
    chat.sender.send(john.id, "Hi")
    john.hears("Hi")


@pytest.mark.parametrize("status", [403, 413])
def test_a_permanent_failure_is_logged_and_the_others_get_the_message(
    chat: Chat, john: Person, jenny: Person, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    chat.connections.will_answer(john.id, status)
    with caplog.at_level(logging.INFO):
        chat.sender.broadcast([john.id, jenny.id], "Hi")
    john.hears_nothing()
    jenny.hears("Hi")
    (line,) = logged(caplog)
    assert line["level"] == "ERROR"
    assert line["failed"] == 1
    assert line["reasons"][john.id].startswith(f"{status} ")
    assert "Hi" not in json.dumps(line)


def test_lasting_throttling_is_given_up(
    chat: Chat, john: Person, jenny: Person, caplog: pytest.LogCaptureFixture
) -> None:
    before = chat.connections.attempts[john.id]
    chat.connections.will_answer(john.id, *[429] * 100)
    chat.sender.broadcast([john.id, jenny.id], "Hi")
    jenny.hears("Hi")
    assert chat.connections.attempts[john.id] - before == ATTEMPTS
    (line,) = logged(caplog)
    assert list(line["reasons"]) == [john.id]


def test_gone_connections_are_removed_and_returned_once(
    chat: Chat, john: Person, jenny: Person
) -> None:
    jenny.vanishes()
    (removed,) = chat.sender.broadcast([john.id, jenny.id], "Hi")
    assert (removed.id, removed.nickname, removed.room) == (jenny.id, "Jenny", "chalice")
    assert chat.sender.send(jenny.id, "Hi") == []
    assert chat.storage.get_connection_ids_by_room("chalice") == [john.id]
    john.hears("Hi")


def test_a_whole_room_that_is_gone_is_removed(chat: Chat) -> None:
    for person in [chat.person(f"p{n}", "chalice") for n in range(5)]:
        person.vanishes()
    removed = chat.sender.broadcast(chat.storage.get_connection_ids_by_room("chalice"), "Hi")
    assert sorted(each.nickname for each in removed) == [f"p{n}" for n in range(5)]
    assert chat.rows() == []


def test_posts_end_before_the_deadline(
    chat: Chat, john: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Poster.post` returns `ANSWER_SECONDS` after its time at the latest."""
    posted: list[float] = []

    def post(self: Poster, targets: Iterator[Connection], message: str, seconds: float) -> Any:
        posted.append(seconds)
        return Result[Connection](delivered=len(list(targets)))

    monkeypatch.setattr("chalicelib.invocation.seconds_left", lambda: 7.0)
    monkeypatch.setattr(Poster, "post", post)
    chat.sender.send(john.id, "Hi")
    assert 1 < posted[0] <= 7.0 - ANSWER_SECONDS


names_errors = pytest.mark.parametrize("names_errors", [True, False])


@names_errors
def test_close_of_a_connection_that_is_closed(chat: Chat, john: Person, names_errors: bool) -> None:
    chat.connections.names_errors = names_errors
    chat.sender.close(john.id)
    chat.sender.close(john.id)
    assert chat.connections.closed == {john.id}


@names_errors
def test_is_gone(chat: Chat, john: Person, names_errors: bool) -> None:
    chat.connections.names_errors = names_errors
    assert not chat.sender.is_gone(john.id)
    john.vanishes()
    assert chat.sender.is_gone(john.id)


def test_is_gone_is_false_when_in_doubt(
    chat: Chat, john: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chat.connections, "answer", lambda *_: 403)
    assert not chat.sender.is_gone(john.id)
    assert [line["level"] for line in logged(caplog)] == ["ERROR"]


# Without an address, as in the tutorial


class TutorialsApi:
    """Chalice's `websocket_api`, as a test of the tutorial's app might replace it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.closed: list[str] = []
        self.errors: dict[str, Exception] = {}

    def send(self, connection_id: str, message: str) -> None:
        self._fail(connection_id)
        self.sent.append((connection_id, message))

    def close(self, connection_id: str) -> None:
        self._fail(connection_id)
        self.closed.append(connection_id)

    def info(self, connection_id: str) -> None:
        self._fail(connection_id)

    def _fail(self, connection_id: str) -> None:
        if connection_id in self.errors:
            raise self.errors[connection_id]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> TutorialsApi:
    for variable in [name for name in os.environ if name.startswith("AWS_ENDPOINT_URL")]:
        monkeypatch.delenv(variable)
    return TutorialsApi()


@pytest.fixture
def sender(api: TutorialsApi, table: Any) -> Sender:
    app: Any = SimpleNamespace(websocket_api=api)
    return Sender(app, Storage(table))


def test_posts_go_through_the_app(sender: Sender, api: TutorialsApi) -> None:
    sender.send("c1", "hello")
    sender.broadcast(["c1", "c2"], "Hi")
    assert api.sent == [("c1", "hello"), ("c1", "Hi"), ("c2", "Hi")]
    sender.close("c1")
    assert api.closed == ["c1"]


def answer(status: int) -> ClientError:
    return ClientError({"ResponseMetadata": {"HTTPStatusCode": status}}, "PostToConnection")


@pytest.mark.parametrize("error", [WebsocketDisconnectedError("c1"), answer(410)])
def test_a_connection_that_the_app_finds_gone_is_removed(
    sender: Sender, api: TutorialsApi, table: Any, error: Exception
) -> None:
    storage = Storage(table)
    storage.create_connection("c1")
    api.errors["c1"] = error
    sender.close("c1")
    assert sender.is_gone("c1")
    assert not sender.is_gone("c2")
    (removed,) = sender.broadcast(["c1", "c2"], "Hi")
    assert removed.id == "c1"
    assert api.sent == [("c2", "Hi")]
    assert storage.get_record_by_connection("c1") == {}


def test_a_failure_of_the_app_is_logged_and_the_others_get_the_message(
    sender: Sender, api: TutorialsApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.errors["c1"] = answer(403)
    sender.broadcast(["c1", "c2"], "Hi")
    assert api.sent == [("c2", "Hi")]
    (line,) = logged(caplog)
    assert list(line["reasons"]) == ["c1"]


# Large rooms


def people(count: int) -> Iterator[Connection]:
    return (Connection(f"c{n}", f"p{n}", "tea") for n in range(count))


@pytest.mark.parametrize("pages", range(5))
def test_a_page_that_cannot_be_read_costs_those_before_nothing(chat: Chat, pages: int) -> None:
    def members() -> Iterator[Connection]:
        yield from people(pages * 3)
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "Query")

    with pytest.raises(ClientError):
        chat.sender.post(members(), "Hi")
    assert chat.connections.posts == {f"c{n}": ["Hi"] for n in range(pages * 3)}


@pytest.mark.parametrize("has_address", [True, False])
def test_posts_that_miss_the_deadline_are_counted_and_logged(
    chat: Chat,
    sender: Sender,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    has_address: bool,
) -> None:
    left = iter([0.5, *[2.0] * 4, *[0.5] * 5])
    monkeypatch.setattr("chalicelib.invocation.seconds_left", lambda: next(left))
    with invocation() as counted:
        (chat.sender if has_address else sender).post(people(11), "Hi")
    (line,) = logged(caplog)
    assert (line["message"], line["failed"]) == ("posts given up", 5)  # no time to count the rest
    assert counted["PostsFailed"] == 5
    assert not chat.connections.attempts
