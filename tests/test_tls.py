"""Posts over TLS: the authorities that are trusted, and the connections of the pool."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme
from boto3.session import Session

from chalicelib.posting.channel import NoAnswer, Unreachable
from chalicelib.posting.http1 import Endpoint
from chalicelib.posting.pool import Pool
from chalicelib.storage.rows import Connection
from tests.conftest import Chat
from tests.connections import Answer, Connections
from tests.posting.test_pool import finish, outcome, start
from tests.test_sender import logged


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """One that the operating system does not trust."""
    return trustme.CA()


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def secure(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Connections]:
    """An API with a certificate of the authority, to which the chat posts."""
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
    chat: Chat,
    secure: Connections,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("chalicelib.posting.delivery.ATTEMPTS", 1)
    post_with_a_new_session(chat)
    assert "CERTIFICATE_VERIFY_FAILED" in logged(caplog)[0]["reasons"]["a"]
    assert secure.requests == []


# The pool's connections


def new_pool(url: str, tls: ssl.SSLContext | None = None) -> closing[Pool[str]]:
    return closing(Pool[str](Endpoint.parse(url), tls, 3.0))


@pytest.mark.parametrize("size", [5, 131_072])
def test_tls_connections_are_kept(secure: Connections, trust: ssl.SSLContext, size: int) -> None:
    def post_to_each(pool: Pool[str]) -> None:
        pool.refresh()
        for number in range(8):
            start(pool, str(number), b"x" * size)
        assert {str(answer) for answer in finish(pool).values()} == {"200 {}"}

    with new_pool(secure.url, trust) as pool:
        post_to_each(pool)
        post_to_each(pool)
        assert secure.opened == 8
        secure.close_connections()
        post_to_each(pool)
        assert secure.opened == 16
    assert {len(request.body) for request in secure.requests} == {size}


@pytest.mark.parametrize("kind", ["half", "drop", "plain"])
def test_a_lost_answer(secure: Connections, trust: ssl.SSLContext, kind: Answer) -> None:
    secure.will_answer("a", kind)
    with new_pool(secure.url, trust) as pool:
        assert type(outcome(pool, "a")) is NoAnswer


def test_a_record_that_comes_after_an_answer_is_nobodys(
    secure: Connections, trust: ssl.SSLContext
) -> None:
    """One read gets one record."""
    (ok,), _ = secure.written(200)
    (gone,), _ = secure.written(410)
    secure.will_answer("a", (ok, gone))
    with new_pool(secure.url, trust) as pool:
        assert str(outcome(pool, "a")) == "200 {}"
        (connection,) = pool._idle
        while not connection.has_unread():
            time.sleep(0.001)
        start(pool, "b")
        assert str(finish(pool)["b"]) == "200 {}"
    assert secure.opened == 2


def test_nothing_is_sent_to_a_server_with_an_unknown_authority(secure: Connections) -> None:
    with new_pool(secure.url) as pool:
        failure = outcome(pool, "a")
    assert isinstance(failure, Unreachable)
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)
    assert secure.requests == []


def test_nothing_is_sent_to_a_server_with_another_hosts_certificate(
    secure: Connections, trust: ssl.SSLContext
) -> None:
    with new_pool(secure.url.replace("127.0.0.1", "localhost"), trust) as pool:
        failure = outcome(pool, "a")
    assert isinstance(failure, Unreachable)
    assert "Hostname mismatch" in str(failure)
    assert secure.requests == []


def test_a_connection_that_breaks_as_tls_begins(secure: Connections) -> None:
    class Breaking(ssl.SSLContext):
        def wrap_socket(self, sock: socket.socket, *_: object, **__: object) -> ssl.SSLSocket:
            socket.close(sock.detach())  # as the real one does
            raise ConnectionResetError("reset by peer")

    with new_pool(secure.url, Breaking(ssl.PROTOCOL_TLS_CLIENT)) as pool:
        failure = outcome(pool, "a")
    assert isinstance(failure, Unreachable)
