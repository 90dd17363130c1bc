"""Simulates a line in a room of up to 100,000: its time, its cost, and the quota that binds.

    python -m benchmarks.simulate

As in `chalicelib/sender.py`, the message function posts to the first `CHUNK` members and hands the
others to the fan-out function, chunk by chunk. Every post is an event; connections, retries and
time limits are those of `chalicelib/posting/`. The account's quota answers 429 when its token
bucket is empty. Random, from a fixed seed. Takes 15 seconds.
"""

import heapq
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from chalicelib.posting import BROADCAST_SECONDS, POOL_SIZE, delivery
from chalicelib.posting.pool import FIRST_CONNECTIONS
from chalicelib.sender import CHUNK

# Defaults of the quota pages of API Gateway, Lambda and DynamoDB, for an account and region:
# requests a second, size of their token bucket, functions at a time, read units a second of one
# partition (a room's members are in one).
QUOTA, BURST, CONCURRENCY, PARTITION_READS = 10_000, 5_000, 1_000, 3_000
# Measured by benchmarks/bench.py, with the share of a CPU that Lambda gives a function of 512 MB.
MEMORY = 512
POST_CPU = 25e-6 / (MEMORY / 1_769)
# Assumed seconds: for a post, for a page of 1 MB, for Lambda to accept an event, and from then
# to the first post.
ANSWERS = (0.008, 0.020)
PAGE, PAGE_ROWS, MEMBER_READS = 0.03, 8_000, 128 / 8_000
INVOKE, WARM, COLD = 0.02, 0.05, 0.7
# Prices of us-east-1, in dollars: a message of up to 32 KB, an invocation, a GB-second, a read
# unit.
MESSAGE_PRICE, INVOCATION_PRICE, GB_SECOND_PRICE, READ_PRICE = 1e-6, 0.2e-6, 16.7e-6, 0.125e-6


@dataclass
class Post:
    give_up_at: float
    attempts: int = 0


class Function:
    """One invocation, with its share of the members."""

    def __init__(self, start: float, members: int) -> None:
        self.start = self.cpu_free = self.last = start
        self.end, self.left = start + BROADCAST_SECONDS, members
        self.due: list[Post] = []  # for a retry
        self.busy = self.waiting = self.answers = 0
        self.retry_succeeded_at = -math.inf

    def next_post(self, now: float) -> Post | None:
        if self.busy >= min(POOL_SIZE, FIRST_CONNECTIONS + self.answers // 2):
            return None
        if self.due:
            return self.due.pop()
        if not self.left or now > self.end or self.waiting >= delivery.MAX_WAITING:
            return None
        self.left -= 1
        return Post(now + delivery.POST_SECONDS)

    def is_throttled(self, now: float) -> bool:
        return (
            self.waiting >= delivery.MANY_WAITING
            or now < self.retry_succeeded_at + delivery.THROTTLED_SECONDS
        )


class Line:
    """One line on its way to everybody."""

    def __init__(self, members: int, chunk: int, answer: float, start: float, quota: float) -> None:
        self.members, self.answer, self.quota = members, answer, quota
        self.chance, self.order = random.Random(1), itertools.count()
        self.events: list[tuple[float, int, str, Function, Post | None]] = []
        self.tokens, self.filled, self.seconds = float(BURST), 0.0, 0.0
        self.delivered = self.throttled = 0
        self.functions = [Function(*share) for share in shares(members, chunk, answer, start)]
        for function in self.functions:
            self.schedule(function.start, "start", function)

    def schedule(self, at: float, what: str, function: Function, post: Post | None = None) -> None:
        heapq.heappush(self.events, (at, next(self.order), what, function, post))

    def run(self) -> "Line":
        while self.events:
            now, _, what, function, post = heapq.heappop(self.events)
            function.last = now
            if post and what == "retry":
                function.waiting -= 1
                function.due.append(post)
            elif post:
                self.answered(now, function, post)
            while new := function.next_post(now):
                function.busy += 1
                function.cpu_free = max(now, function.cpu_free) + POST_CPU
                answer = self.answer * self.chance.uniform(0.5, 1.5)
                self.schedule(function.cpu_free + answer, "answer", function, new)
        return self

    def answered(self, now: float, function: Function, post: Post) -> None:
        function.busy -= 1
        function.answers += 1
        self.tokens = min(BURST, self.tokens + (now - self.filled) * self.quota)
        self.filled = now
        if self.tokens >= 1:
            self.tokens, self.delivered, self.seconds = self.tokens - 1, self.delivered + 1, now
            if post.attempts:
                function.retry_succeeded_at = now
            return
        self.throttled += 1
        longest = min(
            delivery.LONGEST_RETRY_SECONDS, delivery.FIRST_RETRY_SECONDS * 2**post.attempts
        )
        due = now + self.chance.uniform(longest / 2, longest)
        post.attempts += 1
        most = math.inf if function.is_throttled(now) else delivery.ATTEMPTS
        if post.attempts < most and due < min(post.give_up_at, function.end):
            function.waiting += 1
            self.schedule(due, "retry", function, post)

    @property
    def cost(self) -> float:
        billed = sum(function.last - function.start for function in self.functions) * MEMORY / 1024
        functions = len(self.functions) * INVOCATION_PRICE + billed * GB_SECOND_PRICE
        return self.members * MESSAGE_PRICE + functions + self.members * MEMBER_READS * READ_PRICE


def shares(members: int, chunk: int, answer: float, start: float) -> Iterator[tuple[float, int]]:
    """Start and number of posts of each function; the message function posts its own chunk last."""
    now = PAGE
    for first in range(chunk, members, chunk):
        pages = (first + chunk) // PAGE_ROWS - first // PAGE_ROWS
        now += pages * PAGE + INVOKE
        yield now + start, min(chunk, members - first)
    yield now, min(chunk, members)


def row(members: int, chunk: int) -> str:
    cells = [f"{members:,}", f"{chunk:,}"]
    for start, quota in ((WARM, math.inf), (COLD, QUOTA), (WARM, QUOTA)):
        lines = [Line(members, chunk, answer, start, quota).run() for answer in ANSWERS]
        cells.append(" to ".join(f"{line.seconds:.1f}" for line in lines) + " s")
    line = lines[0]
    counts = (len(line.functions), line.throttled, members - line.delivered)
    return f"| {' | '.join([*cells, *map('{:,}'.format, counts), f'${line.cost:.4f}'])} |"


def main() -> None:
    print("| members | chunk | no quota | cold | warm | functions | 429s | given up | cost |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for members in (1_000, 10_000, 100_000):
        print(row(members, CHUNK), flush=True)
    for chunk in (1_000, 2_000, 10_000, 20_000):
        print(row(100_000, chunk), flush=True)
    reads, seconds = 1e5 * MEMBER_READS, 1e5 * ANSWERS[1] / POOL_SIZE
    print("\n| quota | lines a second in a room of 100,000 |\n|---|---:|")
    print(f"| API Gateway: {QUOTA:,} requests a second | {QUOTA / 1e5:.1f} |")
    print(f"| DynamoDB: {PARTITION_READS:,} units a second | {PARTITION_READS / reads:.1f} |")
    print(f"| Lambda: {CONCURRENCY:,} functions at a time | {CONCURRENCY / seconds:.0f} |")


if __name__ == "__main__":
    main()
