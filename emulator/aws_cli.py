"""The AWS CLI as one process for many commands, since it takes a second to start.

It reads a command's arguments as a line of JSON, and answers with a line of JSON: the exit status,
the output and the errors.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from emulator.processes import collect, signals_held

ROOT = Path(__file__).resolve().parent.parent


class AwsCli:
    """Runs commands of the AWS CLI, with one environment, in one process of a process group.

    The process ends with the one that started it.
    """

    def __init__(self, environment: Mapping[str, str], process_group: int) -> None:
        with signals_held():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "emulator.aws_cli"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=process_group,
            )

    def run(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """The exit status, the output and the errors of a command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(arguments).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            return 1, "", "The AWS CLI ended by itself.\n"
        status, output, errors = json.loads(answer)
        return status, output, errors

    def stop(self) -> None:
        """Ends the process, and the command that it runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        collect(self._process.pid)


def serve() -> None:
    from awscli.clidriver import create_clidriver

    models = create_clidriver().session.get_component("data_loader")  # keeps what it has read
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        output, errors = text_file(), text_file()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                driver = create_clidriver()
                driver.session.register_component("data_loader", models)
                status = driver.main(json.loads(line))
            except SystemExit as end:
                status = end.code
        print(json.dumps([status, text_of(output), text_of(errors)]), file=answers, flush=True)


def text_file() -> io.TextIOWrapper:
    """Has a `buffer`, as standard output has."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def text_of(file: io.TextIOWrapper) -> str:
    file.seek(0)
    return file.read()


if __name__ == "__main__":
    serve()
