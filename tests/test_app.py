"""The wiring: API Gateway's events, their effects, and their logs."""

import json
import math
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from chalicelib.aws import ENDPOINT_VARIABLE
from chalicelib.invocation import in_invocation, seconds_left
from tests import tables
from tests.conftest import LogLines
from tests.connections import Connections


def event(route: str, connection_id: str, **fields: Any) -> dict[str, Any]:
    context = {
        "routeKey": route,
        "connectionId": connection_id,
        "apiId": "abc",
        "stage": "api",
        "domainName": "abc.execute-api.us-east-1.amazonaws.com",
    }
    return {"requestContext": context, "isBase64Encoded": False, **fields}


CONTEXT = SimpleNamespace(
    aws_request_id="request-7",
    function_name="fan-out",
    get_remaining_time_in_millis=lambda: 29_000,
)


def connect(app: ModuleType, connection_id: str) -> Any:
    return app.connect(event("$connect", connection_id), CONTEXT)


def say(app: ModuleType, connection_id: str, body: str) -> Any:
    return app.message(event("$default", connection_id, body=body), CONTEXT)


def test_the_three_routes(app: ModuleType, table: Any, connections: Connections) -> None:
    for name in ("John", "Jenny"):
        assert connect(app, name) == {"statusCode": 200}
        assert say(app, name, name) == {"statusCode": 200}
        assert say(app, name, "/join chalice") == {"statusCode": 200}
    connections.posts.clear()
    say(app, "John", "Hi")
    assert connections.received("Jenny") == ["John: Hi"]
    app.disconnect(event("$disconnect", "John"), CONTEXT)
    assert connections.received("Jenny") == ["John left room."]
    app.disconnect(event("$disconnect", "Jenny"), CONTEXT)
    assert tables.rows(table) == []


PAGE_REQUEST = {
    "requestContext": {"httpMethod": "GET", "resourcePath": "/"},
    "multiValueQueryStringParameters": None,
    "headers": {},
    "pathParameters": None,
    "body": None,
    "stageVariables": None,
}


def test_the_page(app: ModuleType, connections: Connections, log_lines: LogLines) -> None:
    answer = app.app(PAGE_REQUEST, CONTEXT)
    assert answer["statusCode"] == 200
    assert answer["body"].startswith("<!doctype html>")
    assert connections.url.replace("http:", "ws:") in answer["body"]
    (line,) = log_lines()
    assert [line[field] for field in ("message", "request_id", "route")] == [
        "done",
        "request-7",
        "/",
    ]


@pytest.mark.parametrize("context", [None, {}, object()])
def test_without_lambdas_context_nothing_has_a_deadline(
    app: ModuleType, table: Any, connections: Connections, log_lines: LogLines, context: Any
) -> None:
    """As in the tutorial, and as in many unit tests."""
    assert app.connect(event("$connect", "c1"), context) == {"statusCode": 200}
    app.message(event("$default", "c1", body="John"), context)
    assert connections.received("c1") == ["Using nickname: John\nType /help for list of commands."]
    app.disconnect(event("$disconnect", "c1"), context)
    assert tables.rows(table) == []
    assert app.app(PAGE_REQUEST, context)["statusCode"] == 200
    assert app.authorize({"methodArn": "arn"}, context)["principalId"] == "nobody"
    assert {line["request_id"] for line in log_lines()} == {None}


def test_an_event_without_a_context_has_no_deadline(log_lines: LogLines) -> None:
    """As in a test of the middleware alone."""
    plain = SimpleNamespace(to_dict=dict)
    answer = in_invocation(plain, lambda _: seconds_left())
    assert answer == math.inf
    (line,) = log_lines()
    assert line["message"] == "done"


def test_a_frame_without_a_body_is_empty(app: ModuleType, connections: Connections) -> None:
    connect(app, "c1")
    app.message(event("$default", "c1"), CONTEXT)
    (reply,) = connections.received("c1")
    assert reply.startswith("Nicknames are 1 to 32 printable characters")


def test_each_invocation_is_one_line_in_the_log(app: ModuleType, log_lines: LogLines) -> None:
    connect(app, "c1")
    say(app, "c1", "a secret")
    first, second = log_lines()
    assert first["route"] == "$connect"
    assert second["duration_ms"] == round(second["duration_ms"], 1) > 0  # shown as it is
    about = ("level", "message", "request_id", "connection_id", "route")
    assert [second[field] for field in about] == ["INFO", "done", "request-7", "c1", "$default"]
    assert "secret" not in json.dumps([first, second])


