"""Signatures, compared with botocore's."""

from urllib.parse import unquote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from chalicelib.posting.http1 import Endpoint
from chalicelib.posting.sigv4 import Signer

REGION = "cn-north-1"
ODD_IDS = [
    "L0SM9cOFvHcCIhw=",
    "a/b",
    "a+b",
    "a%2Fb",
    "a b",
    "é✓",
    "~-._",
    "a=/+%=",
    "?x=1#y",
    "\r\nhost: x",
]


@pytest.mark.parametrize("token", ["a session token/+=", None])
@pytest.mark.parametrize("path", ["/api", "", "/_aws/execute-api/abc123/api", "/a stage"])
def test_signatures_are_botocores(path: str, token: str | None) -> None:
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    endpoint = Endpoint.parse(f"http://127.0.0.1:4566{path}")
    frozen = credentials.get_frozen_credentials()
    signer = Signer(endpoint, REGION, frozen, "hello ✓".encode())
    for connection_id in ODD_IDS:
        head, _, body = signer.request(connection_id).partition(b"\r\n\r\n")
        start, *lines = head.decode().split("\r\n")
        method, target, version = start.split(" ")
        headers = {name: value for name, _, value in (line.partition(":") for line in lines)}
        assert (method, version, body.decode()) == ("POST", "HTTP/1.1", "hello ✓")
        assert unquote(target) == f"{path}/@connections/{connection_id}"
        assert (headers["host"], headers["content-length"]) == ("127.0.0.1:4566", str(len(body)))
        assert headers.get("x-amz-security-token") == token
        assert headers["authorization"] == signed_by_botocore(target, headers, body, credentials)


def signed_by_botocore(
    target: str, headers: dict[str, str], body: bytes, credentials: Credentials
) -> str:
    signed = {
        name: headers[name]
        for name in ("host", "x-amz-date", "x-amz-security-token")
        if name in headers
    }
    request = AWSRequest("POST", f"http://{headers['host']}{target}", signed, body)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(credentials, "execute-api", REGION)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    names = signer.signed_headers(signer.headers_to_sign(request))
    credential = f"{credentials.access_key}/{signer.credential_scope(request)}"
    signature = signer.signature(text, request)
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
