"""An OpenID Connect issuer's keys and endpoints, fetched over HTTPS and kept in memory."""

import json
import math
import re
import socket
import time
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from http.client import HTTPException, HTTPSConnection
from threading import Timer
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from chalicelib.invocation import about, log

DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0, section 4

FETCH_SECONDS = 3.0  # each: to connect to one address, for the TLS handshake, for the answer
MOST_BYTES = 262_144  # of an answer; the documents of large issuers have 20 KB

UNKNOWN_SECONDS = 60  # between two fetches for unknown ids, which anybody can send
RETRY_SECONDS = 5  # after a fetch that failed
RENEW_SECONDS = 60 * 60  # so that a withdrawn key is not trusted for long

MOST_CHARACTERS = 1_000  # of an endpoint
# Only characters without a special meaning in a Content Security Policy.
ENDPOINT = re.compile(r"\w+://[\w.-]+(:\d+)?(/[\w.~%/-]*)?(\?[\w.~%=&-]*)?", re.ASCII)

Jwk = dict[str, Any]
Found = TypeVar("Found")


class IssuerUnavailable(Exception):
    """The issuer's keys or endpoints cannot be fetched; the message says why."""


class Kept(Generic[Found]):
    """The result of a fetch, renewed each hour. The old one stays while a renewal fails."""

    def __init__(
        self, name: str, fetch: Callable[[], Found], clock: Callable[[], float] = time.time
    ) -> None:
        """`fetch` may raise `IssuerUnavailable`. The `name` is for the log. `clock`, in seconds,
        must not stop while Lambda freezes the process."""
        self._name = name
        self._fetch = fetch
        self._clock = clock
        self._found: Found | None = None
        self._fetch_from = self._renew_at = -math.inf

    def get(self, is_enough: Callable[[Found], bool] = lambda _: True) -> Found:
        """The last result. Fetches again if that is an hour old, or not enough.

        The next fetch is `UNKNOWN_SECONDS` after the last, or `RETRY_SECONDS` after a failure;
        until then the result may not be enough. Failures are logged. Raises `IssuerUnavailable` if
        a fetch fails and no older result is enough, or while there is no result.
        """
        now = self._clock()
        has_enough = self._found is not None and is_enough(self._found)
        if now >= self._fetch_from and (now >= self._renew_at or not has_enough):
            self._fetch_from = now + RETRY_SECONDS
            try:
                self._found = self._fetch()
                self._fetch_from, self._renew_at = now + UNKNOWN_SECONDS, now + RENEW_SECONDS
            except IssuerUnavailable as error:
                say = log.warning if has_enough else log.error
                say(f"the issuer's {self._name} are unavailable", extra=about(reason=str(error)))
                if not has_enough:
                    raise
        if self._found is None:
            raise IssuerUnavailable("a fetch has just failed")
        return self._found


class Endpoints:
    """The addresses where people sign in, and where a page gets their tokens."""

    def __init__(self, url: str, schemes: Collection[str]) -> None:
        """`url` is the issuer's; an endpoint has one of the `schemes`."""
        self._kept = Kept("endpoints", lambda: fetch_endpoints(url, schemes))

    def find(self) -> tuple[str, str] | None:
        """As `fetch_endpoints`; None, and a line in the log, if the issuer does not give them."""
        try:
            return self._kept.get()
        except IssuerUnavailable:
            return None


def fetch_keys(issuer: str, seconds: float = FETCH_SECONDS) -> dict[str, Jwk]:
    """The issuer's keys, by their ids. Costs 2 requests to the issuer.

    Raises `IssuerUnavailable`, usually within 4 times `seconds`; each slow TLS handshake, name
    look-up or further address of a host adds to that.
    """
    listed = _fetch(_discover(issuer, seconds).get("jwks_uri"), seconds).get("keys")
    keys = [each for each in listed if isinstance(each, dict)] if type(listed) is list else []
    by_id = {each["kid"]: each for each in keys if isinstance(each.get("kid"), str)}
    if not by_id:
        raise IssuerUnavailable("the issuer lists no keys")
    return by_id


def fetch_endpoints(
    issuer: str, schemes: Collection[str], seconds: float = FETCH_SECONDS
) -> tuple[str, str]:
    """The authorization endpoint and the token endpoint. Costs 1 request to the issuer. Raises
    `IssuerUnavailable`, in half the time of `fetch_keys`."""
    discovered = _discover(issuer, seconds)

    def endpoint(kind: str) -> str:
        url = str(discovered.get(f"{kind}_endpoint"))
        is_url = len(url) <= MOST_CHARACTERS and ENDPOINT.fullmatch(url)
        if not is_url or urlsplit(url).scheme not in schemes:
            raise IssuerUnavailable(f"no {kind} endpoint over HTTPS")
        return url

    return endpoint("authorization"), endpoint("token")


def _discover(issuer: str, seconds: float) -> dict[str, Any]:
    discovered = _fetch(issuer.rstrip("/") + DISCOVERY, seconds)
    if discovered.get("issuer") != issuer:
        raise IssuerUnavailable("the discovery document is another issuer's")
    return discovered


def _fetch(url: Any, seconds: float) -> dict[str, Any]:
    """A JSON object over HTTPS; redirects are not followed. Raises `IssuerUnavailable`."""
    try:
        found = json.loads(_get(url, seconds))
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise IssuerUnavailable(type(error).__name__) from None
    if not isinstance(found, dict):
        raise IssuerUnavailable("not a JSON object")
    return found


def _get(url: Any, seconds: float) -> bytes:
    address = urlsplit(url if isinstance(url, str) else "")
    if address.scheme != "https" or not address.hostname:
        raise IssuerUnavailable("not an https address")
    with closing(HTTPSConnection(address.hostname, address.port, timeout=seconds)) as connection:
        connection.connect()
        # The timeout limits each read; this limits the whole answer.
        end = Timer(seconds, _hang_up, [connection.sock])
        end.start()
        try:
            connection.request("GET", address._replace(scheme="", netloc="").geturl())
            answer = connection.getresponse()
            body = answer.read(MOST_BYTES + 1)
        finally:
            end.cancel()
    if answer.status != 200 or len(body) > MOST_BYTES:
        raise IssuerUnavailable(f"status {answer.status}, {len(body)} bytes")
    return body


def _hang_up(connection: socket.socket) -> None:
    """Ends a read in another thread, unless the connection has just been closed."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
