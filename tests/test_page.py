"""The page as it is served: its headers and its size, and that it loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from chalicelib import issuer as issuers
from chalicelib import page as pages
from chalicelib.aws import ENDPOINT_VARIABLE
from chalicelib.page import HERE, NO_CLIENT, NO_ENDPOINTS, chat_page
from tests.issuers import CLIENT, DISCOVERY, Answer, Issuer, answer
from tests.test_tokens import MISBEHAVIOUR, SECONDS

CHAT = "wss://abc.execute-api.eu-west-1.amazonaws.com/api"


class Parsed(HTMLParser):
    """The elements of a page, and the content of its scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.contents: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style"):
            self.contents.setdefault(self.elements[-1][0], data)


@pytest.fixture(autouse=True)
def on_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, CHAT.replace("wss:", "https:"))


@pytest.fixture
def parsed() -> Parsed:
    return Parsed(str(chat_page().body))


def test_it_is_html_that_is_never_stale_and_never_guessed_at() -> None:
    headers = chat_page().headers
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-cache"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Strict-Transport-Security"] == "max-age=31536000"


def test_it_may_run_its_own_script_and_connect_to_its_own_chat_only(parsed: Parsed) -> None:
    assert directives() == {
        "default-src": "'none'",
        "script-src": hashed(parsed.contents["script"]),
        "style-src": hashed(parsed.contents["style"]),
        "connect-src": CHAT,
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def directives() -> dict[str, str]:
    policy = str(chat_page().headers["Content-Security-Policy"])
    return dict(each.split(" ", 1) for each in policy.split("; "))


def hashed(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def test_it_knows_the_address_of_its_chat(parsed: Parsed) -> None:
    assert dict(parsed.elements)["html"]["data-chat"] == CHAT


def test_it_is_small_and_loads_nothing(parsed: Parsed) -> None:
    assert len(str(chat_page().body).encode()) <= 32 * 1024
    tags = [tag for tag, _ in parsed.elements]
    assert [tags.count(tag) for tag in ("script", "style")] == [1, 1]
    assert not {"link", "img", "iframe", "object"} & set(tags)
    attributes = {name for _, attributes in parsed.elements for name in attributes}
    assert not attributes & {"src", "href", "srcset", "action", "style"}
    assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import", parsed.contents["style"])


def test_its_parts_are_those_of_their_files_without_comments_and_indents(parsed: Parsed) -> None:
    source = (HERE / "script.js").read_text(encoding="utf-8").split("\n")
    kept = [line for line in map(str.strip, source) if line and not line.startswith(("//", "/**"))]
    for line, whole in zip(parsed.contents["script"].strip().split("\n"), kept, strict=True):
        assert whole == line or whole.startswith(f"{line} // ")
    style = (HERE / "style.css").read_text(encoding="utf-8")
    served = "".join(parsed.contents["style"].split())
    assert served == "".join(style.split()).replace(";}", "}")


def test_its_script_has_no_way_to_make_html_of_text(parsed: Parsed) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|DOMParser|setHTML"
    assert not re.search(ways, parsed.contents["script"])


# With sign-in


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    pages._endpoints.cache_clear()
    with Issuer(tmp_path) as issuer:
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.certificates))
        monkeypatch.setenv("SIGN_IN_ISSUER", issuer.url)
        monkeypatch.setenv("SIGN_IN_CLIENT", CLIENT)
        monkeypatch.setattr(issuers, "FETCH_SECONDS", SECONDS)
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


@pytest.mark.parametrize("drips", [False, True])
def test_a_discovery_document_that_comes_late_is_not_waited_for(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, drips: bool
) -> None:
    issuer.pages[DISCOVERY] = issuer.late(drips)
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


def test_endpoints_are_fetched_each_hour_and_after_a_failure(issuer: Issuer) -> None:
    now = 0.0
    endpoints = issuers.Endpoints(issuer.url, {"https"}, lambda: now)
    document, fails = issuer.pages[DISCOVERY], says_nothing
    for seconds, page, requests, is_found in (
        (0, fails, 1, False),
        (4, document, 1, False),
        (6, document, 2, True),
        (3_600, fails, 2, True),
        (3_607, fails, 3, True),  # the old ones stay
        (3_613, document, 4, True),
    ):
        now = float(seconds)
        issuer.pages[DISCOVERY] = page
        assert bool(endpoints.find()) == is_found
        assert len(issuer.asked) == requests


says_nothing: Answer = lambda request: answer(request, {})  # noqa: E731


def test_the_page_loads_no_library_for_tokens_and_the_app_nothing_for_sign_in() -> None:
    """A cold start without sign-in pays for none of its modules."""
    code = (
        "import sys, app; loaded = {'jwt', 'cryptography', 'chalicelib.issuer'} & {*sys.modules};"
        "import chalicelib.issuer;"
        "print(loaded, {'jwt', 'cryptography'} & {*sys.modules})"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert printed.stdout == "set() set()\n", printed.stderr
