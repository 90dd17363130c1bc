"""Posts to connections, one or many, and says which of them are gone."""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from chalice import Chalice

from chalicelib import aws, slices
from chalicelib.log import about, log
from chalicelib.metrics import count
from chalicelib.posting import BROADCAST_SECONDS, Poster
from chalicelib.rows import Connection, pack, unpack
from chalicelib.storage import Storage
from chalicelib.transactions import REST_SECONDS

# Connections that one invocation posts to. The rest of a larger room is handed over to the
# fan-out function, in chunks of this size. 5,000 take 0.6 s at 8 ms a post. Their ids and nicknames
# and the longest message fit into the 1 MB of an asynchronous invocation (Lambda quotas).
CHUNK = 5_000

# Connections that the fan-out function posts to after each write to the table. Five writes for a
# chunk take 12 ms of CPU; 5,000 posts take 200 ms.
SLICE = 1_000

# How often the fan-out function may hand over the posts it has no time for: less than the 16 at
# which Lambda itself stops a loop ("Use Lambda recursive loop detection").
MAX_HOPS = 3

# Reserved at the end of an invocation: for the last answers, removals and announcements.
CLEAN_UP_SECONDS = 6.0

MAX_LOGGED = 100  # failed posts in one log line

GONE = 410  # the status of the `@connections` API for a connection that is closed


