"""Delivery: what a post may answer, and what the others then hear."""

import json
import logging
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib import Sender
from chalicelib.log import JsonFormatter
from chalicelib.posting import Poster, Result
from chalicelib.sender import CHUNK
from tests.conftest import Chat, Person


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def test_broadcast_posts_to_each(chat: Chat, john: Person, jenny: Person) -> None:
    chat.sender.broadcast(iter([john.id, jenny.id]), "Grüße 🙂")
    for person in (john, jenny):
        person.hears("Grüße 🙂")


def test_a_broadcast_to_nobody_is_none(chat: Chat) -> None:
    chat.sender.broadcast([], "Hi")
    assert not chat.connections.attempts


@pytest.mark.parametrize("status", [429, 500])
def test_what_may_pass_is_tried_again(chat: Chat, john: Person, status: int) -> None:
    chat.connections.will_answer(john.id, status)
    chat.sender.send(john.id, "Hi")
    john.hears("Hi")


@pytest.mark.parametrize("status", [403, 413])
def test_what_fails_for_good_is_logged_and_keeps_nothing_from_the_others(
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


def test_throttling_that_does_not_end_is_given_up(
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


def test_who_is_gone_is_removed_and_announced_once(chat: Chat, john: Person, jenny: Person) -> None:
    jenny.cuts_off()
    chat.sender.send(jenny.id, "Hi")
    chat.sender.send(jenny.id, "Hi")
    jenny.disconnects()
    john.hears("Jenny left room.")
    assert chat.storage.get_connection_ids_by_room("chalice") == [john.id]


def test_a_whole_room_that_is_gone_is_removed(chat: Chat) -> None:
    people = [chat.person(f"p{n}", "chalice") for n in range(5)]
    for person in people:
        person.cuts_off()
    chat.sender.broadcast([people[0].id], "Hi")
    assert chat.rows() == []


def test_close_of_a_connection_that_is_closed(chat: Chat, john: Person) -> None:
    chat.sender.close(john.id)
    chat.sender.close(john.id)
    assert chat.connections.closed == {john.id}


def test_is_gone(chat: Chat, john: Person) -> None:
    assert not chat.sender.is_gone(john.id)
    john.cuts_off()
    assert chat.sender.is_gone(john.id)


def test_in_doubt_nobody_is_gone(
    chat: Chat, john: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chat.connections, "answer", lambda *_: 403)
    assert not chat.sender.is_gone(john.id)
    assert [line["level"] for line in logged(caplog)] == ["ERROR"]


# Large rooms: what the fan-out function does


class FanOutFunction:
    """Lambda's side: it calls the function with what was handed to it, or fails as told."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.chunks: list[list[str]] = []
        self.sizes: list[int] = []
        self.fails = False

    def invoke(self, FunctionName: str, InvocationType: str, Payload: bytes) -> None:
        if self.fails:
            raise ClientError({"Error": {"Code": "TooManyRequestsException"}}, "Invoke")
        assert (FunctionName, InvocationType) == ("the-fan-out", "Event")
        self.sizes.append(len(Payload))
        event = json.loads(Payload)
        self.chunks.append(event["connection_ids"])
        elsewhere = Sender(self.chat.app, self.chat.storage)
        elsewhere._lambda = self
        elsewhere.deliver(event, "the-fan-out")


@pytest.fixture
def fan_out(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> FanOutFunction:
    monkeypatch.setattr("chalicelib.sender.CHUNK", 3)
    function = FanOutFunction(chat)
    chat.sender._fan_out_function = "the-fan-out"
    chat.sender._lambda = function
    return function


def test_a_large_room_is_spread_in_chunks(chat: Chat, fan_out: FanOutFunction) -> None:
    chat.sender.broadcast((f"c{n}" for n in range(11)), "Grüße")
    assert {id: chat.connections.received(id) for id in list(chat.connections.posts)} == {
        f"c{n}": ["Grüße"] for n in range(11)
    }
    assert [len(chunk) for chunk in fan_out.chunks] == [3, 3, 2]


def test_a_room_that_is_not_too_large_is_not(chat: Chat, fan_out: FanOutFunction) -> None:
    chat.sender.broadcast((f"c{n}" for n in range(3)), "Hi")
    assert len(chat.connections.posts) == 3
    assert fan_out.chunks == []


def test_who_is_found_gone_by_the_fan_out_function_is_announced(
    chat: Chat, fan_out: FanOutFunction
) -> None:
    people = [chat.person(f"p{n}", "tea") for n in range(7)]
    people[6].cuts_off()
    chat.connections.posts.clear()
    chat.sender.broadcast([person.id for person in people], "Hi")
    for person in people[:6]:
        assert sorted(chat.connections.received(person.id)) == ["Hi", "p6 left room."]


def test_if_the_fan_out_function_cannot_be_called_all_is_posted_here(
    chat: Chat, fan_out: FanOutFunction, caplog: pytest.LogCaptureFixture
) -> None:
    fan_out.fails = True
    chat.sender.broadcast((f"c{n}" for n in range(8)), "Hi")
    assert len(chat.connections.posts) == 8
    assert {line["message"] for line in logged(caplog)} == {
        "the fan-out function could not be called"
    }


def test_what_cannot_be_posted_in_time_is_handed_on_and_given_up_in_the_end(
    chat: Chat,
    fan_out: FanOutFunction,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Poster.post, "__defaults__", (-1.0,))
    chat.sender.broadcast(["c1", "c2"], "Hi")
    assert fan_out.chunks == [["c1", "c2"]] * 3
    assert logged(caplog)[-1]["message"] == "posts given up"


def test_the_largest_chunk_fits_an_asynchronous_invocation(
    chat: Chat, fan_out: FanOutFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ids as long as API Gateway's, and the text that grows most when it is escaped."""
    monkeypatch.undo()
    monkeypatch.setattr(Poster, "post", lambda self, ids, message: Result(delivered=len(list(ids))))
    chat.sender.broadcast((f"L0SM9cOFvHc{n:04}=" for n in range(2 * CHUNK)), "\x00" * 131_072)
    assert [len(chunk) for chunk in fan_out.chunks] == [CHUNK]
    assert fan_out.sizes[0] < 1_000_000
