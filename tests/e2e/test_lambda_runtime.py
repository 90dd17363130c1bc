"""The package that ships, under awslambdaric: AWS's own code that runs Python functions on Lambda.

It has wheels for Linux alone, so `tests/conftest.py` leaves this file out on other systems.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from emulator.emulator import ROOT
from tests.connections import Connections
from tests.e2e.conftest import Cloud
from tests.issuers import CLIENT, Issuer, rsa_key
from tests.runtime_api import REQUEST_ID, Environment
from tests.tables import create_table

CLIENT_PACKAGES = ("awslambdaric", "simplejson", "snapshot-restore-py")
TABLE = "LambdaRuntime"
DOMAIN = "abc.execute-api.us-east-1.amazonaws.com"

Start = Callable[..., Environment]


class Package:
    """What `make package` makes, with the code of each function unpacked."""

    def __init__(self, out: Path) -> None:
        subprocess.run([sys.executable, "-m", "scripts.package", out], cwd=ROOT, check=True)
        template = json.loads((out / "sam.json").read_text())
        functions = [
            resource["Properties"]
            for resource in template["Resources"].values()
            if resource["Type"] == "AWS::Serverless::Function"
        ]
        shared = template["Globals"]["Function"]["Environment"]["Variables"]
        log_format = template["Globals"]["Function"]["LoggingConfig"]["LogFormat"]
        self.logging = {"AWS_LAMBDA_LOG_FORMAT": log_format, "AWS_LAMBDA_LOG_LEVEL": "INFO"}
        self.code: dict[str, Path] = {}  # by handler
        self.variables: dict[str, list[str]] = {}  # those that are set whatever the parameters
        for function in functions:
            handler = function["Handler"]
            self.code[handler] = unpacked(out / function["CodeUri"])
            variables = shared | function.get("Environment", {}).get("Variables", {})
            self.variables[handler] = [
                name for name in variables if "Fn::If" not in variables[name]
            ]


def unpacked(archive: Path) -> Path:
    directory = archive.with_suffix("")
    if not directory.exists():
        with zipfile.ZipFile(archive) as file:
            file.extractall(directory)
    return directory


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return Package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with AWS's client, and with no other package that is installed here."""
    directory = tmp_path_factory.mktemp("client")
    for name in CLIENT_PACKAGES:
        package = metadata.distribution(name)
        for entry in {file.parts[0] for file in package.files or ()} - {"__pycache__"}:
            (directory / entry).symlink_to(Path(str(package.locate_file(entry))))
    return directory


@pytest.fixture(scope="module")
def table(cloud: Cloud) -> Iterator[str]:
    dynamodb = cloud.client("dynamodb")
    create_table(dynamodb, TABLE)
    yield TABLE
    dynamodb.delete_table(TableName=TABLE)


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    with Issuer(tmp_path) as issuer:
        yield issuer


