"""A WebSocket server that answers every message with the same message."""

from boto3.session import Session
from chalice import Chalice, WebsocketDisconnectedError
from chalice.app import WebsocketEvent

app = Chalice(app_name="echo-server")
app.experimental_feature_flags.update(["WEBSOCKETS"])
app.websocket_api.session = Session()


@app.on_ws_message()
def message(event: WebsocketEvent) -> None:
    try:
        app.websocket_api.send(event.connection_id, event.body)
    except WebsocketDisconnectedError:
        app.log.info("%s left before its echo", event.connection_id)
