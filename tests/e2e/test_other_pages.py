"""A page of another origin, open in the developer's browser while `make run` runs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import queue
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from emulator.emulator import HOST, REGION
from tests.e2e.actors import PATIENCE
from tests.e2e.conftest import Cloud
from tests.e2e.tabs import chromium

PAGE = """<!doctype html>
<script>
const seen = {};
async function attempt(name, act) {
    try { seen[name] = await act(); } catch (error) { seen[name] = "refused"; }
}
async function main({emulator, chat, signed, body}) {
    await attempt("reads", async () => (await fetch(emulator + "/_ministack/health")).status);
    await attempt("chats", () => new Promise((resolve, reject) => {
        const socket = new WebSocket(chat);
        socket.onopen = () => resolve("connected");
        socket.onerror = reject;
    }));
    const plain = {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body};
    await attempt("creates a function", async () => (await fetch(signed, plain)).type);
    await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
}
main(%s);
</script>
"""


class Site:
    """A web site on this machine with one page, and what the page has seen."""

    def __init__(self) -> None:
        self.page = ""
        self.seen: queue.Queue[dict[str, str]] = queue.Queue()
        site = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(site.page)

            def do_POST(self) -> None:
                site.seen.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.answer("")

            def answer(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((HOST, 0), Answer)
        serve = self.server.serve_forever
        threading.Thread(target=serve, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def create_function(cloud: Cloud) -> tuple[str, str]:
    """The address and the body of a request that creates a function, signed without headers."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as package:
        package.writestr("app.py", "def handler(event, context): ...")
    function = {
        "FunctionName": "evil",
        "Runtime": "python3.12",
        "Role": cloud.client("iam").list_roles()["Roles"][0]["Arn"],
        "Handler": "app.handler",
        "Code": {"ZipFile": base64.b64encode(code.getvalue()).decode()},
    }
    body = json.dumps(function)
    environment = cloud.emulator.environment
    credentials = Credentials(
        environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    )
    url = f"http://{HOST}:{cloud.emulator.port}/2015-03-31/functions"
    request = AWSRequest("POST", url, headers={"Content-Type": "text/plain"})
    signer = SigV4QueryAuth(credentials, "lambda", REGION)
    signer.payload = lambda _: hashlib.sha256(body.encode()).hexdigest()
    signer.add_auth(request)
    return request.prepare().url, body


def test_it_can_neither_read_nor_chat_nor_create_a_function(
    cloud: Cloud, chat_url: str, site: Site
) -> None:
    """Even if it knew the credentials."""
    signed, body = create_function(cloud)
    emulator = f"http://{HOST}:{cloud.emulator.port}"
    site.page = PAGE % json.dumps(
        {"emulator": emulator, "chat": chat_url, "signed": signed, "body": body}
    )
    port = site.server.server_address[1]
    with chromium(f"--host-resolver-rules=MAP evil.example {HOST}") as browser:
        browser.new_page().goto(f"http://evil.example:{port}/")
        seen = site.seen.get(timeout=PATIENCE)
    functions = cloud.client("lambda").list_functions()["Functions"]
    assert [seen, "evil" in [function["FunctionName"] for function in functions]] == [
        {"reads": "refused", "chats": "refused", "creates a function": "opaque"},
        False,
    ]
