"""The Chalice app: three WebSocket routes, the fan-out for large rooms, and the chat's page."""

from typing import Any

from boto3.session import Session
from chalice import Chalice, Response
from chalice.app import WebsocketEvent

from chalicelib import Handler, Sender, Storage, keep_deadline, log_invocation, write_json
from chalicelib.page import chat_page

app = Chalice(app_name="chalice-chat-example")
app.websocket_api.session = Session()
app.experimental_feature_flags.update(["WEBSOCKETS"])
app.register_middleware(log_invocation)
app.register_middleware(keep_deadline)
write_json(app.log)

STORAGE = Storage.from_env()
SENDER = Sender(app, STORAGE)
HANDLER = Handler(STORAGE, SENDER)


@app.on_ws_connect()
def connect(event: WebsocketEvent) -> None:
    HANDLER.connect(event.connection_id)


@app.on_ws_message()
def message(event: WebsocketEvent) -> None:
    # Chalice's `event.body` is the text "None" for an empty frame.
    HANDLER.handle(event.connection_id, event.to_dict().get("body") or "")


@app.on_ws_disconnect()
def disconnect(event: WebsocketEvent) -> None:
    HANDLER.disconnect(event.connection_id)


@app.lambda_function(name="fan_out")
def fan_out(event: dict[str, Any], context: Any) -> None:
    HANDLER.fan_out(event, context.function_name)


@app.route("/")
def page() -> Response:
    return chat_page()
