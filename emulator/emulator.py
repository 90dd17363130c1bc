"""AWS on this machine: MiniStack's life, and the app's deployment onto it.

The deployment is AWS's own: the same three commands, `chalice package`, `aws cloudformation
package` and `aws cloudformation deploy`, with another endpoint.
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import boto3
from botocore.exceptions import ClientError

from emulator.processes import await_group, collect, kill_group, lock, locked, signals_held
from scripts.package import package

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
EMULATOR_PYTHON = ROOT / ".venv-emulator" / "bin" / "python"

HOST = "127.0.0.1"
REGION = "us-east-1"
DEFAULT_PORT = 4566
BUCKET = "chalice-chat-local"
STACK = "ChaliceChat"
STAGE = "api"

SERVICES = (
    "s3,sts,iam,lambda,dynamodb,apigateway,apigatewayv2,cloudformation,logs,cloudwatch,sns,sqs,"
    "cognito-idp"
)
READY_WITHIN = 60.0  # seconds; it takes 1, and a laptop waking up takes its time
CLEARED_WITHIN = 3.0  # seconds, for one that was killed
GOODBYE_WITHIN = 3.0  # seconds; half a second, but on a machine that stands still

# Of the caller's environment, a process of the local chat gets these. pip gets REGISTRY too.
KEPT = re.compile(r"PATH|HOME|LANG|LC_\w+|TERM|TMPDIR")
REGISTRY = re.compile(
    r"PIP_(\w*(INDEX_URL|FIND_LINKS|HOST|PROXY|CERT|CACHE_DIR|CONFIG_FILE|TIMEOUT|RETRIES))"
    r"|\w+_(proxy|PROXY)|SSL_CERT_\w+|(REQUESTS|CURL)_CA_BUNDLE"
)
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Failure(Exception):
    """An error that the user can fix. Its message is one line: the fault and the remedy."""


def aws_environment(port: int) -> dict[str, str]:
    """The environment of every process of the local chat, without the emulator's credentials.

    Only `KEPT` of it is the caller's: no setting of AWS or of Python, no proxy.
    """
    kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    return kept | {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "no_proxy": with_this_machine(os.environ),
    }


def with_this_machine(environment: Mapping[str, str]) -> str:
    """`no_proxy`, extended by this machine's own address."""
    others = environment.get("no_proxy") or environment.get("NO_PROXY")
    return ",".join(filter(None, [others, HOST]))


@contextmanager
def only(environment: Mapping[str, str]) -> Iterator[None]:
    """Gives this process another environment for as long as the block lasts."""
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def endpoint_of(port: int, api_id: str) -> str:
    """The address of an API, without its scheme: for its clients and for its functions."""
    return f"{HOST}:{port}/_aws/execute-api/{api_id}/{STAGE}"


