"""Verifies tokens: JSON Web Tokens of one OpenID Connect issuer, for one client.

RFC 8725 (JSON Web Token Best Current Practices) gives the reasons for the checks.
"""

import json
import re
from base64 import urlsafe_b64decode
from typing import Any

import jwt

from chalicelib import names
from chalicelib.authorizer import InvalidToken
from chalicelib.issuer import Issuer, IssuerUnavailable
from chalicelib.log import about, log
from chalicelib.metrics import count
from chalicelib.rows import Account

ALGORITHMS = ["RS256", "ES256"]
TYPES = ("jwt", "at+jwt", "application/at+jwt")  # RFC 7519, RFC 9068; not "logout+jwt"
USES = ("id", "access")  # `token_use` of Cognito's tokens
LEEWAY_SECONDS = 60  # for clocks that disagree
# API Gateway quotas: "Length, in characters, of the URL for a WebSocket API". A longer token never
# arrives, and on AWS the rest of the address takes about 70 of these characters.
MOST_CHARACTERS = 4_096
SUBJECT_LENGTH = 255  # OpenID Connect Core 1.0, section 2: ASCII characters of `sub`

_JWS = re.compile(r"([\w-]+)\.([\w-]+)\.[\w-]+", re.ASCII)  # RFC 7515: header, payload, signature

_CHECKS = (
    (jwt.InvalidSignatureError, "signature"),
    (jwt.ExpiredSignatureError, "exp"),
    (jwt.ImmatureSignatureError, "nbf"),
    (jwt.InvalidIssuerError, "iss"),
    (jwt.InvalidAudienceError, "aud"),
    (jwt.InvalidKeyError, "key"),
)


class Tokens:
    """Finds the account of a token."""

    def __init__(self, issuer: str, audience: str, nickname_claim: str) -> None:
        """Tokens must have been issued by `issuer`, and for the client `audience`.

        No request is made before the first token.
        """
        self._issuer = Issuer(issuer)
        self._audience = audience
        self._nickname_claim = nickname_claim

    def account(self, token: str) -> Account:
        """The account of a valid token. Raises `InvalidToken`, and logs an issuer's failure.

        Costs no request, except for the issuer's keys: see `Issuer.key`.
        """
        header, claims = _parse(token)
        key = self._key(header)
        by_client_id = claims.get("token_use") == "access" and "aud" not in claims
        try:
            jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer.url,
                audience=None if by_client_id else self._audience,
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
            checks = (check for kind, check in _CHECKS if isinstance(error, kind))
            raise InvalidToken(next(checks, "format")) from None
        if by_client_id:
            _require("client_id", claims.get("client_id") == self._audience)
        _require("token_use", claims.get("token_use", "id") in USES)
        for time in ("exp", "nbf", "iat"):
            _require(time, type(claims.get(time, 0)) in (int, float))
        return Account(_subject(claims), self._nickname(claims))

    def _key(self, header: dict[str, Any]) -> jwt.PyJWK:
        """The issuer's key, for the header's algorithm and no other."""
        algorithm, type, id = (header.get(name) for name in ("alg", "typ", "kid"))
        _require("alg", algorithm in ALGORITHMS)
        _require("typ", type is None or (isinstance(type, str) and type.lower() in TYPES))
        _require("kid", isinstance(id, str))
        try:
            key = self._issuer.key(str(id))
        except IssuerUnavailable as error:
            log.error("the issuer's keys are unavailable", extra=about(reason=str(error)))
            count(SignInsFailed=1)
            raise InvalidToken("keys unavailable") from None
        if key is None:
            raise InvalidToken("kid")
        _require("key", key.get("use", "sig") == "sig" and key.get("alg", algorithm) == algorithm)
        try:
            return jwt.PyJWK(key, algorithm)
        except jwt.PyJWTError:
            raise InvalidToken("key") from None

    def _nickname(self, claims: dict[str, Any]) -> str:
        nickname = claims.get(self._nickname_claim)
        try:
            return names.nickname(nickname if isinstance(nickname, str) else "")
        except names.InvalidName:
            raise InvalidToken("nickname") from None


def _parse(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims, not verified yet."""
    _require("size", len(token) <= MOST_CHARACTERS)
    parts = _JWS.fullmatch(token)
    if parts is None:
        raise InvalidToken("format")
    return _decode(parts[1]), _decode(parts[2])


def _decode(part: str) -> dict[str, Any]:
    try:
        text = urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()
        decoded = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise InvalidToken("format") from None
    if not isinstance(decoded, dict):
        raise InvalidToken("format")
    return decoded


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is used twice")
    return members


def _subject(claims: dict[str, Any]) -> str:
    subject = claims.get("sub")
    is_subject = isinstance(subject, str) and subject.isascii() and subject.isprintable()
    _require("sub", is_subject and 0 < len(str(subject)) <= SUBJECT_LENGTH)
    return str(subject)


def _require(check: str, holds: bool) -> None:
    if not holds:
        raise InvalidToken(check)
