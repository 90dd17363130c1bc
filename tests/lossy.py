"""The table over a network that loses answers: DynamoDB has done what it was asked."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, ReadTimeoutError

WRITES = {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"}

Request = dict[str, Any]
Reply = tuple[int, Any]  # status and content


class Lossy:
    """`table` is boto3's, over a client whose writes may go unanswered.

    Unlike moto, it carries out a transaction once, however often boto3 repeats it.

    :ivar writes: the operations of the writes since `loses`, retries included.
    """

    def __init__(self, session: Any, table: Any) -> None:
        self.table = session.resource("dynamodb", endpoint_url="http://lossy").Table(table.name)
        self.writes: list[str] = []
        self._lost = range(0)
        self._are_late = False
        self._late: dict[str, tuple[str, Request]] = {}
        self._done: set[str] = set()
        self._client = session.client("dynamodb")
        self.table.meta.client.meta.events.register("before-send.dynamodb", self._send)

    def loses(self, writes: range, *, late: bool = False) -> None:
        """From now on, lose the answers to the writes with these numbers, from 0.

        If they are `late`, they are carried out when they `arrive`.
        """
        self._lost = writes
        self._are_late = late
        self.writes = []

    def arrive(self) -> None:
        for token in list(self._late):
            self._carry_out(token, *self._late.pop(token))

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        content = json.loads(request.body)
        token = content.get("ClientRequestToken", str(uuid4()))
        is_lost = False
        if operation in WRITES:
            is_lost = len(self.writes) in self._lost
            self.writes.append(operation)
        if token in self._late:
            return _response(request, _error(400, {"Code": "TransactionInProgressException"}))
        if is_lost and self._are_late:
            self._late[token] = operation, content
        else:
            reply = self._carry_out(token, operation, content)
        if is_lost:
            raise ReadTimeoutError(endpoint_url=request.url)
        return _response(request, reply)

    def _carry_out(self, token: str, operation: str, request: Request) -> Reply:
        if token in self._done:
            return 200, {}
        try:
            answer = getattr(self._client, xform_name(operation))(**request)
        except ClientError as error:
            content: dict[str, Any] = dict(error.response)
            status = content.pop("ResponseMetadata")["HTTPStatusCode"]
            return _error(status, content.pop("Error"), **content)
        self._done.add(token)
        return 200, {name: answer[name] for name in answer if name != "ResponseMetadata"}


def _error(status: int, error: Any, **content: Any) -> Reply:
    return status, content | {"__type": f"com.amazonaws.dynamodb.v20120810#{error['Code']}"}


def _response(request: Any, reply: Reply) -> AWSResponse:
    status, content = reply
    return AWSResponse(request.url, status, {}, _Body(json.dumps(content).encode()))


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content
