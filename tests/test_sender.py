"""Delivery: the answers to a post, and their effect on the others."""

import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session
from botocore.exceptions import ClientError

from chalicelib import Handler, Sender
from chalicelib.log import JsonFormatter
from chalicelib.posting import ANSWER_SECONDS, Poster, Result
from chalicelib.rows import Connection, unpack
from chalicelib.sender import CHUNK
from tests.conftest import Chat, Person
from tests.connections import Connections


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
    chat: Chat, john: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Poster.post` returns `ANSWER_SECONDS` after its time at the latest."""
    posted: list[float] = []

    def post(self: Poster, ids: Iterator[str], message: str, seconds: float) -> Result:
        posted.append(seconds)
        return Result(delivered=len(list(ids)))

    monkeypatch.setattr("chalicelib.aws.seconds_left", lambda: 7.0)
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


# The authorities to trust


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Connections]:
    """An API whose certificate the operating system does not trust."""
    authority = pytest.importorskip("trustme").CA()  # not required for plain `pytest`
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Connections(tls=context) as connections:
        monkeypatch.setenv("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", connections.url)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        yield connections


def post_with_a_new_session(chat: Chat) -> None:
    chat.app.websocket_api.session = Session()
    chat.sender.post([Connection("a")], "Hi")


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_the_authorities_that_the_environment_names_are_trusted(
    chat: Chat,
    secure: Connections,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "authority.pem"))
    post_with_a_new_session(chat)
    assert secure.received("a") == ["Hi"]


def test_the_authorities_that_come_with_botocore_are_trusted(
    chat: Chat, secure: Connections, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "authority.pem").rename(tmp_path / "cacert.pem")
    monkeypatch.setattr("botocore.__file__", str(tmp_path / "__init__.py"))
    post_with_a_new_session(chat)
    assert secure.received("a") == ["Hi"]


def test_other_authorities_are_not_trusted(
    chat: Chat, secure: Connections, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("chalicelib.posting.delivery.ATTEMPTS", 1)
    post_with_a_new_session(chat)
    assert "CERTIFICATE_VERIFY_FAILED" in logged(caplog)[0]["reasons"]["a"]
    assert secure.requests == []


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


@pytest.mark.parametrize("chunk", [2, 3, 5])
@pytest.mark.parametrize("pages", range(5))
def test_a_page_that_cannot_be_read_costs_those_before_nothing(
    chat: Chat, fan_out: FanOutFunction, monkeypatch: pytest.MonkeyPatch, chunk: int, pages: int
) -> None:
    monkeypatch.setattr("chalicelib.sender.CHUNK", chunk)

    def members() -> Iterator[Connection]:
        yield from people(pages * 3)
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "Query")

    with pytest.raises(ClientError):
        chat.sender.post(members(), "Hi")
    assert chat.connections.posts == {f"c{n}": ["Hi"] for n in range(pages * 3)}


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
