"""The chat's own page, which speaks the protocol like any other client.

It is served as one file, put together from `index.html`, `style.css` and `script.js`. Comments,
indents and most line breaks are left out: they would be a fifth of it.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from chalice import Response

from chalicelib.aws import posts_endpoint

if TYPE_CHECKING:
    from chalicelib.sign_in.issuer import Endpoints

TITLE = "ChaliceChat"  # without characters that HTML or JavaScript would have to escape
HERE = Path(__file__).parent
# Comments in JavaScript, indents and empty lines. No string, template or regular expression of the
# script has a part that looks like these: none spans lines, and a quote would end the match.
COMMENTS = re.compile(r"""^\s*((//|/\*\*).*\n\s*)*| // [^"'`\n]*$""", re.MULTILINE)
# What a style sheet and a script can do without.
SPACES = re.compile(r";?\s+(?=[{}])|(?<=[{};:,])\s+")
BREAKS = re.compile(r";?\n(?=})|(?<=[{;,(\[])\n")

NO_CLIENT = "Only people who have signed in can chat here, and this page cannot sign anybody in."
NO_ENDPOINTS = "Signing in is not possible at the moment. Reload the page to try again."


def chat_page() -> Response:
    """The page, with headers that let it load nothing, and connect only to this chat and, with
    sign-in, to the issuer's token endpoint.

    Raises `RuntimeError` if the environment does not name the chat's address. Reads the files once.
    For the cost of sign-in, see `Endpoints.find`; if the issuer fails, the page says so.
    """
    chat = re.sub("^http", "ws", posts_endpoint())  # one stage takes connections and posts
    sign_in = _sign_in()
    token_endpoint = sign_in.get("token", "").partition("?")[0]
    data = {"chat": chat} | sign_in
    attributes = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items())
    html = template().replace("{data}", attributes, 1)
    return Response(html, headers=_headers(f"{chat} {token_endpoint}".strip()))


def _sign_in() -> dict[str, str]:
    """The data that the page needs to sign people in, or the problem; empty without sign-in."""
    issuer, client = (os.environ.get(name) for name in ("SIGN_IN_ISSUER", "SIGN_IN_CLIENT"))
    if not issuer:
        return {}
    if not client:
        return {"problem": NO_CLIENT}
    found = _endpoints(issuer).find()
    if found is None:
        return {"problem": NO_ENDPOINTS}
    authorization, token = found
    query = {
        "response_type": "code",
        "client_id": client,
        "scope": "openid profile",
        "code_challenge_method": "S256",
    }
    separator = "&" if "?" in authorization else "?"
    return {
        "client": client,
        "authorize": f"{authorization}{separator}{urlencode(query)}&",  # the page adds the rest
        "token": token,
    }


@cache
def _endpoints(issuer: str) -> Endpoints:
    from chalicelib.sign_in.issuer import Endpoints  # here, since other functions do not need it

    # On the emulator, neither the chat nor its issuer has TLS.
    return Endpoints(issuer, {"https", urlsplit(posts_endpoint()).scheme})


def _headers(addresses: str) -> dict[str, str | list[str]]:
    policy = {
        "default-src": "'none'",
        "script-src": _hash("script"),
        "style-src": _hash("style"),
        "connect-src": addresses,
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
def template() -> str:
    """The page with its style, script and title; `{data}` marks the place of the chat's data."""
    html, style, script = (
        COMMENTS.sub("", (HERE / name).read_text(encoding="utf-8"))
        for name in ("index.html", "style.css", "script.js")
    )
    style, script = SPACES.sub("", style), BREAKS.sub("", script)
    html = html.replace("{style}", style).replace("{script}", script)
    return html.replace("{title}", TITLE)


@cache
def _hash(element: str) -> str:
    """The CSP source that allows the page's only such element, by a hash of its content."""
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", template(), re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
