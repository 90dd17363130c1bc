"""A crash of the fan-out function, and events that Lambda delivers again."""

import base64
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib import slices
from chalicelib.rows import Connection, pack
from tests.conftest import Chat, requests
from tests.connections import Connections
from tests.tables import RESOURCES, rows

ROOT = Path(__file__).parent.parent
SLICE = 200

# The function in a process of its own. Files stand in for the rows of the slices.
FUNCTION = f"""
import json, os, sys
from types import SimpleNamespace
from boto3.session import Session
from chalicelib import Sender, sender, slices

def begin(table, slice_id, invocation_id):
    try:
        os.close(os.open(os.path.join(sys.argv[1], slice_id), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

slices.begin = begin
sender.SLICE = {SLICE}
app = SimpleNamespace(websocket_api=SimpleNamespace(session=Session("a", "b")))
Sender(app, SimpleNamespace(table=None)).fan_out(json.load(sys.stdin), "fan-out")
"""


def event(count: int) -> dict[str, Any]:
    members = (Connection(f"c{n}", f"p{n}", "tea") for n in range(count))
    message = base64.b64encode(b"Hi").decode()
    return {"id": "chunk", "connections": pack(members), "message": message, "hops": 1}


def run(directory: Path, count: int, is_time_to_die: Callable[[], bool]) -> int:
    """Run the function, and kill it when it is time; returns its exit status."""
    with subprocess.Popen(
        [sys.executable, "-c", FUNCTION, directory], stdin=subprocess.PIPE, cwd=ROOT, text=True
    ) as function:
        assert function.stdin is not None
        json.dump(event(count), function.stdin)
        function.stdin.close()
        while function.poll() is None:
            if is_time_to_die():
                function.kill()
            time.sleep(0.001)
    return function.returncode


@pytest.mark.parametrize("seed", range(5))
def test_nobody_hears_a_line_twice_after_a_crash(
    connections: Connections, tmp_path: Path, seed: int
) -> None:
    """Killed after a random number of posts, and retried as Lambda does."""
    invocations = json.loads(RESOURCES.read_text())["Resources"]["FanOutInvocations"]
    assert invocations["Properties"]["MaximumRetryAttempts"] == 1
    last = random.Random(seed).randrange(4 * SLICE)
    assert run(tmp_path, 5 * SLICE, lambda: len(connections.requests) > last) != 0
    assert run(tmp_path, 5 * SLICE, lambda: False) == 0
    assert max(connections.attempts.values()) == 1
    assert 5 * SLICE - len(connections.posts) <= SLICE  # begun, and perhaps not posted at all


def test_an_event_that_is_delivered_again_is_not_posted_again(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chalicelib.sender.SLICE", 2)
    for _ in range(2):
        chat.handler.fan_out(event(5), "fan-out")
    assert chat.connections.posts == {f"c{n}": ["Hi"] for n in range(5)}
    assert [record.getMessage() for record in caplog.records] == ["a retry skips posts"] * 3


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_slice_that_cannot_be_begun_is_left_to_the_retry(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    monkeypatch.setattr("chalicelib.sender.SLICE", 2)
    put_item = chat.table.put_item
    calls: list[dict[str, Any]] = []

    def fail_once(**request: Any) -> Any:
        calls.append(request)
        if len(calls) == failing:
            raise ClientError({"Error": {"Code": "InternalServerError"}}, "PutItem")
        return put_item(**request)

    monkeypatch.setattr(chat.table, "put_item", fail_once)
    with pytest.raises(ClientError):
        chat.handler.fan_out(event(5), "fan-out")
    assert len(chat.connections.posts) == 2 * (failing - 1)
    chat.handler.fan_out(event(5), "fan-out")
    assert chat.connections.posts == {f"c{n}": ["Hi"] for n in range(5)}


def test_posts_that_are_handed_over_are_not_retried_as_well(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function has no time, hands everybody over, and crashes."""
    handed_over: list[Any] = []

    def hand_over(left: list[Connection], *_: object, **__: object) -> bool:
        handed_over.append(left)
        return True

    monkeypatch.setattr("chalicelib.sender.SLICE", 2)
    monkeypatch.setattr(chat.sender, "_hand_over", hand_over)
    with monkeypatch.context() as late:
        late.setattr("chalicelib.aws.seconds_left", lambda: 0.5)
        chat.handler.fan_out(event(5), "fan-out")
    chat.handler.fan_out(event(5), "fan-out")
    assert [len(left) for left in handed_over] == [5]
    assert not chat.connections.attempts


def test_a_slice_begins_once(chat: Chat) -> None:
    with requests(chat.storage) as sent:
        assert slices.begin(chat.table, "a", "first", chat.clock)
    assert sent == {"PutItem": 1}
    assert slices.begin(chat.table, "a", "first", chat.clock)  # as when its answer is lost
    assert not slices.begin(chat.table, "a", "second", chat.clock)
    assert slices.begin(chat.table, "b", "second", chat.clock)
    (row, _) = rows(chat.table)
    assert row["expires_at"] == int(chat.clock.now) + slices.ROW_SECONDS
