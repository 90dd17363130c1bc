"""The chat's table, by DynamoDB's operations over the standard library.

The interface is that of boto3's `Table`, as far as the chat uses it, and so are the errors. boto3 or
botocore would take most of a cold start's CPU (`benchmarks/README.md`).

docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html
"""

import json
import random
import select
import socket
import ssl
import time
from functools import partial
from threading import Lock
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from chalicelib.posting.http1 import Answer, Endpoint, parse
from chalicelib.posting.sigv4 import Credentials, signed
from chalicelib.rows import Item

# As in the standard mode of AWS's own clients: a call makes at most 4 attempts, which take 4 s each,
# or 5 s with a new connection over TLS, with at most 7 s of back-off. It fits into the 29 s that API
# Gateway waits for an integration.
ATTEMPTS = 4
CONNECT_SECONDS = 1  # and as long for TLS
ANSWER_SECONDS = 3
PASSING = {
    "InternalServerError",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionInProgressException",
}

IDLE_SECONDS = 50  # as in `posting/pool.py`
LONGEST_ANSWER = 8_000_000  # a page holds 1 MB, which JSON makes larger

# The parameters and results that are rows, or parts of one.
PARAMETERS = {"Item", "Key", "ExpressionAttributeValues", "ExclusiveStartKey"}
RESULTS = {"Attributes", "LastEvaluatedKey"}


class ConditionalCheckFailedException(ClientError):
    """A condition did not hold."""


class TransactionCanceledException(ClientError):
    """A transaction was cancelled, for the reasons in its response."""


class Table:
    """`table.put_item` and the like are the client's, of this one table."""

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self.meta = SimpleNamespace(client=client)

    def __getattr__(self, operation: str) -> Any:
        return partial(getattr(self.meta.client, operation), TableName=self.name)


class Client:
    """DynamoDB's operations, which take and return rows of Python's strings and integers.

    Attributes of other types are returned in DynamoDB's own notation, and so are the rows in errors.

    Connection errors, time-outs, throttling and server errors are retried. A call raises botocore's
    `ClientError`, or `EndpointConnectionError` (a `BotoCoreError`) without an answer. A write that
    is retried may be carried out twice, except for a transaction.

    No connection is opened before the first call, and one is kept. Calls from several threads are
    safe, and wait for each other. Proxies are not supported.
    """

    exceptions = SimpleNamespace(
        ConditionalCheckFailedException=ConditionalCheckFailedException,
        TransactionCanceledException=TransactionCanceledException,
    )

    def __init__(
        self, url: str, region: str, credentials: Credentials | None, tls: ssl.SSLContext | None
    ) -> None:
        self._url = url
        self._endpoint = Endpoint.parse(url)
        self._region = region
        self._credentials = credentials
        self._tls = tls
        self._lock = Lock()
        self._socket: socket.socket | None = None
        self._idle_since = 0.0

    def query(self, **params: Any) -> Any:
        return self._call("Query", params)

    def put_item(self, **params: Any) -> Any:
        return self._call("PutItem", params)

    def update_item(self, **params: Any) -> Any:
        return self._call("UpdateItem", params)

    def delete_item(self, **params: Any) -> Any:
        return self._call("DeleteItem", params)

    def transact_write_items(self, **params: Any) -> Any:
        """The token makes DynamoDB carry out a retried transaction once."""
        return self._call("TransactWriteItems", {"ClientRequestToken": str(uuid4())} | params)

    def _call(self, operation: str, params: Item) -> Any:
        body = json.dumps(_encoded(params)).encode()
        with self._lock:
            for attempt in range(ATTEMPTS):
                if attempt:
                    time.sleep(random.uniform(0, 2 ** (attempt - 1)))
                try:
                    answer = self._exchange(operation, body)
                except OSError as cause:
                    self._close()
                    error: Exception = EndpointConnectionError(endpoint_url=self._url, error=cause)
                    continue
                content = json.loads(answer.body) if answer.body.startswith(b"{") else {}
                metadata = {"HTTPStatusCode": answer.status, "RetryAttempts": attempt}
                if answer.status == 200:
                    return _decoded(content) | {"ResponseMetadata": metadata}
                code = content.get("__type", "").rpartition("#")[2] or str(answer.status)
                error = _error(operation, code, content, metadata)
                if answer.status < 500 and code not in PASSING:
                    break
        raise error

    def _exchange(self, operation: str, body: bytes) -> Answer:
        """Raises `OSError` without an answer."""
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": self._endpoint.authority,
            "x-amz-target": f"DynamoDB_20120810.{operation}",
        }
        if self._credentials is None:
            raise NoCredentialsError()
        frozen = self._credentials.get_frozen_credentials()
        headers = signed(frozen, self._region, "dynamodb", headers, body)
        headers["content-length"] = str(len(body))
        lines = [f"{name}: {value}" for name, value in headers.items()]
        request = "\r\n".join(["POST / HTTP/1.1", *lines, "", ""]).encode() + body
        connection = self._connected()
        connection.sendall(request)
        data = b""
        while True:
            part = connection.recv(1_000_000)
            data += part
            answer = parse(data, ended=not part, longest=LONGEST_ANSWER)
            if answer:
                self._idle_since = time.time()
                if not answer.reusable:
                    self._close()
                return answer

    def _connected(self) -> socket.socket:
        """The kept connection, unless it was closed or idle for long; or else a new one."""
        if self._socket:
            closed = select.select([self._socket], [], [], 0)[0]
            if not closed and time.time() < self._idle_since + IDLE_SECONDS:
                return self._socket
            self._close()
        host = self._endpoint.host
        self._socket = socket.create_connection((host, self._endpoint.port), CONNECT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            self._socket = self._tls.wrap_socket(self._socket, server_hostname=host)
        self._socket.settimeout(ANSWER_SECONDS)
        return self._socket

    def _close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None


def _error(operation: str, code: str, content: Item, metadata: Item) -> ClientError:
    message = content.get("message") or content.get("Message") or ""
    response = content | {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": metadata,
    }
    kind = getattr(Client.exceptions, code, ClientError)
    return kind(response, operation)


def _encoded(params: Item) -> Item:
    encoded = {name: _encode(params[name]) for name in params.keys() & PARAMETERS}
    if "TransactItems" in params:
        encoded["TransactItems"] = [
            {kind: _encoded(action) for kind, action in item.items()}
            for item in params["TransactItems"]
        ]
    return params | encoded


def _decoded(result: Item) -> Item:
    decoded = {name: _decode(result[name]) for name in result.keys() & RESULTS}
    if "Items" in result:
        decoded["Items"] = [_decode(row) for row in result["Items"]]
    return result | decoded


def _encode(row: Item) -> Any:
    return {
        name: {"S": value} if isinstance(value, str) else {"N": str(value)}
        for name, value in row.items()
    }


def _decode(row: Item) -> Any:
    return {name: _value(**attribute) for name, attribute in row.items()}


def _value(S: str | None = None, N: str | None = None, **other: Any) -> Any:
    if S is not None:
        return S
    return other if N is None else int(N)
