"""Posts one message to many WebSocket connections, as fast as API Gateway answers.

API Gateway delivers to one connection a request: `POST /{stage}/@connections/{connection id}`.
One after another, a room of a thousand waits for a thousand answers. Here up to `POOL_SIZE`
requests are under way at once, in one thread, over non-blocking sockets. Only the standard
library is used: signing and sending this way takes about a fiftieth of the CPU that botocore
takes, and CPU is what a small Lambda function has least of (`benchmarks/` measures both). Nothing
runs between two calls, so nothing minds being frozen.
"""

import errno
import hashlib
import heapq
import hmac
import itertools
import math
import os
import random
import re
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

# Requests under way at once. At 8 ms an answer, 64 make 8,000 posts a second: near the account's
# default of 10,000, which all its APIs share, and few enough that a single function does not
# exhaust its file descriptors (1,024).
POOL_SIZE = 64

# Connections opened at once when none is idle; every second answer then allows one more. A TLS
# handshake costs as much CPU as 20 posts, so a small room should not pay for a large room's pool:
# with an eighth of a CPU, a first message to 100 members took 0.34 s over 64 connections and 0.24 s
# this way; with a whole CPU both took 0.07 s.
FIRST_CONNECTIONS = 8

# A connection left idle for longer is not used again: whoever closed it in the meantime (a load
# balancer, a NAT) may have done so silently, while Lambda had the process frozen. AWS's own
# proxies allow 60 s.
IDLE_SECONDS = 50.0

# For one answer, connecting included. API Gateway answers in milliseconds; who needs longer must
# not hold up the room.
ANSWER_SECONDS = 3.0

# For one post, retries included, and for the whole broadcast: under the 29 s that API Gateway
# waits for the function, with a rest for reading and cleaning the table.
POST_SECONDS = 12.0
BROADCAST_SECONDS = 20.0

# Back-off before retry n is random between 0 and FIRST_RETRY_SECONDS * 2**n ("full jitter": all
# who were throttled together must not come back together), and at most LONGEST_RETRY_SECONDS. Six
# attempts span 1.5 s on average. 429 is tried again for as long as POST_SECONDS: several
# functions that post to one room share the account's quota, and with six attempts 20 of them gave
# up a tenth of 100,000 members (`benchmarks/simulate.py`).
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 1.6
ATTEMPTS = 6

# Posts waiting for their retry; while there are so many, no further ids are taken. It keeps
# memory flat when everything is throttled, and it is what slows a broadcast down to what the
# account's quota lets through.
MAX_WAITING = 256

# Of an answer: its size, which nobody else bounds, and how much of its body a log needs.
MAX_ANSWER = 65_536
MAX_REASON = 200


class Credentials(Protocol):
    """What botocore's `Credentials` and `RefreshableCredentials` have in common."""

    def get_frozen_credentials(self) -> "FrozenCredentials": ...


class FrozenCredentials(Protocol):
    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


@dataclass
class Result:
    """What became of a broadcast.

    :ivar delivered: how many posts were answered 200. API Gateway says so when it has taken the
        message; the person's device may still not get it.
    :ivar gone: connections that do not exist any more (410).
    :ivar failed: why a post was given up, by connection id. After "no answer" it may have been
        delivered all the same.
    :ivar stopped: why ids were left in the iterator; empty when all were taken.
    :ivar seconds: how long it took.
    """

    delivered: int = 0
    gone: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0


