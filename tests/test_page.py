"""The page as it is served: its headers, and that it loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from chalicelib.aws import ENDPOINT_VARIABLE
from chalicelib.page import HERE, TITLE, chat_page

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


def test_it_loads_nothing(parsed: Parsed) -> None:
    tags = [tag for tag, _ in parsed.elements]
    assert [tags.count(tag) for tag in ("script", "style")] == [1, 1]
    assert not {"link", "img", "iframe", "object"} & set(tags)
    attributes = {name for _, attributes in parsed.elements for name in attributes}
    assert not attributes & {"src", "href", "srcset", "action", "style"}
    assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import", parsed.contents["style"])


def test_its_parts_are_those_of_their_files_without_comments_and_indents(parsed: Parsed) -> None:
    source = (HERE / "script.js").read_text(encoding="utf-8").replace("{title}", TITLE).split("\n")
    kept = [line for line in map(str.strip, source) if not line.startswith(("//", "/**"))]
    script = parsed.contents["script"]
    assert " // " not in script
    whole = "".join(line.partition(" // ")[0] for line in kept)
    assert script.replace("\n", "") == whole.replace(";}", "}")
    style = (HERE / "style.css").read_text(encoding="utf-8")
    served = "".join(parsed.contents["style"].split())
    assert served == "".join(style.split()).replace(";}", "}")


def test_its_script_has_no_way_to_make_html_of_text(parsed: Parsed) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|DOMParser|setHTML"
    assert not re.search(ways, parsed.contents["script"])


def test_the_page_loads_no_library_for_tokens_and_the_app_nothing_for_sign_in() -> None:
    """A cold start without sign-in pays for none of its modules."""
    code = (
        "import sys, app;"
        "loaded = {'jwt', 'cryptography', 'chalicelib.sign_in.issuer'} & {*sys.modules};"
        "import chalicelib.sign_in.issuer;"
        "print(loaded, {'jwt', 'cryptography'} & {*sys.modules})"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert printed.stdout == "set() set()\n", printed.stderr
