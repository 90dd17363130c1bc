"""AWS on this machine: MiniStack's life, and the app's deployment onto it.

The deployment is AWS's own: the same three commands, `chalice package`, `aws cloudformation
package` and `aws cloudformation deploy`, with another endpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from emulator.aws_cli import AwsCli
from emulator.processes import await_group, collect, kill_group, lock, locked, signals_held
from scripts.package import DEPLOYMENTS, packaging
from scripts.slim import slim

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
EMULATOR_PYTHON = ROOT / ".venv-emulator" / "bin" / "python"

HOST = "127.0.0.1"
REGION = "us-east-1"
BUCKET = "chalice-chat-local"
STACK = "ChaliceChat"
STAGE = "api"

SERVICES = (
    "s3,sts,iam,lambda,dynamodb,apigateway,apigatewayv2,cloudformation,logs,cloudwatch,sns,sqs,"
    "cognito-idp"
)
READY_WITHIN = 60.0  # seconds; it takes 1, and a laptop waking up takes its time
CLEARED_WITHIN = 3.0  # seconds, for one that was killed
GOODBYE_WITHIN = 0.7  # seconds


class Failure(Exception):
    """An error that the user can fix. Its message is one line: the fault and the remedy."""


def aws_environment(port: int) -> dict[str, str]:
    """The environment of a command that is to see the emulator and nothing of a real account.

    No AWS_ variable of the caller's remains, and no profile can be read. It has no credentials.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY"), os.environ.get("no_proxy"), HOST]))
    return inherited | {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def endpoint_of(port: int, api_id: str) -> str:
    """The address of an API, without its scheme: for its clients and for its functions."""
    return f"{HOST}:{port}/_aws/execute-api/{api_id}/{STAGE}"


class Emulator:
    """MiniStack on a port of this machine's own address.

    As a context manager it starts and stops it, with IAM enforced and nothing kept: leaving closes
    its connections, ends every process it started and removes `directory`, where all of its files
    are. Beside that is a file that it locks, so no other uses the directory meanwhile. Without that
    it is a way to reach one that is running, by the credentials in `exports`: every run has its own,
    in a file for shells that only its owner can read.

    `say` is told each step before it begins. `functions_output` gets the output of the functions.
    """

    def __init__(
        self,
        port: int,
        directory: Path,
        *,
        say: Callable[[str], None] = lambda step: None,
        functions_output: IO[str] | None = None,
    ) -> None:
        self.port = port
        self.directory = directory
        self.log = directory / "emulator.log"
        self.exports = directory / "environment"
        self._say = say
        self._functions_output = functions_output
        self._server: subprocess.Popen[bytes] | None = None
        self._lifeline: socket.socket | None = None  # to the server; closes when this process ends
        self._lock: int | None = None
        self._aws: AwsCli | None = None
        self._deployed_at = 0  # Unix time, in whole seconds

    def __enter__(self) -> Emulator:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def environment(self) -> dict[str, str]:
        """As `aws_environment`, with the credentials of the emulator that is running, if one is."""
        return aws_environment(self.port) | read_exports(self.exports)

    def is_running(self) -> bool:
        """Whether a MiniStack (not just anything) answers on the port, and was started here."""
        return self.exports.exists() and self._process_that_answers() is not None

    def require_alive(self) -> None:
        """Raises a Failure if the emulator that this started has ended by itself."""
        if self._server is None or self._server.poll() is not None:
            raise Failure("The emulator ended by itself; start it again.")

    def deploy(
        self, project: Path = ROOT, *, stack: str = STACK, parameters: Sequence[str] = ()
    ) -> str:
        """Packages the app as it is now, deploys it, and returns the address to connect to.

        Waits until no other process deploys.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        turn = self.directory / "turn"
        turn.touch()
        with locked(turn):
            self.deploy_template(self.package(project), stack=stack, parameters=parameters)
        return self.url(stack)

    def package(self, project: Path = ROOT) -> Path:
        """The app's template, with its code uploaded."""
        out = self.directory / "out"
        self._say("Packaging the app")
        with packaging(project) as command:
            self.run(*command, str(out), cwd=project)
            slim(out, project / DEPLOYMENTS)
        self._say("Uploading it")
        self.aws("s3", "mb", f"s3://{BUCKET}")
        template = out / "template.yml"
        self.aws(
            *("cloudformation", "package", "--template-file", str(out / "sam.json")),
            *("--s3-bucket", BUCKET, "--output-template-file", str(template)),
        )
        return template

    def deploy_template(
        self, template: Path, *, stack: str = STACK, parameters: Sequence[str] = ()
    ) -> None:
        """Creates the stack, or upgrades it; `parameters` are of the form `Name=value`."""
        self._say("Deploying the stack")
        overrides = ["--parameter-overrides", *parameters] if parameters else []
        while int(time.time()) <= self._deployed_at:
            time.sleep(0.05)  # the AWS CLI names a change set after the second
        try:
            self.aws(
                *("cloudformation", "deploy", "--template-file", str(template)),
                *("--stack-name", stack, "--capabilities", "CAPABILITY_IAM"),
                *("--no-fail-on-empty-changeset", *overrides),
            )
        finally:
            self._deployed_at = int(time.time())

    def delete(self, stack: str = STACK) -> None:
        """Deletes a stack, and returns once nothing of it is left."""
        self.aws("cloudformation", "delete-stack", "--stack-name", stack)
        self.aws("cloudformation", "wait", "stack-delete-complete", "--stack-name", stack)

    def url(self, stack: str = STACK) -> str:
        """The address of the deployed chat."""
        return f"ws://{endpoint_of(self.port, self._output(stack, 'WebsocketAPIId'))}"

    def page_url(self, stack: str = STACK) -> str | None:
        """The address of the web page; None if the stack has none."""
        api_id = self._output(stack, "RestAPIId")
        return f"http://{endpoint_of(self.port, api_id)}/" if api_id else None

    def aws(self, *command: str) -> str:
        """Runs a command of the AWS CLI and returns its output; prints that if it fails."""
        if self._server is not None:
            self.require_alive()
        self._aws = self._aws or self._new_aws()
        try:
            status, output, errors = self._aws.run(command)
        except BaseException:
            self._aws.stop()
            self._aws = None
            raise
        if status != 0:
            raise failure(("aws", *command[:2]), output, errors)
        return output

    def run(self, *command: str, cwd: Path = ROOT) -> str:
        """Runs a program of .venv and returns its output; prints that if it fails.

        It joins the process group of the emulator that this started, so that one kill ends both and
        all their children; without an emulator, it has a group of its own.
        """
        if self._server is not None:
            self.require_alive()
        temporary = self.directory / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        process = None
        try:
            with signals_held():
                process = subprocess.Popen(
                    [str(BIN / command[0]), *command[1:]],
                    cwd=cwd,
                    env=self.environment | {"TMPDIR": str(temporary)},  # removed with the rest
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    process_group=self._server.pid if self._server else 0,
                )
            output, errors = process.communicate()
        except BaseException:
            if process is not None:
                kill_group((self._server or process).pid)
                collect(process.pid)
            raise
        if process.returncode != 0:
            raise failure(command[:2], output, errors)
        return output

    def _output(self, stack: str, name: str) -> str:
        """An output of a stack; empty if there is none of this name."""
        return self.aws(
            *("cloudformation", "describe-stacks", "--stack-name", stack),
            *("--output", "text"),
            *("--query", f"Stacks[0].Outputs[?OutputKey=='{name}'].OutputValue"),
        ).strip()

    def _new_aws(self) -> AwsCli:
        return AwsCli(self.environment, process_group=self._server.pid if self._server else 0)

    def _start(self) -> None:
        if not EMULATOR_PYTHON.exists():
            raise Failure("The emulator is not installed; use `make run` or `make test`.")
        require_free_port(self.port)
        self._lock = self._lock_directory()
        shutil.rmtree(self.directory, ignore_errors=True)  # of one that was killed
        temporary = self.directory / "tmp"
        temporary.mkdir(parents=True)
        self._write_exports()
        self._say(f"Starting the AWS emulator on {HOST}:{self.port}")
        self._lifeline, servers_end = socket.socketpair()
        with self.log.open("w") as log_file, servers_end, signals_held():
            self._server = subprocess.Popen(
                [
                    EMULATOR_PYTHON,
                    "-m",
                    "emulator.server",
                    self.directory,
                    str(self._lock),
                ],
                cwd=ROOT,
                env=self._server_environment(temporary),
                stdin=servers_end.fileno(),
                stdout=self._functions_output or log_file,
                stderr=log_file,
                process_group=0,  # no session: processes of another one could not join it
                pass_fds=[self._lock],  # locked until its files are removed, even if this is killed
            )
        self._aws = self._new_aws()
        self._wait_until_ready()

    def _write_exports(self) -> None:
        variables = {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.port}",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        }
        with open(os.open(self.exports, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            print("unset AWS_PROFILE AWS_SESSION_TOKEN", file=file)
            for name, value in variables.items():
                print(f"export {name}={value}", file=file)

    def _lock_directory(self) -> int:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        file = self.directory.with_name(f"{self.directory.name}.lock")
        file.touch()
        locked = lock(file, CLEARED_WITHIN)
        if locked is None:
            raise Failure(
                f"Another `make run` is at work on port {self.port} here; stop it, or choose "
                f"another port, as in `make run PORT={other_port(self.port)}`."
            )
        return locked

    def _server_environment(self, temporary: Path) -> dict[str, str]:
        """Little of the caller's: the functions inherit this."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        aws = {name: value for name, value in self.environment.items() if name.startswith("AWS_")}
        return (
            kept
            | aws
            | {
                "GATEWAY_PORT": str(self.port),
                "BIND_HOST": HOST,
                "AUTH": "true",
                "SERVICES": SERVICES,
                "IOT_MTLS_ENABLED": "0",
                "LOG_LEVEL": "WARNING",
                "TMPDIR": str(temporary),
                "STATE_DIR": str(temporary / "state"),
            }
        )

    def _wait_until_ready(self) -> None:
        assert self._server is not None
        deadline = time.monotonic() + READY_WITHIN
        while self._process_that_answers() != str(self._server.pid):
            if self._server.poll() is not None or time.monotonic() > deadline:
                print(f"\n{self.log.read_text()}".rstrip(), file=sys.stderr)
                raise Failure("The emulator did not start, see above; `make clean` reinstalls it.")
            time.sleep(0.05)

    def _process_that_answers(self) -> str | None:
        """The id of the MiniStack on the port, which reports it as its edition."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://{HOST}:{self.port}/_ministack/health", timeout=2) as answer:
                return str(json.load(answer)["edition"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _stop(self) -> None:
        with signals_held():
            if self._server is not None:
                self._say_goodbye()
                kill_group(self._server.pid)  # it has nothing to save
            if self._aws is not None:
                self._aws.stop()
                self._aws = None
            if self._server is not None:
                await_group(self._server.pid)
                self._server = None
            if self._lock is not None:
                shutil.rmtree(self.directory, ignore_errors=True)
                os.close(self._lock)
                self._lock = None

    def _say_goodbye(self) -> None:
        """Lets the server close its connections, and waits until it has; not for long."""
        assert self._lifeline is not None
        with self._lifeline, contextlib.suppress(OSError):
            self._lifeline.settimeout(GOODBYE_WITHIN)
            self._lifeline.send(b"goodbye")
            self._lifeline.recv(1)


def read_exports(file: Path) -> dict[str, str]:
    """The variables that a file for shells sets; none if there is no such file."""
    try:
        return dict(re.findall(r"^export (\w+)=(.*)$", file.read_text(), re.MULTILINE))
    except FileNotFoundError:
        return {}


def failure(command: Sequence[str], output: str, errors: str) -> Failure:
    """Prints the output of a command."""
    print(f"\n{output}{errors}".rstrip(), file=sys.stderr)
    return Failure(f"`{' '.join(command)}` failed, see above; fix that and retry.")


def require_free_port(port: int) -> None:
    """Raises a Failure when something listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Failure(
                f"Port {port} cannot be used ({error.strerror}); choose another, as in "
                f"`make run PORT={other_port(port)}`."
            ) from None


def other_port(port: int) -> int:
    return port + 1 if port < 65535 else 4566
