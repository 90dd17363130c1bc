"""The page as it is served with sign-in: its client, and the issuer's endpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from chalicelib import page as pages
from chalicelib.aws import ENDPOINT_VARIABLE
from chalicelib.page import NO_CLIENT, NO_ENDPOINTS, chat_page
from tests.issuers import CLIENT, DISCOVERY, MISBEHAVIOUR, Issuer
from tests.test_page import CHAT, Parsed, directives


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    pages._endpoints.cache_clear()
    with Issuer(tmp_path) as issuer:
        monkeypatch.setenv(ENDPOINT_VARIABLE, CHAT.replace("wss:", "https:"))
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.certificates))
        monkeypatch.setenv("SIGN_IN_ISSUER", issuer.url)
        monkeypatch.setenv("SIGN_IN_CLIENT", CLIENT)
        yield issuer


def data() -> dict[str, str | None]:
    return dict(Parsed(str(chat_page().body)).elements)["html"]


def test_it_knows_its_client_and_the_endpoints_and_may_connect_to_one_of_them(
    issuer: Issuer,
) -> None:
    found = data()
    assert found["data-client"] == CLIENT
    assert found["data-token"] == f"{issuer.host}/token"
    assert "data-problem" not in found
    authorize = urlsplit(found["data-authorize"] or "")
    assert f"{authorize.scheme}://{authorize.netloc}{authorize.path}" == f"{issuer.host}/authorize"
    assert parse_qs(authorize.query) == {
        "response_type": ["code"],
        "client_id": [CLIENT],
        "scope": ["openid profile"],
        "code_challenge_method": ["S256"],
    }
    assert directives()["connect-src"] == f"{CHAT} {issuer.host}/token"
    assert issuer.asked == [DISCOVERY]  # once for all loads


def test_it_is_small(issuer: Issuer) -> None:
    """Even with the addresses of a user pool of Cognito."""
    pool = "https://a-name-that-is-not-so-short.auth.ap-southeast-2.amazoncognito.com/oauth2"
    issuer.document["authorization_endpoint"] = f"{pool}/authorize"
    issuer.document["token_endpoint"] = f"{pool}/token"
    assert data()["data-token"] == f"{pool}/token"
    assert len(str(chat_page().body).encode()) <= 31.5 * 1024


def test_endpoints_may_have_a_query(issuer: Issuer) -> None:
    issuer.document["authorization_endpoint"] += "?p=sign-in"
    issuer.document["token_endpoint"] += "?p=sign-in"
    assert str(data()["data-authorize"]).startswith(f"{issuer.host}/authorize?p=sign-in&response")
    assert directives()["connect-src"] == f"{CHAT} {issuer.host}/token"


def test_without_a_client_it_says_so_and_asks_nobody(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGN_IN_CLIENT", "")
    assert data()["data-problem"] == NO_CLIENT
    assert directives()["connect-src"] == CHAT
    assert issuer.asked == []


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_without_the_discovery_document_it_says_that_nobody_can_sign_in(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """With a line in the log that has no traceback."""
    issuer.pages[DISCOVERY] = MISBEHAVIOUR[name]
    nobody_can_sign_in(caplog)


def test_an_unreachable_or_untrusted_issuer_lets_nobody_sign_in(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    nobody_can_sign_in(caplog)
    caplog.clear()
    monkeypatch.setenv("SIGN_IN_ISSUER", "https://127.0.0.1:1")
    nobody_can_sign_in(caplog)
    assert issuer.asked == []


@pytest.mark.parametrize("endpoint", ["authorization_endpoint", "token_endpoint"])
@pytest.mark.parametrize(
    "url",
    [
        *(None, 7, "", "/token", "https://", "http://example.com/token", "javascript:alert()"),
        "https://example.com/token; script-src *",
        "https://example.com/token *",
        "https://example.com/token,",
        "https://user@example.com/token",
        "https://example.com/'unsafe-inline'",
        "https://*/token",
        "https://example.com/token#x",
        "https://example.com/token\n",
        "https://example.com/" + "x" * 1_000,
    ],
)
def test_an_endpoint_is_an_https_url_that_means_nothing_else_in_a_policy(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, endpoint: str, url: Any
) -> None:
    issuer.document[endpoint] = url
    nobody_can_sign_in(caplog)


def test_another_issuers_document_is_not_believed(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.document["issuer"] = "https://evil.example"
    nobody_can_sign_in(caplog)


def nobody_can_sign_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert data()["data-problem"] == NO_ENDPOINTS
    assert directives()["connect-src"] == CHAT
    (record,) = caplog.records
    assert record.message == "the issuer's endpoints are unavailable"
    assert record.exc_info is None
