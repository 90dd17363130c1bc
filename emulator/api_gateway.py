"""Makes MiniStack 1.5.33's API Gateway as strict as AWS's, and lets it close its WebSockets.

Each patch names the fault of MiniStack that it fixes.
The numbers are those of "Quotas for configuring and running a WebSocket API in API Gateway", and
the codes those of that page and of "Binary media types for WebSocket APIs".
"""

import asyncio
import json
import threading
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import Any

from hypercorn.protocol import ws_stream
from ministack.core import iam_evaluator
from ministack.core.responses import get_region
from ministack.services import apigateway, apigateway_v1, lambda_svc
from ministack.services.cloudformation import provisioners
from wsproto.frame_protocol import FrameProtocol, Opcode

from emulator.gate import refuse, values

ADDRESS = 4096  # characters
FRAME, MESSAGE = 32_768, 131_072  # bytes
TOO_LARGE = "The data has exceeded the maximum size allowed."
GATEWAY = "apigateway.amazonaws.com"

READ_WITHIN = 10.0  # seconds that a client has before it is disconnected
GOODBYE_WITHIN = 0.5  # seconds
GOING_AWAY = {"type": "websocket.close", "code": 1001, "reason": "the emulator was stopped"}

ending = threading.Event()
conversations: dict[Any, asyncio.AbstractEventLoop] = {}  # by the function that sends to the client


class HandshakeRefused(Exception):
    """Carries the status, the connection's id and the request's id."""


def apply() -> None:
    # It accepted addresses, frames and messages of any length, and binary frames. And it ended
    # without closing its WebSockets.
    ws_stream.WebsocketBuffer = Counted
    apigateway.handle_websocket = partial(converse, apigateway.handle_websocket)

    # It sent messages of any length to a client, each in one frame. On closing a connection, it
    # dropped waiting messages.
    apigateway.handle_connections_api = partial(
        handle_connections, apigateway.handle_connections_api
    )
    FrameProtocol.send_data = send_in_frames

    # It left the WebSockets of a deleted API open, and ignored their frames.
    of_apis = provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"]
    of_apis["delete"] = partial(delete_api, of_apis["delete"])

    # It ran the routes of WebSocket APIs for plain HTTP requests too.
    apigateway.handle_execute = partial(execute, apigateway.handle_execute)

    # It invoked functions without their permission, as often as clients liked, and sent clients
    # whatever a function returned or raised. After the server closed a connection, the frames that
    # waited still invoked functions.
    apigateway._invoke_ws_lambda = partial(invoke, apigateway._invoke_ws_lambda)
    apigateway._invoke_request_authorizer_lambda = partial(
        authorize, apigateway._invoke_request_authorizer_lambda
    )
    apigateway_v1._call_lambda_raw = partial(call, apigateway_v1._call_lambda_raw)


class Counted(ws_stream.WebsocketBuffer):
    """A message that is arriving; `refused` is the code to close the connection with, if any.

    API Gateway does not wait for the end of such a message. Compressed frames count in full.
    """

    def extend(self, event: Any) -> None:
        if self.value is None:  # a new message
            self._frames = [0]  # bytes of each
        data = event.data.encode() if isinstance(event.data, str) else event.data
        self._frames[-1] += len(data)
        if event.frame_finished:
            self._frames.append(0)
        super().extend(event)

    def to_message(self) -> dict[str, Any]:
        too_long = max(self._frames) > FRAME or sum(self._frames) > MESSAGE
        code = 1003 if isinstance(self.value, BytesIO) else 1009 if too_long else None
        return {**super().to_message(), "refused": code}


async def converse(
    original: Any, scope: Any, receive: Any, send: Any, *arguments: Any, **options: Any
) -> None:
    """Handles a WebSocket, unless its address is too long; AWS documents no status for that.

    `say_goodbye` can close the WebSocket meanwhile.
    """
    (host,), path = values(scope, b"host"), scope["raw_path"].decode()
    if len(f"ws://{host}{path}?{scope['query_string'].decode()}") > ADDRESS:
        await refuse(scope, send, f"The limit is {ADDRESS} characters.", 414)
        return

    async def receive_or_close() -> Any:
        message = await receive()
        if ending.is_set():  # functions are being killed, and cannot be told that somebody left
            await asyncio.Future()
        code = message.get("refused")
        if code is None:
            return message
        await send({"type": "websocket.close", "code": code})
        return {"type": "websocket.disconnect", "code": code}

    conversations[send] = asyncio.get_running_loop()
    try:
        await original(scope, receive_or_close, send, *arguments, **options)
    except HandshakeRefused as refused:
        status, *ids = refused.args
        await apigateway._refuse_ws_handshake(scope, send, status, reason(status), *ids)
    finally:
        del conversations[send]


async def handle_connections(
    original: Any, method: str, api: str, stage: str, connection: str, body: bytes, headers: Any
) -> Any:
    """Limits posts to 128 KB; DELETE first sends waiting messages."""
    found = apigateway._ws_connections.get(connection)
    if method == "DELETE" and found and found["apiId"] == api:
        del apigateway._ws_connections[connection]
        found["closing"] = asyncio.create_task(close(found["outbox"], found["close_event"]))
        return 204, {}, b""
    if method == "POST" and len(body) > MESSAGE:
        error = {"x-amzn-ErrorType": "PayloadTooLargeException"}
        return 413, error, json.dumps({"message": TOO_LARGE}).encode()
    return await original(method, api, stage, connection, body, headers)


