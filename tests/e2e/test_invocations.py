"""How API Gateway invokes functions, and what it answers if it may not, or if they fail."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest
import websocket

from scripts import Failure
from tests.e2e.actors import PATIENCE, Person
from tests.e2e.conftest import Cloud, eventually

SIGN_IN = ["TokenIssuer=https://issuer.example", "TokenAudience=chat"]
LOGS_ROLE = "CloudWatch Logs role ARN must be set in account settings to enable logging"


def function(account: Cloud, name: str) -> str:
    functions = account.client("lambda").list_functions()["Functions"]
    (found,) = [each["FunctionName"] for each in functions if f"-{name}-" in each["FunctionName"]]
    return str(found)


@contextmanager
def permission(account: Cloud, name: str, source: str | None) -> Iterator[None]:
    """Lets only a source invoke a function, or nobody."""
    client = account.client("lambda")
    name = function(account, name)
    policy = json.loads(client.get_policy(FunctionName=name)["Policy"])
    (before,) = policy["Statement"]
    client.remove_permission(FunctionName=name, StatementId=before["Sid"])
    added = {
        "FunctionName": name,
        "StatementId": before["Sid"],
        "Action": "lambda:InvokeFunction",
        "Principal": "apigateway.amazonaws.com",
    }
    if source is not None:
        client.add_permission(**added, SourceArn=source)
    try:
        yield
    finally:
        if source is not None:
            client.remove_permission(FunctionName=name, StatementId=before["Sid"])
        client.add_permission(**added, SourceArn=before["Condition"]["ArnLike"]["AWS:SourceArn"])


@contextmanager
def handler(account: Cloud, name: str, handler: str) -> Iterator[None]:
    client = account.client("lambda")
    name = function(account, name)
    before = client.get_function_configuration(FunctionName=name)["Handler"]
    client.update_function_configuration(FunctionName=name, Handler=handler)
    try:
        yield
    finally:
        client.update_function_configuration(FunctionName=name, Handler=before)


def handshake(url: str) -> int:
    try:
        websocket.create_connection(url, timeout=PATIENCE).close()
    except websocket.WebSocketBadStatusException as refusal:
        return refusal.status_code
    return 101


def page(account: Cloud) -> int:
    try:
        with urllib.request.urlopen(account.emulator.page_url() or "") as answer:
            return int(answer.status)
    except HTTPError as refusal:
        return refusal.code


@pytest.mark.parametrize("source", [None, "arn:aws:execute-api:us-east-1:000000000000:another/*"])
def test_api_gateway_needs_permission_to_invoke_a_function(
    account: Cloud, deployed: str, source: str | None
) -> None:
    assert (handshake(deployed), page(account)) == (101, 200)
    with permission(account, "WebsocketConnect", source):
        assert handshake(deployed) == 500
    with permission(account, "APIHandler", source):
        assert page(account) == 500
    with permission(account, "WebsocketMessage", source), Person(deployed) as john:
        john.says("John")
        john.hears_of_a_failure()
    assert (handshake(deployed), page(account)) == (101, 200)


def test_a_function_that_fails_is_answered_for_and_logged(account: Cloud, deployed: str) -> None:
    with handler(account, "WebsocketConnect", "app.nothing"):
        assert handshake(deployed) == 502
    with handler(account, "APIHandler", "app.no_page"):
        assert page(account) == 502
    faults = [f"has no attribute '{name}'" for name in ("nothing", "no_page")]
    eventually(lambda: all(each in account.functions_output.read_text() for each in faults))
    with handler(account, "WebsocketMessage", "app.nothing"), Person(deployed) as john:
        john.says("John")
        john.hears_of_a_failure()


def test_the_stage_lets_no_more_through_than_its_rate(account: Cloud, template: Path) -> None:
    parameters = ["TableName=Others", "RequestRate=1", "RequestBurst=1", "WebPage=off"]
    account.emulator.deploy_template(template, stack="Slow", parameters=parameters)
    url = account.emulator.url("Slow")
    client = websocket.create_connection(url, timeout=PATIENCE)
    for _ in range(20):
        client.send("no name")
    heard = [str(client.recv()) for _ in range(20)]
    assert heard[0].startswith("Nicknames are")
    refused = [json.loads(each) for each in heard if each.startswith("{")]
    assert {each["message"] for each in refused} == {"Too Many Requests"}
    client.close()
    assert 429 in {handshake(url) for _ in range(10)}
    account.emulator.delete("Slow")


def test_an_authorizer_needs_permission_of_its_own(account: Cloud, template: Path) -> None:
    parameters = [*SIGN_IN, "TableName=Others", "WebPage=off"]
    account.emulator.deploy_template(template, stack="SignIn", parameters=parameters)
    url = f"{account.emulator.url('SignIn')}?token=x"
    assert handshake(url) == 403  # by the authorizer
    api = url.split("/")[5]
    with permission(
        account, "Authorize", f"arn:aws:execute-api:us-east-1:000000000000:{api}/api/$connect"
    ):
        assert handshake(url) == 500
    assert handshake(url) == 403
    account.emulator.delete("SignIn")


def test_access_logs_need_a_role_of_the_account(
    account: Cloud, template: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parameters = ["TableName=Others", "AccessLogs=on"]
    with pytest.raises(Failure, match=LOGS_ROLE):
        account.emulator.deploy_template(template, stack="Logged", parameters=parameters)
    client = account.client("cloudformation")
    events = client.describe_stack_events(StackName="Logged")["StackEvents"]
    failures = [each for each in events if each["ResourceStatus"] == "CREATE_FAILED"]
    assert [LOGS_ROLE in each["ResourceStatusReason"] for each in failures] == [True]
    (stack,) = client.describe_stacks(StackName="Logged")["Stacks"]
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    account.emulator.delete("Logged")

    set_logs_role(account)
    account.emulator.deploy_template(template, stack="Logged", parameters=parameters)
    account.emulator.delete("Logged")


def set_logs_role(account: Cloud) -> None:
    """As docs/operating.md says, before `AccessLogs=on`."""
    role = {
        "op": "replace",
        "path": "/cloudwatchRoleArn",
        "value": "arn:aws:iam::000000000000:role/logs",
    }
    account.client("apigateway").update_account(patchOperations=[role])
