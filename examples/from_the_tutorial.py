"""Shows the differences in docs/from-the-tutorial.md, on the tutorial's chat or on this one.

python from_the_tutorial.py scene ws://... 'A Sam' 'B Sam'   # plays a scene
python from_the_tutorial.py crowd ws://...                   # times a line to 100 people
TABLE=... PYTHONPATH=. python from_the_tutorial.py calls     # calls `Storage`, `Sender`, `Handler`
"""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from unittest.mock import Mock, patch

import boto3
from botocore.client import BaseClient
from websocket import WebSocket, create_connection

PATIENCE = 5.0  # seconds; a function's first reply takes longest
PAUSE = 0.5  # seconds after the first reply to a step, for the others

heard = threading.Event()


def steps(scene: list[str]) -> list[tuple[str, str | None]]:
    """The person and the text of a step; None closes the connection."""
    split = [step.partition(" ") for step in scene]
    return [
        (name, text.encode().decode("unicode_escape") if space else None)
        for name, space, text in split
    ]


def play(url: str, *scene: str) -> None:
    people: dict[str, WebSocket] = {}
    for step, (name, text) in zip(scene, steps(list(scene)), strict=True):
        print(step[:70])
        heard.clear()
        if name not in people:
            people[name] = create_connection(url)
            threading.Thread(target=listen, args=[name, people[name]], daemon=True).start()
        if text is None:
            people[name].close()
        else:
            people[name].send(text)
        heard.wait(PATIENCE)
        time.sleep(PAUSE)


def listen(name: str, client: WebSocket) -> None:
    with suppress(Exception):
        while frame := client.recv_frame():  # type: ignore[no-untyped-call]
            text = frame.data.decode(errors="replace")
            sys.stdout.write(f"    {name} hears {text[:150]!r}\n")  # whole, beside other threads
            heard.set()


def crowd(url: str, size: str = "100") -> None:
    people = [create_connection(url, timeout=60) for _ in range(int(size))]
    for n, each in enumerate(people):
        for frame in (f"P{n}", "/join crowd"):
            each.send(frame)
            each.recv()

    def hear(client: WebSocket) -> float:
        while client.recv() != "P0: now":
            pass
        return time.monotonic() - start

    with ThreadPoolExecutor(len(people)) as threads:
        start = time.monotonic()
        people[0].send("now")
        times = sorted(threads.map(hear, people))
    print(f"The first hears the line after {times[0]:.2f} s, the last after {times[-1]:.2f} s.")


def calls() -> None:
    """Uses only names that both have. The people of each run have other names."""
    from chalicelib import Handler, Sender, Storage

    app, storage = Mock(), Storage.from_env()
    sender = Sender(app, storage)
    handler = Handler(storage, sender)
    run = f"-{time.time():.0f}"

    def person(name: str) -> str:
        storage.create_connection(name + run)
        handler.handle(name + run, name + run)
        return name + run

    members = [person(f"P{n}") for n in range(40)]
    for member in members:
        handler.handle(member, f"/join hall{run}")
    outside = person("Zoe")
    print("/ls in a room of 40:", requests(lambda: handler.handle(members[7], "/ls")))
    print("/ls outside:", requests(lambda: handler.handle(outside, "/ls")))

    racers = [person(f"Ann{n}") for n in range(10)]
    with ThreadPoolExecutor() as threads:
        for racer in racers:
            list(threads.map(handler.handle, [racer] * 2, [f"/join tea{run}", f"/join milk{run}"]))
    tea, milk = (set(storage.get_connection_ids_by_room(room + run)) for room in ("tea", "milk"))
    print(f"After two /join at once, {len(tea & milk)} of 10 people are in two rooms.")

    row = {"SK": f"room_crowd{run}", "expires_at": int(time.time()) + 3600}
    with boto3.resource("dynamodb").Table(os.environ["TABLE"]).batch_writer() as rows:
        for n in range(3_000):
            rows.put_item(Item=row | {"PK": f"{n:0500}"})
    found = storage.get_connection_ids_by_room(f"crowd{run}")
    print(f"Of 3000 members, {len(found)} are found.")

    app.websocket_api.send = Mock(side_effect=[None, RuntimeError("refused"), None])
    raised = outcome(lambda: sender.broadcast(["1", "2", "3"], "Hi"))
    print(f"Of 3 posts, {app.websocket_api.send.call_count} are made; {raised}")
    app.websocket_api.send = Mock()
    raised = outcome(lambda: handler.handle("stranger", "Hi"))
    print("A stranger hears:", [call.args[1] for call in app.websocket_api.send.mock_calls], raised)


def requests(act: Callable[[], object]) -> dict[str, int]:
    """The requests to AWS, by action."""
    sent: Counter[str] = Counter()
    request = BaseClient._make_api_call

    def count(client: object, action: str, arguments: object) -> object:
        sent[action] += 1
        return request(client, action, arguments)

    with patch.object(BaseClient, "_make_api_call", count):
        act()
    return dict(sent)


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except Exception as error:
        return f"raises {error!r}"
    return "raises nothing"


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    actions: dict[str, Callable[..., None]] = {"scene": play, "crowd": crowd, "calls": calls}
    actions[what](*arguments)
