"""An OpenID Connect issuer's keys and endpoints, fetched over HTTPS and kept in memory."""

import json
import math
import re
import socket
import time
from collections.abc import Callable, Collection
from http.client import HTTPException, HTTPSConnection
from threading import Timer
from typing import Any
from urllib.parse import urlsplit

from chalicelib.log import about, log

DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0, section 4

FETCH_SECONDS = 3.0  # each: to connect to one address, for the TLS handshake, for the answer
MOST_BYTES = 262_144  # of an answer; the documents of large issuers have 20 KB

UNKNOWN_SECONDS = 60  # between two fetches for unknown ids, which anybody can send
RETRY_SECONDS = 5  # after a fetch that failed
RENEW_SECONDS = 60 * 60  # so that a key which the issuer has withdrawn is not trusted for long

MOST_CHARACTERS = 1_000  # of an endpoint
# Only characters without a special meaning in a Content Security Policy.
ENDPOINT = re.compile(r"\w+://[\w.-]+(:\d+)?(/[\w.~%/-]*)?(\?[\w.~%=&-]*)?", re.ASCII)

Jwk = dict[str, Any]
Clock = Callable[[], float]


class IssuerUnavailable(Exception):
    """The issuer's keys or endpoints cannot be fetched; the message says why."""


class Issuer:
    """An issuer, known by the URL that its tokens have as `iss`."""

    def __init__(self, url: str, clock: Clock = time.time) -> None:
        """`clock` gives seconds that go on while Lambda freezes the environment."""
        self.url = url
        self._clock = clock
        self._keys: dict[str, Jwk] = {}
        self._renew_at = -math.inf
        self._fetch_from = -math.inf

    def key(self, id: str) -> Jwk | None:
        """The key with this id, or None if the issuer has no such key.

        Costs 2 requests to the issuer when it fetches the keys: each hour, for an unknown id once
        a minute at most, and `RETRY_SECONDS` after a failure. If they cannot be renewed, the old
        ones stay. Raises `IssuerUnavailable`, usually within 4 times `FETCH_SECONDS`; each slow
        TLS handshake, name look-up or further address of a host adds to that.
        """
        now = self._clock()
        is_known = id in self._keys
        if now >= self._fetch_from and (now >= self._renew_at or not is_known):
            self._fetch_from = now + RETRY_SECONDS
            try:
                self._keys = self._fetch_keys()
                self._fetch_from = now + UNKNOWN_SECONDS
                self._renew_at = now + RENEW_SECONDS
            except IssuerUnavailable as error:
                if not is_known:
                    raise
                log.warning("the keys could not be renewed", extra=about(reason=str(error)))
        elif not self._keys:
            raise IssuerUnavailable("a fetch has just failed")
        return self._keys.get(id)

    def _fetch_keys(self) -> dict[str, Jwk]:
        listed = _fetch(_discover(self.url).get("jwks_uri")).get("keys")
        keys = [each for each in listed if isinstance(each, dict)] if type(listed) is list else []
        by_id = {each["kid"]: each for each in keys if isinstance(each.get("kid"), str)}
        if not by_id:
            raise IssuerUnavailable("the issuer lists no keys")
        return by_id


class Endpoints:
    """The addresses at which people sign in, and at which a page gets their tokens."""

    def __init__(self, url: str, schemes: Collection[str], clock: Clock = time.time) -> None:
        """`url` is the issuer's; an endpoint has one of the `schemes`."""
        self._url = url
        self._schemes = schemes
        self._clock = clock
        self._found: tuple[str, str] | None = None
        self._fetch_from = -math.inf

    def find(self) -> tuple[str, str] | None:
        """The authorization endpoint and the token endpoint; None, and a line in the log, if the
        issuer does not give them.

        Costs 1 request to the issuer when it fetches them: each hour, and after a failure. If they
        cannot be renewed, the old ones stay. Takes half as long as `Issuer.key` at most.
        """
        now = self._clock()
        if now >= self._fetch_from:
            self._fetch_from = now + RETRY_SECONDS
            try:
                self._found = self._fetch()
                self._fetch_from = now + RENEW_SECONDS
            except IssuerUnavailable as error:
                log.error("the issuer's endpoints are unavailable", extra=about(reason=str(error)))
        return self._found

    def _fetch(self) -> tuple[str, str]:
        discovered = _discover(self._url)
        return self._endpoint(discovered, "authorization"), self._endpoint(discovered, "token")

    def _endpoint(self, discovered: dict[str, Any], kind: str) -> str:
        """Raises `IssuerUnavailable` if it could be anything but a URL in a page's policy."""
        url = str(discovered.get(f"{kind}_endpoint"))
        is_url = len(url) <= MOST_CHARACTERS and ENDPOINT.fullmatch(url)
        if not is_url or urlsplit(url).scheme not in self._schemes:
            raise IssuerUnavailable(f"no {kind} endpoint over HTTPS")
        return url


def _discover(issuer: str) -> dict[str, Any]:
    discovered = _fetch(issuer.rstrip("/") + DISCOVERY)
    if discovered.get("issuer") != issuer:
        raise IssuerUnavailable("the discovery document is another issuer's")
    return discovered


def _fetch(url: Any) -> dict[str, Any]:
    """A JSON object over HTTPS; redirects are not followed. Raises `IssuerUnavailable`."""
    try:
        body = _get(url)
        found = json.loads(body)
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise IssuerUnavailable(type(error).__name__) from None
    if not isinstance(found, dict):
        raise IssuerUnavailable("not a JSON object")
    return found


def _get(url: Any) -> bytes:
    address = urlsplit(url if isinstance(url, str) else "")
    if address.scheme != "https" or not address.hostname:
        raise IssuerUnavailable("not an https address")
    connection = HTTPSConnection(address.hostname, address.port, timeout=FETCH_SECONDS)
    try:
        connection.connect()
        # The timeout limits each read; this limits the whole answer.
        end = Timer(FETCH_SECONDS, socket.socket.shutdown, (connection.sock, socket.SHUT_RDWR))
        end.start()
        try:
            connection.request("GET", address._replace(scheme="", netloc="").geturl())
            answer = connection.getresponse()
            body = answer.read(MOST_BYTES + 1)
        finally:
            end.cancel()
    finally:
        connection.close()
    if answer.status != 200:
        raise IssuerUnavailable(f"status {answer.status}")
    if len(body) > MOST_BYTES:
        raise IssuerUnavailable("the answer is too long")
    return body
