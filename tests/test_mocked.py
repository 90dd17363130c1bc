"""Tests as people write them, with moto and with a mock of the app: none reaches AWS."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from chalice import WebsocketDisconnectedError

from chalicelib import Sender, Storage

ROOT = Path(__file__).parent.parent

# A shell with a real account.
SHELL = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "TABLE": "ChaliceChat",
}

IMPORTED_FIRST = """
import app
import boto3
from chalicelib import Storage
from moto import mock_aws
from tests import tables

with mock_aws():
    table = tables.create_table(boto3.resource("dynamodb"))
    Storage.from_env().create_connection("c1")
    app.HANDLER.connect("c2")
    print(*sorted(row["PK"] for row in tables.rows(table)))
"""


def test_what_was_imported_before_moto_writes_into_its_table() -> None:
    no_network = "import socket; socket.socket.connect = None"
    command = [sys.executable, "-c", no_network + IMPORTED_FIRST]
    assert subprocess.check_output(command, env=SHELL, text=True) == "c1 c2\n"


def test_a_mocked_app_is_posted_through(table: Any) -> None:
    app, storage = Mock(), Storage(table)
    Sender(app, storage).send("c1", "hello")
    app.websocket_api.send.assert_called_once_with("c1", "hello")


def test_a_connection_that_a_mocked_app_finds_gone_is_removed(table: Any) -> None:
    app, storage = Mock(), Storage(table)
    storage.create_connection("c1")
    app.websocket_api.send.side_effect = WebsocketDisconnectedError("c1")
    Sender(app, storage).send("c1", "hello")
    assert storage.get_record_by_connection("c1") == {}
