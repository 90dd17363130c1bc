"""The Chalice app: the WebSocket routes, their authorizer, and the chat's page."""

from typing import Any

from chalice import Chalice, Response
from chalice.app import WebsocketEvent

from chalicelib import (
    Authorizer,
    Handler,
    Sender,
    Storage,
    account_of,
    in_invocation,
    new_session,
    write_json,
)
from chalicelib.page import chat_page

app = Chalice(app_name="chalice-chat-example")
app.websocket_api.session = new_session()
app.experimental_feature_flags.update(["WEBSOCKETS"])
app.register_middleware(in_invocation)
write_json(app.log)

STORAGE = Storage.from_env()
SENDER = Sender(app, STORAGE)
HANDLER = Handler(STORAGE, SENDER)
AUTHORIZER = Authorizer.from_env()


@app.on_ws_connect()
def connect(event: WebsocketEvent) -> dict[str, int]:
    return {"statusCode": 200 if HANDLER.connect(event.connection_id, account_of(event)) else 403}


@app.on_ws_message()
def message(event: WebsocketEvent) -> None:
    # Chalice's `event.body` is the text "None" for an empty frame.
    HANDLER.handle(event.connection_id, event.to_dict().get("body") or "", account_of(event))


@app.on_ws_disconnect()
def disconnect(event: WebsocketEvent) -> None:
    HANDLER.disconnect(event.connection_id)


@app.lambda_function(name="authorize")
def authorize(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return AUTHORIZER.authorize(event)


@app.route("/")
def page() -> Response:
    return chat_page()
