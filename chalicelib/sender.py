"""Posts to connections, one or many, through API Gateway's `@connections` API."""

import json
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from chalice import Chalice, WebsocketDisconnectedError

from chalicelib.log import about, count, log
from chalicelib.posting import Poster
from chalicelib.storage import CLIENT_CONFIG, Connection, Storage

ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"

# What one invocation posts itself, in members; the others of a larger room are handed to the
# fan-out function, as many to each. 5,000 take 0.6 s at 8 ms a post, and their ids and the
# longest message, escaped, fit into the 1 MB of an asynchronous invocation (Lambda quotas).
CHUNK = 5_000

# How often what a fan-out function could not post is handed on. It stays below the 16 at
# which Lambda itself stops a loop ("Use Lambda recursive loop detection").
MAX_HOPS = 3

MAX_LOGGED = 100  # failed posts in one log line


class Session(boto3.Session):
    """A boto3 session whose clients heed boto3's variable for the `@connections` endpoint.

    Chalice hands boto3 an endpoint of its own, which makes boto3 ignore that variable. On AWS
    it is not set, and Chalice's endpoint holds.
    """

    def client(self, service_name: str, **options: Any) -> Any:
        options.setdefault("config", CLIENT_CONFIG)
        if service_name == "apigatewaymanagementapi":
            options["endpoint_url"] = os.environ.get(ENDPOINT_VARIABLE) or options["endpoint_url"]
        return super().client(service_name, **options)