@pytest.fixture
def start(
    package: Package,
    client: Path,
    table: str,
    cloud: Cloud,
    connections: Connections,
    issuer: Issuer,
    tmp_path: Path,
) -> Iterator[Start]:
    """Starts a handler of the package, with the variables that the template gives it, and more."""
    emulator = cloud.emulator.environment
    account = {
        "AWS_ENDPOINT_URL_DYNAMODB": emulator["AWS_ENDPOINT_URL"],
        "AWS_ACCESS_KEY_ID": emulator["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": emulator["AWS_SECRET_ACCESS_KEY"],
        "SSL_CERT_FILE": str(issuer.certificates),
    }
    stack = {
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": connections.url,
        "NICKNAME_CLAIM": "preferred_username",
        "STACK": "ChaliceChat",
        "TABLE": table,
        "TOKEN_AUDIENCE": CLIENT,
        "TOKEN_ISSUER": issuer.url,
    }
    with ExitStack() as running:

        def start(handler: str, code: Path | None = None, **more: str) -> Environment:
            variables = {name: stack[name] for name in package.variables[handler]}
            return running.enter_context(
                Environment(
                    handler,
                    code or package.code[handler],
                    client,
                    tmp_path / f"{handler}.log",
                    account | package.logging | variables | more,
                )
            )

        yield start


def test_the_functions_of_the_template_are_those_below(package: Package) -> None:
    assert package.code.keys() == {
        "app.connect",
        "app.message",
        "app.disconnect",
        "app.app",
        "app.authorize",
    }


# Scenes


def event(kind: str, route: str, **fields: Any) -> dict[str, Any]:
    """An event of the WebSocket API, from John's connection."""
    context = {
        "routeKey": route,
        "eventType": kind,
        "extendedRequestId": "J2LLKHXIoAMFrnA=",
        "requestTime": "01/Oct/2026:12:00:00 +0000",
        "messageDirection": "IN",
        "stage": "api",
        "connectedAt": 1790856000000,
        "requestTimeEpoch": 1790856000000,
        "identity": {"userAgent": None, "sourceIp": "203.0.113.7"},
        "requestId": "J2LLKHXIoAMFrnA=",
        "domainName": DOMAIN,
        "connectionId": "John=",
        "apiId": "abc",
    }
    return {"requestContext": context, "isBase64Encoded": False, **fields}


def frame(body: str) -> dict[str, Any]:
    return event("MESSAGE", "$default", body=body)


HEADERS = {"headers": {"Host": DOMAIN}, "multiValueHeaders": {"Host": [DOMAIN]}}
CONNECT = event("CONNECT", "$connect", **HEADERS)
DISCONNECT = event("DISCONNECT", "$disconnect", **HEADERS, disconnectStatusCode=1001)


def test_a_connect_a_login_a_text_and_a_disconnect(
    start: Start, connections: Connections, cloud: Cloud
) -> None:
    connect, message, disconnect = map(start, ("app.connect", "app.message", "app.disconnect"))
    assert connect.answers(CONNECT) == {"statusCode": 200}
    for text, heard in (
        ("John", ["Using nickname: John\nType /help for list of commands."]),
        ("/join chalice", ['Joined chat room "chalice"']),
        ("Hi, caf\xe9 \U0001f9c9", ["John: Hi, caf\xe9 \U0001f9c9"]),
    ):
        assert message.answers(frame(text)) == {"statusCode": 200}
        assert connections.received("John=") == heard
    assert disconnect.answers(DISCONNECT) == {"statusCode": 200}
    assert cloud.client("dynamodb").scan(TableName=TABLE, ConsistentRead=True)["Count"] == 0
    for function, route, lines in (
        (connect, "$connect", 1),
        (message, "$default", 3),
        (disconnect, "$disconnect", 1),
    ):
        done = [line for line in logged(function) if line["message"] == "done"]
        assert [line["route"] for line in done] == [route] * lines
        assert {line["request_id"] for line in done} == {REQUEST_ID}


def test_the_page(start: Start, connections: Connections) -> None:
    page = start("app.app")
    request = {
        "resource": "/",
        "path": "/",
        "httpMethod": "GET",
        **HEADERS,
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/",
            "httpMethod": "GET",
            "path": "/api/",
            "protocol": "HTTP/1.1",
            "stage": "api",
            "domainName": DOMAIN,
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "identity": {"sourceIp": "203.0.113.7"},
            "apiId": "def",
        },
        "body": None,
        "isBase64Encoded": False,
    }
    answer = page.answers(request)
    assert answer["statusCode"] == 200
    assert answer["body"].startswith("<!doctype html>")
    assert connections.url.replace("http:", "ws:") in answer["body"]
    assert [line["route"] for line in logged(page)] == ["/"]


def test_tokens(start: Start, issuer: Issuer) -> None:
    authorize = start("app.authorize")
    arn = "arn:aws:execute-api:us-east-1:123456789012:abc/api/$connect"

    def effect(token: str) -> str:
        answer = authorize.answers(
            event("CONNECT", "$connect", **HEADERS)
            | {"type": "REQUEST", "methodArn": arn, "queryStringParameters": {"token": token}}
        )
        (statement,) = answer["policyDocument"]["Statement"]
        assert statement["Resource"] == arn
        return str(statement["Effect"])

    assert effect(issuer.token()) == "Allow"
    assert effect(issuer.token(rsa_key("forged"))) == "Deny"
    assert effect("bad") == "Deny"
    refused = [line["check"] for line in logged(authorize) if "check" in line]
    assert refused == ["signature", "format"]


# Logs


def logged(environment: Environment) -> list[dict[str, Any]]:
    """The new lines of its log, each a JSON object."""
    return [dict(json.loads(line)) for line in environment.log()]


def test_an_unexpected_event_ends_no_function(start: Start, package: Package) -> None:
    for handler in package.code:
        function = start(handler)
        assert function.invoke({}) == function.invoke({})
        assert "ERROR" in {line["level"] for line in logged(function)}


def test_an_exception(start: Start) -> None:
    connect = start("app.connect", TABLE="missing")
    outcome, error = connect.invoke(CONNECT)
    assert outcome == "error"
    *own, aws = logged(connect)
    assert {"failed", "done"} <= {line["message"] for line in own}
    assert all(datetime.fromisoformat(line["timestamp"]).tzinfo for line in own)
    assert aws["errorType"] == error["errorType"]


def test_a_package_that_cannot_be_imported(start: Start, tmp_path: Path) -> None:
    connect = start("app.connect", tmp_path)
    assert connect.fails_to_start()["errorType"] == "Runtime.ImportModuleError"
    assert [line["level"] for line in logged(connect)] == ["WARNING", "ERROR"]