class FanOut:
    """Posts messages to the connections of one WebSocket API, and keeps its HTTP connections for
    the next message.

    :param endpoint: of the API's stage, or an emulator's `http://` address:
        `https://{api id}.execute-api.{region}.amazonaws.com/{stage}`.
    :param region: for the signature.
    :param credentials: from `boto3.Session().get_credentials()`; asked anew for every broadcast,
        so that rotated ones are noticed.
    :param tls: whom to trust; by default the authorities of the operating system. Certificate and
        host are checked.

    It opens no connection before the first post. Calls from several threads are safe, and wait
    for each other. Proxies (`HTTPS_PROXY`) are not supported.
    """

    def __init__(
        self,
        endpoint: str,
        region: str,
        credentials: Credentials,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._endpoint = Endpoint.parse(endpoint)
        self._region = region
        self._credentials = credentials
        self._pool = _Pool(self._endpoint, tls)
        self._lock = threading.Lock()

    def post(self, connection_ids: Iterable[str], message: str | bytes) -> Result:
        """Post `message` to every one of `connection_ids`, in no particular order.

        The ids are taken one by one as connections become free: sending starts with the first,
        and at most `POOL_SIZE + MAX_WAITING` are held at any time. Who is listed twice is told
        twice. While the iterator blocks (reading its next page), posts under way go on but no new
        ones start, so a page should hold many ids: 10 ms a page cost 20 % with 1,000 ids a page,
        and 65 % with 100.

        A failing post never stops the others:

        - 410: in `Result.gone`;
        - 429: tried again after random, growing pauses, for `POST_SECONDS`; then in
          `Result.failed`;
        - 5xx, no connection: the same, but `ATTEMPTS` times in all;
        - any other status: in `Result.failed` with status and body, not tried again;
        - no answer within `ANSWER_SECONDS`, or only part of one: in `Result.failed`. It may have
          been delivered, so it is not tried again;
        - a kept connection that turns out closed before any byte of an answer: tried again at
          once, on a new connection, once. RFC 9112, section 9.3.1, allows that where the request
          was not applied, which such a connection suggests but does not prove: if API Gateway had
          taken it, that person reads the message twice.

        After `BROADCAST_SECONDS`, or when a post has run out of attempts to connect, no more ids
        are taken: the rest is still in the iterator, and `Result.stopped` says why. The call
        returns within `BROADCAST_SECONDS + ANSWER_SECONDS`, plus what the iterator and the
        resolver block.

        Cost: about 20 µs of CPU a post on a 2020s server core (30 µs with TLS), and 0.6 ms a new
        TLS connection; memory does not grow with the number of ids, except for those in the
        result.

        :param message: up to 128 KB (API Gateway answers 413 for more); text is sent as UTF-8.
        :raises Exception: what the iterator or the credentials raise, nothing for a post or for
            the network. What was posted before the iterator raised is delivered, or on its way,
            but its result is lost.
        """
        body = message.encode() if isinstance(message, str) else message
        with self._lock:
            signer = _Signer(
                self._endpoint, self._region, self._credentials.get_frozen_credentials(), body
            )
            return _Broadcast(self._pool, signer, iter(connection_ids)).run()

    def close(self) -> None:
        """Close the idle connections. The object can be used again."""
        with self._lock:
            self._pool.close()


class Endpoint(NamedTuple):
    secure: bool
    host: str
    port: int
    authority: str  # the Host header: the port only where it is not the scheme's own
    path: str  # of the stage, without a slash at its end

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


class _Signer:
    """Writes signed requests that differ in nothing but the connection id.

    AWS Signature Version 4
    (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html). What the
    requests share is computed once: the hash of the body, the signing key, and one date, since a
    signature holds for 5 minutes and a broadcast ends long before.
    """

    def __init__(
        self, endpoint: Endpoint, region: str, credentials: FrozenCredentials, body: bytes
    ) -> None:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{region}/execute-api/aws4_request"
        headers = {"host": endpoint.authority, "x-amz-date": stamp}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        lines = [f"{name}:{value}" for name, value in headers.items()]
        names = ";".join(headers)
        self._path = quote(f"{endpoint.path}/@connections/", safe="/@~%")
        self._canonical_path = quote(self._path, safe="/~")
        self._canonical_rest = "\n".join(
            ["", "", *lines, "", names, hashlib.sha256(body).hexdigest()]
        )
        self._to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n"
        self._key = f"AWS4{credentials.secret_key}".encode()
        for part in scope.split("/"):
            self._key = hmac.digest(self._key, part.encode(), "sha256")
        self._before_signature = "\r\n".join(
            [
                " HTTP/1.1",
                *lines,
                "content-type:application/octet-stream",
                f"content-length:{len(body)}",
                f"authorization:AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
                f"SignedHeaders={names}, Signature=",
            ]
        )
        self._body = body

    def request(self, connection_id: str) -> bytes:
        quoted = quote(connection_id, safe="")
        # The path is encoded twice in what is signed (all services but S3); after once, only "%"
        # is left to encode.
        path = self._canonical_path + quoted.replace("%", "%25")
        canonical = hashlib.sha256(f"POST\n{path}{self._canonical_rest}".encode()).hexdigest()
        signature = hmac.digest(self._key, (self._to_sign + canonical).encode(), "sha256").hex()
        head = f"POST {self._path}{quoted}{self._before_signature}{signature}\r\n\r\n"
        return head.encode() + self._body


class _Answer(NamedTuple):
    status: int
    body: bytes
    reusable: bool  # the connection may carry another request

    @property
    def text(self) -> str:
        return f"{self.status} {self.body[:MAX_REASON].decode(errors='replace')}".rstrip()


_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


def _parse(data: bytes, ended: bool) -> _Answer | None:
    """The answer in `data`, or None while bytes are missing; `ended` says that no more will come.

    Only an answer that says its length leaves its connection usable: API Gateway's all do.

    :raises ConnectionError: it is something else.
    """
    head_end = data.find(b"\r\n\r\n") + 2
    if head_end < 2:
        return None
    if not data.startswith(b"HTTP/1.") or not data[9:12].isdigit():
        raise ConnectionError("the answer is not HTTP/1")
    status = int(data[9:12])
    if status < 200:  # "informational": the answer comes after it
        return _parse(data[head_end + 2 :], ended)
    body = data[head_end + 2 :]
    length = _LENGTH.search(data, 0, head_end)
    if length is None:
        return _Answer(status, body, False)
    missing = int(length[1]) - len(body)
    if missing > 0:
        return None
    reusable = (
        missing == 0
        and not ended
        and data.startswith(b"HTTP/1.1")
        and not _CLOSE.search(data, 0, head_end)
    )
    return _Answer(status, body, reusable)


class _Unreachable(Exception):
    """No connection could be made, so nothing was posted."""


@dataclass(slots=True)
class _Post:
    connection_id: str
    give_up_at: float
    attempts: int = 0


_Address = tuple[Any, ...]  # as from getaddrinfo


class _Connection:
    """A non-blocking connection to the endpoint, with at most one post under way."""

    def __init__(self, address: _Address, host: str, tls: ssl.SSLContext | None) -> None:
        family, kind, protocol, _, target = address
        self.sock = socket.socket(family, kind, protocol)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connecting = self.sock.connect_ex(target)
        self._host = host
        self._tls = tls
        self._incoming = self._outgoing = b""
        self.connected = False
        self.waits_for = self.watched_for = selectors.EVENT_WRITE
        self.post: _Post | None = None
        self.deadline = self.idle_since = 0.0
        self.answers = 0

    @property
    def stale(self) -> bool:
        """It worked before, and this post has not had a byte of an answer: the server had closed it."""
        return self.answers > 0 and not self._incoming

    def begin(self, post: _Post, request: bytes) -> None:
        self.post = post
        self.deadline = time.monotonic() + ANSWER_SECONDS
        self._outgoing = request
        self._incoming = b""

    def advance(self) -> _Answer | None:
        """Do what can be done without waiting; without an answer yet, `waits_for` says what to
        wait for.

        :raises _Unreachable: the connection could not be made.
        :raises OSError: it broke.
        """
        try:
            if not self.connected:
                self._connect()
            if self._outgoing:
                self._send()
                return None
            return self._receive()
        except BlockingIOError:
            return None
        except (
            ssl.SSLWantReadError
        ):  # TLS may have to read before it can write, and the other way round
            self.waits_for = selectors.EVENT_READ
            return None
        except ssl.SSLWantWriteError:
            self.waits_for = selectors.EVENT_WRITE
            return None

    def _connect(self) -> None:
        try:
            self._check_connected()
            if self._tls:
                self._shake_hands(self._tls)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            raise _Unreachable(f"no connection: {error}") from error
        self.connected = True

    def _check_connected(self) -> None:
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or self._connecting
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))

    def _shake_hands(self, tls: ssl.SSLContext) -> None:
        if not isinstance(self.sock, ssl.SSLSocket):
            self.sock = tls.wrap_socket(
                self.sock, server_hostname=self._host, do_handshake_on_connect=False
            )
        self.sock.do_handshake()

    def _send(self) -> None:
        self.waits_for = selectors.EVENT_WRITE
        while self._outgoing:
            self._outgoing = self._outgoing[self.sock.send(self._outgoing) :]
        self.waits_for = selectors.EVENT_READ

    def _receive(self) -> _Answer | None:
        self.waits_for = selectors.EVENT_READ
        data = self.sock.recv(MAX_ANSWER)
        self._incoming += data
        answer = _parse(self._incoming, ended=not data)
        if answer is None and (not data or len(self._incoming) >= MAX_ANSWER):
            raise ConnectionError(
                "closed before the answer was complete" if not data else "answer too long"
            )
        return answer


