"""Delivers one message to many connections: the retries, and the time limits."""

import heapq
import math
import random
import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from .channel import Failure, Stale, Unreachable
from .http1 import Answer, Endpoint
from .pool import FIRST_CHANNELS, REAL_TIME, Clock, Pool
from .sigv4 import Credentials, Signer

# For one answer, connecting included; less for hanging posts once others are answered: see `Pool`.
ANSWER_SECONDS = 3.0

# For one post, retries included, and for the whole broadcast: under the 29 s that API Gateway
# waits for the function, leaving time to read and clean up the table.
POST_SECONDS = 12.0
BROADCAST_SECONDS = 20.0

# The longest pause before the first retry; it doubles with each retry, up to the second figure. The
# actual pause is random, at least half of the longest: posts refused together must not return
# together. Six attempts take 0.9 to 1.9 s.
FIRST_RETRY_SECONDS = 0.06
LONGEST_RETRY_SECONDS = 1.6
ATTEMPTS = 6

# API Gateway answers 429 when the account's quota is used up, or when one client's buffer is full.
# A used-up quota refuses many posts, which get through sooner or later. So while MANY_WAITING posts
# wait for a retry, and for THROTTLED_SECONDS after a retry succeeded, we blame the quota, and retry
# a 429 for POST_SECONDS. With six attempts, in a simulation, 20 functions that shared the quota
# failed to reach a tenth of 100,000 members.
MANY_WAITING = 64
THROTTLED_SECONDS = 6.0

# No further targets are taken while this many posts wait for a retry. This keeps memory flat when
# everything is throttled, and slows a broadcast down to the account's quota.
MAX_WAITING = 256


class Target(Protocol):
    """Anything with the id of a connection."""

    @property
    def id(self) -> str: ...


AnyTarget = TypeVar("AnyTarget", bound=Target)


@dataclass
class Result(Generic[AnyTarget]):
    """The outcome of a broadcast.

    :ivar delivered: number of posts answered 200. API Gateway answers 200 once it has accepted the
        message; the person's device may still not get it.
    :ivar gone: connections that no longer exist (410).
    :ivar failed: reasons why posts were given up, by connection id. After "no answer", the message
        may have been delivered all the same.
    :ivar stopped: why targets were left in the iterator; empty when all were taken.
    :ivar seconds: duration of the broadcast.
    """

    delivered: int = 0
    gone: list[AnyTarget] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0


class Poster:
    """Posts messages to the connections of one WebSocket API, and keeps its HTTP connections for
    the next message.

    Opens no HTTP connection before the first post. Calls from several threads are safe, and wait
    for each other. Proxies (`HTTPS_PROXY`) are not supported.

    :param endpoint: the address of the API's stage,
        `https://{api id}.execute-api.{region}.amazonaws.com/{stage}`, or an emulator's `http://`
        address.
    :param region: for the signature.
    :param credentials: from `boto3.Session().get_credentials()`; read again for every broadcast,
        since they are rotated.
    :param tls: the authorities to trust; by default those of the operating system, with checks of
        certificate and host.
    :param clock: for tests; by default real time.
    """

    def __init__(
        self,
        endpoint: str,
        region: str,
        credentials: Credentials,
        tls: ssl.SSLContext | None = None,
        clock: Clock = REAL_TIME,
    ) -> None:
        self._endpoint = Endpoint.parse(endpoint)
        self._region = region
        self._credentials = credentials
        self._pool = Pool[Post[Any]](self._endpoint, tls, ANSWER_SECONDS, clock)
        self._lock = threading.Lock()

    def post(
        self,
        targets: Iterable[AnyTarget],
        message: str | bytes,
        seconds: float = BROADCAST_SECONDS,
    ) -> Result[AnyTarget]:
        """Post `message` to the connection of each target, in no particular order.

        Targets are taken one by one as connections become free: the first post leaves before the
        second page is read. Unless posts hang, at most `POOL_SIZE + MAX_WAITING` targets are held
        at any time. A target that is listed twice gets the message twice. While the iterator reads
        a page, posts in flight continue but none starts, so pages should be large.

        A failing post never stops the others:

        - 410: in `Result.gone`;
        - 429: that client's buffer is full. Up to `ATTEMPTS` attempts, within 2 s, after random,
          growing pauses; then in `Result.failed`. While many posts are refused, the account's quota
          is used up, and a 429 is retried for `POST_SECONDS` instead;
        - 5xx, no connection: the same, but never more than `ATTEMPTS` attempts;
        - any other status: in `Result.failed` with status and body, not retried;
        - no answer, an incomplete one, or one that is not HTTP/1: in `Result.failed`, not retried,
          since the message may have been delivered. A post that hangs is given up after 1 s; while
          the API is slow or answers nothing, after up to `ANSWER_SECONDS` (`seconds`, if less);
        - a kept connection that closes before any byte of an answer: retried once, at once, over a
          new connection. RFC 9112, section 9.3.1, allows that for a request that was not carried
          out. The close suggests this but does not prove it: if API Gateway had accepted the post,
          that client gets the message twice.

        A hanging post takes up no room after 0.25 s. At most `MAX_IN_FLIGHT` posts are in flight;
        if that many hang, the others wait until some are given up.

        After `seconds`, no post or retry starts. Posts that wait for a retry are then in
        `Result.failed`, other targets stay in the iterator, and `Result.stopped` says why. Targets
        also stay there once a post has used up its attempts to connect. The call returns within
        `seconds + ANSWER_SECONDS` (or twice `seconds`, if less), plus the time that the iterator
        and the resolver block; a target already taken is still posted to. With 0 seconds or less,
        nothing is posted and no target is taken.

        Cost: about 20 µs of CPU a post on a 2020s server core (30 µs with TLS), and 0.6 ms for a
        new TLS connection. Memory does not grow with the number of targets, except for those in the
        result.

        :param message: up to 128 KB (API Gateway answers 413 for more); text is sent as UTF-8. API
            Gateway splits it into frames of 32 KB.
        :raises Exception: from the iterator or the credentials, never for a post or the network.
            The targets before the iterator's exception are posted to first; their results are lost.
        """
        body = message.encode() if isinstance(message, str) else message
        with self._lock:
            credentials = self._credentials.get_frozen_credentials()
            signer = Signer(self._endpoint, self._region, credentials, body)
            return Delivery(self._pool, signer, iter(targets), seconds).run()

    def close(self) -> None:
        """Close the idle connections. The poster can be used again."""
        with self._lock:
            self._pool.close()


