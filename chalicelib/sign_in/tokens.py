"""Verifies tokens: JSON Web Tokens of one OpenID Connect issuer, for one client.

RFC 8725 (JSON Web Token Best Current Practices) gives the reasons for the checks. A token's claims
are called fields here, since a claim is a nickname's row in the table.
"""

import json
import re
from base64 import urlsafe_b64decode
from typing import Any

import jwt

from chalicelib.invocation import count
from chalicelib.sign_in import InvalidToken
from chalicelib.sign_in.issuer import IssuerUnavailable, Kept, fetch_keys
from chalicelib.storage import Account
from chalicelib.text import names

ALGORITHMS = ["RS256", "ES256"]
TYPES = ("jwt", "at+jwt", "application/at+jwt")  # RFC 7519, RFC 9068; not "logout+jwt"
USES = ("id", "access")  # `token_use` of Cognito's tokens
LEEWAY_SECONDS = 60  # for clocks that disagree
# API Gateway quotas: "Length, in characters, of the URL for a WebSocket API". A longer token never
# arrives, and on AWS the rest of the address takes about 70 of these characters.
MOST_CHARACTERS = 4_096
SUBJECT = re.compile(r"[ -~]{1,255}")  # OpenID Connect Core 1.0, section 2: ASCII characters

# RFC 7515: header, payload, signature
_JWS = re.compile(r"\A([\w-]+)\.([\w-]+)\.[\w-]+\Z", re.ASCII)

_CHECKS = (
    (jwt.InvalidSignatureError, "signature"),
    (jwt.ExpiredSignatureError, "exp"),
    (jwt.ImmatureSignatureError, "nbf"),
    (jwt.InvalidIssuerError, "iss"),
    (jwt.InvalidAudienceError, "aud"),
    (jwt.InvalidKeyError, "key"),
    (jwt.PyJWTError, "format"),
)


class Tokens:
    """Finds the account of a token."""

    def __init__(self, issuer: str, audience: str, nickname_field: str) -> None:
        """For tokens of `issuer`, a URL, for the client `audience`. Makes no request yet."""
        self._issuer = issuer
        self._keys = Kept("keys", lambda: fetch_keys(issuer))
        self._audience = audience
        self._nickname_field = nickname_field

    def account(self, token: str) -> Account:
        """The account of a valid token. Raises `InvalidToken`. Costs no request, except for the
        issuer's keys: see `Kept.get` and `fetch_keys`."""
        header, fields = _parse(token)
        has_client_id = fields.get("token_use") == "access" and "aud" not in fields
        try:
            jwt.decode(
                token,
                self._key(header),
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=None if has_client_id else self._audience,
                leeway=LEEWAY_SECONDS,
                options={
                    "require": ["exp"],
                    "verify_sub": False,  # `_subject` does
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.MissingRequiredClaimError as error:
            raise InvalidToken(error.claim) from None
        except jwt.PyJWTError as error:
            check = next(check for kind, check in _CHECKS if isinstance(error, kind))
            raise InvalidToken(check) from None
        if has_client_id:
            _require("client_id", fields.get("client_id") == self._audience)
        _require("token_use", fields.get("token_use", "id") in USES)
        for time in ("exp", "nbf", "iat"):
            _require(time, type(fields.get(time, 0)) in (int, float))
        return Account(_subject(fields), self._nickname(fields))

    def _key(self, header: dict[str, Any]) -> jwt.PyJWK:
        """The issuer's key, for the header's algorithm. Raises `jwt.PyJWTError` if malformed."""
        algorithm, token_type, key_id = (header.get(name) for name in ("alg", "typ", "kid"))
        _require("alg", algorithm in ALGORITHMS)
        _require("typ", token_type is None or str(token_type).lower() in TYPES)
        _require("kid", isinstance(key_id, str))
        try:
            keys = self._keys.get(lambda keys: key_id in keys)
        except IssuerUnavailable:
            count(SignInsFailed=1)
            raise InvalidToken("keys unavailable") from None
        _require("kid", key_id in keys)
        key = keys[str(key_id)]
        _require("key", key.get("use", "sig") == "sig" and key.get("alg", algorithm) == algorithm)
        return jwt.PyJWK(key, algorithm)

    def _nickname(self, fields: dict[str, Any]) -> str:
        nickname = fields.get(self._nickname_field)
        try:
            return names.nickname(nickname if isinstance(nickname, str) else "")
        except names.InvalidName:
            raise InvalidToken("nickname") from None


def _parse(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the fields, not verified yet."""
    _require("size", len(token) <= MOST_CHARACTERS)
    try:
        [parts] = _JWS.findall(token)
        texts = (urlsafe_b64decode(part + "==").decode() for part in parts)
        header, fields = (json.loads(text, object_pairs_hook=_unique) for text in texts)
    except (ValueError, RecursionError):
        raise InvalidToken("format") from None
    _require("format", isinstance(header, dict) and isinstance(fields, dict))
    return header, fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is used twice")
    return members


def _subject(fields: dict[str, Any]) -> str:
    subject = fields.get("sub")
    _require("sub", isinstance(subject, str) and SUBJECT.fullmatch(subject) is not None)
    return str(subject)


def _require(check: str, holds: bool) -> None:
    if not holds:
        raise InvalidToken(check)
