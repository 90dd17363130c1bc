"""Addresses of endpoints, and answers as they come from the wire."""

import pytest

from chalicelib.posting.http1 import MAX_ANSWER, Endpoint, parse

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", None),
        (OK + b"Content-Length: 0\r\n", None),
        (OK + b"Content-Length: 0\r\n\r\n", (200, b"", True)),
        (OK + b"content-length:2\r\n\r\n1", None),
        (OK + b"content-length:2\r\n\r\n12", (200, b"12", True)),
        (OK + b"content-length:2\r\n\r\n123", (200, b"123", False)),
        (OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", (200, b"", False)),
        (b"HTTP/1.0 410 Gone\r\nContent-Length: 0\r\n\r\n", (410, b"", False)),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (200, b"0\r\n\r\n", False)),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", None),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", (200, b"", True)),
    ],
)
def test_answers(data: bytes, answer: tuple[int, bytes, bool] | None) -> None:
    assert parse(data, ended=False) == answer
    if answer:
        assert parse(data, ended=True) == (*answer[:2], False)
    else:
        with pytest.raises(ConnectionError, match="closed before the answer was complete"):
            parse(data, ended=True)


@pytest.mark.parametrize(
    "data", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/2 200\r\n\r\n"]
)
def test_other_protocols(data: bytes) -> None:
    with pytest.raises(ConnectionError, match="not HTTP/1"):
        parse(data, ended=False)


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
