"""Any bytes as an answer: nothing but `ConnectionError` comes out of the parser."""

from http.client import HTTPResponse
from io import BytesIO
from typing import IO, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.posting.http1 import Answer, parse

OK = b"HTTP/1.1 200 OK\r\n"
STARTS = [
    OK,
    OK,
    b"HTTP/1.0 410 Gone\r\n",
    b"HTTP/1.1 101 \r\n",
    b"HTTP/1.1 20\r\n",
    b"HTTP/2 200\r\n",
]
NAMES = [
    b"Content-Length",
    b"content-length",
    b"Transfer-Encoding",
    b"Connection",
    b"X",
    b"",
    b"\xff",
]
VALUES = [
    b"0",
    b"2",
    b"-1",
    b"+1",
    b"1,1",
    b"9" * 5_000,
    b"chunked",
    b"close",
    b"",
    b"\0",
    b"x\n",
    b"\r",
]


def joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(b"".join)


def several(part: st.SearchStrategy[bytes], most: int) -> st.SearchStrategy[bytes]:
    return st.lists(part, max_size=most).map(b"".join)


FIELD = joined(
    st.sampled_from(NAMES),
    st.sampled_from([b":", b": ", b":", b" :"]),
    st.sampled_from(VALUES),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r\n "]),
)
NEARLY_RIGHT = joined(
    st.integers(0, 3_000).map(b"HTTP/1.1 100 Continue\r\n\r\n".__mul__) | st.just(b""),
    st.sampled_from(STARTS),
    several(FIELD, most=3),
    st.just(b"\r\n"),
    st.sampled_from([b"", b"12", b"12" + OK, OK + b"\r\n"]) | st.binary(max_size=3),
)
ANY = NEARLY_RIGHT | st.binary() | several(NEARLY_RIGHT, most=2)
TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8).map(str.encode)
TEXTS = st.text("\t !~:,\xa0\xff", max_size=8).map(lambda text: text.encode("latin-1"))


def parsed(data: bytes, ended: bool) -> Answer | ConnectionError | None:
    try:
        return parse(data, ended)
    except ConnectionError as error:
        return error


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_it_is_an_answer_or_a_connection_error(data: bytes) -> None:
    outcome = parsed(data, ended=True)
    assert isinstance(outcome, Answer | ConnectionError)
    if isinstance(outcome, Answer):
        assert not outcome.reusable


@given(ANY, st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_more_bytes_change_no_outcome(data: bytes, length: int) -> None:
    """Whether they come in one read or in several."""
    before, after = parsed(data[:length], ended=False), parsed(data, ended=False)
    if isinstance(before, Answer):
        assert isinstance(after, Answer)
        assert after.status == before.status
        assert after.body.startswith(before.body)
        assert not (before.reusable and after.reusable and len(data) > length)
    if isinstance(before, ConnectionError):
        assert isinstance(after, ConnectionError)


class Socket:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, *_: Any) -> IO[bytes]:
        return BytesIO(self.data)


@given(
    status=st.integers(200, 599),
    others=st.lists(st.tuples(TOKENS, TEXTS), max_size=4),
    place=st.integers(0, 4),
    length=st.integers(0, 9),
    body=st.binary(max_size=9),
)
@settings(max_examples=200, deadline=None)
def test_the_standard_library_reads_the_same(
    status: int, others: list[tuple[bytes, bytes]], place: int, length: int, body: bytes
) -> None:
    fields = list(others)
    fields.insert(place, (b"Content-Length", b"%d" % length))
    head = b"".join(b"%b:%b\r\n" % field for field in fields)
    data = b"HTTP/1.1 %d Reason\r\n%b\r\n%b" % (status, head, body)
    response = HTTPResponse(Socket(data))  # type: ignore[arg-type]
    response.begin()
    rest = 0 if status in (204, 304) else length
    answer = parse(data, ended=False)
    if len(body) < rest:
        assert answer is None
    else:
        assert answer == (response.status, response.read(), len(body) == rest)
