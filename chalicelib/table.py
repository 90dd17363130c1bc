"""The chat's table: DynamoDB's operations over the standard library.

It has the part of boto3's `Table` that the chat uses, and raises errors like boto3's. A client of
boto3 or botocore would take most of a cold start's CPU (`benchmarks/README.md`).

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

# A call makes at most 4 attempts of 4 s each, or 5 s over TLS. Between them it backs off for at
# most 7 s, as AWS's own clients do in their standard mode. So it fits into the 29 s that API
# Gateway waits for an integration.
ATTEMPTS = 4
CONNECT_SECONDS = 1  # and another for TLS
ANSWER_SECONDS = 3
PASSING = {
    "InternalServerError",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionInProgressException",
}

IDLE_SECONDS = 50  # as in `posting/pool.py`
LONGEST_ANSWER = 8_000_000  # a page holds 1 MB, and is larger as JSON

# The parameters and results that are rows, or parts of one.
PARAMETERS = {"Item", "Key", "ExpressionAttributeValues", "ExclusiveStartKey"}
RESULTS = {"Attributes", "LastEvaluatedKey"}


class ConditionalCheckFailedException(ClientError):
    """A condition did not hold."""


class TransactionCanceledException(ClientError):
    """A transaction was cancelled, for the reasons in its response."""


class Table:
    """One table: its operations, such as `put_item`, are the client's with its name filled in."""

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self.meta = SimpleNamespace(client=client)

    def __getattr__(self, operation: str) -> Any:
        return partial(getattr(self.meta.client, operation), TableName=self.name)


class Client:
    """DynamoDB's operations on rows of Python's strings and integers.

    Attributes of other types are returned in DynamoDB's own notation, and so are the rows in errors.

    Connection errors, time-outs, throttling and server errors are retried. A failed call raises
    botocore's `ClientError`. If there was no answer, it raises `EndpointConnectionError`; without
    credentials, `NoCredentialsError` (both are `BotoCoreError`). A retried write may be carried out
    twice, but a transaction is carried out once.

    The first call opens a connection, and later calls reuse it. Threads may share the client; their
    calls run one at a time. Proxies are not supported.
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
        """Its token makes DynamoDB carry out a retried transaction only once."""
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
        """Raises `OSError` if there is no answer."""
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
        """The kept connection, or a new one if that was closed or idle for too long."""
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
