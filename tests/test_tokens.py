"""The authorizer, against valid tokens, a table of bad ones, and issuers that misbehave."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from chalice.app import WebsocketEvent
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chalicelib import issuer as issuers
from chalicelib.authorizer import Authorizer, account_of
from chalicelib.log import JsonFormatter
from chalicelib.metrics import counting
from tests.issuers import CLIENT, Answer, Issuer, answer, ec_key, public_jwk, rsa_key

ARN = "arn:aws:execute-api:us-east-1:123456789012:abc/api/$connect"
SECONDS = 0.5  # in which an issuer must answer

Make = Callable[[Issuer], str]


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    with Issuer(tmp_path) as issuer:
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.certificates))
        monkeypatch.setenv("TOKEN_ISSUER", issuer.url)
        monkeypatch.setenv("TOKEN_AUDIENCE", CLIENT)
        monkeypatch.setenv("NICKNAME_CLAIM", "preferred_username")
        monkeypatch.setattr(issuers, "FETCH_SECONDS", SECONDS)
        yield issuer


@pytest.fixture
def authorizer(issuer: Issuer) -> Authorizer:
    return Authorizer.from_env()


def event(token: str | None) -> dict[str, Any]:
    query = {} if token is None else {"queryStringParameters": {"token": token}}
    return {"type": "REQUEST", "methodArn": ARN, **query}


def effect(answer: dict[str, Any]) -> str:
    (statement,) = answer["policyDocument"]["Statement"]
    assert statement["Action"] == "execute-api:Invoke"
    assert statement["Resource"] == ARN
    return str(statement["Effect"])


def raw(header: Any, claims: Any, signature: bytes = b"x" * 256) -> str:
    """A token of any parts; text stays as it is."""
    parts = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (*(part.encode() for part in parts), signature)
    )


def signed(header: dict[str, Any], claims: str) -> str:
    """A token whose claims are this text, with a good signature."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    unsigned = raw(header, claims).rpartition(".")[0]
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
def test_a_valid_token_allows_this_connection_and_names_its_account(
    issuer: Issuer, authorizer: Authorizer, make: Make
) -> None:
    answered = authorizer.authorize(event(make(issuer)))
    assert effect(answered) == "Allow"
    assert answered["principalId"] == "account-1"
    assert answered["context"] == {"account": "account-1", "nickname": "John"}