class Sender:
    """Posts lines to connections, and removes the connections that turn out to be gone.

    A large room is spread over the fan-out function that the environment variable FAN_OUT
    names; without it, every post is made here.
    """

    def __init__(self, app: Chalice, storage: Storage) -> None:
        """`app.websocket_api` needs a session, and has its endpoint from the first event."""
        self._app = app
        self._storage = storage
        self._fan_out_function = os.environ.get("FAN_OUT")

    def send(self, connection_id: str, message: str) -> None:
        """Post a message to one connection, as `broadcast`; what fails is logged, not raised."""
        try:
            self.broadcast([connection_id], message)
        except Exception:
            log.exception("a message could not be sent", extra=about(to=connection_id))

    def broadcast(self, connection_ids: Iterable[str], message: str) -> None:
        """Post a message to connections.

        `message` holds at most 131,072 bytes of UTF-8. Up to 64 posts are under way at once.
        The first `CHUNK` ids are posted here, the others, chunk by chunk as they are read, by
        the fan-out function; without it, all are taken as they can be posted to. Either way
        no more than `CHUNK` ids are held.

        Each connection gets the message once, in the ordinary case. It gets it at least
        once, hence perhaps twice, when a kept HTTP connection or a fan-out function breaks
        off in the middle. What promises apply to a single post stands at `Poster.post`:
        throttling and server errors are tried again, and nobody waits for a slow member.

        A connection that is gone (410) is removed, and its room told. A post that fails for
        good keeps the message from nobody else; it is logged. What `connection_ids` raises
        is let through.
        """
        self._broadcast(connection_ids, message, hops=0)

    def deliver(self, chunk: dict[str, Any], function_name: str) -> None:
        """What the fan-out function does: broadcast the chunk that it was handed.

        `function_name` is its own. What it cannot post in time it hands on, so that a chunk
        is not repeated as a whole: Lambda does that only after a crash.
        """
        self._fan_out_function = function_name
        endpoint = urlsplit(chunk["endpoint"])
        self._app.websocket_api.configure(endpoint.netloc, endpoint.path.strip("/"))
        self._broadcast(chunk["connection_ids"], chunk["message"], chunk["hops"])

    def close(self, connection_id: str) -> None:
        """Close a connection from the server's side; nothing happens if it is closed. 1 request."""
        try:
            self._app.websocket_api.close(connection_id)
        except WebsocketDisconnectedError:
            pass

    def depart(self, connection_id: str) -> None:
        """Remove a connection that is gone, and tell its room, once, that it left.

        Raises what DynamoDB raises if it cannot be removed; then nothing has changed.
        """
        self._tell_departures([self._storage.delete_connection(connection_id)], {connection_id})

    def is_gone(self, connection_id: str) -> bool:
        """Whether API Gateway knows that a connection is closed; when in doubt, it is not.

        1 request.
        """
        try:
            self._app.websocket_api.info(connection_id)
        except WebsocketDisconnectedError:
            return True
        except Exception:
            log.exception("cannot tell whether a connection is open", extra=about(to=connection_id))
        return False

    def _broadcast(self, connection_ids: Iterable[str], message: str, hops: int) -> None:
        gone = self._post(connection_ids, message, hops)
        self._tell_departures([self._remove(connection_id) for connection_id in gone], gone)

    def _post(self, connection_ids: Iterable[str], message: str, hops: int = 0) -> set[str]:
        """Post to each, here or in the fan-out function; the ids of those found gone here.

        What is handed over goes first, so that all functions post at the same time.
        """
        own = ids = iter(connection_ids)
        others: Iterator[str] = iter(())
        if self._fan_out_function:
            own, others = iter(list(islice(ids, CHUNK))), ids
        gone = self._hand_over(others, message, hops)
        gone |= self._post_here(own, message)
        for_want_of_time = self._hand_over(own, message, hops)
        return gone | for_want_of_time

    def _post_here(self, connection_ids: Iterable[str], message: str) -> set[str]:
        result = self._fan_out.post(connection_ids, message)
        count(
            LinesDelivered=result.delivered,
            MembersGone=len(result.gone),
            PostsFailed=len(result.failed),
            FanOutMilliseconds=round(result.seconds * 1000, 1),
        )
        if result.failed:
            some = dict(islice(result.failed.items(), MAX_LOGGED))
            log.error("posts failed", extra=about(failed=len(result.failed), reasons=some))
        if result.stopped:
            log.warning("posting stopped", extra=about(reason=result.stopped))
        return set(result.gone)

    def _hand_over(self, ids: Iterator[str], message: str, hops: int) -> set[str]:
        """Have the fan-out function post to what is left of the ids, in chunks."""
        gone: set[str] = set()
        while chunk := list(islice(ids, CHUNK)):
            if self._fan_out_function is None or hops == MAX_HOPS:
                log.error("posts given up", extra=about(failed=len(chunk)))
                count(PostsFailed=len(chunk))
            elif not self._call_fan_out(chunk, message, hops + 1):
                gone |= self._post_here(chunk, message)
        return gone

    def _call_fan_out(self, chunk: list[str], message: str, hops: int) -> bool:
        event = {
            "endpoint": self._endpoint,
            "connection_ids": chunk,
            "message": message,
            "hops": hops,
        }
        try:
            self._lambda.invoke(
                FunctionName=self._fan_out_function,
                InvocationType="Event",
                Payload=json.dumps(event, ensure_ascii=False).encode(),
            )
            return True
        except (BotoCoreError, ClientError):
            log.exception("the fan-out function could not be called")
            return False

    @cached_property
    def _fan_out(self) -> Poster:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError()
        return Poster(self._endpoint, self._session.region_name, credentials)

    @cached_property
    def _lambda(self) -> Any:
        return self._session.client("lambda")

    @property
    def _session(self) -> Any:
        return self._app.websocket_api.session

    @property
    def _endpoint(self) -> str:
        """Chalice keeps the one that it has found, from the event and the region, to itself."""
        return os.environ.get(ENDPOINT_VARIABLE) or str(self._app.websocket_api._endpoint)

    def _tell_departures(self, departed: list[Connection | None], dead: set[str]) -> None:
        """Tell the rooms of connections that were removed.

        Telling may find more that are gone, so this goes on until it finds none. Those of a
        round are all removed before the next, so that nobody is announced twice, or to the dead.
        """
        while departed:
            gone: set[str] = set()
            for connection in departed:
                if connection is not None and connection.room is not None:
                    gone |= self._announce_departure(connection, connection.room, dead)
            dead = dead | gone
            departed = [self._remove(connection_id) for connection_id in gone]

    def _remove(self, connection_id: str) -> Connection | None:
        try:
            return self._storage.delete_connection(connection_id)
        except Exception:
            log.exception("a gone connection could not be removed", extra=about(to=connection_id))
            return None

    def _announce_departure(self, connection: Connection, room: str, dead: set[str]) -> set[str]:
        members = self._storage.iter_connection_ids_by_room(room)
        alive = (member for member in members if member not in dead)
        try:
            return self._post(alive, f"{connection.username} left room.")
        except Exception:
            log.exception("a departure could not be announced", extra=about(to=connection.id))
            return set()
