"""Delivery: what a post may answer, and what the others then hear."""

import json
import logging
from typing import Any

import pytest

from chalicelib.log import JsonFormatter
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
    assert line["to"] == john.id
    assert "Hi" not in json.dumps(line)


def test_throttling_that_does_not_end_is_given_up(
    chat: Chat, john: Person, jenny: Person, caplog: pytest.LogCaptureFixture
) -> None:
    chat.connections.will_answer(john.id, *[429] * 100)
    chat.sender.broadcast([john.id, jenny.id], "Hi")
    jenny.hears("Hi")
    assert 2 <= chat.connections.attempts[john.id] - 1 <= 10
    assert [line["to"] for line in logged(caplog)] == [john.id]


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
