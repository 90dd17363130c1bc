"""FanOut against a small @connections server in this process whose answers depend on the connection id."""

import itertools
import random
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError

from benchmarks import certificates
from chalicelib import fanout
from chalicelib.fanout import FanOut

CREDENTIALS = Credentials(
    "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a session token/+="
)
ODD_IDS = [
    "L0SM9cOFvHcCIhw=",
    "a/b",
    "a+b",
    "a%2Fb",
    "a b",
    "é✓",
    "~-._",
    "a=/+%=",
    "?x=1#y",
    "\r\nhost: x",
]


class Api(socketserver.ThreadingTCPServer):
    """Answers 200, unless the id says otherwise: `410-x`, `429x2-y` (twice, then 200), `slow-z`, `half-`, `drop-`..."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), Connection, bind_and_activate=False)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.server_bind()
        self.server_activate()
        self.tls = tls
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # path, headers, body
        self.asked: Counter[str] = Counter()  # by connection id
        self.delivered: Counter[str] = Counter()
        self.connections = 0
        self.answers_a_connection = 10**9  # then it is closed without a word
        self.says_length = True
        self.closing = threading.Event()  # ends what is slow
        self.sockets: set[socket.socket] = set()

    @property
    def address(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.server_address[1]}/api"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ssl.SSLError):
            super().handle_error(request, client_address)

    def close_connections(self) -> None:
        for connection in list(self.sockets):
            connection.shutdown(socket.SHUT_RDWR)
        while self.sockets:
            time.sleep(0.001)


class Connection(socketserver.StreamRequestHandler):
    server: Api

    def setup(self) -> None:
        if self.server.tls:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()
        self.server.sockets.add(self.request)
        self.server.connections += 1

    def handle(self) -> None:
        try:
            for _ in range(self.server.answers_a_connection):
                if not self.answer():
                    break
        except OSError:
            pass

    def finish(self) -> None:
        self.server.sockets.discard(self.request)
        super().finish()
        self.request.close()

    def answer(self) -> bool:
        start = self.rfile.readline().decode()
        if not start:
            return False
        lines = iter(lambda: self.rfile.readline().decode().strip(), "")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        path = start.split(" ")[1]
        connection_id = unquote(path.rpartition("/")[2])
        self.server.requests.append(
            (path, headers, self.rfile.read(int(headers["content-length"])))
        )
        self.server.asked[connection_id] += 1
        kind, _, _ = connection_id.partition("-")
        if kind == "slow":
            self.server.closing.wait(10)
        if kind == "half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        if kind in ("half", "drop"):
            return False
        status, _, times = kind.partition("x")
        if not status.isdigit() or self.server.asked[connection_id] > int(times or 1000):
            status = "200"
            self.server.delivered[connection_id] += 1
        body = b'{"message": "no"}' if status != "200" else b""
        length = b"content-length: %d\r\n" % len(body) if self.server.says_length else b""
        self.wfile.write(b"HTTP/1.1 %s Some Reason\r\n%s\r\n%s" % (status.encode(), length, body))
        return self.server.says_length


@pytest.fixture
def serve() -> Iterator[Callable[..., Api]]:
    servers: list[Api] = []

    def start(tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> Api:
        server = Api(tls, receive_buffer)
        servers.append(server)
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return server

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def api(serve: Callable[..., Api]) -> Api:
    return serve()


@pytest.fixture
def connect() -> Iterator[Callable[..., FanOut]]:
    with ExitStack() as stack:

        def make(
            address: str,
            credentials: fanout.Credentials = CREDENTIALS,
            tls: ssl.SSLContext | None = None,
            region: str = "eu-west-1",
        ) -> FanOut:
            return stack.enter_context(closing(FanOut(address, region, credentials, tls)))

        yield make


@pytest.fixture
def fan_out(api: Api, connect: Callable[..., FanOut]) -> FanOut:
    return connect(api.address)


def members(count: int) -> list[str]:
    return [f"member{number}=" for number in range(count)]


def test_everybody_gets_the_message_once(api: Api, fan_out: FanOut) -> None:
    result = fan_out.post(members(500), "hello ✓")
    assert (result.delivered, result.gone, result.failed, result.stopped) == (500, [], {}, "")
    assert api.delivered == Counter(members(500))
    assert {body for _, _, body in api.requests} == {"hello ✓".encode()}


def test_nobody_to_post_to(api: Api, fan_out: FanOut) -> None:
    assert fan_out.post([], "hello").delivered == 0
    assert api.connections == 0


@pytest.mark.parametrize("message", [b"", b"\x00\xff", b"x" * 131_072])
def test_any_message_arrives_whole(api: Api, fan_out: FanOut, message: bytes) -> None:
    assert fan_out.post(members(20), message).delivered == 20
    assert {body for _, _, body in api.requests} == {message}


@pytest.mark.parametrize("token", ["a session token/+=", None])
@pytest.mark.parametrize("path", ["/api", "", "/_aws/execute-api/abc123/api", "/a stage"])
def test_signatures_are_what_botocore_signs(
    connect: Callable[..., FanOut], api: Api, path: str, token: str | None
) -> None:
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    address = api.address.removesuffix("/api")
    assert connect(address + path, credentials, region="cn-north-1").post(
        ODD_IDS, "hello"
    ).delivered == len(ODD_IDS)
    assert set(api.asked) == set(ODD_IDS)
    for target, headers, body in api.requests:
        assert headers.get("x-amz-security-token") == token
        assert headers["authorization"] == signed_by_botocore(
            address + target, headers, body, credentials
        )


def signed_by_botocore(
    url: str, headers: dict[str, str], body: bytes, credentials: Credentials
) -> str:
    signed = {
        name: headers[name]
        for name in ("host", "x-amz-date", "x-amz-security-token")
        if name in headers
    }
    request = AWSRequest("POST", url, signed, body)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(credentials, "execute-api", "cn-north-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    names = signer.signed_headers(signer.headers_to_sign(request))
    credential = f"{credentials.access_key}/{signer.credential_scope(request)}"
    signature = signer.signature(text, request)
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"


def test_rotated_credentials_are_used(connect: Callable[..., FanOut], api: Api) -> None:
    class Rotating:
        serial = itertools.count(1)

        def get_frozen_credentials(self) -> fanout.FrozenCredentials:
            return Credentials(
                f"AKID{next(self.serial)}", "secret", "token"
            ).get_frozen_credentials()

    fan = connect(api.address, Rotating())
    fan.post(["a"], "hello")
    fan.post(["a"], "hello")
    assert ["AKID1/" in h["authorization"] for _, h, _ in api.requests] == [True, False]
    assert "AKID2/" in api.requests[1][1]["authorization"]


def test_no_credentials_are_said(connect: Callable[..., FanOut], api: Api) -> None:
    class Missing:
        def get_frozen_credentials(self) -> fanout.FrozenCredentials:
            raise NoCredentialsError()

    with pytest.raises(NoCredentialsError):
        connect(api.address, Missing()).post(["a"], "hello")


def test_who_is_gone_is_listed_and_stops_nobody(api: Api, fan_out: FanOut) -> None:
    gone = [f"410-{number}" for number in range(50)]
    result = fan_out.post(
        [i for pair in zip(gone, members(50), strict=True) for i in pair], "hello"
    )
    assert (result.delivered, sorted(result.gone), result.failed) == (50, sorted(gone), {})
    assert max(api.asked.values()) == 1


@pytest.mark.parametrize("kind", ["429x2", "500x1", "502x3", "503x2"])
def test_trouble_that_passes_is_tried_again(api: Api, fan_out: FanOut, kind: str) -> None:
    result = fan_out.post([f"{kind}-a", *members(100)], "hello")
    assert (result.delivered, result.failed) == (101, {})
    assert api.asked[f"{kind}-a"] == int(kind[-1]) + 1


def test_a_server_error_that_stays_is_given_up_after_some_attempts(
    api: Api, fan_out: FanOut
) -> None:
    result = fan_out.post(["500-a", *members(100)], "hello")
    assert result.failed == {"500-a": '500 {"message": "no"}'}
    assert result.delivered == 100
    assert api.asked["500-a"] == fanout.ATTEMPTS
    assert result.seconds < fanout.POST_SECONDS


def test_throttling_that_stays_is_given_up_after_some_time(
    api: Api, fan_out: FanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "POST_SECONDS", 1.0)
    monkeypatch.setattr(fanout, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(fanout, "LONGEST_RETRY_SECONDS", 0.04)
    result = fan_out.post(["429-a", *members(100)], "hello")
    assert result.failed == {"429-a": '429 {"message": "no"}'}
    assert result.delivered == 100
    assert api.asked["429-a"] > fanout.ATTEMPTS
    assert 0.5 < result.seconds < 2.0


def test_pauses_grow(api: Api, fan_out: FanOut, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []

    def shortest(low: float, high: float) -> float:
        bounds.append(high)
        return low

    monkeypatch.setattr(random, "uniform", shortest)
    fan_out.post(["500-a"], "hello")
    assert bounds == [0.1, 0.2, 0.4, 0.8, 1.6, 1.6]  # the last only says that it is too late


@pytest.mark.parametrize("status", [400, 403, 404, 413, 302, 204])
def test_other_answers_are_reported_and_not_tried_again(
    api: Api, fan_out: FanOut, status: int
) -> None:
    result = fan_out.post([f"{status}-a", *members(100)], "hello")
    assert result.failed == {f"{status}-a": f'{status} {{"message": "no"}}'}
    assert result.delivered == 100
    assert api.asked[f"{status}-a"] == 1


def test_a_slow_member_is_given_up_and_holds_up_nobody(
    api: Api, fan_out: FanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "ANSWER_SECONDS", 0.5)
    others: list[float] = []
    start = time.monotonic()
    watcher = threading.Thread(
        target=lambda: others.append(wait_for(lambda: len(api.delivered) == 200) - start)
    )
    watcher.start()
    result = fan_out.post(["slow-a", *members(200)], "hello")
    watcher.join()
    assert others[0] < 0.4
    assert result.delivered == 200
    assert result.failed == {"slow-a": "no answer within 0.5 s"}
    assert api.asked["slow-a"] == 1
    assert 0.5 <= result.seconds < 1


def wait_for(condition: Callable[[], bool]) -> float:
    """When it came true."""
    give_up = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)
    return time.monotonic()


@pytest.mark.parametrize("kind", ["half", "drop"])
def test_an_answer_lost_on_a_new_connection_is_not_tried_again(
    api: Api, fan_out: FanOut, kind: str
) -> None:
    result = fan_out.post([f"{kind}-a"], "hello")
    assert result.failed == {f"{kind}-a": "no answer: closed before the answer was complete"}
    assert api.asked[f"{kind}-a"] == 1


def test_half_an_answer_on_a_kept_connection_is_not_tried_again(api: Api, fan_out: FanOut) -> None:
    fan_out.post(["a"], "hello")
    assert list(fan_out.post(["half-a"], "hello").failed) == ["half-a"]
    assert (api.asked["half-a"], api.connections) == (1, 1)


def test_a_post_on_a_stale_connection_is_tried_again_once(api: Api, fan_out: FanOut) -> None:
    fan_out.post(["a"], "hello")
    assert list(fan_out.post(["drop-a"], "hello").failed) == ["drop-a"]
    assert (api.asked["drop-a"], api.connections) == (2, 2)


def test_calls_share_connections(api: Api, fan_out: FanOut) -> None:
    fan_out.post(members(500), "hello")
    opened = api.connections
    assert opened <= fanout.POOL_SIZE
    for _ in range(5):
        assert fan_out.post(members(500), "hello").delivered == 500
    assert api.connections <= fanout.POOL_SIZE


def test_few_members_open_few_connections(api: Api, fan_out: FanOut) -> None:
    fan_out.post(members(3), "hello")
    assert api.connections <= 3


def test_connections_that_were_closed_between_calls_are_replaced(api: Api, fan_out: FanOut) -> None:
    fan_out.post(members(200), "hello")
    api.close_connections()
    assert fan_out.post(members(200), "hello").delivered == 200
    assert api.delivered == Counter(members(200) * 2)


def test_connections_that_close_under_way_are_replaced(api: Api, fan_out: FanOut) -> None:
    api.answers_a_connection = 5
    assert fan_out.post(members(500), "hello").delivered == 500
    assert api.delivered == Counter(members(500))


def test_connections_idle_for_too_long_are_not_used(
    api: Api, fan_out: FanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    fan_out.post(["a"], "hello")
    later = time.time() + fanout.IDLE_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    fan_out.post(["a"], "hello")
    assert api.connections == 2


def test_an_answer_without_a_length_ends_its_connection(api: Api, fan_out: FanOut) -> None:
    api.says_length = False
    assert fan_out.post(members(100), "hello").delivered == 100
    assert api.connections == 100


def test_connection_refused(connect: Callable[..., FanOut]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    ids = iter(members(1_000))
    result = connect(f"http://127.0.0.1:{port}/api").post(ids, "hello")
    assert (result.delivered, result.stopped) == (
        0,
        "no connection: [Errno 111] Connection refused",
    )
    assert set(result.failed.values()) == {result.stopped}
    assert len(result.failed) + len(list(ids)) == 1_000
    assert len(result.failed) <= 2 * fanout.FIRST_CONNECTIONS
    assert result.seconds < fanout.POST_SECONDS


def test_a_host_without_an_address(
    connect: Callable[..., FanOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    result = connect("http://unknown.invalid/api").post(members(1_000), "hello")
    assert result.stopped == "no connection: [Errno -2] Name or service not known"


def test_what_one_address_refuses_is_tried_at_the_next(
    api: Api, connect: Callable[..., FanOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        addresses = [unused.getsockname(), api.server_address]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert connect(api.address).post(members(1), "hello").delivered == 1
    assert connect(api.address).post(members(100), "hello").delivered == 100


def test_time_runs_out(api: Api, fan_out: FanOut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "BROADCAST_SECONDS", 0.3)
    ids = (f"429-{number}" for number in itertools.count())
    result = fan_out.post(ids, "hello")
    assert result.stopped == "not done within 0.3 s"
    assert result.seconds < 1
    assert next(ids)


def test_ids_are_not_taken_ahead(api: Api, fan_out: FanOut) -> None:
    ahead: list[int] = []

    def ids() -> Iterator[str]:
        for number in range(20_000):
            ahead.append(number - sum(api.delivered.values()))
            yield f"member{number}"

    assert fan_out.post(ids(), "hello").delivered == 20_000
    assert max(ahead) <= fanout.POOL_SIZE


def test_ids_are_not_taken_ahead_when_everything_is_throttled(
    api: Api, fan_out: FanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "BROADCAST_SECONDS", 0.5)
    taken = itertools.count()
    result = fan_out.post((f"429-{next(taken)}" for _ in range(100_000)), "hello")
    assert next(taken) <= fanout.POOL_SIZE + fanout.MAX_WAITING + len(result.failed)


def test_sending_starts_before_the_last_page_is_read(api: Api, fan_out: FanOut) -> None:
    def pages() -> Iterator[str]:
        yield from members(100)
        wait_for(lambda: len(api.delivered) >= 50)
        yield "the last page"

    assert fan_out.post(pages(), "hello").delivered == 101


def test_what_the_iterator_raises_comes_through_and_the_next_call_works(
    api: Api, fan_out: FanOut
) -> None:
    def broken() -> Iterator[str]:
        yield from members(3)
        raise KeyError("page")

    with pytest.raises(KeyError):
        fan_out.post(broken(), "hello")
    assert fan_out.post(members(100), "hello").delivered == 100


def test_calls_from_several_threads(api: Api, fan_out: FanOut) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(fan_out.post(members(100), "hello").delivered)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [100] * 8


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificates.make(tmp_path_factory.mktemp("tls"))


class TestTls:
    @pytest.fixture
    def secure(self, serve: Callable[..., Api], files: tuple[Path, Path]) -> Api:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files[1])
        return serve(context)

    @pytest.mark.parametrize("size", [5, 131_072])
    def test_posts_and_keeps_connections(
        self, connect: Callable[..., FanOut], secure: Api, files: tuple[Path, Path], size: int
    ) -> None:
        fan = connect(secure.address, tls=ssl.create_default_context(cafile=files[0]))
        for _ in range(2):
            assert fan.post(members(100), "x" * size).delivered == 100
        assert secure.connections <= fanout.POOL_SIZE
        secure.close_connections()
        assert fan.post(members(100), "x" * size).delivered == 100
        assert {len(body) for _, _, body in secure.requests} == {size}

    def test_an_unknown_authority_gets_nothing(
        self, connect: Callable[..., FanOut], secure: Api
    ) -> None:
        result = connect(secure.address).post(members(100), "hello")
        assert "CERTIFICATE_VERIFY_FAILED" in result.stopped
        assert (result.delivered, secure.requests) == (0, [])

    def test_a_certificate_for_another_host_gets_nothing(
        self, connect: Callable[..., FanOut], secure: Api, files: tuple[Path, Path]
    ) -> None:
        address = secure.address.replace("127.0.0.1", "localhost")
        trust = ssl.create_default_context(cafile=files[0])
        result = connect(address, tls=trust).post(members(100), "hello")
        assert "Hostname mismatch" in result.stopped
        assert (result.delivered, secure.requests) == (0, [])

    def test_a_server_that_does_not_speak_tls(
        self, connect: Callable[..., FanOut], api: Api
    ) -> None:
        address = api.address.replace("http:", "https:")
        result = connect(address).post(["a"], "hello")
        assert (result.delivered, list(result.failed)) == (0, ["a"])


def test_a_server_that_reads_slowly(
    connect: Callable[..., FanOut], serve: Callable[..., Api]
) -> None:
    api = serve(receive_buffer=4096)
    fan = connect(api.address)
    for _ in range(2):
        assert fan.post(members(4), b"x" * 4_000_000).delivered == 4
    assert {len(body) for _, _, body in api.requests} == {4_000_000}


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
    assert fanout._parse(data, ended=False) == answer
    if answer:
        assert fanout._parse(data, ended=True) == (*answer[:2], False)


@pytest.mark.parametrize(
    "data", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/2 200\r\n\r\n"]
)
def test_what_is_not_an_answer(data: bytes) -> None:
    with pytest.raises(ConnectionError):
        fanout._parse(data, ended=False)


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
def test_endpoint(url: str, authority: str, path: str) -> None:
    endpoint = fanout.Endpoint.parse(url)
    assert (endpoint.authority, endpoint.path) == (authority, path)


@pytest.mark.parametrize("url", ["", "abc.execute-api", "ftp://host/api", "https:///api"])
def test_what_is_not_an_endpoint(url: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        fanout.Endpoint.parse(url)
