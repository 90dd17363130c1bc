"""Delivery: the answers to a post, and their effect on the others."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib import Handler, Sender
from chalicelib.log import JsonFormatter
from chalicelib.posting import Poster, Result
from chalicelib.rows import Connection, unpack
from chalicelib.sender import CHUNK
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
    chat: Chat,
    john: Person,
    jenny: Person,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("chalicelib.posting.delivery.POST_SECONDS", 1.0)
    chat.connections.will_answer(john.id, *[429] * 100)
    chat.sender.broadcast([john.id, jenny.id], "Hi")
    jenny.hears("Hi")
    assert 2 <= chat.connections.attempts[john.id] - 1 <= 10
    (line,) = logged(caplog)
    assert list(line["reasons"]) == [john.id]


def test_gone_connections_are_removed_and_returned_once(
    chat: Chat, john: Person, jenny: Person
) -> None:
    jenny.vanishes()
    (removed,) = chat.sender.broadcast([john.id, jenny.id], "Hi")
    assert (removed.id, removed.username, removed.room) == (jenny.id, "Jenny", "chalice")
    assert chat.sender.send(jenny.id, "Hi") == []
    assert chat.storage.get_connection_ids_by_room("chalice") == [john.id]
    john.hears("Hi")


def test_a_whole_room_that_is_gone_is_removed(chat: Chat) -> None:
    for person in [chat.person(f"p{n}", "chalice") for n in range(5)]:
        person.vanishes()
    removed = chat.sender.broadcast(chat.storage.get_connection_ids_by_room("chalice"), "Hi")
    assert [connection.username for connection in removed] == [f"p{n}" for n in range(5)]
    assert chat.rows() == []


def test_posts_end_before_the_deadline(
    chat: Chat,
    john: Person,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("chalicelib.aws.seconds_left", lambda: 7.0)
    chat.connections.will_answer(john.id, *[429] * 100)
    start = time.monotonic()
    chat.sender.send(john.id, "Hi")
    assert time.monotonic() - start < 5
    assert [line["message"] for line in logged(caplog)] == ["posts failed"]


def test_close_of_a_connection_that_is_closed(chat: Chat, john: Person) -> None:
    chat.sender.close(john.id)
    chat.sender.close(john.id)
    assert chat.connections.closed == {john.id}


def test_is_gone(chat: Chat, john: Person) -> None:
    assert not chat.sender.is_gone(john.id)
    john.vanishes()
    assert chat.sender.is_gone(john.id)


def test_is_gone_is_false_when_in_doubt(
    chat: Chat, john: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chat.connections, "answer", lambda *_: 403)
    assert not chat.sender.is_gone(john.id)
    assert [line["level"] for line in logged(caplog)] == ["ERROR"]


# Large rooms: the fan-out function


class FanOutFunction:
    """Stands in for Lambda: calls the function with each event, or fails as told."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.chunks: list[list[Connection]] = []
        self.sizes: list[int] = []
        self.fails = False

    def invoke(self, FunctionName: str, InvocationType: str, Payload: bytes) -> None:
        if self.fails:
            raise ClientError({"Error": {"Code": "TooManyRequestsException"}}, "Invoke")
        assert (FunctionName, InvocationType) == ("the-fan-out", "Event")
        self.sizes.append(len(Payload))
        event = json.loads(Payload)
        self.chunks.append(unpack(event["connections"]))
        sender = Sender(self.chat.app, self.chat.storage)
        sender._lambda = self
        Handler(self.chat.storage, sender).fan_out(event, "the-fan-out")


@pytest.fixture
def fan_out(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> FanOutFunction:
    monkeypatch.setattr("chalicelib.sender.CHUNK", 3)
    function = FanOutFunction(chat)
    chat.sender._fan_out_function = "the-fan-out"
    chat.sender._lambda = function
    return function


def people(count: int) -> Iterator[Connection]:
    return (Connection(f"c{n}", f"p{n}", "tea") for n in range(count))


def test_a_large_room_is_spread_in_chunks(chat: Chat, fan_out: FanOutFunction) -> None:
    chat.sender.post(people(11), "Grüße")
    assert {id: chat.connections.received(id) for id in list(chat.connections.posts)} == {
        f"c{n}": ["Grüße"] for n in range(11)
    }
    assert fan_out.chunks == [list(people(11))[n : n + 3] for n in (3, 6, 9)]


def test_a_room_of_one_chunk_is_not_spread(chat: Chat, fan_out: FanOutFunction) -> None:
    chat.sender.post(people(3), "Hi")
    assert len(chat.connections.posts) == 3
    assert fan_out.chunks == []


def test_members_that_the_fan_out_function_finds_gone_are_announced(
    chat: Chat, fan_out: FanOutFunction
) -> None:
    members = [chat.person(f"p{n}", "tea") for n in range(7)]
    members[6].vanishes()
    chat.connections.posts.clear()
    members[0].says("Hi")
    for person in members[:6]:
        assert sorted(chat.connections.received(person.id)) == ["p0: Hi", "p6 left room."]
    assert len(chat.storage.get_connection_ids_by_room("tea")) == 6


def test_all_posts_are_made_here_if_the_fan_out_function_cannot_be_called(
    chat: Chat, fan_out: FanOutFunction, caplog: pytest.LogCaptureFixture
) -> None:
    fan_out.fails = True
    chat.sender.post(people(8), "Hi")
    assert len(chat.connections.posts) == 8
    assert {line["message"] for line in logged(caplog)} == {
        "the fan-out function could not be called"
    }


def test_late_posts_are_handed_over_three_times_and_then_given_up(
    chat: Chat,
    fan_out: FanOutFunction,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("chalicelib.aws.seconds_left", lambda: 0.5)
    chat.sender.post(people(2), "Hi")
    assert fan_out.chunks == [list(people(2))] * 3
    assert logged(caplog)[-1]["message"] == "posts given up"
    assert not chat.connections.attempts


def test_the_largest_chunk_fits_an_asynchronous_invocation(
    chat: Chat, fan_out: FanOutFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ids as long as API Gateway's, the longest nicknames, and the text that JSON makes
    longest."""
    monkeypatch.setattr("chalicelib.sender.CHUNK", CHUNK)
    monkeypatch.setattr(Poster, "post", lambda self, ids, *_: Result(delivered=len(list(ids))))
    longest = (Connection(f"L0SM9cOFvHc{n:04}=", "𝄞" * 32, "𝄞" * 64) for n in range(2 * CHUNK))
    chat.sender.post(longest, "\x00" * 131_072)
    assert [len(chunk) for chunk in fan_out.chunks] == [CHUNK]
    assert fan_out.sizes[0] < 1_000_000
