"""Tokens: valid ones, a table of bad ones, and keys that nobody can use."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chalicelib.sign_in import InvalidToken
from chalicelib.sign_in.tokens import Tokens
from tests.issuers import CLIENT, DISCOVERY, Issuer, ec_key, public_jwk, rsa_key

Make = Callable[[Issuer], str]


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    return Tokens(issuer.url, CLIENT, "preferred_username")


def failed_check(tokens: Tokens, token: str) -> str:
    """The check with which a token is refused."""
    with pytest.raises(InvalidToken) as refused:
        tokens.account(token)
    return str(refused.value)


def raw(header: Any, fields: Any, signature: bytes = b"x" * 256) -> str:
    """A token of any parts; text stays as it is."""
    parts = (part if isinstance(part, str) else json.dumps(part) for part in (header, fields))
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (*(part.encode() for part in parts), signature)
    )


def signed(header: dict[str, Any], fields: str) -> str:
    """A token whose fields are this text, with a good signature."""
    unsigned = raw(header, fields).rpartition(".")[0]
    signature = rsa_key().sign(unsigned.encode(), PKCS1v15(), SHA256())
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


# Valid tokens


@pytest.mark.parametrize(
    "make",
    [
        lambda issuer: issuer.token(),
        lambda issuer: issuer.token(ec_key(), "ES256", {"kid": "ec"}),
        lambda issuer: issuer.token(aud=["another", CLIENT]),
        lambda issuer: issuer.token(header={"typ": "at+jwt"}),
        lambda issuer: issuer.token(token_use="id"),
        lambda issuer: issuer.token(token_use="access", aud=None, client_id=CLIENT),
        lambda issuer: issuer.token(token_use="access", client_id=CLIENT),
        lambda issuer: issuer.token(exp=int(time.time()) - 50),
        lambda issuer: issuer.token(nbf=int(time.time()) + 50),
    ],
)
def test_a_valid_token_has_an_account(issuer: Issuer, tokens: Tokens, make: Make) -> None:
    assert tokens.account(make(issuer)) == ("account-1", "John")


def test_any_field_may_have_the_nickname(issuer: Issuer) -> None:
    fields: dict[str, Any] = {"cognito:username": " Ame\u0301lie"}
    tokens = Tokens(issuer.url, CLIENT, "cognito:username")
    assert tokens.account(issuer.token(**fields)) == ("account-1", "Am\u00e9lie")


# Bad tokens, and the check that each fails


def hs256(issuer: Issuer, secret: bytes) -> str:
    unsigned = raw({"alg": "HS256", "kid": "rsa"}, issuer.fields()).rpartition(".")[0]
    mac = hmac.digest(secret, unsigned.encode(), hashlib.sha256)
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


PEM = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RS256 = {"alg": "RS256", "kid": "rsa"}
LATER = 9_999_999_999

BAD: dict[str, tuple[Make, str]] = {
    "alg none": (lambda i: raw({"alg": "none", "kid": "rsa"}, i.fields()), "alg"),
    "alg None": (lambda i: raw({"alg": "None", "kid": "rsa"}, i.fields()), "alg"),
    "alg none, no signature": (
        lambda i: raw({"alg": "none", "kid": "rsa"}, i.fields(), b""),
        "format",
    ),
    "no alg": (lambda i: raw({"kid": "rsa"}, i.fields()), "alg"),
    "HS256 with the public key": (
        lambda i: hs256(i, rsa_key().public_key().public_bytes(*PEM)),
        "alg",
    ),
    "HS256 with its DER": (lambda i: hs256(i, rsa_key().public_key().public_bytes(*DER)), "alg"),
    "RS512": (lambda i: i.token(alg="RS512"), "alg"),
    "PS256": (lambda i: i.token(alg="PS256"), "alg"),
    "another key": (lambda i: i.token(rsa_key("forged")), "signature"),
    "ES256 with the id of the RSA key": (lambda i: i.token(ec_key(), "ES256"), "key"),
    "RS256 with the id of the EC key": (lambda i: i.token(header={"kid": "ec"}), "key"),
    "an ES256 signature of zeros": (
        lambda i: raw({"alg": "ES256", "kid": "ec"}, i.fields(), bytes(64)),
        "signature",
    ),
    "an empty ES256 signature": (
        lambda i: raw({"alg": "ES256", "kid": "ec"}, i.fields(), b""),
        "format",
    ),
    "a short signature": (lambda i: raw(RS256, i.fields(), b"x"), "signature"),
    "no kid": (lambda i: raw({"alg": "RS256"}, i.fields()), "kid"),
    "an unknown kid": (lambda i: i.token(header={"kid": "another"}), "kid"),
    "a path as kid": (lambda i: i.token(header={"kid": "../../../dev/null"}), "kid"),
    "a URL as kid": (lambda i: i.token(header={"kid": f"{i.host}/evil"}), "kid"),
    "a number as kid": (lambda i: raw({"alg": "RS256", "kid": 7}, i.fields()), "kid"),
    "a list as kid": (lambda i: raw({"alg": "RS256", "kid": ["rsa"]}, i.fields()), "kid"),
    "jku": (
        lambda i: i.token(rsa_key("forged"), header={"jku": f"{i.host}/evil"}),
        "signature",
    ),
    "jku and its kid": (
        lambda i: i.token(rsa_key("forged"), header={"jku": f"{i.host}/evil", "kid": "evil"}),
        "kid",
    ),
    "x5u": (lambda i: i.token(rsa_key("forged"), header={"x5u": f"{i.host}/evil"}), "signature"),
    "jwk": (
        lambda i: i.token(rsa_key("forged"), header={"jwk": public_jwk(rsa_key("forged"))}),
        "signature",
    ),
    "an unknown critical header": (lambda i: i.token(header={"crit": ["x"], "x": 1}), "format"),
    "a logout token": (lambda i: i.token(header={"typ": "logout+jwt"}), "typ"),
    "a number as typ": (lambda i: raw(RS256 | {"typ": 1}, i.fields()), "typ"),
    "another issuer": (lambda i: i.token(iss="https://evil.example"), "iss"),
    "the issuer with a slash": (lambda i: i.token(iss=f"{i.url}/"), "iss"),
    "issuers": (lambda i: signed(RS256, json.dumps(i.fields(iss=[i.url]))), "iss"),
    "no iss": (lambda i: i.token(iss=None), "iss"),
    "another client": (lambda i: i.token(aud="another"), "aud"),
    "other clients": (lambda i: i.token(aud=["another", "third"]), "aud"),
    "no aud": (lambda i: i.token(aud=None), "aud"),
    "no aud, and client_id": (lambda i: i.token(aud=None, client_id=CLIENT), "aud"),
    "a number as aud": (lambda i: i.token(aud=7), "aud"),
    "an object as aud": (lambda i: i.token(aud={CLIENT: 1}), "aud"),
    "another client_id": (
        lambda i: i.token(token_use="access", aud=None, client_id="another"),
        "client_id",
    ),
    "no client_id": (lambda i: i.token(token_use="access", aud=None), "client_id"),
    "client_id, and another aud": (
        lambda i: i.token(token_use="access", aud="another", client_id=CLIENT),
        "aud",
    ),
    "a refresh token": (lambda i: i.token(token_use="refresh"), "token_use"),
    "a list as token_use": (lambda i: i.token(token_use=["id"]), "token_use"),
    "expired": (lambda i: i.token(exp=int(time.time()) - 70), "exp"),
    "no exp": (lambda i: i.token(exp=None), "exp"),
    "null as exp": (lambda i: signed(RS256, json.dumps(i.fields() | {"exp": None})), "exp"),
    "text as exp": (lambda i: i.token(exp=str(LATER)), "exp"),
    "true as exp": (lambda i: i.token(exp=True), "exp"),
    "a list as exp": (lambda i: i.token(exp=[LATER]), "format"),
    "NaN as exp": (lambda i: i.token(exp=float("nan")), "format"),
    "infinity as exp": (
        lambda i: signed(
            RS256, json.dumps(i.fields()).replace("{", '{"exp": 1e999, "x": {', 1) + "}"
        ),
        "format",
    ),
    "not yet valid": (lambda i: i.token(nbf=int(time.time()) + 70), "nbf"),
    "text as nbf": (lambda i: i.token(nbf="0"), "nbf"),
    "issued later": (lambda i: i.token(iat=int(time.time()) + 70), "nbf"),
    "true as iat": (lambda i: i.token(iat=True), "iat"),
    "truncated": (lambda i: i.token()[:-2], "signature"),
    "two parts": (lambda i: i.token().rpartition(".")[0], "format"),
    "four parts": (lambda i: f"{i.token()}.e30", "format"),
    "five parts, as if encrypted": (lambda i: f"{i.token()}.e30.e30", "format"),
    "100 KB": (lambda i: i.token(padding="x" * 100_000), "size"),
    "not base64": (lambda i: i.token().replace(".", ".+/", 1), "format"),
    "padded base64": (lambda i: i.token().replace(".", "==.", 1), "format"),
    "not ASCII": (lambda i: f"é{i.token()}", "format"),
    "a line break": (lambda i: f"{i.token()}\n", "format"),
    "no token": (lambda i: "", "format"),
    "not JSON": (lambda i: raw(RS256, "{"), "format"),
    "not UTF-8": (lambda i: ".".join(("/w".replace("/", "_"), "e30", "eHg")), "format"),
    "UTF-16": (
        lambda i: f"{base64.urlsafe_b64encode('{}'.encode('utf-16')).decode()}.e30.eHg",
        "format",
    ),
    "a list as header": (lambda i: raw([RS256], i.fields()), "format"),
    "a list as fields": (lambda i: raw(RS256, [i.fields()]), "format"),
    "a deep list": (lambda i: raw(RS256, "[" * 2_500), "format"),
    "a long number": (lambda i: raw(RS256, f'{{"exp": {"9" * 2_500}}}'), "signature"),
    "a field twice": (
        lambda i: signed(RS256, json.dumps(i.fields()).replace("{", '{"sub": "account-2", ', 1)),
        "format",
    ),
    "a field of the header twice": (
        lambda i: raw('{"alg": "none", "alg": "RS256", "kid": "rsa"}', i.fields()),
        "format",
    ),
    "no sub": (lambda i: i.token(sub=None), "sub"),
    "an empty sub": (lambda i: i.token(sub=""), "sub"),
    "a number as sub": (lambda i: signed(RS256, json.dumps(i.fields(sub=7))), "sub"),
    "a long sub": (lambda i: i.token(sub="x" * 256), "sub"),
    "a sub that is not ASCII": (lambda i: i.token(sub="é"), "sub"),
    "no nickname": (lambda i: i.token(preferred_username=None), "nickname"),
    "a number as nickname": (lambda i: i.token(preferred_username=7), "nickname"),
    "a list as nickname": (lambda i: i.token(preferred_username=["John"]), "nickname"),
    "no valid nickname": (lambda i: i.token(preferred_username="John: Hi"), "nickname"),
    "a lone surrogate as nickname": (lambda i: i.token(preferred_username="\ud800"), "nickname"),
}


def test_the_longest_token_is_as_long_as_an_address_may_be(issuer: Issuer, tokens: Tokens) -> None:
    made = [issuer.token(padding="x" * length) for length in range(2_300, 2_800)]
    longest = max((token for token in made if len(token) <= 4_096), key=len)
    longer = next(token for token in made if len(token) > 4_096)
    assert len(longest) in (4_095, 4_096)
    assert tokens.account(longest)
    assert failed_check(tokens, longer) == "size"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused(
    issuer: Issuer, tokens: Tokens, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Nothing of the token is logged, and no address in it is fetched."""
    caplog.set_level(logging.DEBUG, "chalicelib")
    make, check = BAD[name]
    assert failed_check(tokens, make(issuer)) == check
    assert caplog.records == []
    assert "/evil" not in issuer.asked


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_a_weak_key_is_refused(issuer: Issuer, tokens: Tokens) -> None:
    weak = rsa_key("weak", 1024)
    issuer.keys = [{"kid": "rsa", **public_jwk(weak)}]
    assert failed_check(tokens, issuer.token(weak)) == "key"


