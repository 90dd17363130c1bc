"""moto's DynamoDB behind a local HTTP server, which can be told to fail."""

import json
import ssl
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
from botocore.exceptions import ClientError

Reply = tuple[int, Any]  # status and content


class DynamoDB:
    """`failures` are the replies to the next requests, or functions that drop the connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.failures: list[Reply | Callable[[Any], None]] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.connections = 0
        moto = boto3.client("dynamodb", region_name="us-east-1")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.headers.append(self.headers)
                failure = outer.failures.pop(0) if outer.failures else None
                if callable(failure):
                    failure(self)
                    return
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                status, content = failure or carry_out(moto, operation, request)
                body = (
                    content.encode() if isinstance(content, str) else json.dumps(content).encode()
                )
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "DynamoDB":
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def carry_out(moto: Any, operation: str, request: dict[str, Any]) -> Reply:
    try:
        answer = moto._make_api_call(operation, request)
        return 200, {name: answer[name] for name in answer if name != "ResponseMetadata"}
    except ClientError as error:
        response = dict(error.response)
        status = response.pop("ResponseMetadata")["HTTPStatusCode"]
        code = f"com.amazonaws.dynamodb.v20120810#{response.pop('Error')['Code']}"
        return status, response | {"__type": code}


def drop(handler: Any) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True