class _Pool:
    """The connections to one endpoint: busy ones, and idle ones for the next post."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self._addresses: list[_Address] = []
        self._opened = 0
        self.busy: dict[_Connection, None] = {}  # in the order of their deadlines

    def refresh(self) -> None:
        """Forget what may have changed since the last broadcast."""
        self._addresses = []
        for connection in self._idle[:]:
            # By the wall clock: the monotonic one may stand still while Lambda freezes the process.
            if time.time() - connection.idle_since > IDLE_SECONDS:
                self.drop(connection)

    def has_room(self, limit: int) -> bool:
        return bool(self._idle) or len(self.busy) < limit

    def start(self, post: _Post, request: bytes, fresh: bool = False) -> _Connection:
        """:raises _Unreachable: no address for the endpoint's name, or no file descriptor left."""
        connection = self._idle.pop() if self._idle and not fresh else self._open()
        connection.begin(post, request)
        self.busy[connection] = None
        return connection

    def _open(self) -> _Connection:
        if self._endpoint.secure and self._tls is None:
            self._tls = ssl.create_default_context()  # 20 ms of CPU, so not before it is needed
        try:
            connection = _Connection(self._next_address(), self._endpoint.host, self._tls)
        except OSError as error:
            raise _Unreachable(f"no connection: {error}") from error
        self._selector.register(connection.sock.fileno(), connection.waits_for, connection)
        return connection

    def _next_address(self) -> _Address:
        """In turn, so that what one address refuses is tried at another."""
        if not self._addresses:
            self._addresses = socket.getaddrinfo(
                self._endpoint.host, self._endpoint.port, type=socket.SOCK_STREAM
            )
        self._opened += 1
        return self._addresses[self._opened % len(self._addresses)]

    def watch(self, connection: _Connection) -> None:
        if connection.waits_for != connection.watched_for:
            self._selector.modify(connection.sock.fileno(), connection.waits_for, connection)
            connection.watched_for = connection.waits_for

    def release(self, connection: _Connection) -> None:
        del self.busy[connection]
        connection.post = None
        connection.answers += 1
        connection.idle_since = time.time()
        self._idle.append(connection)

    def drop(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock.fileno())
        connection.sock.close()
        self.busy.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)

    def ready(self, timeout: float | None) -> list[_Connection]:
        """Wait for busy connections that can go on. Idle ones have nothing to say: when they do, they were closed."""
        ready = [key.data for key, _ in self._selector.select(timeout)]
        for connection in ready:
            if connection.post is None:
                self.drop(connection)
        return [connection for connection in ready if connection.post]

    def close(self) -> None:
        for connection in [*self.busy, *self._idle]:
            self.drop(connection)


