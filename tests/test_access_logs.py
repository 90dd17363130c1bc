"""The access logs of the chat's and the page's API: each line is JSON, whatever a client sends.

API Gateway writes a variable between the quotes of the format without escaping it, and refuses a
format with a variable that its kind of API lacks. The lists are those of the API Gateway Developer
Guide: *Configure logging for WebSocket APIs*, *Variables for access logging for API Gateway*.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from emulator.emulator import ROOT

RESOURCES = json.loads((ROOT / "resources.json").read_text())["Resources"]
CHAT, PAGE = (
    RESOURCES[resource]["Properties"][settings]["Fn::If"][1]
    for resource, settings in (
        ("WebsocketAPIStage", "AccessLogSettings"),
        ("RestAPI", "AccessLogSetting"),
    )
)
MAX_FORMAT = 1024  # characters (API reference of CreateStage, version 2)

# What API Gateway makes up by itself, in both kinds of API.
SAFE = {
    "extendedRequestId": "JKJaXmPLvHcESHA=",
    "identity.sourceIp": "203.0.113.7",
    "integration.integrationStatus": "429",
    "integrationLatency": "17",
    "requestTime": "09/Jan/2026:10:11:12 +0000",
    "status": "-",  # a variable without a value
    "error.responseType": "MISSING_AUTHENTICATION_TOKEN",
}
# A REST API takes requestId from a header, and no page says whose path resourcePath holds.
SAFE_IN_WEBSOCKETS = SAFE | {
    "connectionId": "L0SM9cOFvHcCIhw=",
    "eventType": "MESSAGE",
    "requestId": "JKJaXmPLvHcESHA=",
    "routeKey": "$default",
}
HOSTILE = '", "source_ip": "198.51.100.1'


def written(format: str, safe: dict[str, str]) -> str:
    """The line that API Gateway writes where clients choose every value that they may."""
    return re.sub(r"\$context\.([\w.]+)", lambda found: safe.get(found[1], HOSTILE), format)


def format_of(settings: dict[str, Any]) -> str:
    separator, fields = settings["Format"]["Fn::Join"]
    joined: str = separator.join(fields)
    return joined


@pytest.mark.parametrize(
    ("settings", "safe", "others"),
    [
        (CHAT, SAFE_IN_WEBSOCKETS, {"connection_id", "event", "route", "integration_latency_ms"}),
        (PAGE, SAFE, set()),
    ],
    ids=["chat", "page"],
)
def test_a_line_has_its_fields_whatever_a_client_sends(
    settings: dict[str, Any], safe: dict[str, str], others: set[str]
) -> None:
    pairs = json.loads(written(format_of(settings), safe), object_pairs_hook=list)
    line = dict(pairs)
    assert len(line) == len(pairs)  # JSON readers take the last of two fields with one name
    assert {"request_id", "source_ip", "time", "status", "error"} | others <= line.keys()
    assert line["request_id"] == SAFE["extendedRequestId"]
    assert line["source_ip"] == SAFE["identity.sourceIp"]
    assert line["error"] == SAFE["error.responseType"]


@pytest.mark.parametrize("chosen", ["error.message", "integration.error", "identity.userAgent"])
def test_a_client_that_chooses_a_value_would_add_a_field(chosen: str) -> None:
    """API Gateway's error message repeats an `Authorization` header that it cannot read."""
    line = json.loads(written(f'{{"any":"$context.{chosen}"}}', SAFE))
    assert line["source_ip"] == "198.51.100.1"


@pytest.mark.parametrize("settings", [CHAT, PAGE], ids=["chat", "page"])
def test_api_gateway_accepts_the_settings(settings: dict[str, Any]) -> None:
    """It refuses the `:*` at the end of a log group's Arn attribute."""
    account = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}"
    assert settings["DestinationArn"] == {"Fn::Sub": account + ":log-group:${ApiLogs}"}
    format = format_of(settings)
    assert len(format) <= MAX_FORMAT
    assert "\n" not in format
    assert re.search(r"\$context\.(requestId|extendedRequestId)\b", format)


def test_the_chats_log_names_nothing_of_an_account_and_no_query_string() -> None:
    """No variable of a WebSocket API has the query string; `authorizer` has the account's data."""
    assert "$context.authorizer" not in format_of(CHAT)
