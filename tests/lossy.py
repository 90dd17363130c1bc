"""The table over a network that loses answers: DynamoDB has done what it was asked."""

import json
from typing import Any
from uuid import uuid4

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ReadTimeoutError
from moto.core.botocore_stubber import MockRawResponse
from moto.core.models import botocore_stubber

WRITES = {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"}


class Lossy:
    """`table` is boto3's, over a client whose writes may go unanswered.

    Unlike moto, it carries out a transaction once, however often boto3 repeats it.

    :ivar writes: the operations of the writes since `loses`, retries included.
    """

    def __init__(self, session: Any, table: Any) -> None:
        self.table = session.resource("dynamodb").Table(table.name)
        self.writes: list[str] = []
        self._lost = range(0)
        self._are_late = False
        self._late: dict[str, Any] = {}  # requests
        self._done: set[str] = set()
        events = self.table.meta.client.meta.events
        events.unregister("before-send", botocore_stubber)
        events.register("before-send.dynamodb", self._send)

    def loses(self, writes: range, *, late: bool = False) -> None:
        """From now on, lose the answers to the writes with these numbers, from 0.

        If they are `late`, they are carried out when they `arrive`.
        """
        self._lost = writes
        self._are_late = late
        self.writes = []

    def arrive(self) -> None:
        for token in list(self._late):
            self._carry_out(token, self._late.pop(token))

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        token = json.loads(request.body).get("ClientRequestToken", str(uuid4()))
        is_lost = False
        if operation in WRITES:
            is_lost = len(self.writes) in self._lost
            self.writes.append(operation)
        if token in self._late:
            return _response(request, 400, {"__type": "#TransactionInProgressException"})
        if is_lost and self._are_late:
            self._late[token] = request
        else:
            response = self._carry_out(token, request)
        if is_lost:
            raise ReadTimeoutError(endpoint_url=request.url)
        return response

    def _carry_out(self, token: str, request: Any) -> AWSResponse:
        if token in self._done:
            return _response(request, 200, {})
        response: Any = botocore_stubber("before-send", request)
        if response.status_code == 200:
            self._done.add(token)
        return response


def _response(request: Any, status: int, content: Any) -> AWSResponse:
    return AWSResponse(request.url, status, {}, MockRawResponse(json.dumps(content)))
