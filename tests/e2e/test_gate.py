"""The emulator answers programs of this machine with its credentials, and its own pages."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import websocket
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator.emulator import EMULATOR_PYTHON, HOST, REGION, ROOT, aws_environment
from tests.e2e.actors import PATIENCE, Person
from tests.e2e.conftest import Cloud, new_cloud

OTHER_HOSTS = ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""]
OTHER_ORIGINS = ["http://evil.example", "http://evil.example:{port}", "http://127.0.0.1:1", "null"]
OWN_ORIGINS = ["http://127.0.0.1:{port}", "http://localhost:{port}", "https://localhost:{port}"]


def answer(
    cloud: Cloud, path: str, method: str = "GET", body: str = "", **headers: str
) -> tuple[int, str, dict[str, str]]:
    """The status, body and headers that a request gets; `Host` is right unless it is given."""
    connection = http.client.HTTPConnection(HOST, cloud.emulator.port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for name, value in ({"Host": f"{HOST}:{cloud.emulator.port}"} | headers).items():
        connection.putheader(name.replace("_", "-"), value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body.encode())
    response = connection.getresponse()
    return response.status, response.read().decode(), dict(response.getheaders())


def handshake(cloud: Cloud, url: str, **headers: str) -> int:
    """The status that a WebSocket's handshake gets, 101 if it succeeds."""
    fixed = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    return answer(cloud, urlsplit(url).path, **fixed, **key, **headers)[0]


def client(cloud: Cloud, service: str, key: str, secret: str, **headers: str) -> Any:
    """A client with these credentials, whose requests have these headers."""
    found = boto3.client(
        service,
        region_name=REGION,
        endpoint_url=f"http://{HOST}:{cloud.emulator.port}",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )
    found.meta.events.register(
        "before-send", lambda request, **_: request.headers.update(headers) or None
    )
    return found


def own_credentials(cloud: Cloud) -> tuple[str, str]:
    environment = cloud.emulator.environment
    return environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]


# Other origins, and other names for this machine


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_a_request_under_another_host_name_is_refused(
    cloud: Cloud, chat_url: str, host: str
) -> None:
    """As when evil.example, once it is loaded, resolves to 127.0.0.1 (DNS rebinding)."""
    host = host.format(port=cloud.emulator.port)
    status, text, _ = answer(cloud, "/_ministack/health", Host=host)
    assert status == 403
    assert f"http://127.0.0.1:{cloud.emulator.port}" in text
    assert handshake(cloud, chat_url, Host=host) == 403


@pytest.mark.parametrize("origin", OTHER_ORIGINS)
def test_a_page_of_another_origin_is_refused(cloud: Cloud, chat_url: str, origin: str) -> None:
    """Even with the right credentials, and for a preflight."""
    origin = origin.format(port=cloud.emulator.port)
    for method, path in (("GET", "/_ministack/health"), ("OPTIONS", "/"), ("POST", "/")):
        status, text, headers = answer(cloud, path, method, Origin=origin)
        assert status == 403
        assert "no web pages but its own" in text
        assert "Access-Control-Allow-Origin" not in headers
    assert handshake(cloud, chat_url, Origin=origin) == 403
    functions = client(
        cloud, "lambda", *own_credentials(cloud), Origin=origin, **{"Content-Type": "text/plain"}
    )
    with pytest.raises(ClientError, match="403"):
        functions.list_functions()


@pytest.mark.parametrize("origin", OWN_ORIGINS)
def test_a_page_that_the_emulator_serves_may_chat(
    cloud: Cloud, empty_chat: str, page: str, origin: str
) -> None:
    origin = origin.format(port=cloud.emulator.port)
    assert answer(cloud, page, Origin=origin)[:2] == (200, "a page")
    connection = websocket.create_connection(empty_chat, origin=origin, timeout=20)
    connection.send("Jane")
    assert connection.recv() == "Using nickname: Jane\nType /help for list of commands."
    connection.close()


SIGN_IN_POSTS = [
    ("/login", "client_id=x&username=John&password=x"),
    ("/oauth2/token", "client_id=x&grant_type=refresh_token&refresh_token=x"),
]


@pytest.mark.parametrize(("path", "form"), SIGN_IN_POSTS)
def test_only_own_pages_sign_people_in(cloud: Cloud, path: str, form: str) -> None:
    """A form of another page would sign somebody in as the one who made that page."""

    def status(**headers: str) -> int:
        content = {"Content_Type": "application/x-www-form-urlencoded"}
        return answer(cloud, path, "POST", form, **content, **headers)[0]

    port = cloud.emulator.port
    assert [status(Origin=each.format(port=port)) for each in OTHER_ORIGINS] == [403] * 4
    assert status() == 403  # of no page
    assert [status(Origin=each.format(port=port)) for each in OWN_ORIGINS] == [400] * 3