def test_any_claim_may_have_the_nickname(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NICKNAME_CLAIM", "cognito:username")
    claims: dict[str, Any] = {"cognito:username": " Ame\u0301lie"}
    token = issuer.token(**claims)
    answered = Authorizer.from_env().authorize(event(token))
    about = {"domainName": "any", "stage": "api", "connectionId": "c1"}
    handshake = {"requestContext": {**about, "authorizer": answered["context"]}}
    assert account_of(WebsocketEvent(handshake, None)) == ("account-1", "Am\u00e9lie")
    assert json.dumps(answered).isascii()


# Bad tokens, and the check that each fails


def hs256(issuer: Issuer, secret: bytes) -> str:
    unsigned = raw({"alg": "HS256", "kid": "rsa"}, issuer.claims()).rpartition(".")[0]
    mac = hmac.digest(secret, unsigned.encode(), hashlib.sha256)
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


PEM = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RS256 = {"alg": "RS256", "kid": "rsa"}
LATER = 9_999_999_999

BAD: dict[str, tuple[Make, str]] = {
    "alg none": (lambda i: raw({"alg": "none", "kid": "rsa"}, i.claims()), "alg"),
    "alg None": (lambda i: raw({"alg": "None", "kid": "rsa"}, i.claims()), "alg"),
    "alg none, no signature": (
        lambda i: raw({"alg": "none", "kid": "rsa"}, i.claims(), b""),
        "format",
    ),
    "no alg": (lambda i: raw({"kid": "rsa"}, i.claims()), "alg"),
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
        lambda i: raw({"alg": "ES256", "kid": "ec"}, i.claims(), bytes(64)),
        "signature",
    ),
    "an empty ES256 signature": (
        lambda i: raw({"alg": "ES256", "kid": "ec"}, i.claims(), b""),
        "format",
    ),
    "a short signature": (lambda i: raw(RS256, i.claims(), b"x"), "signature"),
    "no kid": (lambda i: raw({"alg": "RS256"}, i.claims()), "kid"),
    "an unknown kid": (lambda i: i.token(header={"kid": "another"}), "kid"),
    "a path as kid": (lambda i: i.token(header={"kid": "../../../dev/null"}), "kid"),
    "a URL as kid": (lambda i: i.token(header={"kid": f"{i.host}/evil"}), "kid"),
    "a number as kid": (lambda i: raw({"alg": "RS256", "kid": 7}, i.claims()), "kid"),
    "a list as kid": (lambda i: raw({"alg": "RS256", "kid": ["rsa"]}, i.claims()), "kid"),
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
    "a number as typ": (lambda i: raw(RS256 | {"typ": 1}, i.claims()), "typ"),
    "another issuer": (lambda i: i.token(iss="https://evil.example"), "iss"),
    "the issuer with a slash": (lambda i: i.token(iss=f"{i.url}/"), "iss"),
    "issuers": (lambda i: signed(RS256, json.dumps(i.claims(iss=[i.url]))), "iss"),
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
    "null as exp": (lambda i: signed(RS256, json.dumps(i.claims() | {"exp": None})), "exp"),
    "text as exp": (lambda i: i.token(exp=str(LATER)), "exp"),
    "true as exp": (lambda i: i.token(exp=True), "exp"),
    "a list as exp": (lambda i: i.token(exp=[LATER]), "format"),
    "NaN as exp": (lambda i: i.token(exp=float("nan")), "format"),
    "infinity as exp": (
        lambda i: signed(
            RS256, json.dumps(i.claims()).replace("{", '{"exp": 1e999, "x": {', 1) + "}"
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
    "a list as header": (lambda i: raw([RS256], i.claims()), "format"),
    "a list as claims": (lambda i: raw(RS256, [i.claims()]), "format"),
    "a deep list": (lambda i: raw(RS256, "[" * 2_500), "format"),
    "a long number": (lambda i: raw(RS256, f'{{"exp": {"9" * 2_500}}}'), "signature"),
    "a claim twice": (
        lambda i: signed(RS256, json.dumps(i.claims()).replace("{", '{"sub": "account-2", ', 1)),
        "format",
    ),
    "a header twice": (
        lambda i: raw('{"alg": "none", "alg": "RS256", "kid": "rsa"}', i.claims()),
        "format",
    ),
    "no sub": (lambda i: i.token(sub=None), "sub"),
    "an empty sub": (lambda i: i.token(sub=""), "sub"),
    "a number as sub": (lambda i: signed(RS256, json.dumps(i.claims(sub=7))), "sub"),
    "a long sub": (lambda i: i.token(sub="x" * 256), "sub"),
    "a sub that is not ASCII": (lambda i: i.token(sub="é"), "sub"),
    "no nickname": (lambda i: i.token(preferred_username=None), "nickname"),
    "a number as nickname": (lambda i: i.token(preferred_username=7), "nickname"),
    "a list as nickname": (lambda i: i.token(preferred_username=["John"]), "nickname"),
    "no valid nickname": (lambda i: i.token(preferred_username="John: Hi"), "nickname"),
    "a lone surrogate as nickname": (lambda i: i.token(preferred_username="\ud800"), "nickname"),
}


def test_the_longest_token_is_as_long_as_an_address_may_be(
    issuer: Issuer, authorizer: Authorizer, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [issuer.token(padding="x" * length) for length in range(2_300, 2_800)]
    longest = max((token for token in tokens if len(token) <= 4_096), key=len)
    longer = next(token for token in tokens if len(token) > 4_096)
    assert len(longest) in (4_095, 4_096)
    assert effect(authorizer.authorize(event(longest))) == "Allow"
    assert effect(authorizer.authorize(event(longer))) == "Deny"
    (refused,) = caplog.records
    assert refused.fields == {"check": "size"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused(
    issuer: Issuer, authorizer: Authorizer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The log names the check and nothing of the token. No address in the token is fetched."""
    caplog.set_level(logging.INFO)
    make, check = BAD[name]
    token = make(issuer)
    answered = authorizer.authorize(event(token))
    assert effect(answered) == "Deny"
    assert "context" not in answered
    (record,) = caplog.records
    logged = json.loads(JsonFormatter().format(record))
    logged.pop("timestamp")
    assert logged == {
        "level": "WARNING",
        "message": "a token was refused",
        "check": check,
    }
    assert "/evil" not in issuer.asked


def test_without_a_token_nobody_connects(authorizer: Authorizer) -> None:
    """Just in case: API Gateway refuses such a handshake by itself."""
    for query in (event(None), event(None) | {"queryStringParameters": None}):
        assert effect(authorizer.authorize(query)) == "Deny"


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_a_weak_key_is_refused(issuer: Issuer, authorizer: Authorizer) -> None:
    weak = rsa_key("weak", 1024)
    issuer.keys = [{"kid": "rsa", **public_jwk(weak)}]
    assert effect(authorizer.authorize(event(issuer.token(weak)))) == "Deny"


@pytest.mark.parametrize(
    "change", [{"use": "enc"}, {"alg": "RS512"}, {"n": "AA"}, {"n": 7}, {"e": ""}, {"kty": "oct"}]
)
def test_an_unsuitable_key_is_refused(
    issuer: Issuer, authorizer: Authorizer, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    issuer.keys = [issuer.keys[0] | change]
    assert effect(authorizer.authorize(event(issuer.token()))) == "Deny"
    assert caplog.records[-1].fields == {"check": "key"}  # type: ignore[attr-defined]


# Issuers that misbehave


def garbles(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"hello\r\n")


def says(body: Any, status: int = 200) -> Answer:
    return lambda request: answer(request, body, status)


MISBEHAVIOUR: dict[str, Answer] = {
    "ends early": lambda request: answer(request, b"{}", Content_Length="10"),
    "is not HTTP": garbles,
    "is not JSON": says(b"<html>"),
    "is not UTF-8": says(b"\xff\xfe\xfd"),
    "is deep": says(b"[" * 100_000),
    "is a list": says([]),
    "is empty": says({}),
    "has no keys": says({"keys": []}),
    "has a number of keys": says({"keys": 7}),
    "has keys that are none": says({"keys": [7, None, {"kid": 7}, {}]}),
}


@pytest.mark.parametrize("path", ["/realms/chat/.well-known/openid-configuration", "/keys"])
@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_without_keys_nobody_connects(
    issuer: Issuer,
    authorizer: Authorizer,
    caplog: pytest.LogCaptureFixture,
    name: str,
    path: str,
) -> None:
    """With a line about the issuer that has no traceback."""
    issuer.pages[path] = MISBEHAVIOUR[name]
    refused_for_want_of_keys(issuer, authorizer, caplog)


@pytest.mark.parametrize("path", ["/realms/chat/.well-known/openid-configuration", "/keys"])
@pytest.mark.parametrize("drips", [False, True])
def test_a_good_document_that_comes_late_is_not_waited_for(
    issuer: Issuer,
    authorizer: Authorizer,
    caplog: pytest.LogCaptureFixture,
    path: str,
    drips: bool,
) -> None:
    issuer.pages[path] = issuer.late(drips)
    refused_for_want_of_keys(issuer, authorizer, caplog)


@pytest.mark.parametrize("path", ["/realms/chat/.well-known/openid-configuration", "/keys"])
@pytest.mark.parametrize(("status", "padding"), [(200, 5_000_000), (302, 0), (500, 0)])
def test_a_good_document_in_a_bad_answer_is_ignored(
    issuer: Issuer,
    authorizer: Authorizer,
    caplog: pytest.LogCaptureFixture,
    path: str,
    status: int,
    padding: int,
) -> None:
    document = {"issuer": issuer.url, "jwks_uri": f"{issuer.host}/keys", "keys": issuer.keys}
    body = json.dumps(document).encode() + b" " * padding
    issuer.pages["/good"] = says(body)
    issuer.pages[path] = lambda request: answer(request, body, status, Location="/good")
    refused_for_want_of_keys(issuer, authorizer, caplog)
    assert "/good" not in issuer.asked


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example", "jwks_uri": "{host}/keys"},
        {"issuer": "{url}", "jwks_uri": "http{host}/keys"},
        {"issuer": "{url}", "jwks_uri": "file:///dev/null"},
        {"issuer": "{url}", "jwks_uri": "https://127.0.0.1:1/keys"},
        {"issuer": "{url}", "jwks_uri": "https://127.0.0.1:100000/keys"},
        {"issuer": "{url}", "jwks_uri": "https://[/keys"},
        {"issuer": "{url}", "jwks_uri": "{host}/a b\r\nX: y"},
        {"issuer": "{url}", "jwks_uri": 7},
        {"issuer": "{url}"},
    ],
)
def test_a_doubtful_discovery_document_is_not_followed(
    issuer: Issuer,
    authorizer: Authorizer,
    caplog: pytest.LogCaptureFixture,
    document: dict[str, Any],
) -> None:
    filled = {
        name: value.replace("http{host}", issuer.host.replace("https", "http"))
        .replace("{host}", issuer.host)
        .replace("{url}", issuer.url)
        if isinstance(value, str)
        else value
        for name, value in document.items()
    }
    issuer.pages["/realms/chat/.well-known/openid-configuration"] = says(filled)
    refused_for_want_of_keys(issuer, authorizer, caplog)
    assert "/keys" not in issuer.asked


def test_an_unreachable_or_untrusted_issuer_lets_nobody_in(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    refused_for_want_of_keys(issuer, Authorizer.from_env(), caplog)
    assert issuer.asked == []
    monkeypatch.setenv("TOKEN_ISSUER", "https://127.0.0.1:1")
    caplog.clear()
    refused_for_want_of_keys(issuer, Authorizer.from_env(), caplog)


def refused_for_want_of_keys(
    issuer: Issuer, authorizer: Authorizer, caplog: pytest.LogCaptureFixture
) -> None:
    with counting() as counted:
        assert effect(authorizer.authorize(event(issuer.token()))) == "Deny"
    assert counted == {"SignInsFailed": 1}  # rings an alarm
    unavailable, refused = caplog.records
    assert unavailable.getMessage() == "the issuer's keys are unavailable"
    assert unavailable.levelname == "ERROR"
    assert unavailable.exc_info is None
    assert refused.fields == {"check": "keys unavailable"}  # type: ignore[attr-defined]


# How often the keys are fetched


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_the_keys_are_fetched_at_the_first_token_and_kept(
    issuer: Issuer, authorizer: Authorizer
) -> None:
    assert issuer.asked == []
    for _ in range(3):
        authorizer.authorize(event(issuer.token()))
    assert issuer.asked == ["/realms/chat/.well-known/openid-configuration", "/keys"]


def test_an_unknown_key_is_looked_for_once_a_minute(issuer: Issuer) -> None:
    clock = Clock()
    keys = issuers.Issuer(issuer.url, clock)
    for n in range(100):
        assert keys.key(f"unknown-{n}") is None
    assert len(issuer.asked) == 2
    issuer.keys.append(issuer.keys[0] | {"kid": "new"})
    clock.now += 59
    assert keys.key("new") is None
    clock.now += 2
    assert keys.key("new") is not None
    assert len(issuer.asked) == 4


def test_a_withdrawn_key_is_forgotten_within_an_hour(issuer: Issuer) -> None:
    clock = Clock()
    keys = issuers.Issuer(issuer.url, clock)
    assert keys.key("rsa") is not None
    del issuer.keys[0]
    clock.now += 60 * 60
    assert keys.key("rsa") is None


def test_the_keys_stay_while_they_cannot_be_renewed(issuer: Issuer) -> None:
    clock = Clock()
    keys = issuers.Issuer(issuer.url, clock)
    assert keys.key("rsa") is not None
    issuer.pages["/keys"] = says({}, 500)
    clock.now += 2 * 60 * 60
    assert keys.key("rsa") is not None
    assert keys.key("rsa") is not None
    assert len(issuer.asked) == 4


def test_a_failed_fetch_is_retried_soon(issuer: Issuer) -> None:
    clock = Clock()
    keys = issuers.Issuer(issuer.url, clock)
    works = issuer.pages["/keys"]
    issuer.pages["/keys"] = says({}, 500)
    for _ in range(3):
        with pytest.raises(issuers.IssuerUnavailable):
            keys.key("rsa")
    assert len(issuer.asked) == 2
    issuer.pages["/keys"] = works
    clock.now += 6
    assert keys.key("rsa") is not None
