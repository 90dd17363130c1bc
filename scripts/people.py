"""`make people` and `make kick`: list and disconnect the people of a chat, here or on AWS.

They use your own credentials, and only read the table. When a connection has been closed, API
Gateway tells the chat ($disconnect), which removes the rows and announces the departure. Nothing
keeps the person from connecting again.
"""

import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.sender import GONE
from chalicelib.storage import Connection, Storage
from chalicelib.storage.rows import LIFETIME_SECONDS, claim_key, connection
from chalicelib.text import names
from emulator.emulator import only
from scripts import Failure
from scripts.address import Chat, chat_of, new_parser, required, run

AT_ONCE = 8  # departures: a new account runs 10 functions at once, and loses the others
NO_ROOM = "(no room)"  # no room has a space in its name


def connected(table: Any) -> list[Connection]:
    """Everybody in the table, by room and time, including clients that vanished unnoticed.

    1 request for each MB of the table, about 4,000 people: a scan, since no index has people who
    are in no room.
    """
    pages = table.meta.client.get_paginator("scan").paginate(
        TableName=table.name,
        ConsistentRead=True,
        FilterExpression="begins_with(SK, :prefix) AND "
        "(attribute_not_exists(expires_at) OR expires_at > :now)",
        ExpressionAttributeValues={":prefix": "username_", ":now": int(time.time())},
    )
    found = [connection(row, 0) for page in pages for row in page["Items"]]
    return sorted(
        found, key=lambda each: (each.room is None, each.room, each.expires_at, each.nickname)
    )


def find(table: Any, nickname: str, room: str) -> list[Connection]:
    """The person with a nickname, in any spelling that counts as the same: 2 requests. Or a room's
    members, perhaps without those who join at this moment: 1 request for each MB of them."""
    storage = Storage(table)
    with suppress(names.InvalidName):
        if room:
            return storage.list_members(names.room(room))
        key = claim_key(names.nickname(nickname))
        claim = table.get_item(Key=key, ConsistentRead=True).get("Item")
        found = storage.find_connection(claim["connection_id"]) if claim else None
        return [found] if found else []
    return []


def show(people: list[Connection]) -> None:
    """Prints a line for each connection, then the number of people in each room."""
    if not people:
        print("Nobody is connected.")
        return
    rooms = Counter(each.room or NO_ROOM for each in people)
    width = max(map(len, rooms))
    print(f"since (UTC)  {'room':{width}}  nickname")
    for each in people:
        since = datetime.fromtimestamp(each.expires_at - LIFETIME_SECONDS, UTC)
        clock = f"{since:%H:%M:%S}" if each.expires_at else "?"  # a row of the tutorial's
        print(f"{clock:11}  {each.room or NO_ROOM:{width}}  {each.nickname or '(no nickname)'}")
    print("\npeople  room")
    for room, members in rooms.items():
        print(f"{members:6,}  {room}")
    print(f"{len(people):6,}  in all")


def kick(table: Any, api: Any, *, nickname: str = "", room: str = "", everybody: str = "") -> None:
    """Disconnects one person or, after asking, a room or everybody; prints how many.

    1 request for each, besides those of `find` and `connected`. The answer comes from standard
    input, so a pipe may give it. A connection that API Gateway has closed already keeps its rows
    until the chat notices.
    """
    if everybody not in ("", "yes") or sum(map(bool, (nickname, room, everybody))) != 1:
        raise Failure("Disconnect whom? Name one: NICKNAME=John, ROOM=chalice or EVERYBODY=yes.")
    found = connected(table) if everybody else find(table, nickname, room)
    if not found:
        which = f"called {nickname}" if nickname else f"in {room}" if room else "connected"
        raise Failure(f"Nobody is {which}; `make people` lists everybody.")
    if not nickname:
        whom = f"everybody in {room}" if room else "everybody"
        print(f"Disconnect {whom} ({len(found):,})? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Failure("Nobody was disconnected, since the answer was not y.")

    def is_gone(person: Connection) -> bool:
        try:
            api.delete_connection(ConnectionId=person.id)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != GONE:
                raise
            return True
        return False

    with ThreadPoolExecutor(AT_ONCE) as pool:
        gone = sum(pool.map(is_gone, found))
    one = found[0].nickname if nickname else ""
    if gone < len(found):
        print(f"Disconnected: {one or f'{len(found) - gone:,}'}")
    if gone:
        print(
            f"Gone already: {one or f'{gone:,}'}. The chat notices at the next line in the room, "
            "when somebody wants the nickname, or 2 hours after the connect."
        )


def clients(chat: Chat) -> tuple[Any, Any]:
    """The table and the `@connections` API of a chat."""
    table, url = required("TableName", chat.outputs), chat.url.replace("ws", "http", 1)
    with only(chat.emulator.environment if chat.emulator else dict(os.environ)):
        session = boto3.Session()
        api = session.client("apigatewaymanagementapi", endpoint_url=url)
        return session.resource("dynamodb").Table(table), api


def explained(error: Exception) -> str:
    """An error of AWS; for a refusal, with the permissions that are needed."""
    if "AccessDenied" not in str(error) and "Forbidden" not in str(error):
        return str(error)
    return (
        f"{error}\nYou need dynamodb:Scan, dynamodb:GetItem and dynamodb:Query on the table, "
        "dynamodb:Query on its index, and execute-api:ManageConnections on the API."
    )


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up
    parser = new_parser(__doc__)
    parser.add_argument("what", choices=["people", "kick"])
    whom = ("nickname", "room", "everybody")
    for each in whom:
        parser.add_argument(f"--{each}", default="")
    arguments = parser.parse_args()
    try:
        table, api = clients(chat_of(arguments))
        if arguments.what == "people":
            show(connected(table))
        else:
            kick(table, api, **{each: getattr(arguments, each) for each in whom})
    except (BotoCoreError, ClientError) as error:
        raise Failure(explained(error)) from None


if __name__ == "__main__":
    run(main)