def test_the_login_form_is_shown_to_anybody(cloud: Cloud) -> None:
    """As Cognito answers, which does not know this client."""
    status, text, _ = answer(cloud, "/oauth2/authorize?response_type=code&client_id=x")
    assert (status, json.loads(text)["error"]) == (400, "invalid_client")


@pytest.fixture(scope="module")
def page(cloud: Cloud) -> str:
    """The path of a page that API Gateway serves to anybody."""
    gateway = cloud.client("apigateway")
    api = gateway.create_rest_api(name="pages")["id"]
    root = gateway.get_resources(restApiId=api)["items"][0]["id"]
    method = {"restApiId": api, "resourceId": root, "httpMethod": "GET"}
    gateway.put_method(**method, authorizationType="NONE")
    template = {"application/json": '{"statusCode": 200}'}
    gateway.put_integration(**method, type="MOCK", requestTemplates=template)
    gateway.put_method_response(**method, statusCode="200")
    gateway.put_integration_response(
        **method, statusCode="200", responseTemplates={"application/json": "a page"}
    )
    gateway.create_deployment(restApiId=api, stageName="api")
    return f"/_aws/execute-api/{api}/api/"


def test_no_answer_allows_other_origins(cloud: Cloud, page: str) -> None:
    seen: list[list[str]] = []
    for service, act in (
        ("lambda", "list_functions"),
        ("s3", "list_buckets"),
        ("iam", "list_roles"),
    ):
        each = client(cloud, service, *own_credentials(cloud))
        seen.append(list(getattr(each, act)()["ResponseMetadata"]["HTTPHeaders"]))
    for path in ("/_ministack/health", page, "/"):
        seen.append(list(answer(cloud, path)[2]))
    assert not [name for names in seen for name in names if "access-control" in name.lower()]


# Signatures

