"""The authorizer: its answers to API Gateway, and its log."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from chalice.app import WebsocketEvent

from chalicelib.invocation import JsonFormatter, invocation
from chalicelib.sign_in.authorizer import Authorizer, account_of
from tests.conftest import LogLines
from tests.issuers import CLIENT, Issuer, rsa_key, says
from tests.test_app import CONTEXT, event

ARN = "arn:aws:execute-api:us-east-1:123456789012:abc/api/$connect"


@pytest.fixture
def authorizer(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Authorizer:
    monkeypatch.setenv("TOKEN_ISSUER", issuer.url)
    monkeypatch.setenv("TOKEN_AUDIENCE", CLIENT)
    monkeypatch.setenv("NICKNAME_CLAIM", "preferred_username")
    return Authorizer.from_env()


def request(token: str) -> dict[str, Any]:
    return {"type": "REQUEST", "methodArn": ARN, "queryStringParameters": {"token": token}}


def effect(answer: dict[str, Any]) -> str:
    (statement,) = answer["policyDocument"]["Statement"]
    assert statement["Action"] == "execute-api:Invoke"
    assert statement["Resource"] == ARN
    return str(statement["Effect"])


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The log, without timestamps."""
    logged = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    return [{key: line[key] for key in line if key != "timestamp"} for line in logged]


def refusal(check: str) -> dict[str, Any]:
    return {"level": "WARNING", "message": "a token was refused", "check": check}


def test_a_valid_token_allows_this_connection_and_names_its_account(
    issuer: Issuer, authorizer: Authorizer
) -> None:
    answered = authorizer.authorize(request(issuer.token()))
    assert effect(answered) == "Allow"
    assert answered["principalId"] == "account-1"
    assert answered["context"] == {"account": "account-1", "nickname": "John"}


def test_the_chat_gets_the_account_through_api_gateway(
    issuer: Issuer, authorizer: Authorizer
) -> None:
    answered = authorizer.authorize(request(issuer.token(preferred_username="Am\u00e9lie")))
    assert json.dumps(answered, ensure_ascii=False).isascii()
    about = {"domainName": "any", "stage": "api", "connectionId": "c1"}
    handshake = {"requestContext": {**about, "authorizer": answered["context"]}}
    assert account_of(WebsocketEvent(handshake, None)) == ("account-1", "Am\u00e9lie")


BAD: dict[str, Callable[[Issuer], str]] = {
    "format": lambda _: "se.cr.et",
    "signature": lambda issuer: issuer.token(rsa_key("forged")),
    "exp": lambda issuer: issuer.token(exp=1),
    "nickname": lambda issuer: issuer.token(preferred_username="a secret"),
}


@pytest.mark.parametrize("check", BAD)
def test_a_bad_token_lets_nobody_in_and_the_log_names_the_check_alone(
    issuer: Issuer, authorizer: Authorizer, caplog: pytest.LogCaptureFixture, check: str
) -> None:
    caplog.set_level(logging.INFO)
    with invocation() as counted:
        answered = authorizer.authorize(request(BAD[check](issuer)))
    assert effect(answered) == "Deny"
    assert "context" not in answered
    assert lines(caplog) == [refusal(check)]
    assert not counted


def test_without_a_token_nobody_connects(authorizer: Authorizer) -> None:
    """Just in case: API Gateway refuses such a handshake by itself."""
    handshakes: list[dict[str, Any]] = [{}, {"queryStringParameters": None}]
    for handshake in handshakes:
        assert effect(authorizer.authorize(handshake | {"methodArn": ARN})) == "Deny"


def test_without_the_issuers_keys_nobody_connects_and_an_alarm_rings(
    issuer: Issuer, authorizer: Authorizer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a traceback; the log has the reason once for each time that the issuer is asked."""
    issuer.pages["/keys"] = says({}, 500)
    for _ in range(2):
        with invocation() as counted:
            assert effect(authorizer.authorize(request(issuer.token()))) == "Deny"
        assert counted == {"SignInsFailed": 1}
    unavailable = {"level": "ERROR", "message": "the issuer's keys are unavailable"}
    because = {"reason": "status 500, 2 bytes"}
    assert lines(caplog) == [unavailable | because, *[refusal("keys unavailable")] * 2]


@pytest.mark.parametrize("variable", ["TOKEN_AUDIENCE", "NICKNAME_CLAIM"])
def test_a_function_without_its_settings_does_not_start(
    authorizer: Authorizer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(RuntimeError, match=variable):
        Authorizer.from_env()


# In the app


def test_only_the_authorizer_loads_the_library_for_tokens() -> None:
    environment = {"PATH": os.environ["PATH"], "AWS_CONFIG_FILE": os.devnull}
    of_tokens = {"jwt", "cryptography", "chalicelib.sign_in.tokens"}
    load = f"import sys, app; print(*{of_tokens} & {{*sys.modules}})"
    token_variables = ("TOKEN_ISSUER", "TOKEN_AUDIENCE", "NICKNAME_CLAIM")
    for settings, loaded in (({}, 0), (dict.fromkeys(token_variables, "any"), 3)):
        command = [sys.executable, "-c", load]
        output = subprocess.check_output(command, env=environment | settings, text=True)
        assert len(output.split()) == loaded


def test_the_authorizers_log_has_the_ids_of_the_handshake_and_no_token(
    app: ModuleType, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOKEN_ISSUER", "TOKEN_AUDIENCE", "NICKNAME_CLAIM"):
        monkeypatch.setenv(name, "https://127.0.0.1:1")
    handshake = event("$connect", "c1", queryStringParameters={"token": "se.cr.et"})
    answer = app.authorize(handshake | {"methodArn": "arn"}, CONTEXT)
    assert answer["policyDocument"]["Statement"][0]["Effect"] == "Deny"
    refused, done = log_lines()
    assert refused["check"] == "format"
    for line in (refused, done):
        assert (line["request_id"], line["connection_id"]) == ("request-7", "c1")
        assert line["route"] == "$connect"
        assert "se.cr.et" not in json.dumps(line)


def test_an_authorizer_that_fails_lets_nobody_in_and_rings_an_alarm(
    app: ModuleType, log_lines: LogLines
) -> None:
    """Here it lacks its configuration."""
    handshake = event("$connect", "c1", queryStringParameters={"token": "se.cr.et"})
    answer = app.authorize(handshake | {"methodArn": "arn"}, CONTEXT)
    assert answer["policyDocument"]["Statement"][0]["Effect"] == "Deny"
    failed, done = log_lines()
    assert (failed["level"], failed["message"]) == ("ERROR", "a token could not be checked")
    assert "TOKEN_ISSUER" in failed["exception"]
    assert done["SignInsFailed"] == 1