def test_events_are_counted_in_the_embedded_metric_format(
    app: ModuleType, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACK", "ChaliceChat")
    connect(app, "John")
    for frame in ("John", "/join chalice", "Hi"):
        say(app, "John", frame)
    app.disconnect(event("$disconnect", "John"), CONTEXT)
    opened, _, joined, text, closed = log_lines()
    assert opened["ConnectionsOpened"] == 1
    assert "Texts" not in joined
    assert (text["Texts"], text["LinesDelivered"]) == (1, 1)
    assert "PostsFailed" not in text
    assert text["PostingMilliseconds"] > 0
    assert closed["ConnectionsClosed"] == 1
    for line in (opened, joined, text, closed):
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "ChaliceChat"
        assert directive["Dimensions"] == [["Stack"]]
        assert line["Stack"] == "ChaliceChat"
        units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
        assert units.keys() <= line.keys()
        assert units.pop("PostingMilliseconds", "Milliseconds") == "Milliseconds"
        assert set(units.values()) <= {"Count"}


def test_an_invocation_ends_before_lambdas_deadline(
    app: ModuleType, connections: Connections, log_lines: LogLines
) -> None:
    """For any timeout of the function."""
    connect(app, "c1")
    almost_over = SimpleNamespace(aws_request_id="", get_remaining_time_in_millis=lambda: 100)
    app.message(event("$default", "c1", body="John"), almost_over)
    assert connections.received("c1") == []
    assert [line["message"] for line in log_lines()][-2:] == ["posts given up", "done"]


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_table_the_error_names_the_variable(
    app: ModuleType,
    connections: Connections,
    monkeypatch: pytest.MonkeyPatch,
    log_lines: LogLines,
    value: str | None,
) -> None:
    if value is None:
        monkeypatch.delenv("TABLE")
    else:
        monkeypatch.setenv("TABLE", value)
    with pytest.raises(RuntimeError, match="TABLE is not set"):
        connect(app, "c1")
    failed, _ = log_lines()
    assert failed["level"] == "ERROR"
    assert failed["request_id"] == "request-7"
    say(app, "c1", "John")
    assert connections.received("c1") == ["Something went wrong. Please try again."]
    *_, logged, _ = log_lines()
    assert "Traceback" in logged["exception"]
    assert "TABLE is not set" in logged["exception"]
    assert logged["request_id"] == "request-7"


def test_the_import_needs_no_region_no_credentials_and_no_network() -> None:
    environment = {"PATH": os.environ["PATH"], "AWS_CONFIG_FILE": os.devnull}
    no_network = "import socket; socket.socket.connect = None; import app"
    subprocess.run([sys.executable, "-c", no_network], env=environment, check=True)


class Failing(BaseHTTPRequestHandler):
    """DynamoDB, out of order: it answers 500, or hangs up."""

    requests = 0
    hangs_up = False

    def do_POST(self) -> None:
        Failing.requests += 1
        if not self.hangs_up:
            self.send_error(500)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_failure_while_a_function_starts_is_logged_once_and_not_retried(hangs_up: bool) -> None:
    """The table is read then, with the whole CPU that Lambda gives a function that starts."""
    Failing.requests, Failing.hangs_up = 0, hangs_up
    with HTTPServer(("127.0.0.1", 0), Failing) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        environment = {"PATH": os.environ["PATH"], "AWS_CONFIG_FILE": os.devnull}
        environment |= {"AWS_LAMBDA_FUNCTION_NAME": "any", "AWS_DEFAULT_REGION": "eu-west-1"}
        environment |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "TABLE": "any"}
        environment |= {"AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{server.server_port}"}
        output = subprocess.check_output([sys.executable, "-c", "import app"], env=environment)
        server.shutdown()
    (line,) = map(json.loads, output.splitlines())
    assert line["message"] == "the table could not be read while the function started"
    assert "Traceback" in line["exception"]
    assert Failing.requests == 1


AUTHORIZED = {"account": "account-1", "nickname": "John", "principalId": "account-1"}


def test_a_connection_of_an_account_has_its_nickname(
    app: ModuleType, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGN_IN", "on")
    handshake = event("$connect", "c1")
    handshake["requestContext"]["authorizer"] = AUTHORIZED
    assert app.connect(handshake, CONTEXT) == {"statusCode": 200}
    say(app, "c1", "/nick")
    assert connections.received("c1") == ["Current nickname: John"]
    handshake = event("$connect", "c2")
    handshake["requestContext"]["authorizer"] = AUTHORIZED | {"account": "account-2"}
    assert app.connect(handshake, CONTEXT) == {"statusCode": 403}


def test_a_frame_of_a_connection_that_was_replaced_during_its_handshake(
    app: ModuleType, connections: Connections
) -> None:
    for id in ("older", "newer"):
        handshake = event("$connect", id)
        handshake["requestContext"]["authorizer"] = AUTHORIZED
        if id == "older":
            connections.gone.add(id)  # until the handshake is complete
        app.connect(handshake, CONTEXT)
    connections.gone.clear()
    frame = event("$default", "older", body="/nick")
    frame["requestContext"]["authorizer"] = AUTHORIZED
    app.message(frame, CONTEXT)
    assert connections.received("older") == ["You have connected from elsewhere."]


def test_with_sign_in_nobody_connects_without_the_authorizer(
    app: ModuleType, table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGN_IN", "on")
    with pytest.raises(RuntimeError, match="did not ask the authorizer"):
        connect(app, "c1")
    assert tables.rows(table) == []


def test_with_a_custom_domain_posts_go_to_the_apis_own_address(
    app: ModuleType, connections: Connections
) -> None:
    """Posts to the domain name of such an event would fail."""
    connect(app, "c1")
    frame = event("$default", "c1", body="John")
    frame["requestContext"] |= {"domainName": "chat.example.com", "stage": "other"}
    app.message(frame, CONTEXT)
    assert connections.received("c1") == ["Using nickname: John\nType /help for list of commands."]


def test_without_an_address_posts_go_through_chalice(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    monkeypatch.delenv(ENDPOINT_VARIABLE)
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(app.app.websocket_api, "send", lambda *post: sent.append(post))
    connect(app, "c1")
    say(app, "c1", "John")
    assert sent == [("c1", "Using nickname: John\nType /help for list of commands.")]
    assert log_lines()[-1]["LinesDelivered"] == 1
