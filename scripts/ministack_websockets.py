"""Gives MiniStack's WebSockets the limits of API Gateway's; each patch names the fault it fixes.

The numbers are those of "Quotas for configuring and running a WebSocket API in API Gateway", and
the codes those of that page and of "Binary media types for WebSocket APIs".
"""

import json
from functools import partial
from io import BytesIO
from typing import Any

from hypercorn.protocol import ws_stream
from ministack.services import apigateway
from wsproto.frame_protocol import FrameProtocol, Opcode

from scripts.ministack_gate import refuse, values

ADDRESS = 4096  # characters
FRAME, MESSAGE = 32_768, 131_072  # bytes
TOO_LARGE = "The data has exceeded the maximum size allowed."


def apply() -> None:
    # It took addresses, frames and messages of any length, and binary frames.
    ws_stream.WebsocketBuffer = Counted
    apigateway.handle_websocket = partial(converse, apigateway.handle_websocket)

    # It sent messages of any length to a client, each in one frame.
    apigateway.handle_connections_api = partial(post, apigateway.handle_connections_api)
    FrameProtocol.send_data = send_in_frames


class Counted(ws_stream.WebsocketBuffer):
    """A message in the making, which says with which code to close the connection for it.

    API Gateway closes it before such a message has ended. Compressed frames count in full.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._frame = self._longest = self._total = 0

    def extend(self, event: Any) -> None:
        size = len(event.data.encode() if isinstance(event.data, str) else event.data)
        self._total += size
        self._frame += size
        self._longest = max(self._longest, self._frame)
        if event.frame_finished:
            self._frame = 0
        super().extend(event)

    def to_message(self) -> dict[str, Any]:
        too_long = self._longest > FRAME or self._total > MESSAGE
        code = 1003 if isinstance(self.value, BytesIO) else 1009 if too_long else None
        return {**super().to_message(), "refused": code}

    def clear(self) -> None:
        super().clear()
        self._frame = self._longest = self._total = 0


async def converse(
    original: Any, scope: Any, receive: Any, send: Any, *arguments: Any, **options: Any
) -> None:
    """Handles a WebSocket, unless its address is too long; AWS names no status for that."""
    (host,), path = values(scope, b"host"), scope["raw_path"].decode()
    if len(f"ws://{host}{path}?{scope['query_string'].decode()}") > ADDRESS:
        await refuse(scope, receive, send, f"The limit is {ADDRESS} characters.", 414)
        return

    async def receive_or_close() -> Any:
        message = await receive()
        code = message.get("refused")
        if code is None:
            return message
        await send({"type": "websocket.close", "code": code})
        return {"type": "websocket.disconnect", "code": code}

    await original(scope, receive_or_close, send, *arguments, **options)


async def post(
    original: Any, method: str, api: str, stage: str, connection: str, body: bytes, headers: Any
) -> Any:
    if method == "POST" and len(body) > MESSAGE:
        error = {"x-amzn-ErrorType": "PayloadTooLargeException"}
        return 413, error, json.dumps({"message": TOO_LARGE}).encode()
    return await original(method, api, stage, connection, body, headers)


def send_in_frames(protocol: Any, text: str, fin: bool = True) -> bytes:
    """The frames of a whole message, of at most 32 KB: they may end inside of a character."""
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
