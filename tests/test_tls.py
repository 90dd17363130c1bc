"""Posts over TLS: the authorities that are trusted."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from boto3.session import Session
from chalicelib.rows import Connection

from tests.conftest import Chat
from tests.connections import Connections
from tests.test_sender import logged


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Connections]:
    """An API whose certificate the operating system does not trust."""
    authority = trustme.CA()
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