UNSIGNED = [
    ("GET", "/"),  # S3's list of buckets
    ("PUT", "/bucket"),
    ("GET", "/chalice-chat-local"),
    ("POST", "/"),
    ("GET", "/2015-03-31/functions/"),
    ("POST", "/_ministack/reset"),
    ("POST", "/_ministack/config"),
    ("GET", "/_ministack/ready"),
    ("GET", "/_ministack/lambda-code/ChaliceChat"),
    ("PUT", "/_ministack/cfn-response/token"),
    ("POST", "/_ministack/health"),
    ("GET", "/_localstack/health"),
    ("GET", "/_aws/sqs/messages"),
    ("GET", "/_aws/lambda-url/id/"),
    ("GET", "/_aws/execute-api/"),
    ("POST", "/_aws/execute-api/id/api/@connections/id"),
    ("DELETE", "/restapis/id/api/_user_request_/@connections/id"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/oauth2/login"),
    ("POST", "/oauth2/authorize"),
    ("POST", "/oauth2/token"),
    ("GET", "/oauth2/token"),
    ("GET", "/oauth2/userInfo"),
    ("GET", "/oauth2/idpresponse"),
    ("POST", "/saml2/idpresponse"),
    ("GET", "/logout"),
    ("GET", "/latest/meta-data/iam/security-credentials/"),
    ("GET", "/v2/_catalog"),
    ("OPTIONS", "/"),
]


@pytest.mark.parametrize("how", ["unsigned", "signed by nobody", "with a made-up signature"])
@pytest.mark.parametrize(("method", "path"), UNSIGNED)
def test_what_is_not_signed_is_refused(cloud: Cloud, method: str, path: str, how: str) -> None:
    key, _ = own_credentials(cloud)
    scope = f"20260101/{REGION}/s3/aws4_request"
    headers = {
        "unsigned": {},
        "signed by nobody": {"Authorization": "AWS4-HMAC-SHA256 Credential="},
        "with a made-up signature": {
            "Authorization": f"AWS4-HMAC-SHA256 Credential={key}/{scope}, "
            f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
            "X_Amz_Date": "20260101T000000Z",
        },
    }[how]
    assert answer(cloud, path, method, **headers)[0] in (400, 403)
    if how == "with a made-up signature":
        signed = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={key}/{scope}&X-Amz-Date=2026"
        query = f"?{signed}&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=0"
        assert answer(cloud, path + query, method)[0] in (400, 403)


def made_up(key: str, now: str) -> str:
    """A signature that looks right for as long as nobody computes it."""
    return (
        f"AWS4-HMAC-SHA256 Credential={key}/{now[:8]}/{REGION}/lambda/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    )


def announce(cloud: Cloud, path: str, key: str, size: int) -> int:
    """The status of a POST with this key and a made-up signature, of whose body nothing is sent."""
    with socket.create_connection((HOST, cloud.emulator.port), timeout=PATIENCE) as connection:
        now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {HOST}:{cloud.emulator.port}\r\n"
            f"Authorization: {made_up(key, now)}\r\nX-Amz-Date: {now}\r\n"
            f"Content-Length: {size}\r\n\r\n"
        )
        connection.sendall(head.encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_the_body_of_an_unsigned_request_is_not_read(cloud: Cloud) -> None:
    assert announce(cloud, "/2015-03-31/functions/", "AKIANOBODY", 199_000_000) == 403


def test_bodies_are_bounded(cloud: Cloud, page: str) -> None:
    key, _ = own_credentials(cloud)
    assert announce(cloud, page, "AKIANOBODY", 11_000_000) == 413
    assert announce(cloud, "/2015-03-31/functions/", key, 84_000_000) == 413


SEND_CHUNKS = """
import asyncio, sys
from emulator import gate, server

path, authorization, now = sys.argv[1:]
server.patch(sys.stdout)
gate.OPEN_BYTES, gate.SIGNED_BYTES = 100, 1000
headers = [(b"host", b"localhost:1"), (b"authorization", authorization.encode())]
headers += [(b"x-amz-date", now.encode())]
scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
chunks = status = 0

async def receive():
    global chunks
    chunks += 1
    return {"type": "http.request", "body": bytes(30), "more_body": True}

async def send(message):
    global status
    status = message.get("status", status)

asyncio.run(gate.Gate(None, 1)(scope, receive, send))
print(status, chunks)
"""


@pytest.mark.parametrize(
    ("path", "status_and_chunks"),
    [("/_aws/execute-api/id/api/", "413 4"), ("/2015-03-31/functions/", "413 34")],
)
def test_a_body_in_chunks_is_bounded_as_it_comes(path: str, status_and_chunks: str) -> None:
    """It announces no size, and would never end. The limits are lower than they are."""
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    key = {"AWS_ACCESS_KEY_ID": "AKIAOWN", "AWS_SECRET_ACCESS_KEY": "secret", "AUTH": "true"}
    sent = subprocess.run(
        [EMULATOR_PYTHON, "-c", SEND_CHUNKS, path, made_up("AKIAOWN", now), now],
        cwd=ROOT,
        env=aws_environment(1) | key,
        capture_output=True,
        text=True,
    )
    assert sent.stdout.strip() == status_and_chunks, sent.stderr


def test_other_credentials_are_refused(cloud: Cloud) -> None:
    key, _ = own_credentials(cloud)
    for credentials in (("test", "test"), ("000000000000", "test"), (key, "test"), ("x", "test")):
        for service, act in (("lambda", "list_functions"), ("s3", "list_buckets")):
            with pytest.raises(ClientError):
                getattr(client(cloud, service, *credentials), act)()


def test_a_functions_credentials_cannot_be_computed_from_its_name(
    cloud: Cloud, chat_url: str
) -> None:
    """By MiniStack they are: from the names of the function and of its role."""
    Person(chat_url).leaves()
    (function,) = (
        each
        for each in cloud.client("lambda").list_functions()["Functions"]
        if "WebsocketConnect" in each["FunctionName"]
    )
    digest = hashlib.sha256(f"{function['FunctionArn']}:{function['Role']}".encode()).hexdigest()
    table = boto3.client(
        "dynamodb",
        region_name=REGION,
        endpoint_url=f"http://{HOST}:{cloud.emulator.port}",
        aws_access_key_id=f"ASIA{digest[:16].upper()}",
        aws_secret_access_key=hashlib.sha256(f"secret:{digest}".encode()).hexdigest(),
        aws_session_token=hashlib.sha256(f"token:{digest}".encode()).hexdigest(),
    )
    with pytest.raises(ClientError, match="security token"):
        table.put_item(TableName="ChaliceChat", Item={"PK": {"S": "c"}, "SK": {"S": "username_"}})


# The credentials


def test_only_the_owner_can_read_the_credentials_which_are_new_in_each_run(
    cloud: Cloud, other_cloud: Cloud
) -> None:
    assert stat.S_IMODE(cloud.emulator.exports.stat().st_mode) == 0o600
    assert stat.S_IMODE(cloud.emulator.directory.stat().st_mode) == 0o700  # Cognito's keys, too
    key, secret = own_credentials(cloud)
    other_key, other_secret = own_credentials(other_cloud)
    assert key != other_key
    assert secret != other_secret
    assert len(secret) >= 32
    health = json.loads(answer(cloud, "/_ministack/health")[1])
    assert secret not in str(health)


@pytest.fixture
def other_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with new_cloud(tmp_path_factory.mktemp("other")) as cloud:
        yield cloud
