"""An OpenID Connect issuer over HTTPS: it signs valid and other tokens, and serves its keys."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

CLIENT = "the-chat"
DISCOVERY = "/realms/chat/.well-known/openid-configuration"

Answer = Callable[[BaseHTTPRequestHandler], None]


@cache
def rsa_key(name: str = "own", bits: int = 2048) -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str = "own") -> Any:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def authority() -> trustme.CA:
    return trustme.CA()


class Issuer:
    """A server at `url`. A test may replace its `pages`; `asked` has the paths of all requests."""

    def __init__(self, directory: Path) -> None:
        self.certificates = directory / "authority.pem"
        authority().cert_pem.write_to_path(str(self.certificates))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority().issue_cert("127.0.0.1").configure_cert(tls)
        self.asked: list[str] = []
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = f"https://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.host}/realms/chat"
        self.keys: list[dict[str, Any]] = [
            {"kid": "rsa", "use": "sig", **public_jwk(rsa_key())},
            {"kid": "ec", "alg": "ES256", **public_jwk(ec_key())},
        ]
        self.document: dict[str, Any] = {
            "issuer": self.url,
            "jwks_uri": f"{self.host}/keys",
            "authorization_endpoint": f"{self.host}/authorize",
            "token_endpoint": f"{self.host}/token",
        }
        self.pages: dict[str, Answer] = {
            DISCOVERY: lambda request: answer(request, self.document),
            "/keys": lambda request: answer(request, {"keys": self.keys}),
        }

    def __enter__(self) -> Issuer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a valid token, with changes; a change to None removes a claim."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "sub": "account-1", "iat": now, "exp": now + 600}
        claims |= {"preferred_username": "John", **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        key: Any = None,
        alg: str = "RS256",
        header: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """A token that is valid unless the arguments make it invalid."""
        headers = {"kid": "rsa"} | (header or {})
        return jwt.encode(self.claims(**changes), key or rsa_key(), alg, headers)

    def late(self, drips: bool) -> Answer:
        """A good document, whole after 10 s, or in parts of which each is in time."""

        def answer_late(request: BaseHTTPRequestHandler) -> None:
            body = json.dumps({**self.document, "keys": self.keys}).encode()
            if drips:
                request.send_response(200)
                request.end_headers()
            for _ in range(200):
                request.wfile.write(b" " * drips)
                self.ended.wait(0.05)
            if drips:
                request.wfile.write(body)
            else:
                answer(request, body)

        return answer_late

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                try:
                    issuer.pages[self.path](self)
                except OSError:
                    pass  # the client has hung up

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler


def public_jwk(key: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return dict(algorithm.to_jwk(key.public_key(), as_dict=True))


def answer(request: BaseHTTPRequestHandler, body: Any, status: int = 200, **headers: str) -> None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.send_response(status)
    for name, value in ({"Content_Length": str(len(text))} | headers).items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(text)
