"""A WebSocket server that answers every message with the same message."""

import os
from typing import Any

from boto3.session import Session
from chalice import Chalice, WebsocketDisconnectedError
from chalice.app import WebsocketEvent


class EndpointSession(Session):
    """A session whose clients obey AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI.

    Chalice passes the address of API Gateway to `client()` itself, and boto3 prefers that to its own
    variable. The variable is set on the local emulator only; on AWS this is a plain session.
    """

    def client(self, *args: Any, **kwargs: Any) -> Any:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI")
        if endpoint:
            kwargs["endpoint_url"] = endpoint
        return super().client(*args, **kwargs)


app = Chalice(app_name="echo-server")
app.experimental_feature_flags.update(["WEBSOCKETS"])
app.websocket_api.session = EndpointSession()


@app.on_ws_message()
def message(event: WebsocketEvent) -> None:
    try:
        app.websocket_api.send(event.connection_id, event.body)
    except WebsocketDisconnectedError:
        app.log.info("%s left before its echo", event.connection_id)
