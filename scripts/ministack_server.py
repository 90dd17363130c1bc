"""Runs MiniStack, with what it lacks for a WebSocket API; lives in .venv-emulator.

Started by `emulator.py` with the directory of its files as an argument, so that `ps` tells one
emulator from another. This differs from the plain `ministack` command:

- MiniStack drops what a function prints when a WebSocket invoked it. Here it goes to CloudWatch
  Logs, as on AWS, and to standard output, one line each, with the function's name before it.
- MiniStack gives all WebSocket messages of a function to one process, one after another. Here
  each concurrent invocation gets an environment of its own, as on AWS.
- MiniStack takes what a function printed within some milliseconds of its answer; a line that came
  later belonged to the next invocation, or to none. Here the function's process marks the end.
- It ends, with its functions and files, when its standard input closes: when whoever started it dies.

All but the last reach into MiniStack's inside, which its exact version in
requirements-emulator.txt makes safe.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ministack import app
from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from scripts import function_process
from scripts.function_process import END_OF_LOG

PATIENCE = 5.0  # seconds for the end of a log; a function that was killed may have left processes


class Environments:
    """Stands for the one worker that the WebSocket code asks for, and invokes a free one."""

    def __init__(self, name: str, config: dict[str, Any], code: bytes, qualifier: str = "$LATEST"):
        self._name, self._config, self._code, self._qualifier = name, config, code, qualifier

    def invoke(self, event: dict[str, Any], request_id: str) -> dict[str, Any]:
        worker, _ = lambda_runtime.acquire_worker(
            self._name, self._config, self._code, qualifier=self._qualifier
        )
        started = time.monotonic()
        try:
            result: dict[str, Any] = worker.invoke(event, request_id)
        except RuntimeError as error:  # it did not even start; AWS logs that as well
            result = {"status": "error", "error": str(error)}
        finally:
            lambda_runtime.release_worker(worker)
        self._publish(result, request_id, int((time.monotonic() - started) * 1000))
        return result

    def _publish(self, result: dict[str, Any], request_id: str, milliseconds: int) -> None:
        failed = result["status"] == "error"
        text = result.get("log") or ""
        if failed:
            text = (
                f"{text}\n[ERROR] {request_id} {result.get('trace') or result.get('error')}".strip()
            )
        lambda_svc._emit_lambda_logs(
            {"config": self._config}, request_id, text, failed, milliseconds
        )
        for line in text.splitlines():
            print(f"{self._name}: {readable(line)}", file=FUNCTIONS_OUTPUT, flush=True)


def worker_script() -> str:
    """MiniStack's script for a function's process, with `function_process.py` in it."""
    script: str = lambda_runtime._PYTHON_WORKER_SCRIPT
    for old, new in (
        ("handler_fn(event, context)", "logged(handler_fn, event, context)"),
        ("\nrun()\n", f"\n{Path(function_process.__file__).read_text()}\nrun()\n"),
    ):
        assert script.count(old) == 1, old
        script = script.replace(old, new)
    return script


def read_log(worker: Any) -> None:
    """Queues the lines of a worker's process, and None for each end of a log."""
    lines = worker._stderr_queue
    try:
        for line in worker._proc.stderr:
            text, end, _ = line.rstrip("\n").partition(END_OF_LOG)
            if text or not end:
                lines.put(text)
            if end:
                lines.put(None)
    finally:
        lines.put(None)


def log_of_invocation(worker: Any) -> str:
    """All that was printed until the end of the log, or of the process."""
    lines: list[str] = []
    deadline = time.monotonic() + PATIENCE
    with suppress(queue.Empty):
        while True:
            line = worker._stderr_queue.get(timeout=max(0.0, deadline - time.monotonic()))
            if line is None:
                break
            lines.append(line)
    return "\n".join(lines)


def patch() -> None:
    lambda_runtime.get_or_create_worker = Environments
    lambda_runtime._PYTHON_WORKER_SCRIPT = worker_script()
    lambda_runtime.Worker._read_stderr = read_log
    lambda_runtime.Worker._drain_stderr = log_of_invocation
    lambda_runtime.Worker._drain_stderr_bounded = log_of_invocation


def readable(line: str) -> str:
    """A function's line of JSON as a person at a terminal wants it; any other as it is."""
    try:
        fields = json.loads(line)
        fields.pop("_aws", None)
        shown = [str(fields.pop(name)) for name in ("level", "message")]
    except (ValueError, AttributeError, KeyError):
        return line
    traceback = fields.pop("exception", "")
    shown += [f"{name}={value}" for name, value in fields.items() if value is not None]
    return "\n".join(filter(None, [" ".join(shown), traceback]))


# Waits 2 s at most: where nobody collects the dead, their group never becomes empty.
CLEAR_UP = """
kill -s KILL -- "-$1"
for _ in $(seq 20); do kill -s 0 -- "-$1" 2>/dev/null || break; sleep 0.1; done
rm -rf -- "$2"
"""


def stop_with_parent(directory: str) -> None:
    """Waits until the other end of standard input is gone, then ends this whole process group.

    A process outside of the group removes the directory, once nobody is left to write to it.
    """
    sys.stdin.buffer.read()
    command = ["/bin/sh", "-c", CLEAR_UP, "sh", str(os.getpgrp()), directory]
    subprocess.Popen(command, start_new_session=True)


def be_in_the_background() -> None:
    """Undoes what `emulator.py` held while it started this; and may write to any terminal."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


if __name__ == "__main__":
    be_in_the_background()
    # Standard output belongs to the functions; MiniStack's own lines go with its errors.
    FUNCTIONS_OUTPUT = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    threading.Thread(target=stop_with_parent, args=sys.argv[1:], daemon=True).start()
    patch()
    sys.argv = ["ministack"]
    app.main()