@dataclass(slots=True)
class Post(Generic[AnyTarget]):
    target: AnyTarget
    give_up_at: float
    attempts: int = 0
    retry_at: float = 0.0
    outcome: Answer | Failure | None = None  # of the last attempt

    def __lt__(self, other: "Post[AnyTarget]") -> bool:
        return self.retry_at < other.retry_at


class Delivery(Generic[AnyTarget]):
    """One message on its way to everybody."""

    def __init__(
        self,
        pool: Pool[Post[AnyTarget]],
        signer: Signer,
        targets: Iterator[AnyTarget],
        seconds: float,
    ) -> None:
        self._pool = pool
        self._signer = signer
        self._targets = targets
        self._seconds = seconds
        self._now = pool.clock.monotonic
        self._begin = self._now()
        self._end = self._begin + seconds
        self._all_taken = False
        self._targets_error: Exception | None = None
        self._waiting: list[Post[AnyTarget]] = []  # for a retry: a heap
        self._retry_succeeded_at = -math.inf
        self._result = Result[AnyTarget]()

    def run(self) -> Result[AnyTarget]:
        self._pool.answer_seconds = min(ANSWER_SECONDS, self._seconds)
        self._pool.refresh()
        try:
            self._fill()
            while self._pool.busy or self._waiting:
                for post, outcome in self._pool.wait(self._next_retry()):
                    self._settle(post, outcome)
                self._fill()
        finally:
            self._pool.abandon()  # empty, unless this was interrupted
        if self._targets_error:
            raise self._targets_error
        self._result.seconds = self._now() - self._begin
        return self._result

    def _fill(self) -> None:
        while self._pool.has_capacity and (post := self._next_post()):
            self._start(post)

    def _next_post(self) -> Post[AnyTarget] | None:
        now = self._now()
        if now >= self._end:
            self._stop()
            return None
        if self._waiting and self._waiting[0].retry_at <= now:
            return heapq.heappop(self._waiting)
        if self._all_taken or self._result.stopped or len(self._waiting) >= self._waiting_limit:
            return None
        target = self._next_target()
        if target is None:
            self._all_taken = True
            return None
        return Post(target, self._now() + POST_SECONDS)

    def _next_target(self) -> AnyTarget | None:
        try:
            return next(self._targets, None)
        except Exception as error:
            self._targets_error = error  # raised by `run`, after the posts that were begun
            return None

    @property
    def _waiting_limit(self) -> int:
        """Low until the first answers, so that an unreachable endpoint fails only a few posts."""
        return min(MAX_WAITING, FIRST_CHANNELS + self._pool.answers)

    def _next_retry(self) -> float | None:
        return self._waiting[0].retry_at if self._waiting and self._pool.has_capacity else None

    def _start(self, post: Post[AnyTarget], fresh: bool = False) -> None:
        try:
            self._pool.start(post, self._signer.request(post.target.id), fresh)
        except Failure as failure:
            self._settle(post, failure)

    def _settle(self, post: Post[AnyTarget], outcome: Answer | Failure) -> None:
        """The retry policy: act on the outcome of a post."""
        post.outcome = outcome
        match outcome:
            case Answer(status=200):
                self._result.delivered += 1
                if post.attempts:
                    self._retry_succeeded_at = self._now()
            case Answer(status=410):
                self._result.gone.append(post.target)
            case Answer(status=429):
                self._retry(post, attempts=math.inf if self._is_throttled else ATTEMPTS)
            case Answer() if outcome.status >= 500:
                self._retry(post)
            case Unreachable():
                if not self._retry(post):
                    self._result.stopped = self._result.stopped or str(outcome)
            case Stale() if self._now() < self._end:
                self._start(post, fresh=True)
            case _:
                self._give_up(post)

    def _retry(self, post: Post[AnyTarget], attempts: float = ATTEMPTS) -> bool:
        """Schedule a retry, unless attempts or time are used up; returns whether it did."""
        longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**post.attempts)
        post.retry_at = self._now() + random.uniform(longest / 2, longest)
        post.attempts += 1
        if post.attempts < attempts and post.retry_at < min(post.give_up_at, self._end):
            heapq.heappush(self._waiting, post)
            return True
        self._give_up(post)
        return False

    @property
    def _is_throttled(self) -> bool:
        """Whether a 429 seems to be about the account, not about that one client."""
        return (
            len(self._waiting) >= MANY_WAITING
            or self._now() < self._retry_succeeded_at + THROTTLED_SECONDS
        )

    def _give_up(self, post: Post[AnyTarget]) -> None:
        self._result.failed[post.target.id] = str(post.outcome)

    def _stop(self) -> None:
        """Time is up: start nothing more."""
        for post in self._waiting:
            self._give_up(post)
        self._waiting = []
        if not self._all_taken:
            self._result.stopped = self._result.stopped or f"not done within {self._seconds:g} s"
