"""`make load`: a hundred people talk for a minute, and every line that they hear is counted.

Each of them stays below the pace that the chat allows a connection.
"""

import secrets
import selectors
import statistics
import time
from collections import Counter
from contextlib import ExitStack

from emulator.emulator import STACK, Emulator
from scripts.address import above_0, chat_of, new_parser, run
from scripts.smoke import SILENCE, Client, Difference

PEOPLE = 100
ROOMS = 5
EVERY = 2.0  # seconds between two texts of a person
SECONDS = 60.0
PATIENCE = 20.0  # seconds without a line, after which the missing ones are lost
LEFT_WITHIN = 60.0  # seconds; a laptop takes a while for a hundred departures at once


class Load:
    """The talk of people in rooms, in one thread, which takes little CPU."""

    def __init__(self, url: str, people: int, rooms: int, seconds: float) -> None:
        self._url, self._people, self._rooms = url, people, rooms
        self._texts_each = int(seconds / EVERY)
        self._suffix = f"-{secrets.token_hex(4)}"
        self._selector = selectors.DefaultSelector()
        self._said: dict[str, float] = {}  # when, by line
        self._heard: Counter[tuple[str, str]] = Counter()  # by listener and line
        self._other: Counter[str] = Counter()  # lines that are neither texts nor arrivals
        self._latencies: list[float] = []
        self._heard_at = 0.0
        members = Counter(n % rooms for n in range(people))
        self.expected = self._texts_each * sum(count**2 for count in members.values())
        self.seconds = 0.0  # from the first text to the last line
        self.cpu = 0.0  # of this process, as a share of that

    def run(self) -> None:
        with ExitStack() as stack:
            talkers = []
            for n in range(self._people):
                talker = stack.enter_context(Client(self._url, f"p{n}{self._suffix}"))
                talker.enters(f"room{n % self._rooms}{self._suffix}")
                self._selector.register(talker.socket, selectors.EVENT_READ, talker)
                talkers.append(talker)
            started, used = time.monotonic(), time.process_time()
            self._talk(talkers, started)
            self.seconds = self._heard_at - started
            self.cpu = (time.process_time() - used) / self.seconds

    def _talk(self, talkers: list[Client], started: float) -> None:
        for n in range(self._texts_each):
            for place, talker in enumerate(talkers):
                self._listen_until(started + EVERY * (n + place / len(talkers)))
                self._said[f"{talker.name}: text {n}"] = time.monotonic()
                talker.says(f"text {n}")
        self._heard_at = time.monotonic()
        while self.lost and time.monotonic() < self._heard_at + PATIENCE:
            self._listen_until(time.monotonic() + 0.1)
        self._listen_until(time.monotonic() + SILENCE)  # for lines that come twice

    def _listen_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._hear(key.data)

    def _hear(self, talker: Client) -> None:
        line = talker.next() or ""
        if line in self._said:
            self._heard_at = time.monotonic()
            self._heard[talker.name, line] += 1
            self._latencies.append(self._heard_at - self._said[line])
        elif not line.endswith(" joined room."):
            self._other[line] += 1

    @property
    def lost(self) -> int:
        return self.expected - len(self._heard)

    @property
    def duplicated(self) -> int:
        return self._heard.total() - len(self._heard)

    def figures(self) -> dict[str, str]:
        milliseconds = sorted(1000 * seconds for seconds in self._latencies) or [0.0]
        return {
            "lines expected": f"{self.expected:,}",
            "heard": f"{len(self._heard):,}",
            "lost": f"{self.lost:,}",
            "duplicated": f"{self.duplicated:,}",
            "lines a second": f"{self._heard.total() / self.seconds:,.0f}",
            "median latency": f"{statistics.median(milliseconds):,.0f} ms",
            "99th percentile": f"{milliseconds[int(len(milliseconds) * 0.99)]:,.0f} ms",
            "CPU of this client": f"{self.cpu:.0%} of a core",
            "other lines": f"{self._other.total():,}",
            **{f"  {line}": f"{count:,}" for line, count in self._other.most_common(5)},
        }


def rows_left(emulator: Emulator) -> int:
    """The number of rows in the table of the chat here, once it is 0 or time is up."""
    table = emulator.client("dynamodb")
    count = {"TableName": STACK, "Select": "COUNT", "ConsistentRead": True}
    deadline = time.monotonic() + LEFT_WITHIN
    while (rows := int(table.scan(**count)["Count"])) and time.monotonic() < deadline:
        time.sleep(0.5)
    return rows


def load(
    url: str, people: int, rooms: int, seconds: float = SECONDS, emulator: Emulator | None = None
) -> bool:
    """Prints the figures; returns whether everybody heard every line once.

    With the emulator of the chat, it also counts the rows left in the table `STACK`.
    """
    print(
        f"{url}\n{people} people in {rooms} rooms; each says a text every {EVERY:g} s "
        f"for {seconds:g} s\n",
        flush=True,
    )
    talk = Load(url, people, rooms, seconds)
    try:
        talk.run()
    except Difference as difference:
        print(f"FAILED  {difference}")
        return False
    figures = talk.figures()
    if emulator:
        figures["rows left in the table"] = f"{rows_left(emulator):,}"
    for name, figure in figures.items():
        print(f"{name:30}{figure:>18}", flush=True)
    return talk.lost == talk.duplicated == 0


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--people", type=above_0, default=PEOPLE, help=f"{PEOPLE} by default")
    parser.add_argument("--rooms", type=above_0, default=ROOMS, help=f"{ROOMS} by default")
    arguments = parser.parse_args()
    chat = chat_of(arguments)
    emulator = None if arguments.stack else chat.emulator
    return 0 if load(chat.url, arguments.people, arguments.rooms, emulator=emulator) else 1


if __name__ == "__main__":
    run(main)
