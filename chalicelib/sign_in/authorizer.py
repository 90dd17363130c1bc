"""Decides at the handshake whether somebody may connect, by the token in the query string."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from chalice.app import WebsocketEvent

from chalicelib.aws import required
from chalicelib.invocation import about, count, log
from chalicelib.sign_in import InvalidToken
from chalicelib.storage import Account

if TYPE_CHECKING:
    from chalicelib.sign_in.tokens import Tokens


class Authorizer:
    """The authorizer of the API's `$connect` route."""

    @classmethod
    def from_env(cls) -> Authorizer:
        """For the issuer in TOKEN_ISSUER. Loads nothing if that is unset, as in other functions."""
        authorizer = cls()
        if os.environ.get("TOKEN_ISSUER"):
            authorizer._tokens  # noqa: B018
        return authorizer

    def authorize(self, event: dict[str, Any]) -> dict[str, Any]:
        """The answer to API Gateway: a policy that allows or denies this one connection.

        A policy that allows has the account in its `context`, for `account_of`. The log names the
        check that failed, and nothing of the token. Raises nothing: any other failure is logged,
        and denies.
        """
        try:
            token = (event.get("queryStringParameters") or {}).get("token", "")
            account = self._tokens.account(token)
        except InvalidToken as invalid:
            log.warning("a token was refused", extra=about(check=str(invalid)))
            return _policy(event, "Deny", "nobody")
        except Exception:
            log.exception("a token could not be checked")
            count(SignInsFailed=1)
            return _policy(event, "Deny", "nobody")
        # Quoted: API Gateway promises nothing about characters beyond ASCII.
        context = {"account": account.id, "nickname": quote(account.nickname)}
        return _policy(event, "Allow", account.id) | {"context": context}

    @cached_property
    def _tokens(self) -> Tokens:
        from chalicelib.sign_in.tokens import Tokens

        return Tokens(
            required("TOKEN_ISSUER", "the issuer of the tokens"),
            required("TOKEN_AUDIENCE", "the client id that the tokens are for"),
            required("NICKNAME_CLAIM", "the field of the tokens with the nickname"),
        )


def account_of(event: WebsocketEvent) -> Account | None:
    """The account that the authorizer found for a connection; None if the event has none, as in a
    chat without sign-in. A handshake with sign-in then raises `RuntimeError`."""
    request = event.to_dict()["requestContext"]
    given = request.get("authorizer") or {}
    if "account" in given:
        return Account(given["account"], unquote(given["nickname"]))
    if os.environ.get("SIGN_IN") and request["routeKey"] == "$connect":
        raise RuntimeError("API Gateway did not ask the authorizer")
    return None


def _policy(event: dict[str, Any], effect: str, principal: str) -> dict[str, Any]:
    statement = {
        "Action": "execute-api:Invoke",
        "Effect": effect,
        "Resource": event["methodArn"],  # this API's $connect, and nothing else
    }
    return {
        "principalId": principal,
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
    }