UNSUITABLE: list[dict[str, Any]] = [
    *({"use": "enc"}, {"alg": "RS512"}, {"alg": ["RS256"]}, {"alg": 7}),
    *({"n": "AA"}, {"n": 7}, {"n": None}, {"e": ""}, {"kty": "oct"}, {"kty": ["RSA"]}),
]


@pytest.mark.parametrize("change", UNSUITABLE)
def test_an_unsuitable_key_is_refused_and_spoils_no_other(
    issuer: Issuer, tokens: Tokens, change: dict[str, Any]
) -> None:
    issuer.keys[0] |= change
    assert failed_check(tokens, issuer.token()) == "key"
    assert tokens.account(issuer.token(ec_key(), "ES256", {"kid": "ec"}))


# How often the keys are fetched


def test_the_keys_are_fetched_at_the_first_token_and_kept(issuer: Issuer, tokens: Tokens) -> None:
    assert issuer.asked == []
    for _ in range(3):
        tokens.account(issuer.token())
    assert issuer.asked == [DISCOVERY, "/keys"]


def test_many_unknown_keys_cost_the_issuer_one_fetch(issuer: Issuer, tokens: Tokens) -> None:
    for n in range(10):
        assert failed_check(tokens, issuer.token(header={"kid": f"unknown-{n}"})) == "kid"
    assert issuer.asked == [DISCOVERY, "/keys"]
