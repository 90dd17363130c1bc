"""A function's environment on Lambda: AWS's client for Python, and the Runtime API that it calls.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

PATH = "/2018-06-01/runtime/"
NAME = "a-function"
REQUEST_ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
TIMEOUT = 29.0  # seconds, of the function
PATIENCE = 20.0  # seconds for a request of the client; its start takes one or two


class Environment(HTTPServer):
    """A process for the handler of a function, from here to the end of the `with` block.

    It can import the standard library and the packages in `code` and `client`, and nothing else
    that is installed here. AWS's client makes one request at a time, so this needs no thread.
    """

    timeout = PATIENCE

    def __init__(
        self, handler: str, code: Path, client: Path, log: Path, variables: Mapping[str, str]
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.event: Any = None
        self.request: tuple[str, Any] = ("", None)  # the last one's path and content
        self._log = log
        self._logged = 0  # lines that `log` has returned
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-m", "awslambdaric", handler],
                cwd=code,
                env={**self._variables(handler, code, client), **variables},
                stdout=output,
                stderr=output,
            )

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self.server_close()

    def invoke(self, event: Any) -> tuple[str, Any]:
        """The client's reply to an event: `response` and the answer, or `error` and the error."""
        self.event = event
        self.handle_request()
        assert self.request == ("invocation/next", None), self.request
        self.handle_request()
        path, content = self.request
        start, _, outcome = path.rpartition("/")
        assert start == f"invocation/{REQUEST_ID}", self.request
        return outcome, content

    def answers(self, event: Any) -> Any:
        """The handler's answer to an event."""
        outcome, answer = self.invoke(event)
        assert outcome == "response", answer
        return answer

    def fails_to_start(self) -> dict[str, Any]:
        """The error, after which the process ends."""
        self.handle_request()
        path, error = self.request
        assert path == "init/error", self.request
        self._process.wait(PATIENCE)
        return dict(error)

    def log(self) -> list[str]:
        """The lines that the process has printed since the last call."""
        lines = self._log.read_bytes().decode().split("\n")[self._logged : -1]
        self._logged += len(lines)
        return lines

    def handle_timeout(self) -> None:
        raise AssertionError(f"The client called nothing. It printed:\n{self._log.read_text()}")

    def _variables(self, handler: str, code: Path, client: Path) -> dict[str, str]:
        """Those that Lambda sets, without credentials.

        https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
        """
        region = "us-east-1"
        return {
            "PYTHONPATH": str(client),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "LAMBDA_TASK_ROOT": str(code),
            "_HANDLER": handler,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python3.{sys.version_info.minor}",
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server_port}",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_FUNCTION_NAME": NAME,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_LOG_GROUP_NAME": "the-group",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/10/01/[$LATEST]the-stream",
        }


class _Handler(BaseHTTPRequestHandler):
    server: Environment

    def do_GET(self) -> None:
        self.server.request = (self.path.removeprefix(PATH), None)
        event = json.dumps(self.server.event).encode()
        self.send_response(200)
        for name, value in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(event))),
            ("Lambda-Runtime-Aws-Request-Id", REQUEST_ID),
            ("Lambda-Runtime-Deadline-Ms", str(int((time.time() + TIMEOUT) * 1000))),
            ("Lambda-Runtime-Invoked-Function-Arn", f"arn:aws:lambda:us-east-1:1:function:{NAME}"),
            ("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.request = (self.path.removeprefix(PATH), json.loads(content))
        self.send_response(202)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