class Emulator:
    """MiniStack on a port of this machine's own address.

    As a context manager it starts and stops it, with IAM enforced and nothing kept: leaving closes
    its connections, ends every process it started and removes `directory`, where all of its files
    are, which only their owner can read. Beside that is a file that it locks, so no other uses the
    directory meanwhile. Without that it is a way to reach one that is running, by the credentials
    in `exports`, a file for shells: every run has its own.

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
        self._lock: int | None = None
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
        """As `aws_environment`, with the credentials of the emulator that is running.

        They are the caller's if it was not started here.
        """
        own = {name: os.environ[name] for name in KEYS if name in os.environ}
        return aws_environment(self.port) | own | read_exports(self.exports)

    def client(self, service: str) -> Any:
        """A client of boto3, which no setting of the caller's misleads."""
        with only(self.environment):
            return boto3.Session().client(service)

    def is_deploying(self) -> bool:
        """Whether some process deploys onto it just now."""
        turn = self.directory / "turn"
        if not turn.exists():
            return False
        found = lock(turn, 0)
        if found is not None:
            os.close(found)
        return found is None

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
        self._make_directory()
        turn = self.directory / "turn"
        turn.touch()
        with locked(turn):
            self.deploy_template(self.package(project), stack=stack, parameters=parameters)
        return self.url(stack)

    def package(self, project: Path = ROOT) -> Path:
        """The app's template, with its code uploaded."""
        out = self.directory / "out"
        self._say("Packaging the app")
        package(project, out, lambda command, copy: self.run(*command, cwd=copy, needs=REGISTRY))
        self._say("Uploading it")
        self.client("s3").create_bucket(Bucket=BUCKET)
        template = out / "template.yml"
        self.run(
            *("aws", "cloudformation", "package", "--template-file", str(out / "sam.json")),
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
            self.run(
                *("aws", "cloudformation", "deploy", "--template-file", str(template)),
                *("--stack-name", stack, "--capabilities", "CAPABILITY_IAM"),
                *("--no-fail-on-empty-changeset", *overrides),
            )
        finally:
            self._deployed_at = int(time.time())

    def delete(self, stack: str = STACK) -> None:
        """Deletes a stack, and returns once nothing of it is left."""
        cloudformation = self.client("cloudformation")
        try:
            cloudformation.delete_stack(StackName=stack)
        except ClientError as error:
            raise failure(("aws", "cloudformation", "delete-stack"), "", str(error)) from None
        cloudformation.get_waiter("stack_delete_complete").wait(
            StackName=stack, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
        )

    def url(self, stack: str = STACK) -> str:
        """The address of the deployed chat."""
        return f"ws://{endpoint_of(self.port, self._output(stack, 'WebsocketAPIId'))}"

    def page_url(self, stack: str = STACK) -> str | None:
        """The address of the web page; None if the stack has none."""
        api_id = self._output(stack, "RestAPIId")
        return f"http://{endpoint_of(self.port, api_id)}/" if api_id else None

    def run(self, *command: str, cwd: Path = ROOT, needs: re.Pattern[str] | None = None) -> str:
        """Runs a program of .venv and returns its output; prints that if it fails.

        `needs` are names of the caller's variables that it gets too. It joins the process group of the emulator that this started, so that one kill ends both and
        all their children; without an emulator, it has a group of its own.
        """
        if self._server is not None:
            self.require_alive()
        temporary = self._make_directory()
        needed = {
            name: value for name, value in os.environ.items() if needs and needs.fullmatch(name)
        }
        process = None
        try:
            with signals_held():
                process = subprocess.Popen(
                    [str(BIN / command[0]), *command[1:]],
                    cwd=cwd,
                    env=needed
                    | self.environment
                    | {"TMPDIR": str(temporary)},  # removed with the rest
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
        try:
            (found,) = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        except ClientError as error:
            raise Failure(str(error)) from None
        outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
        return str(outputs.get(name, ""))

    def _make_directory(self) -> Path:
        """Makes the directory, if it is not there, and returns the one in it for others' files."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        return temporary

    def _start(self) -> None:
        if not EMULATOR_PYTHON.exists():
            raise Failure("The emulator is not installed; use `make run` or `make test`.")
        if self.is_running():
            port = f" PORT={self.port}" if self.port != DEFAULT_PORT else ""
            raise Failure(
                f"This clone's chat runs on port {self.port} already: `make chat{port}` connects, "
                f"`make redeploy{port}` deploys a change, and "
                f"`make run PORT={other_port(self.port)}` starts another."
            )
        require_free_port(self.port)
        self._lock = self._lock_directory()
        shutil.rmtree(self.directory, ignore_errors=True)  # of one that was killed
        temporary = self._make_directory()
        self._write_exports()
        self._say(f"Starting the AWS emulator on {HOST}:{self.port}")
        with self.log.open("w") as log_file, signals_held():
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
                stdin=subprocess.PIPE,  # ends when this process does
                stdout=self._functions_output or log_file,
                stderr=log_file,
                process_group=0,  # no session: processes of another one could not join it
                pass_fds=[self._lock],  # locked until its files are removed, even if this is killed
            )
        self._wait_until_ready()

    def _write_exports(self) -> None:
        secret = dict(zip(KEYS, (secrets.token_hex(10), secrets.token_hex(20)), strict=True))
        aws = aws_environment(self.port) | secret
        with open(os.open(self.exports, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            print(
                "unset AWS_PROFILE $(env | sed -n 's/^\\(AWS_[A-Za-z0-9_]*\\)=.*/\\1/p')", file=file
            )
            for name, value in aws.items():
                if name.startswith("AWS_"):
                    print(f"export {name}={value}", file=file)
            print(f'export no_proxy="${{no_proxy:+$no_proxy,}}{HOST}"', file=file)

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
        """The functions inherit this."""
        return self.environment | {
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": HOST,
            "AUTH": "true",
            "SERVICES": SERVICES,
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(temporary),
            "STATE_DIR": str(temporary / "state"),
        }

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
                assert self._server.stdin is not None
                self._server.stdin.close()  # so it closes its connections
                deadline = time.monotonic() + GOODBYE_WITHIN
                while self._server.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                kill_group(self._server.pid)  # it has nothing to save
                await_group(self._server.pid)
                self._server = None
            if self._lock is not None:
                shutil.rmtree(self.directory, ignore_errors=True)
                os.close(self._lock)
                self._lock = None


def read_exports(file: Path) -> dict[str, str]:
    """The variables that a file for shells sets; none if there is no such file."""
    try:
        return dict(re.findall(r"^export (AWS_\w+)=(.*)$", file.read_text(), re.MULTILINE))
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