class Sender:
    """Posts lines to connections.

    Posts to a large room are spread over invocations of the fan-out function, which the
    environment variable FAN_OUT names; without it, every post is made here.
    """

    def __init__(self, app: Chalice, storage: Storage) -> None:
        """`app.websocket_api.session` is used from the first post on."""
        self._app = app
        self._storage = storage
        self._fan_out_function = os.environ.get("FAN_OUT")

    def post(self, connections: Iterable[Connection], message: str) -> list[Connection]:
        """Post a message to connections. Returns those that are gone.

        `message` holds at most 32,768 bytes of UTF-8: see `texts.MESSAGE_BYTES`. The first `CHUNK`
        connections are posted to here, up to 64 at once. The fan-out function posts to the others,
        chunk by chunk as they are read. No more than two chunks are held at a time.

        Each connection normally gets the message once. It gets it twice only if a kept HTTP
        connection fails halfway. `Poster.post` has the promises for a single post: throttling
        and server errors are retried, and nobody waits for a slow member.

        A post that fails for good is logged, and the others still get the message. Posts that
        miss the deadline are handed over as well. The fan-out function returns the connections
        that it finds gone to its own caller, not here. If this function crashes, its own posts
        and those not yet handed over are lost.

        Cost: a request for each post. Exceptions from `connections` propagate, after the posts to
        those that were read.
        """
        chunks = _chunks(connections)
        own = next(chunks, [])
        gone: list[Connection] = []
        try:
            for chunk in chunks:
                if not self._hand_over(chunk, message, hops=0):
                    gone += self._post(chunk, message, hops=0)
        finally:
            gone += self._post(own, message, hops=0)
        return gone

    def fan_out(self, event: dict[str, Any], function_name: str | None) -> list[Connection]:
        """The body of the fan-out function: post to a chunk.

        `function_name` is its own name: it hands over to itself the posts it cannot make in
        time. Without a name, it gives them up. Returns the same as `post`.

        If it crashes, or Lambda delivers the event twice, nobody gets the message twice. The
        retry, a minute later, skips the slice in which the function crashed and logs that. So up
        to `SLICE` connections miss the message, less those that already had it. More may miss it
        if the retry fails too; then the event becomes a dead letter.

        Cost: a request for each post, and a write to the table for each `SLICE` of them. Raises
        DynamoDB's errors, after the posts to the slices that have begun.
        """
        self._fan_out_function = function_name
        message = base64.b64decode(event["message"]).decode()
        chunk_id = event.get("id", uuid4().hex)  # an older version's event has none
        members = self._not_begun(unpack(event["connections"]), chunk_id)
        return self._post(members, message, event["hops"])

    def close(self, connection_id: str) -> None:
        """Close a connection from the server's side if it is still open. 1 request."""
        try:
            self._connections_api.delete_connection(ConnectionId=connection_id)
        except ClientError as error:
            if not _says_gone(error):
                raise

    def is_gone(self, connection_id: str) -> bool:
        """Whether API Gateway knows that a connection is closed; False when in doubt.

        1 request. API Gateway usually notices a client that vanished without closing within 10
        minutes, and after 2 hours at the latest.
        """
        try:
            self._connections_api.get_connection(ConnectionId=connection_id)
        except Exception as error:
            if isinstance(error, ClientError) and _says_gone(error):
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
        return self._storage.delete_connections(gone)

    # Posts

    def _not_begun(self, chunk: list[Connection], chunk_id: str) -> Iterator[Connection]:
        """The members of the slices that this invocation is the first to begin."""
        invocation_id = uuid4().hex
        for start in range(0, len(chunk), SLICE):
            members = chunk[start : start + SLICE]
            if slices.begin(self._storage.table, f"{chunk_id}_{start}", invocation_id):
                yield from members
            else:
                log.error("a retry skips posts", extra=about(members=len(members)))

    def _post(self, connections: Iterable[Connection], message: str, hops: int) -> list[Connection]:
        """Post to each; returns those that are gone."""
        taken: dict[str, Connection] = {}
        pending = iter(connections)
        ids = (taken.setdefault(each.id, each).id for each in pending)
        gone = self._post_to_ids(ids, message)
        self._hand_over_rest(list(pending), message, hops)
        return [each for each in taken.values() if each.id in gone]

    def _post_to_ids(self, ids: Iterator[str], message: str) -> set[str]:
        """Post to each; returns the ids that are gone, and leaves the ids it has no time for."""
        result = self._poster.post(ids, message, _seconds_for_posts())
        count(
            LinesDelivered=result.delivered,
            MembersGone=len(result.gone),
            PostsFailed=len(result.failed),
            PostingMilliseconds=round(result.seconds * 1000, 1),
        )
        if result.failed:
            some = dict(islice(result.failed.items(), MAX_LOGGED))
            log.error("posts failed", extra=about(failed=len(result.failed), reasons=some))
        if result.stopped:
            log.warning("posting stopped", extra=about(reason=result.stopped))
        return set(result.gone)

    def _hand_over_rest(self, left: list[Connection], message: str, hops: int) -> None:
        """Hand over the connections that are left, if any; log an error if that fails."""
        if left and not (hops < MAX_HOPS and self._hand_over(left, message, hops)):
            log.error("posts given up", extra=about(failed=len(left)))
            count(PostsFailed=len(left))

    def _hand_over(self, chunk: list[Connection], message: str, hops: int) -> bool:
        """Hand a chunk over to the fan-out function; returns whether it was accepted."""
        if self._fan_out_function is None:
            return False
        event = {
            "id": uuid4().hex,
            "connections": pack(chunk),
            # Base64 bounds the size: JSON can turn one byte into 6.
            "message": base64.b64encode(message.encode()).decode(),
            "hops": hops + 1,
        }
        try:
            self._lambda.invoke(
                FunctionName=self._fan_out_function,
                InvocationType="Event",
                Payload=json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(),
            )
            return True
        except (BotoCoreError, ClientError):
            log.exception("the fan-out function could not be called")
            return False

    @cached_property
    def _poster(self) -> Poster:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError()
        endpoint = aws.posts_endpoint()
        tls = aws.tls_context() if endpoint.startswith("https:") else None
        return Poster(endpoint, self._session.region_name, credentials, tls)

    @cached_property
    def _connections_api(self) -> Any:
        """For rare requests. Chalice's own client trusts an event's domain name."""
        return self._client("apigatewaymanagementapi", endpoint_url=aws.posts_endpoint())

    @cached_property
    def _lambda(self) -> Any:
        return self._client("lambda")

    def _client(self, service: str, **options: Any) -> Any:
        return self._session.client(service, config=aws.client_config(), **options)

    @property
    def _session(self) -> Any:
        return self._app.websocket_api.session


def _chunks(connections: Iterable[Connection]) -> Iterator[list[Connection]]:
    """`CHUNK` at a time. If `connections` raises, those read before come first."""
    chunk: list[Connection] = []
    try:
        for connection in connections:
            chunk.append(connection)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
    except Exception:
        yield chunk
        raise
    if chunk:
        yield chunk


def _seconds_for_posts() -> float:
    """How long posts may start; near the deadline a third of the rest: answers may take as long."""
    left = aws.seconds_left()
    if left < REST_SECONDS:
        return 0.0
    return min(BROADCAST_SECONDS, max(left - CLEAN_UP_SECONDS, left / 3))


def _says_gone(error: ClientError) -> bool:
    status: int = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status == GONE
