"""Posts to one or many connections, and finds those that are gone."""

import os
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain, islice
from typing import Any

from botocore.exceptions import ClientError, NoCredentialsError
from chalice import Chalice, WebsocketDisconnectedError

from chalicelib import aws, invocation
from chalicelib.invocation import about, count, log
from chalicelib.posting import BROADCAST_SECONDS, Poster, Result
from chalicelib.storage import Connection, Storage

# Reserved at the end of an invocation: for the last answers, removals and announcements.
CLEAN_UP_SECONDS = 6.0

MAX_LOGGED = 100  # failed posts in one log line

GONE = 410  # the status of the `@connections` API for a connection that is closed


class Sender:
    """Posts lines to connections, at the address that `aws.ENDPOINT_VARIABLE` names.

    Without this variable, posts go through Chalice's `app.websocket_api`, one at a time. That is
    for tests and for other templates: a large room takes long.
    """

    def __init__(self, app: Chalice, storage: Storage) -> None:
        """`app.websocket_api.session` is used from the first post on, in Lambda at once."""
        self._app = app
        self._storage = storage
        if aws.is_starting_for_the_chat():
            self._poster  # noqa: B018

    def post(self, connections: Iterable[Connection], message: str) -> list[Connection]:
        """Post a message to connections. Returns those that are gone.

        `message` holds at most 32,768 bytes of UTF-8: see `texts.MESSAGE_BYTES`. `connections` is
        read as posts begin, up to 64 at once, so memory does not grow with their number.

        Each connection normally gets the message once; twice only if a kept HTTP connection fails
        halfway. Throttling and server errors are retried, and nobody waits for a slow member: see
        `Poster.post`.

        A post that fails for good is logged, and the others still get the message. Posts that would
        miss the deadline are logged, and not made. If this function crashes, the remaining posts
        are lost.

        Cost: a request for each post. Exceptions from `connections` propagate, after the posts to
        those that were read.
        """
        pending = iter(connections)
        result = self._post(pending, message)
        missed = _count_while_time_is_left(pending)
        if missed:
            log.error("posts given up", extra=about(failed=missed, reason=result.stopped))
        if result.failed:
            some = dict(islice(result.failed.items(), MAX_LOGGED))
            log.error("posts failed", extra=about(failed=len(result.failed), reasons=some))
        count(
            LinesDelivered=result.delivered,
            MembersGone=len(result.gone),
            PostsFailed=len(result.failed) + missed,
            PostingMilliseconds=round(result.seconds * 1000, 1),
        )
        return result.gone

    def close(self, connection_id: str) -> None:
        """Close a connection from the server's side if it is still open. 1 request."""
        try:
            if self._connections_api:
                self._connections_api.delete_connection(ConnectionId=connection_id)
            else:
                self._app.websocket_api.close(connection_id)
        except (ClientError, WebsocketDisconnectedError) as error:
            if not _says_gone(error):
                raise

    def is_gone(self, connection_id: str) -> bool:
        """Whether API Gateway knows that a connection is closed; False when in doubt. 1 request.

        A client that vanished is noticed within 10 minutes usually, and after 2 hours at most.
        """
        try:
            if self._connections_api:
                self._connections_api.get_connection(ConnectionId=connection_id)
            else:
                self._app.websocket_api.info(connection_id)
        except Exception as error:
            if _says_gone(error):
                return True
            log.exception("cannot tell whether a connection is open", extra=about(to=connection_id))
        return False

    # The tutorial's names: they take ids, and remove the connections that are gone

    def send(self, connection_id: str, message: str) -> list[Connection]:
        """`broadcast` to one connection."""
        return self.broadcast([connection_id], message)

    def broadcast(self, connection_ids: Iterable[str], message: str) -> list[Connection]:
        """`post`, and remove the connections that are gone; returns those it removed."""
        gone = self.post(map(Connection, connection_ids), message)
        return list(chain.from_iterable(self._storage.delete_gone(gone)))

    # Posts

    def _post(self, connections: Iterator[Connection], message: str) -> Result[Connection]:
        """Connections for which no time is left stay in the iterator."""
        seconds = _seconds_for_posts()
        if self._poster:
            return self._poster.post(connections, message, seconds)
        result = Result[Connection](stopped="no time left")
        end = time.monotonic() + seconds
        while time.monotonic() < end and (connection := next(connections, None)):
            try:
                self._app.websocket_api.send(connection.id, message)
                result.delivered += 1
            except Exception as error:
                if _says_gone(error):
                    result.gone.append(connection)
                else:
                    result.failed[connection.id] = str(error)
        return result

    @cached_property
    def _poster(self) -> Poster | None:
        endpoint = os.environ.get(aws.ENDPOINT_VARIABLE)
        if not endpoint:
            return None
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError()
        tls = aws.tls_context() if endpoint.startswith("https:") else None
        return Poster(endpoint, self._session.region_name, credentials, tls)

    @cached_property
    def _connections_api(self) -> Any:
        """For rare requests. Chalice's own client would trust the API's id in an event."""
        if os.environ.get(aws.ENDPOINT_VARIABLE):
            return self._session.client("apigatewaymanagementapi")
        return None

    @property
    def _session(self) -> Any:
        return self._app.websocket_api.session


def _count_while_time_is_left(connections: Iterator[Connection]) -> int:
    """The number of connections; near the deadline too low, but never 0 if there are any."""
    number = 0
    for _ in connections:
        number += 1
        if invocation.is_ending():
            break
    return number


def _seconds_for_posts() -> float:
    """How long posts may start: near the deadline, a third of the time left. Their answers may take
    another third."""
    if invocation.is_ending():
        return 0.0
    left = invocation.seconds_left()
    return min(BROADCAST_SECONDS, max(left - CLEAN_UP_SECONDS, left / 3))


def _says_gone(error: Exception) -> bool:
    """By the status, since an answer from API Gateway may lack the name of the error."""
    if isinstance(error, ClientError):
        return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == GONE)
    return isinstance(error, WebsocketDisconnectedError)
