"""`make smoke`: checks in less than a minute whether a deployed chat works.

Its nicknames and rooms end in random digits, so it meets nobody on a chat that is in use.
"""

import json
import re
import secrets
import time
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from pathlib import Path

import websocket

from scripts.address import chat_of, new_parser, refusal, run

TRANSCRIPT = json.loads((Path(__file__).parent / "transcript.json").read_text())
NAMES = re.compile(r"\b(John|JennyJones|Jenny|chalice)\b")

ODD_TEXTS = [
    '{"action": "$disconnect"}',
    '{"action": "nothing", "a": [1, null]}',
    "\U0001f469\u200d\U0001f680 \u4f60\u597d e\u0301 \u05e9\u05dc\u05d5\u05dd",
    "%s {0} ${TABLE} <b>&amp;</b> '\" \\ud800",
    "  between spaces  ",
]
UNSAFE_TEXTS = {  # and the lines that arrive
    "one\ntwo\r\nthree\rfour\x85five\u2028six\n": ["one", "two", "three", "four", "five", "six"],
    "\r\x1b[2K< Bob: yes": ["", "\ufffd[2K< Bob: yes"],
    "\x00\x07\x08\x7f\x9b6n\x1b]0;title\x07\ttab": [
        "\ufffd\ufffd\ufffd\ufffd\ufffd6n\ufffd]0;title\ufffd\ttab"
    ],
    "\u202eabc\u2069": ["\ufffdabc\ufffd"],
}
WRITERS = 5
TEXTS_EACH = 10  # the pace of a connection allows 20 frames at once; logging in and joining are 4
UNDER_WAY = 8  # frames at a time: a new account runs 10 functions at once, and loses the others
MESSAGE_BYTES = 32_768  # the maximum of a line: one frame of API Gateway

QUOTAS = {  # and the message in API Gateway's frame to the sender
    "Lambda: concurrent executions, 10 in a new account": "Internal server error",
    "API Gateway: requests a second of the account": "Too Many Requests",
    "this stack: RequestRate and RequestBurst": "Too Many Requests",
}

PATIENCE = 10.0  # seconds for a frame; functions that start cold take two or three
LEAVES_WITHIN = 10.0  # seconds; API Gateway may report a closed connection late
SILENCE = 0.5  # seconds in which an unwanted frame would have come


class Difference(Exception):
    """The chat did not do as it should."""