class _Broadcast:
    """One message on its way to everybody."""

    def __init__(self, pool: _Pool, signer: _Signer, connection_ids: Iterator[str]) -> None:
        self._pool = pool
        self._signer = signer
        self._ids = connection_ids
        self._all_taken = False
        self._waiting: list[
            tuple[float, int, _Post]
        ] = []  # a heap of (when to try again, tie-breaker, post)
        self._retries = itertools.count()
        self._answers = 0
        self._result = Result()

    def run(self) -> Result:
        start = time.monotonic()
        self._end = start + BROADCAST_SECONDS
        self._pool.refresh()
        try:
            timeout: float | None = (
                0.0  # at first only to notice which idle connections were closed
            )
            while timeout is not None:
                for connection in self._pool.ready(timeout):
                    self._advance(connection)
                self._expire()
                self._fill()
                timeout = self._until_next_event()
        finally:
            for connection in list(self._pool.busy):  # only after an exception from the iterator
                self._pool.drop(connection)
        self._result.seconds = time.monotonic() - start
        return self._result

    def _until_next_event(self) -> float | None:
        """Seconds to the next deadline or retry; None when everything is done."""
        times = [connection.deadline for connection in itertools.islice(self._pool.busy, 1)]
        if self._waiting and self._pool.has_room(self._limit):
            times.append(self._waiting[0][0])
        return max(0.0, min(times) - time.monotonic()) if times else None

    @property
    def _limit(self) -> int:
        """Connections that may be open by now."""
        return min(POOL_SIZE, FIRST_CONNECTIONS + self._answers // 2)

    @property
    def _waiting_limit(self) -> int:
        """Low until something is answered, so that few try in vain while the endpoint cannot be reached."""
        return min(MAX_WAITING, FIRST_CONNECTIONS + self._answers)

    def _fill(self) -> None:
        while self._pool.has_room(self._limit) and (post := self._next_post()):
            self._start(post)

    def _next_post(self) -> _Post | None:
        if self._waiting and self._waiting[0][0] <= time.monotonic():
            return heapq.heappop(self._waiting)[2]
        if self._all_taken or self._result.stopped or len(self._waiting) >= self._waiting_limit:
            return None
        connection_id = next(self._ids, None)
        if connection_id is None:
            self._all_taken = True
            return None
        return _Post(connection_id, time.monotonic() + POST_SECONDS)

    def _start(self, post: _Post, fresh: bool = False) -> None:
        try:
            connection = self._pool.start(post, self._signer.request(post.connection_id), fresh)
        except _Unreachable as error:
            self._unreachable(post, str(error))
        else:
            if connection.connected:
                self._advance(connection)

    def _advance(self, connection: _Connection) -> None:
        post = connection.post
        assert post
        try:
            answer = connection.advance()
        except _Unreachable as error:
            self._pool.drop(connection)
            self._unreachable(post, str(error))
        except OSError as error:
            self._pool.drop(connection)
            if connection.stale:
                self._start(post, fresh=True)
            else:
                self._result.failed[post.connection_id] = f"no answer: {error}"
        else:
            if answer:
                if answer.reusable:
                    self._pool.release(connection)
                else:
                    self._pool.drop(connection)
                self._answered(post, answer)
            else:
                self._pool.watch(connection)

    def _answered(self, post: _Post, answer: _Answer) -> None:
        self._answers += 1
        if answer.status == 200:
            self._result.delivered += 1
        elif answer.status == 410:
            self._result.gone.append(post.connection_id)
        elif answer.status == 429:
            self._retry(post, answer.text, attempts=math.inf)
        elif answer.status >= 500:
            self._retry(post, answer.text)
        else:
            self._result.failed[post.connection_id] = answer.text

    def _unreachable(self, post: _Post, reason: str) -> None:
        if not self._retry(post, reason):
            self._result.stopped = self._result.stopped or reason

    def _retry(self, post: _Post, reason: str, attempts: float = ATTEMPTS) -> bool:
        longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**post.attempts)
        due = time.monotonic() + random.uniform(0, longest)
        post.attempts += 1
        if post.attempts < attempts and due < min(post.give_up_at, self._end):
            heapq.heappush(self._waiting, (due, next(self._retries), post))
            return True
        self._result.failed[post.connection_id] = reason
        return False

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in list(self._pool.busy):
            if connection.deadline > now:
                break
            self._pool.drop(connection)
            assert connection.post
            if connection.connected:
                self._result.failed[connection.post.connection_id] = (
                    f"no answer within {ANSWER_SECONDS:g} s"
                )
            else:
                self._unreachable(connection.post, f"no connection within {ANSWER_SECONDS:g} s")
        if now > self._end and not self._all_taken:
            self._result.stopped = (
                self._result.stopped or f"not done within {BROADCAST_SECONDS:g} s"
            )
