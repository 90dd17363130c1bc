"""Guards MiniStack 1.5.33, which answers any web page, under any host name, signed or not.

A browser sends requests to this machine for any page that it shows. It names the page's origin,
except in two kinds of `GET`: the page cannot read the answer, or the request goes to the page's own
host, whose name gives the page away.
"""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, quote

from ministack import app as ministack
from ministack.core import iam_evaluator, responses, router, sigv4

NAMES = ("127.0.0.1", "localhost")
HEALTH = "/_ministack/health"  # `emulator.py` asks for it
POOL_KEYS = re.compile(r"/[a-z]+-[a-z]+-\d_\w+/\.well-known/(openid-configuration|jwks\.json)")
SIGN_IN = "/oauth2/authorize"  # Cognito's page, which changes nothing
SIGN_IN_POSTS = ("/login", "/oauth2/token")
OPEN_BYTES = 10 * 2**20  # in a body that needs no signature; API Gateway's own limit
SIGNED_BYTES = 80 * 2**20  # in any other; Lambda takes packages of 50 MB, here in base64
NEEDS_BODY = ("SignatureDoesNotMatch", "XAmzContentSHA256Mismatch")

Headers = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """Passes on only the requests of this machine's programs and of the emulator's own pages.

    Both must address the emulator by its own name. Unsigned requests reach only the health check,
    the public keys and the login of user pools, and API Gateway's routes, which have authorization
    of their own.
    """

    def __init__(self, app: App, port: int) -> None:
        self._app = app
        self._hosts = [without_default_port(f"{name}:{port}") for name in NAMES]
        self._origins = [
            f"{scheme}://{host}" for scheme in ("http", "https") for host in self._hosts
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and (refusal := self._refusal(scope)):
            await refuse(scope, send, refusal)
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not is_open(scope) and (failure := signature_failure(scope, None)):
            await ministack._send_response(send, *failure)
        else:
            await self._pass(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        """The reason to refuse a request; None if a program here or an own page may send it."""
        hosts = [without_default_port(host) for host in values(scope, b"host")]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return f"This emulator answers at http://{self._hosts[0]} only, not under other names."
        if not set(values(scope, b"origin")) <= set(self._origins):
            return "This emulator answers no web pages but its own."
        return None

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = OPEN_BYTES if is_open(scope) else SIGNED_BYTES
        is_too_large = left < sum(map(int, values(scope, b"content-length")))
        messages: list[dict[str, Any]] = []
        while not is_too_large and (not messages or messages[-1].get("more_body")):
            messages.append(await receive())
            left -= len(messages[-1].get("body", b""))
            is_too_large = left < 0
        if is_too_large:
            await refuse(scope, send, "The request is too large for this emulator.", 413)
            return
        body = b"".join(each.get("body", b"") for each in messages)
        if not is_open(scope) and (failure := signature_failure(scope, body)):
            await ministack._send_response(send, *failure)
            return

        async def receive_again() -> dict[str, Any]:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, receive_again, send)


def values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for key, value in scope["headers"] if key == name]


def without_default_port(host: str) -> str:
    return host.removesuffix(":80")


def is_open(scope: Scope) -> bool:
    """Whether the request needs no signature. Browsers name the origin of every `POST`."""
    method, path = scope["method"], scope["path"]
    if method == "GET" and (path in (HEALTH, SIGN_IN) or POOL_KEYS.fullmatch(path)):
        return True
    if method == "POST" and path in SIGN_IN_POSTS and values(scope, b"origin"):
        return True
    return bool(ministack._parse_execute_api_url("", path))


def signature_failure(scope: Scope, body: bytes | None) -> tuple[int, dict[str, str], bytes] | None:
    """The answer to a request without a valid signature, in its service's format.

    Without the body, None if only the body can show whether the signature is valid.
    """
    method, path = scope["method"], scope["path"]
    query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
    headers = {key.decode("latin-1"): sigv4.decode_header_value(it) for key, it in scope["headers"]}
    raw_path = scope.get("raw_path") or quote(path).encode()
    iam_evaluator.pin_signed_request(method, raw_path.decode("latin-1"), query, scope["headers"])
    iam_evaluator.pin_signed_body(body or b"")
    key = router.extract_access_key_id(headers, query)
    account = iam_evaluator.find_iam_access_key_account(key) or responses.get_account_id()
    checked = iam_evaluator.authenticate(key, account)
    if isinstance(checked, iam_evaluator.ResolvedCredential):
        return None
    if body is None and checked and checked.code in NEEDS_BODY:
        return None
    failure = checked or iam_evaluator.AuthError(
        "MissingAuthenticationToken", "Request is missing Authentication Token"
    )
    service = router.detect_service(method, path, headers, query)
    return ministack._credential_failure(service, "", str(uuid.uuid4()), failure, headers)


def without_cors(original: Callable[[Headers], Any], headers: Headers) -> Any:
    """Lists headers, without those that let other origins read MiniStack's answers."""
    prefix = "access-control-"
    return original({key: headers[key] for key in headers if not key.lower().startswith(prefix)})


async def refuse(scope: Scope, send: Send, reason: str, status: int = 403) -> None:
    """Answers with a sentence, to an HTTP request or to a WebSocket's handshake."""
    kind = {"http": "http.response", "websocket": "websocket.http.response"}[scope["type"]]
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": f"{reason}\n".encode()})
