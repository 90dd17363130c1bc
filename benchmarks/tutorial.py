"""The baseline of `cold.py`: a text as Chalice's tutorial handles it, to be packaged as an app.py.

It makes the tutorial's requests in the tutorial's order. As in the tutorial, the table is created
at import, and the client for posts at the first event. The commands are left out.
"""

import os

import boto3
from boto3.dynamodb.conditions import Key
from boto3.session import Session
from chalice import Chalice, WebsocketDisconnectedError
from chalice.app import WebsocketEvent

app = Chalice(app_name="tutorial")
app.websocket_api.session = Session()
app.experimental_feature_flags.update(["WEBSOCKETS"])

TABLE = boto3.resource("dynamodb").Table(os.environ.get("TABLE", ""))


@app.on_ws_message()
def message(event: WebsocketEvent) -> None:
    rows = TABLE.query(KeyConditionExpression=Key("PK").eq(event.connection_id))["Items"]
    sender = dict(row["SK"].split("_", 1) for row in rows)
    members = TABLE.query(
        IndexName="ReverseLookup",
        KeyConditionExpression=Key("SK").eq(f"room_{sender['room']}"),
    )["Items"]
    for member in members:
        send(member["PK"], f"{sender['username']}: {event.body}")


def send(connection_id: str, line: str) -> None:
    try:
        app.websocket_api.send(connection_id, line)
    except WebsocketDisconnectedError:
        TABLE.delete_item(Key={"PK": connection_id, "SK": "username_"})
