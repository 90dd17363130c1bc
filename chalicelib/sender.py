"""Posts to connections, one or many, through API Gateway's `@connections` API."""

import os
from collections.abc import Iterable
from typing import Any

import boto3
from botocore.config import Config
from chalice import Chalice, WebsocketDisconnectedError

from chalicelib.log import log
from chalicelib.storage import Connection, Storage

ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"

# Throttling (429) and 5xx are tried again with back-off, within 4 attempts of 4 s.
CLIENT_CONFIG = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 4},
)


class Session(boto3.Session):
    """A boto3 session whose clients heed boto3's variable for the `@connections` endpoint.

    Chalice hands boto3 an endpoint of its own, which makes boto3 ignore that variable. On AWS
    it is not set, and Chalice's endpoint holds.
    """

    def client(self, service_name: str, **options: Any) -> Any:
        if service_name == "apigatewaymanagementapi":
            options["endpoint_url"] = os.environ.get(ENDPOINT_VARIABLE) or options["endpoint_url"]
            options.setdefault("config", CLIENT_CONFIG)
        return super().client(service_name, **options)


class Sender:
    """Posts lines to connections, and removes the connections that turn out to be gone."""

    def __init__(self, app: Chalice, storage: Storage) -> None:
        """`app.websocket_api` does the posts; it needs a session, and a WebSocket event before."""
        self._app = app
        self._storage = storage

    def send(self, connection_id: str, message: str) -> None:
        """Post a message to one connection; promises and failures as `broadcast`."""
        self.broadcast([connection_id], message)

    def broadcast(self, connection_ids: Iterable[str], message: str) -> None:
        """Post a message to connections, each once.

        `message` holds at most 131,072 bytes of UTF-8. A connection that is gone (410) is
        removed and its room is told. Nothing that one post answers keeps the message from
        the others, or is raised: throttling and server errors are tried again, and what
        fails for good is logged. What `connection_ids` raises while it is read is let through.
        """
        gone = self._post(connection_ids, message)
        self._tell_departures([self._remove(connection_id) for connection_id in gone], gone)

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
        """Whether API Gateway knows that a connection is closed. When in doubt, it is not. 1 request."""
        try:
            self._app.websocket_api.info(connection_id)
        except WebsocketDisconnectedError:
            return True
        except Exception:
            log.exception("cannot tell whether a connection is open", extra=_about(connection_id))
        return False

    def _post(self, connection_ids: Iterable[str], message: str) -> set[str]:
        """Post to each; the ids of those that are gone."""
        gone = set()
        for connection_id in connection_ids:
            try:
                self._app.websocket_api.send(connection_id, message)
            except WebsocketDisconnectedError:
                gone.add(connection_id)
            except Exception:
                log.exception("a post failed", extra=_about(connection_id))
        return gone

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
            log.exception("a gone connection could not be removed", extra=_about(connection_id))
            return None

    def _announce_departure(self, connection: Connection, room: str, dead: set[str]) -> set[str]:
        members = self._storage.iter_connection_ids_by_room(room)
        alive = (member for member in members if member not in dead)
        try:
            return self._post(alive, f"{connection.username} left room.")
        except Exception:
            log.exception("a departure could not be announced", extra=_about(connection.id))
            return set()


def _about(connection_id: str) -> dict[str, Any]:
    return {"fields": {"to": connection_id}}
