"""The part of HTTP/1.1 (RFC 9112) that posts need: endpoints and answers."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

# Nothing else bounds the size of an answer. The log needs only the beginning of its body.
MAX_ANSWER = 65_536
MAX_HEADS = 16  # all are read again whenever more bytes arrive
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


def parse(data: bytes, ended: bool) -> Answer | None:
    """Read an answer; None while bytes are missing.

    Anything that RFC 9112 forbids a server to send is an error, even where the RFC lets a client
    tolerate it. A body without a length (chunked, or up to the end of the connection) is not read
    to its end: the status says it all, and API Gateway always sends a length.

    :param data: all bytes so far.
    :param ended: no more will come.
    :raises ConnectionError: the data is not, and cannot become, an answer.
    """
    answer = _parse(data, ended)
    if answer is None and ended:
        raise ConnectionError("closed before the answer was complete")
    if answer is None and len(data) >= MAX_ANSWER:
        raise ConnectionError("answer too long")
    return answer


# Sections 4 and 5; section 6.3, rules 3 to 5: one length, or an encoding, or neither.
_TEXT = rb"[\t -~\x80-\xff]*\r\n"
_OTHERS = rb"(?:(?!(?i:content-length|transfer-encoding):)[\w!#$%%&'*+.^`|~-]+:%b)*" % _TEXT
_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-5]\d\d) %b%b"
    rb"(?:(?i:content-length):[ \t]*(\d{1,9})[ \t]*\r\n%b|(?i:transfer-encoding):%b%b)?\r\n"
    % (_TEXT, _OTHERS, _OTHERS, _TEXT, _OTHERS)
)
_CLOSE = re.compile(rb"\nconnection:[^\r]*close", re.IGNORECASE)


def _parse(data: bytes, ended: bool) -> Answer | None:
    head = _final_head(data)
    if head is None:
        return None
    minor_version, code, length = head.groups()
    status = int(code)
    if status in (204, 304):  # section 6.3, rule 1: no body
        length = b"0"
    if length is None:
        return Answer(status, data[head.end() :], reusable=False)
    end = head.end() + int(length)
    if len(data) < end:
        return None
    # Bytes beyond the answer belong to no request (section 9.2).
    reusable = len(data) == end and not ended and minor_version == b"1"
    return Answer(status, data[head.end() : end], reusable and not _CLOSE.search(head[0]))


def _final_head(data: bytes) -> re.Match[bytes] | None:
    """The head after those of "informational" answers (RFC 9110, section 15.2)."""
    start = 0
    for _ in range(MAX_HEADS):
        end = data.find(b"\r\n\r\n", start) + 4
        if end < 4:
            return None
        head = _HEAD.fullmatch(data, start, end)
        if head is None or head[2] == b"101":  # section 15.2.2: only if a client asks for it
            raise ConnectionError("the answer is not HTTP/1")
        if head[2] >= b"200":
            return head
        start = end
    raise ConnectionError("too many informational answers")
