"""The policy: which connections get a post, how often it is retried, how long it may take."""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from .connection import Failure, Stale, Unreachable
from .http1 import Answer
from .pool import FIRST_CONNECTIONS, Pool
from .sigv4 import Signer

# For one answer, connecting included. `Pool` gives up hanging posts sooner once others are
# answered.
ANSWER_SECONDS = 3.0

# For one post, retries included, and for the whole broadcast: under the 29 s that API Gateway
# waits for the function, leaving time to read and clean up the table.
POST_SECONDS = 12.0
BROADCAST_SECONDS = 20.0

# The longest back-off before the first retry; it doubles with each retry, up to the second figure.
# Each is random between its half and its whole: posts refused together must not come back together.
# Six attempts take 0.9 to 1.9 s.
FIRST_RETRY_SECONDS = 0.06
LONGEST_RETRY_SECONDS = 1.6
ATTEMPTS = 6

# API Gateway answers 429 when the account's quota is used up, and also when the buffer of that one
# client is full. A quota refuses many posts, and they get through sooner or later. So it is assumed
# to be used up while MANY_WAITING posts wait for a retry, and for THROTTLED_SECONDS after a retry
# succeeded. Then a 429 is retried for POST_SECONDS: functions that post at the
# same time share the quota, and with six attempts 20 of them failed to reach a tenth of 100,000
# members, in a simulation.
MANY_WAITING = 64
THROTTLED_SECONDS = 6.0

# No further targets are taken while this many posts wait for a retry. It keeps memory flat when
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
    :ivar failed: reasons why posts were given up, by connection id. After "no answer" the message
        may have been delivered all the same.
    :ivar stopped: the reason why targets were left in the iterator; empty when all were taken.
    :ivar seconds: duration of the broadcast.
    """

    delivered: int = 0
    gone: list[AnyTarget] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0


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
        while self._pool.has_room and (post := self._next_post()):
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
        return min(MAX_WAITING, FIRST_CONNECTIONS + self._pool.answers)

    def _next_retry(self) -> float | None:
        return self._waiting[0].retry_at if self._waiting and self._pool.has_room else None

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
