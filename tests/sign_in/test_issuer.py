"""Issuers that misbehave, and how often one is asked."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from threading import Timer
from typing import Any

import pytest

from chalicelib.sign_in.issuer import IssuerUnavailable, Kept, fetch_endpoints, fetch_keys
from tests.conftest import Clock
from tests.issuers import DISCOVERY, MISBEHAVIOUR, Issuer, answer, says

PATHS = (DISCOVERY, "/keys")


def has_no_keys(issuer: str, seconds: float = 30) -> None:
    with pytest.raises(IssuerUnavailable):
        fetch_keys(issuer, seconds)


def test_the_keys_have_ids(issuer: Issuer) -> None:
    issuer.keys.append({"kty": "RSA"})
    assert list(fetch_keys(issuer.url)) == ["rsa", "ec"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_an_issuer_that_misbehaves_has_no_keys(issuer: Issuer, name: str, path: str) -> None:
    issuer.pages[path] = MISBEHAVIOUR[name]
    has_no_keys(issuer.url)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("drips", [False, True])
def test_a_good_document_that_comes_late_is_not_waited_for(
    issuer: Issuer, path: str, drips: bool
) -> None:
    issuer.pages[path] = issuer.late(drips)
    has_no_keys(issuer.url, seconds=0.5)
    if path == DISCOVERY:
        with pytest.raises(IssuerUnavailable):
            fetch_endpoints(issuer.url, {"https"}, seconds=0.5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("status", "padding"), [(200, 5_000_000), (302, 0), (500, 0)])
def test_a_good_document_in_a_bad_answer_is_ignored(
    issuer: Issuer, path: str, status: int, padding: int
) -> None:
    body = json.dumps(issuer.document | {"keys": issuer.keys}).encode() + b" " * padding
    issuer.pages["/good"] = says(body)
    issuer.pages[path] = lambda request: answer(request, body, status, Location="/good")
    has_no_keys(issuer.url)
    assert "/good" not in issuer.asked


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example", "jwks_uri": "{host}/keys"},
        {"issuer": "{url}", "jwks_uri": "http{host}/keys"},
        {"issuer": "{url}", "jwks_uri": "file:///dev/null"},
        {"issuer": "{url}", "jwks_uri": "https://127.0.0.1:1/keys"},
        {"issuer": "{url}", "jwks_uri": "https://127.0.0.1:100000/keys"},
        {"issuer": "{url}", "jwks_uri": "https://[/keys"},
        {"issuer": "{url}", "jwks_uri": "{host}/a b\r\nX: y"},
        {"issuer": "{url}", "jwks_uri": 7},
        {"issuer": "{url}"},
    ],
)
def test_a_doubtful_discovery_document_is_not_followed(
    issuer: Issuer, document: dict[str, Any]
) -> None:
    filled = {
        name: value.replace("http{host}", issuer.host.replace("https", "http"))
        .replace("{host}", issuer.host)
        .replace("{url}", issuer.url)
        if isinstance(value, str)
        else value
        for name, value in document.items()
    }
    issuer.pages[DISCOVERY] = says(filled)
    has_no_keys(issuer.url)
    assert "/keys" not in issuer.asked


def test_an_unreachable_or_untrusted_issuer_has_no_keys(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_no_keys("https://127.0.0.1:1")
    monkeypatch.delenv("SSL_CERT_FILE")
    has_no_keys(issuer.url)
    assert issuer.asked == []


def test_a_tls_handshake_that_does_not_come_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hangs_up = Timer(10, silent.close)
        hangs_up.start()
        with pytest.raises(IssuerUnavailable, match="TimeoutError"):
            fetch_keys(f"https://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)
        hangs_up.cancel()


def test_a_time_limit_that_passes_just_after_the_answer_is_no_error(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[Timer] = []

    class Late(Timer):
        def cancel(self) -> None:
            super().cancel()
            cancelled.append(self)

    monkeypatch.setattr("chalicelib.sign_in.issuer.Timer", Late)
    fetch_keys(issuer.url)
    assert len(cancelled) == 2
    for timer in cancelled:
        timer.function(*timer.args)


# How often an issuer is asked


class Source:
    """Something to fetch, with the number of fetches. Without a value, a fetch fails."""

    def __init__(self) -> None:
        self.value: str | None = "old"
        self.fetches = 0
        self.clock = Clock()
        self.kept = Kept("values", self.fetch, self.clock)

    def fetch(self) -> str:
        self.fetches += 1
        if self.value is None:
            raise IssuerUnavailable("no value")
        return self.value


def is_new(value: str) -> bool:
    return value == "new"


@pytest.fixture
def source() -> Source:
    return Source()


def test_it_is_asked_when_needed_and_each_hour(source: Source) -> None:
    """So a key that the issuer has withdrawn is forgotten within an hour."""
    assert source.fetches == 0
    assert [source.kept.get() for _ in range(3)] == ["old"] * 3
    source.value = "new"
    source.clock.advance(59 * 60)
    assert source.kept.get() == "old"
    assert source.fetches == 1
    source.clock.advance(60)
    assert source.kept.get() == "new"
    assert source.fetches == 2


def test_it_is_asked_for_something_unknown_once_a_minute(source: Source) -> None:
    assert [source.kept.get(is_new) for _ in range(100)] == ["old"] * 100
    source.value = "new"
    source.clock.advance(59)
    assert source.kept.get(is_new) == "old"
    assert source.fetches == 1
    source.clock.advance(1)
    assert source.kept.get(is_new) == "new"
    assert source.fetches == 2


def test_the_old_stays_while_it_cannot_be_renewed(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.kept.get()
    source.value = None
    source.clock.advance(2 * 60 * 60)
    assert [source.kept.get() for _ in range(3)] == ["old"] * 3
    assert source.fetches == 2
    (failed,) = caplog.records
    assert failed.getMessage() == "the issuer's values are unavailable"
    assert failed.exc_info is None
    source.value = "new"
    source.clock.advance(5)
    assert source.kept.get() == "new"


@pytest.mark.parametrize("suffices", [is_new, lambda _: True])
def test_a_failed_fetch_is_retried_after_5_seconds(
    source: Source, suffices: Callable[[str], bool]
) -> None:
    source.value = None
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            source.kept.get(suffices)
    assert source.fetches == 1
    source.value = "new"
    source.clock.advance(5)
    assert source.kept.get(suffices) == "new"


def test_a_failure_to_look_for_something_unknown_is_told(source: Source) -> None:
    source.kept.get()
    source.value = None
    source.clock.advance(60)
    with pytest.raises(IssuerUnavailable):
        source.kept.get(is_new)
    assert source.kept.get() == "old"