class Client(AbstractContextManager["Client"]):
    """A connection to the chat, under a name for the output."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._did = "connected"
        try:
            # Each frame counts by itself, as in wsdump.
            self.socket = websocket.create_connection(url, timeout=PATIENCE, fire_cont_frame=True)
        except (websocket.WebSocketException, OSError) as error:
            raise Difference(f"{name} could not connect to {url}: {refusal(error)}") from None

    def says(self, text: str) -> None:
        self._did = f"said {shown(text)}"
        try:
            self.socket.send(text)
        except (websocket.WebSocketException, OSError) as error:
            raise Difference(f"{self.name} could not say {shown(text)}: {error}") from None

    def hears(self, expected: str, *, among_others: bool = False) -> None:
        """Raises Difference unless the next text is this or, `among_others`, has this line."""
        came = self.next()
        if came != expected and not (among_others and expected in (came or "").splitlines()):
            raise Difference(
                f"{self.name} {self._did}\n  expected: {shown(expected)}\n  came:     {shown(came)}"
                f"{advice(came)}"
            )

    def hears_no_more(self) -> None:
        if came := self.next(SILENCE):
            raise Difference(f"{self.name} heard more than was said: {shown(came)}")

    def next(self, patience: float | None = None) -> str | None:
        """The next text; None if none comes."""
        self.socket.settimeout(PATIENCE if patience is None else patience)
        try:
            opcode, data = self.socket.recv_data()
        except websocket.WebSocketTimeoutException:
            return None
        except (websocket.WebSocketException, OSError) as error:
            raise Difference(f"{self.name} {self._did}, and lost the connection: {error}") from None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            reason = f"{int.from_bytes(data[:2], 'big')} {data[2:].decode(errors='replace')}"
            raise Difference(f"{self.name} {self._did}, and was disconnected: {reason}")
        return str(data.decode(errors="replace"))

    def enters(self, room: str) -> None:
        self.says(self.name)
        self.hears(f"Using nickname: {self.name}\nType /help for list of commands.")
        self.says(f"/join {room}")
        self.hears(f'Joined chat room "{room}"')

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Smoke:
    """The checks; each returns a summary of a success."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.suffix = f"-{secrets.token_hex(4)}"

    def client(self, name: str) -> Client:
        return Client(self.url, self.own(name))

    def transcript(self) -> str:
        replies = 0
        with self.client("John") as john, self.client("Jenny") as jenny:
            clients = {"client-1": john, "client-2": jenny}
            for step in TRANSCRIPT:
                clients[step["client"]].says(self.in_transcript(step["sends"]))
                for client, frames in step["receives"].items():
                    for frame in frames:
                        replies += 1
                        is_room = step["sends"] == "/ls" and frame == "chalice"
                        clients[client].hears(self.in_transcript(frame), among_others=is_room)
        return f"two clients, {replies} replies as in the tutorial"

    def odd_texts(self) -> str:
        with self.client("Ann") as ann, self.client("Bob") as bob:
            ann.enters(self.own("odd"))
            bob.enters(self.own("odd"))
            ann.hears(f"{bob.name} joined room.")
            for text, lines in ({text: [text] for text in ODD_TEXTS} | UNSAFE_TEXTS).items():
                ann.says(text)
                for client in (ann, bob):
                    client.hears("\n".join(f"{ann.name}: {line}" for line in lines))
        return f"{len(ODD_TEXTS)} odd texts as they were sent, {len(UNSAFE_TEXTS)} made safe"

    def burst(self) -> str:
        with ExitStack() as stack:
            writers: list[Client] = []
            for n in range(WRITERS):
                writer = stack.enter_context(self.client(f"Writer{n}"))
                writer.enters(self.own("burst"))
                for other in writers:
                    other.hears(f"{writer.name} joined room.")
                writers.append(writer)
            texts = [(writer, f"text {n}") for n in range(TEXTS_EACH) for writer in writers]
            largest = "x" * (MESSAGE_BYTES - len(f"{writers[0].name}: "))
            texts[0] = (writers[0], largest)
            for start in range(0, len(texts), UNDER_WAY):
                some = texts[start : start + UNDER_WAY]
                for writer, text in some:
                    writer.says(text)
                all_hear(writers, Counter(f"{author.name}: {text}" for author, text in some))
            for writer in writers:
                writer.hears_no_more()
        return (
            f"{len(texts)} texts, {UNDER_WAY} at once, one of 32 KB: "
            f"{WRITERS} clients hear each once"
        )

    def cleanup(self) -> str:
        with self.client("John") as john, self.client("Jenny") as jenny:
            john.enters(self.own("last"))
            john.says("/quit")
            john.hears(f'Left chat room "{self.own("last")}"')
            jenny.enters(self.own("last"))
        with self.client("Last") as last:
            last.says(last.name)
            last.hears(f"Using nickname: {last.name}\nType /help for list of commands.")
            deadline = time.monotonic() + LEAVES_WITHIN
            while mine := [room for room in self.rooms(last) if room.endswith(self.suffix)]:
                if time.monotonic() > deadline:
                    raise Difference(f"everybody left {shown(mine)}, and /ls still lists it")
                time.sleep(0.5)
            last.says(f"/nick {jenny.name}")
            last.hears(f"Nickname is: {jenny.name}")
        return "all have left: the rooms are closed, and a name is free again"

    def own(self, name: str) -> str:
        """A nickname or a room that nobody else has."""
        return f"{name}{self.suffix}"

    def in_transcript(self, text: str) -> str:
        return NAMES.sub(lambda name: self.own(name.group()), text)

    def rooms(self, client: Client) -> list[str]:
        client.says("/ls")
        return (client.next() or "").splitlines()


def all_hear(clients: list[Client], expected: Counter[str]) -> None:
    """Raises Difference unless each client hears these texts as often as counted, in any order."""
    deadline = time.monotonic() + PATIENCE
    heard: dict[str, list[str | None]] = {client.name: [] for client in clients}
    for client in clients:
        texts = heard[client.name]
        while len(texts) < expected.total() and None not in texts:
            texts.append(client.next(max(SILENCE, deadline - time.monotonic())))
    for name, texts in heard.items():
        if (came := Counter(filter(None, texts))) != expected:
            raise Difference(
                f"{name} was to hear {expected.total()} texts, each once\n"
                f"  missing:  {shown(sorted(expected - came))}\n"
                f"  too many: {shown(sorted(came - expected))}"
                f"{advice(*chain(*heard.values()))}"
            )


def advice(*came: str | None) -> str:
    """The quotas to look at if a frame was lost: nothing came, or API Gateway's own frame."""
    said = "".join(text or "" for text in came)
    quotas = [quota for quota, reason in QUOTAS.items() if f'"{reason}"' in said]
    if None in came:
        quotas = quotas or list(QUOTAS)
    lines = ["\n  A frame was lost. Perhaps a quota is used up:", *quotas] if quotas else []
    return "\n    ".join(lines)


def shown(thing: object) -> str:
    text = "nothing" if thing is None else json.dumps(thing, ensure_ascii=False)
    return text if len(text) < 500 else f"{text[:300]} ... {text[-100:]}"


def smoke(url: str, of_version: str | None = None) -> bool:
    """Prints a line for each check, up to the first that fails; returns whether all passed."""
    print(*filter(None, [url, of_version and f"version {of_version}"]), sep="\n", flush=True)
    checks = Smoke(url)
    for check in (checks.transcript, checks.odd_texts, checks.burst, checks.cleanup):
        started = time.monotonic()
        try:
            print(f"ok  {check():62}{time.monotonic() - started:5.1f} s", flush=True)
        except Difference as difference:
            print(f"FAILED  {difference}", flush=True)
            return False
    return True


def main() -> int:
    chat = chat_of(new_parser(__doc__).parse_args())
    return 0 if smoke(chat.url, chat.outputs.get("Version")) else 1


if __name__ == "__main__":
    run(main)
