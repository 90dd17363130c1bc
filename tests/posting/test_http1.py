"""Addresses of endpoints, and answers as they come from the wire."""

import pytest

from chalicelib.posting.http1 import MAX_ANSWER, MAX_HEADS, Endpoint, parse
from tests.connections import ODD_ANSWERS

OK = b"HTTP/1.1 200 OK\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", None),
        (b"HTT", None),
        (OK + b"Content-Length: 0\r\n", None),
        (EMPTY, (200, b"", True)),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", (200, b"", True)),
        (b"HTTP/1.1 599 \xe9\t!\r\nContent-Length: 0\r\n\r\n", (599, b"", True)),
        (OK + b"content-length:2\r\n\r\n1", None),
        (OK + b"content-length:2\r\n\r\n12", (200, b"12", True)),
        (OK + b"content-length:2\r\n\r\n123", (200, b"12", False)),
        (EMPTY + b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", (200, b"", False)),
        (OK + b"CONTENT-LENGTH: \t02 \t\r\nx:\r\n\r\n12", (200, b"12", True)),
        (OK + b"X: content-length: 5\r\nContent-Length: 0\r\n\r\n", (200, b"", True)),
        (OK + b"X-Content-Length: 5\r\n!#$%&'*+-.^_`|~: \xff\r\n\r\n", (200, b"", False)),
        (OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", (200, b"", False)),
        (OK + b"Content-Length: 0\r\nConnection: x, Close\r\n\r\n", (200, b"", False)),
        (OK + b"Content-Length: 0\r\nConnection: x\r\nConnection: y\r\n\r\n", (200, b"", True)),
        (b"HTTP/1.0 410 Gone\r\nContent-Length: 0\r\n\r\n", (410, b"", False)),
        (
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            (200, b"", False),
        ),
        (OK + b"\r\nup to the end", (200, b"up to the end", False)),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (200, b"0\r\n\r\n", False)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, b"", True)),
        (CONTINUE, None),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", None),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + EMPTY, (200, b"", True)),
        (CONTINUE * (MAX_HEADS - 1) + EMPTY, (200, b"", True)),
    ],
)
def test_answers(data: bytes, answer: tuple[int, bytes, bool] | None) -> None:
    assert parse(data, ended=False) == answer
    if answer:
        assert parse(data, ended=True) == (*answer[:2], False)
    else:
        with pytest.raises(ConnectionError, match="closed before the answer was complete"):
            parse(data, ended=True)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("data", ODD_ANSWERS)
def test_what_is_not_allowed_is_no_answer(data: bytes, ended: bool) -> None:
    with pytest.raises(ConnectionError):
        parse(data, ended)


def test_an_endless_answer() -> None:
    with pytest.raises(ConnectionError, match="too long"):
        parse(OK + b"x" * MAX_ANSWER, ended=False)


@pytest.mark.parametrize(
    ("body", "text"),
    [(b"", "403"), (b'{"message": "no"}', '403 {"message": "no"}'), (b"\xff", "403 \ufffd")],
)
def test_the_text_of_an_answer(body: bytes, text: str) -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert str(parse(head + body, ended=False)) == text


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        (
            "https://abc.execute-api.eu-west-1.amazonaws.com/api",
            "abc.execute-api.eu-west-1.amazonaws.com",
            "/api",
        ),
        (
            "https://abc.execute-api.cn-north-1.amazonaws.com.cn:443/api/",
            "abc.execute-api.cn-north-1.amazonaws.com.cn",
            "/api",
        ),
        (
            "http://127.0.0.1:4566/_aws/execute-api/abc/api",
            "127.0.0.1:4566",
            "/_aws/execute-api/abc/api",
        ),
        ("http://[::1]:8080", "[::1]:8080", ""),
    ],
)
def test_endpoints(url: str, authority: str, path: str) -> None:
    endpoint = Endpoint.parse(url)
    assert (endpoint.authority, endpoint.path) == (authority, path)


@pytest.mark.parametrize("url", ["", "abc.execute-api", "ftp://host/api", "https:///api"])
def test_other_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        Endpoint.parse(url)
