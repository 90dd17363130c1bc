"""The authorizer's function, and the library for tokens that it alone loads."""

import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

from tests.conftest import LogLines
from tests.test_app import CONTEXT, event


def test_only_the_authorizer_loads_the_library_for_tokens() -> None:
    environment = {"PATH": os.environ["PATH"], "AWS_CONFIG_FILE": os.devnull}
    load = "import sys, app; print(*{'jwt', 'cryptography', 'chalicelib.tokens'} & {*sys.modules})"
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
