"""The part of HTTP/1.1 (RFC 9112) that posts need: endpoints and answers."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

# Nothing else bounds the size of an answer. The log needs only the beginning of its body.
MAX_ANSWER = 65_536
MAX_REASON = 200


class Endpoint(NamedTuple):
    """A URL, split into the parts that a connection and a request need."""

    secure: bool
    host: str
    port: int
    authority: str  # the Host header, with the port unless it is the scheme's default
    path: str  # without a trailing slash

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """:raises ValueError: not an http or https address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) endpoint: {url!r}")
        default = 443 if parts.scheme == "https" else 80
        port = parts.port or default
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        authority = host if port == default else f"{host}:{port}"
        return cls(parts.scheme == "https", parts.hostname, port, authority, parts.path.rstrip("/"))


class Answer(NamedTuple):
    status: int
    body: bytes
    reusable: bool  # the connection may carry another request

    def __str__(self) -> str:
        return f"{self.status} {self.body[:MAX_REASON].decode(errors='replace')}".rstrip()


def parse(data: bytes, ended: bool, longest: int = MAX_ANSWER) -> Answer | None:
    """Read an answer; None while bytes are missing.

    :param data: all bytes so far.
    :param ended: no more will come.
    :param longest: the most bytes that are waited for.
    :raises ConnectionError: the data is not, and cannot become, an answer.
    """
    answer = _parse(data, ended)
    if answer is None and ended:
        raise ConnectionError("closed before the answer was complete")
    if answer is None and len(data) >= longest:
        raise ConnectionError("answer too long")
    return answer


_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


def _parse(data: bytes, ended: bool) -> Answer | None:
    head_end = data.find(b"\r\n\r\n") + 2
    if head_end < 2:
        return None
    if not data.startswith(b"HTTP/1.") or not data[9:12].isdigit():
        raise ConnectionError("the answer is not HTTP/1")
    status = int(data[9:12])
    body = data[head_end + 2 :]
    if status < 200:  # "informational": the answer follows
        return _parse(body, ended)
    length = _LENGTH.search(data, 0, head_end)
    if length is None:
        # The body may end anywhere, so nothing can follow it. API Gateway always sends a length.
        return Answer(status, body, reusable=False)
    missing = int(length[1]) - len(body)
    if missing > 0:
        return None
    reusable = (
        missing == 0
        and not ended
        and data.startswith(b"HTTP/1.1")
        and not _CLOSE.search(data, 0, head_end)
    )
    return Answer(status, body, reusable)
