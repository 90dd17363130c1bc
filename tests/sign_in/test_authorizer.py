"""The authorizer: its answers to API Gateway, and its log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from chalice.app import WebsocketEvent

from chalicelib.log import JsonFormatter
from chalicelib.metrics import counting
from chalicelib.sign_in.authorizer import Authorizer, account_of
from tests.issuers import CLIENT, Issuer, rsa_key, says

ARN = "arn:aws:execute-api:us-east-1:123456789012:abc/api/$connect"


@pytest.fixture
def authorizer(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Authorizer:
    monkeypatch.setenv("TOKEN_ISSUER", issuer.url)
    monkeypatch.setenv("TOKEN_AUDIENCE", CLIENT)
    monkeypatch.setenv("NICKNAME_CLAIM", "preferred_username")
    return Authorizer.from_env()


def event(token: str) -> dict[str, Any]:
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


def refused(check: str) -> dict[str, Any]:
    return {"level": "WARNING", "message": "a token was refused", "check": check}


def test_a_valid_token_allows_this_connection_and_names_its_account(
    issuer: Issuer, authorizer: Authorizer
) -> None:
    answered = authorizer.authorize(event(issuer.token()))
    assert effect(answered) == "Allow"
    assert answered["principalId"] == "account-1"
    assert answered["context"] == {"account": "account-1", "nickname": "John"}


def test_the_chat_gets_the_account_through_api_gateway(
    issuer: Issuer, authorizer: Authorizer
) -> None:
    answered = authorizer.authorize(event(issuer.token(preferred_username="Am\u00e9lie")))
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
    with counting() as counted:
        answered = authorizer.authorize(event(BAD[check](issuer)))
    assert effect(answered) == "Deny"
    assert "context" not in answered
    assert lines(caplog) == [refused(check)]
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
        with counting() as counted:
            assert effect(authorizer.authorize(event(issuer.token()))) == "Deny"
        assert counted == {"SignInsFailed": 1}
    unavailable = {"level": "ERROR", "message": "the issuer's keys are unavailable"}
    because = {"reason": "status 500, 2 bytes"}
    assert lines(caplog) == [unavailable | because, *[refused("keys unavailable")] * 2]


@pytest.mark.parametrize("variable", ["TOKEN_AUDIENCE", "NICKNAME_CLAIM"])
def test_a_function_without_its_settings_does_not_start(
    authorizer: Authorizer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(RuntimeError, match=variable):
        Authorizer.from_env()
