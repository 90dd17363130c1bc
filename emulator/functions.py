"""Makes MiniStack 1.5.33's Lambda run functions at the same time, and log all that they print.

Each patch names the fault of MiniStack that it fixes.
"""

import hashlib
import json
import queue
import secrets
import tempfile
import threading
import time
import zipfile
from contextlib import suppress
from functools import partial, partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from ministack.core import lambda_runtime
from ministack.services import cloudwatch_logs, lambda_svc

from emulator import function_process
from emulator.function_process import END_OF_LOG

ENVIRONMENTS = 8  # functions of WebSockets that run at the same time
PATIENCE = 5.0  # seconds for the end of a log; children of a killed function may keep it open

SECRET = secrets.token_hex(16)

publishing = threading.Lock()
unpacking = threading.Lock()
free_environments = threading.Semaphore(ENVIRONMENTS)
to_print: queue.SimpleQueue[str] = queue.SimpleQueue()


def apply(output: TextIO) -> None:
    # It gave a function credentials that can be guessed: a hash of the function's and role's names.
    lambda_svc.execution_credentials = lambda_runtime.execution_credentials = partial(
        secret_credentials, lambda_runtime.execution_credentials
    )

    # It sent all WebSocket messages of a function to one process, one at a time, and dropped the
    # function's output.
    lambda_runtime.get_or_create_worker = any_worker

    # It did not log why a function's process did not start.
    lambda_runtime.Worker.invoke = partialmethod(invoke_or_report, lambda_runtime.Worker.invoke)

    # It unpacked the code again for each process of a function.
    lambda_runtime.zipfile = SimpleNamespace(**vars(zipfile) | {"ZipFile": UnpackedOnce})

    # It did not print the functions' logs. Describing them could fail while a function wrote.
    cloudwatch_logs.handle_request = partial(handle_logs_alone, cloudwatch_logs.handle_request)
    lambda_svc._emit_lambda_logs = partial(log_and_print, lambda_svc._emit_lambda_logs)
    threading.Thread(target=print_lines, args=[output], daemon=True).start()

    # It logged only the lines printed within some milliseconds of a function's answer. Later lines
    # were logged with the next invocation, or lost.
    lambda_runtime.Worker._drain_stderr = log_of_invocation
    lambda_runtime.Worker._drain_stderr_bounded = log_of_invocation

    # It served `@connections` at its own address only, but functions post to AWS's address. And
    # functions could import the libraries that MiniStack needs.
    lambda_runtime._PYTHON_WORKER_SCRIPT = worker_script()


def secret_credentials(original: Any, config: dict[str, Any]) -> Any:
    """Hashes a secret path of the role too; MiniStack finds the role by the name after it."""
    return original(config | {"Role": config["Role"].replace(":role/", f":role/{SECRET}/")})


def any_worker(
    name: str, config: dict[str, Any], code: bytes, qualifier: str = "$LATEST"
) -> SimpleNamespace:
    """Replaces the one worker that the WebSocket code asks for; each call goes to a free worker.

    A call waits until one of `ENVIRONMENTS` is free. Otherwise 60 frames at once would start 60
    processes, which keep two cores busy for longer than the timeout of a function.
    """

    def invoke(event: dict[str, Any], request_id: str) -> dict[str, Any]:
        with free_environments:
            answer = lambda_svc._execute_function({"config": config, "code_zip": code}, event)
        return {"status": "error" if answer.get("error") else "ok", "result": answer.get("body")}

    return SimpleNamespace(invoke=invoke)


def invoke_or_report(worker: Any, original: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
    try:
        result: dict[str, Any] = original(worker, *arguments, **options)
    except RuntimeError as error:  # the process did not start
        return {"status": "error", "error": f"[ERROR] {error}", "log": ""}
    return result


class UnpackedOnce(zipfile.ZipFile):
    """A package that is unpacked once; the directory of each process links to its files."""

    def extractall(self, path: Any = None, *arguments: Any, **options: Any) -> None:
        assert self.filename is not None
        content = hashlib.sha256(Path(self.filename).read_bytes()).hexdigest()
        unpacked = Path(tempfile.gettempdir(), f"code-{content}")
        with unpacking:
            if not unpacked.exists():
                unfinished = unpacked.with_suffix(".unfinished")
                super().extractall(unfinished)
                unfinished.rename(unpacked)
        for entry in unpacked.iterdir():
            Path(path, entry.name).symlink_to(entry)


def log_and_print(
    log: Any, function: Any, request: str, text: str, *others: Any, **options: Any
) -> None:
    """Writes to CloudWatch Logs, and queues the lines, with the function's name, for printing."""
    with publishing:  # two at once could both create the log group, and one would lose its lines
        log(function, request, text, *others, **options)
        name = (function.get("config") or function)["FunctionName"]
        for line in text.splitlines():
            to_print.put(f"{name}: {readable(line)}")


def print_lines(output: TextIO) -> None:
    """Prints lines. While a terminal is paused, the lines wait here, so that functions need not.

    Lines that cannot be printed are dropped: the reader of a pipe may have ended.
    """
    while True:
        line = to_print.get()
        with suppress(OSError):
            print(line, file=output, flush=True)


async def handle_logs_alone(original: Any, *request: Any) -> Any:
    with publishing:  # blocks the event loop, but briefly
        return await original(*request)


def worker_script() -> str:
    """MiniStack's script for a function's process, extended by `function_process.py`."""
    script: str = lambda_runtime._PYTHON_WORKER_SCRIPT
    extension = Path(function_process.__file__).read_text()
    for old, new in (
        ("handler_fn(event, context)", "logged(handler_fn, event, context)"),
        ("    _ms_install_invoke_depth()", "    _ms_install_invoke_depth(); redirect_posts()"),
        ("\nrun()\n", f"\n{extension}\nhide_other_libraries()\nredirect_issuers()\nrun()\n"),
    ):
        assert script.count(old) == 1, old
        script = script.replace(old, new)
    return script


def log_of_invocation(worker: Any) -> str:
    """The lines printed until the log or the process ends."""
    lines: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while not lines or not lines[-1].endswith(END_OF_LOG):
        has_ended = not worker._stderr_thread.is_alive() or time.monotonic() > deadline
        try:
            lines.append(worker._stderr_queue.get(timeout=0.05))
        except queue.Empty:
            if has_ended:
                break
    return "\n".join(lines).removesuffix(END_OF_LOG).removesuffix("\n")


def readable(line: str) -> str:
    """A function's line of JSON in plain text, for a terminal; any other line unchanged."""
    try:
        fields = json.loads(line)
        for name in ("_aws", "timestamp"):
            fields.pop(name, None)
        shown = [str(fields.pop(name)) for name in ("level", "message")]
    except (ValueError, AttributeError, KeyError):
        return line
    traceback = fields.pop("exception", "")
    for name, value in fields.items():
        if value is not None:
            rounded = round(value, 3) if isinstance(value, float) else value
            shown.append(f"{name}={rounded}")
    return "\n".join(filter(None, [" ".join(shown), traceback]))
