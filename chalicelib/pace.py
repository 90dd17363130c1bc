"""How fast one connection may send.

Each execution environment counts by itself, in memory, so a frame costs no request. Lambda may
spread a connection's frames over several environments, so the pace is not exact: it bounds the harm
that one person can do to others. docs/security.md has figures.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto

BURST = 20  # frames at once
RATE = 5  # frames a second in the long run
ANNOUNCED_WEIGHT = 3  # frames, for a command that the whole room hears of
MOST_DROPPED = 200  # frames; then the connection is closed
WARNING_SECONDS = 1.0  # between two warnings
REMEMBERED = 10_000  # connections, about 4 MB; those silent for longest are forgotten first


class Verdict(Enum):
    """The treatment of a frame."""

    ANSWER = auto()
    DROP = auto()
    WARN = auto()  # drop it, and tell the sender
    CLOSE = auto()  # drop it, tell the sender, and close the connection


class Pace:
    """A token bucket for each connection. `clock` has to run while Lambda freezes the process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._senders: OrderedDict[str, _Sender] = OrderedDict()  # by their latest frame

    def judge(self, connection_id: str, weight: int) -> Verdict:
        """Count a frame as `weight` frames, and return its treatment."""
        now = self._clock()
        sender = self._senders.setdefault(connection_id, _Sender(now))
        self._senders.move_to_end(connection_id)
        if len(self._senders) > REMEMBERED:
            self._senders.popitem(last=False)
        return sender.judge(weight, now)


def weight(message: str) -> int:
    """The weight of a frame: commands that a whole room hears of weigh more."""
    if not message.startswith("/"):
        return 1
    word, *arguments = message.lower().split(maxsplit=1)
    announced = word in ("/join", "/quit") or (word == "/nick" and arguments)
    return ANNOUNCED_WEIGHT if announced else 1


class _Sender:
    __slots__ = ("_dropped", "_seen", "_tokens", "_warned")

    def __init__(self, now: float) -> None:
        self._tokens = float(BURST)
        self._seen = now
        self._warned = now - WARNING_SECONDS
        self._dropped = 0

    def judge(self, weight: int, now: float) -> Verdict:
        self._tokens = min(BURST, self._tokens + max(0.0, now - self._seen) * RATE)
        self._seen = now
        if self._tokens >= weight:
            self._tokens -= weight
            return Verdict.ANSWER
        self._dropped += 1
        if self._dropped % MOST_DROPPED == 0:
            return Verdict.CLOSE
        if self._dropped < MOST_DROPPED and now - self._warned >= WARNING_SECONDS:
            self._warned = now
            return Verdict.WARN
        return Verdict.DROP