async def close(outbox: asyncio.Queue[str | None], close_event: asyncio.Event) -> None:
    """Has MiniStack close a WebSocket once its messages are sent, or after READ_WITHIN."""
    with suppress(TimeoutError):
        async with asyncio.timeout(READ_WITHIN):
            while not outbox.empty():
                await asyncio.sleep(0.01)
    close_event.set()
    await outbox.put(None)  # else MiniStack may notice 0.5 s later


def delete_api(original: Any, api: str, *arguments: Any) -> Any:
    """Deletes an API with its stack, and closes its WebSockets."""
    for found in apigateway._ws_connections.values():
        if found["apiId"] == api:
            closing = close(found["outbox"], found["close_event"])
            found["closing"] = asyncio.create_task(closing)
    return original(api, *arguments)


async def execute(original: Any, api: str, *request: Any, **options: Any) -> Any:
    if apigateway._apis.get(api, {}).get("protocolType") == "WEBSOCKET":
        return 403, {"Content-Type": "application/json"}, b'{"message": "Forbidden"}'
    return await original(api, *request, **options)


def send_in_frames(protocol: Any, text: str, fin: bool = True) -> bytes:
    """A message as frames of at most 32 KB, which may end inside a character."""
    data = text.encode()
    starts = range(0, max(1, len(data)), FRAME)
    return b"".join(
        protocol._serialize_frame(
            Opcode.CONTINUATION if start else Opcode.TEXT,
            data[start : start + FRAME],
            fin=start == starts[-1],
        )
        for start in starts
    )


async def invoke(original: Any, *call: Any, **options: Any) -> dict[str, Any]:
    """The status that a route's function returns; the rest of its answer needs a route response.

    If the function fails, may not be invoked, or is invoked too often, a frame tells the client;
    for $connect, any status but 2xx raises HandshakeRefused.
    """
    api, account, region, route, stage, connection, kind, request, *_ = call
    if kind == "MESSAGE" and connection not in apigateway._ws_connections:
        return {}  # closed while this frame waited for earlier ones
    source = apigateway.execute_api_route_arn(region, account, api, stage, route["routeKey"])
    integrations = apigateway._integrations.get(api, {})
    integration = integrations.get(route["target"].rpartition("/")[2], {})
    if stage not in apigateway._stages.get(api, {}):
        status = 403
    elif not may_pass(api, stage, route["routeKey"]):
        status = 429
    elif not may_invoke(integration.get("integrationUri", ""), source):
        status = 500
    else:
        answer = await original(*call, **options) or {}
        status = answer.get("statusCode", 200)
        status = 502 if status == 500 else status  # MiniStack's for a function that failed
    if kind == "CONNECT" and not 200 <= status < 300:
        raise HandshakeRefused(status, connection, request)
    if status < 429:
        return {"statusCode": status}
    body = {"message": reason(status), "connectionId": connection, "requestId": request}
    return {"statusCode": status, "body": json.dumps(body)}


def reason(status: int) -> str:
    return "Internal server error" if status >= 500 else HTTPStatus(status).phrase


def may_pass(api: str, stage: str, route: str) -> bool:
    """Whether a stage's limits for a route let one more request through."""
    settings = apigateway._stages[api][stage].get("routeSettings", {}).get(route, {})
    limits = {
        "rateLimit": settings.get("ThrottlingRateLimit"),
        "burstLimit": settings.get("ThrottlingBurstLimit"),
    }
    return bool(apigateway_v1._take_token((api, stage, route), limits))


async def authorize(original: Any, authorizer: Any, event: Any, *owner: str) -> Any:
    api = event["methodArn"].split("/")[0]
    source = f"{api}/authorizers/{authorizer['authorizerId']}"
    if not may_invoke(authorizer["authorizerUri"], source):
        return None  # as if it had failed
    return await original(authorizer, event, *owner)


async def call(original: Any, function: str, event: Any, account_id: str, region: str) -> Any:
    context = event["requestContext"]
    path = f"{context['stage']}/{context['httpMethod']}{context['resourcePath']}"
    source = f"arn:aws:execute-api:{region}:{account_id}:{context['apiId']}/{path}"
    if not may_invoke(function, source):
        return None, "no permission"
    return await original(function, event, account_id=account_id, region=region)


def may_invoke(uri: str, source: str) -> bool:
    """Whether a function's own policy lets an API invoke it."""
    function = apigateway._extract_lambda_ref_from_integration_uri(uri)
    policy, account = lambda_svc.function_policy_for_arn(function) or ({}, "")
    invocation = iam_evaluator.EvalContext(
        *("*", "Service", account, "lambda:InvokeFunction", function, get_region()),
        service_context={"aws:sourcearn": source, "aws:sourceaccount": account},
    )
    found = iam_evaluator.evaluate_resource_policy(policy, invocation, service=GATEWAY)
    return found.decision == "Allow"


def say_goodbye() -> None:
    """Closes all WebSockets with the code that API Gateway uses to end a connection."""
    ending.set()
    closing = [
        asyncio.run_coroutine_threadsafe(send(GOING_AWAY), loop)
        for send, loop in list(conversations.items())
    ]
    wait(closing, GOODBYE_WITHIN)
