"""The chat's own page: one HTML file, which speaks the protocol like any other client."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path

from chalice import Response

from chalicelib.aws import posts_endpoint

HTML = Path(__file__).with_name("index.html")


def chat_page() -> Response:
    """The page, with headers that let it load nothing, and connect to this chat only.

    Raises `RuntimeError` if the environment does not name the chat's address. Reads the file once.
    """
    chat = re.sub("^http", "ws", posts_endpoint())  # one stage takes connections and posts
    html = _html().replace("{chat}", escape(chat))
    return Response(html, headers=_headers(chat))


def _headers(chat: str) -> dict[str, str | list[str]]:
    policy = {
        "default-src": "'none'",
        "script-src": _hash("script"),
        "style-src": _hash("style"),
        "connect-src": chat,
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Strict-Transport-Security": "max-age=31536000",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # a new release reaches everybody at the next load
    }


@cache
def _html() -> str:
    return HTML.read_text(encoding="utf-8")


@cache
def _hash(element: str) -> str:
    """What CSP allows to run or to apply: the content of the page's one such element."""
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", _html(), re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
