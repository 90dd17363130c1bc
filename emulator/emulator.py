"""AWS on this machine: starts and stops MiniStack, and deploys the app onto it.

The app is deployed as on AWS, by the same three commands: `chalice package`, `aws cloudformation
package` and `aws cloudformation deploy`, with another endpoint.
"""

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
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, Self

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from emulator.processes import clear_up, is_locked, locked
from scripts import Failure
from scripts.package import NO_ACCOUNT, package

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
EMULATOR_PYTHON = ROOT / ".venv-emulator" / "bin" / "python"

HOST = "127.0.0.1"
REGION = NO_ACCOUNT["AWS_DEFAULT_REGION"]
DEFAULT_PORT = 4566
BUCKET = "chalice-chat-local"
STACK = "ChaliceChat"
STAGE = "api"

SERVICES = (
    "s3,sts,iam,lambda,dynamodb,apigateway,apigatewayv2,cloudformation,logs,cloudwatch,sns,sqs,"
    "cognito-idp"
)
READY_WITHIN = 60.0  # seconds; usually it takes 1, but a laptop that wakes up is slow
CLEARED_WITHIN = 3.0  # seconds, to clear up after an emulator that was killed
GOODBYE_WITHIN = 3.0  # seconds; half a second is enough, unless the machine stalls

# Of the caller's environment, a process of the local chat gets these. Commands get NETWORK too.
KEPT = re.compile(r"PATH|HOME|LANG|LC_\w+|TERM|TMPDIR")
NETWORK = re.compile(r"\w+_(proxy|PROXY)|SSL_CERT_\w+|(REQUESTS|CURL)_CA_BUNDLE")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def aws_environment(port: int) -> dict[str, str]:
    """The environment of every process of the local chat, without the emulator's credentials.

    Of the caller's, it has only `KEPT`: no setting of AWS or of Python, no proxy.
    """
    return {
        **of_the_caller(KEPT),
        **NO_ACCOUNT,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_PAGER": "",
        "no_proxy": with_this_machine(os.environ),
    }


def of_the_caller(names: re.Pattern[str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if names.fullmatch(name)}


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

    Use `with` to start and stop one, with IAM enforced and nothing kept. Otherwise this talks to
    one that is running. All files are in `directory`, by default in `.local`, which only their
    owner can read. The credentials, which are new in each run, are in `exports`, a file for shells.

    `say` is called with each step before it begins. `functions_output` gets the output of the
    functions.
    """

    def __init__(
        self,
        port: int,
        directory: Path | None = None,
        *,
        say: Callable[[str], None] = lambda step: None,
        functions_output: IO[str] | None = None,
    ) -> None:
        self.port = port
        self.directory = directory or directory_of(port)
        self.log = self.directory / "emulator.log"
        self._temporary = self.directory / "tmp"
        self.exports = self.directory / "environment"
        self._lock = self.directory.with_name(f"{self.directory.name}.lock")
        self._say = say
        self._functions_output = functions_output
        self._server: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def __enter__(self) -> Self:
        """Locks the directory and starts MiniStack; `wait_until_ready` waits for it.

        MiniStack ends, with all processes that it or `run` has started, when the pipe to it closes:
        at the end of the block, or when this process ends, even by SIGKILL. Then the directory is
        removed and unlocked.
        """
        self._require_place()
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        self._lock.touch()
        with ExitStack() as stack:
            try:
                lock = stack.enter_context(locked(self._lock, CLEARED_WITHIN))
            except BlockingIOError:
                raise Failure(
                    f"Another `make run` is at work on port {self.port} here; stop it, or choose "
                    f"another port, as in {elsewhere(self.port)}."
                ) from None
            shutil.rmtree(self.directory, ignore_errors=True)  # of an emulator that was killed
            self._server = self._start(lock)
            stack.callback(self._stop, self._server, lock)
            self._started = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    @property
    def environment(self) -> dict[str, str]:
        """As `aws_environment`, with the credentials of the emulator that is running.

        The credentials are the caller's if the emulator was not started here.
        """
        own = {name: os.environ[name] for name in KEYS if name in os.environ}
        return aws_environment(self.port) | own | read_exports(self.exports)

    def client(self, service: str) -> Any:
        """A client of boto3, which no setting of the caller's misleads."""
        self.wait_until_ready()
        with only(self.environment):
            return self._session.client(service)

    @cached_property
    def _session(self) -> boto3.Session:
        """One for all clients, because a session takes long to read the services' descriptions."""
        return boto3.Session()

    def is_deploying(self) -> bool:
        """Whether a process is deploying onto this emulator."""
        return is_locked(self.directory)

    def is_running(self) -> bool:
        """Whether a MiniStack answers on the port, and this clone has started one."""
        return is_locked(self._lock) and self._process_that_answers() is not None

    def wait_until_ready(self) -> None:
        """Waits until the emulator that this object started answers, if it started one."""
        if self._server is None or self._is_ready:
            return
        deadline = time.monotonic() + READY_WITHIN
        while self._process_that_answers() != str(self._server.pid):
            if self._server.poll() is not None or time.monotonic() > deadline:
                print(self.log.read_text().rstrip(), file=sys.stderr)
                raise Failure("The emulator did not start, see above; `make clean` reinstalls it.")
            time.sleep(0.05)
        self._is_ready = True

    def require_alive(self) -> None:
        """Raises a Failure if the emulator that this object started has ended or lost its files."""
        if self._server is not None and self._server.poll() is not None:
            raise Failure("The emulator ended by itself; start it again.")
        if self._server is not None and not self.exports.exists():
            raise Failure("The emulator's files were removed; start it again.")

    def deploy(
        self, project: Path = ROOT, *, stack: str = STACK, parameters: Sequence[str] = ()
    ) -> str:
        """Packages the app as it is now, deploys it, and returns the address to connect to.

        Waits until no other process deploys.
        """
        with locked(self.directory):
            self.deploy_template(self.package(project), stack=stack, parameters=parameters)
        return self.url(stack)

    def package(self, project: Path = ROOT) -> Path:
        """The app's template, with its code uploaded."""
        out = self.directory / "out"
        self._say("Packaging the app")
        package(project, out, self.run)
        self._say("Uploading it")
        self.client("s3").create_bucket(Bucket=BUCKET)
        template = out / "template.yml"
        self.run(
            [
                *("aws", "cloudformation", "package", "--template-file", str(out / "sam.json")),
                *("--s3-bucket", BUCKET, "--output-template-file", str(template)),
            ]
        )
        return template

    def deploy_template(
        self, template: Path, *, stack: str = STACK, parameters: Sequence[str] = ()
    ) -> None:
        """Creates the stack, or upgrades it; `parameters` are of the form `Name=value`."""
        self._say("Deploying the stack")
        overrides = ["--parameter-overrides", *parameters] if parameters else []
        command = [
            *("aws", "cloudformation", "deploy", "--template-file", str(template)),
            *("--stack-name", stack, "--capabilities", "CAPABILITY_IAM"),
            *("--no-fail-on-empty-changeset", *overrides),
        ]
        with explained(self.client("cloudformation"), stack):
            self.run(command)

    def url(self, stack: str = STACK) -> str:
        """The address of the deployed chat."""
        api = outputs(self.client("cloudformation"), stack)["WebsocketAPIId"]
        return f"ws://{endpoint_of(self.port, api)}"

    def page_url(self, stack: str = STACK) -> str | None:
        """The address of the web page; None if the stack has none."""
        api = outputs(self.client("cloudformation"), stack).get("RestAPIId")
        return f"http://{endpoint_of(self.port, api)}/" if api else None

    def run(
        self, command: Sequence[str], cwd: Path = ROOT, variables: Mapping[str, str] | None = None
    ) -> None:
        """Runs a program of .venv; if that fails, raises a Failure with its output.

        The program joins the process group of the emulator that this object started, and so ends
        with it.
        """
        self.require_alive()
        own = {**(variables or {}), "TMPDIR": str(self._temporary)}
        done = subprocess.run(
            [BIN / command[0], *command[1:]],
            cwd=cwd,
            env=of_the_caller(NETWORK) | self.environment | own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            process_group=self._server.pid if self._server else None,
        )
        if done.returncode != 0:
            printed = f"{done.stdout}{done.stderr}".replace(f"{cwd}/", "").strip()
            failed = f"`{' '.join(command[:2])}` failed, see above; fix that and retry."
            raise Failure("\n".join(filter(None, [printed, failed])))

    def _require_place(self) -> None:
        """Raises a Failure if the emulator is not installed, or the port is taken."""
        if not EMULATOR_PYTHON.exists():
            raise Failure("The emulator is not installed; use `make run` or `make test`.")
        if self.is_running():
            port = variable(self.port)
            raise Failure(
                f"This clone's chat runs on port {self.port} already: `make chat{port}` connects, "
                f"`make redeploy{port}` deploys a change, and {elsewhere(self.port)} starts "
                "another."
            )
        try:
            socket.create_server((HOST, self.port)).close()
        except OSError as error:
            raise Failure(
                f"Port {self.port} cannot be used ({os.strerror(error.errno or 0)}); choose "
                f"another, as in {elsewhere(self.port)}."
            ) from None

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        self._say(f"Starting the AWS emulator on {HOST}:{self.port}")
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._temporary.mkdir(exist_ok=True)
        self._write_exports()
        settings = {  # the functions inherit them
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": HOST,
            "AUTH": "true",
            "SERVICES": SERVICES,
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(self._temporary),
            "STATE_DIR": str(self._temporary / "state"),
        }
        with self.log.open("w") as log_file:
            return subprocess.Popen(
                [EMULATOR_PYTHON, "-m", "emulator.server", self.directory, str(lock)],
                cwd=ROOT,
                env=self.environment | settings,
                stdin=subprocess.PIPE,  # closes when this process ends
                stdout=self._functions_output or log_file,
                stderr=log_file,
                process_group=0,  # no session of its own: processes of `run` could not join it
                pass_fds=[lock],
            )

    def _write_exports(self) -> None:
        secret = dict(zip(KEYS, (secrets.token_hex(10), secrets.token_hex(20)), strict=True))
        aws = aws_environment(self.port) | secret
        lines = [
            "unset AWS_PROFILE $(env | sed -n 's/^\\(AWS_[A-Za-z0-9_]*\\)=.*/\\1/p')",
            *(f"export {name}={value}" for name, value in aws.items() if name.startswith("AWS_")),
            'no_proxy="${no_proxy:-${NO_PROXY:-}}"',
            f'export no_proxy="${{no_proxy:+$no_proxy,}}{HOST}"',
            'export NO_PROXY="$no_proxy"\n',
        ]
        self.exports.touch(mode=0o600, exist_ok=False)
        self.exports.write_text("\n".join(lines))

    def _process_that_answers(self) -> str | None:
        """The id of the MiniStack on the port, which reports it as its edition."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://{HOST}:{self.port}/_ministack/health", timeout=2) as answer:
                return str(json.load(answer)["edition"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _stop(self, server: subprocess.Popen[bytes], lock: int) -> None:
        self._server = None
        assert server.stdin is not None
        server.stdin.close()  # so it closes its connections, and ends
        with suppress(subprocess.TimeoutExpired):
            server.wait(GOODBYE_WITHIN)
        clear_up(server.pid, self.directory, lock).wait()


def outputs(cloudformation: Any, stack: str) -> dict[str, str]:
    """The outputs of a stack, and its status as `StackStatus`; raises ClientError without it."""
    (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    listed = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
    return listed | {"StackStatus": found["StackStatus"]}


def events(cloudformation: Any, stack: str) -> Iterator[dict[str, Any]]:
    """The events of a stack, newest first; none if it does not exist, or AWS does not answer."""
    with suppress(BotoCoreError, ClientError):
        pages = cloudformation.get_paginator("describe_stack_events")
        for page in pages.paginate(StackName=stack):
            yield from page["StackEvents"]


@contextmanager
def explained(cloudformation: Any, stack: str) -> Iterator[None]:
    """Replaces a deployment's Failure with the first reason that CloudFormation gives."""
    last = next(events(cloudformation, stack), {}).get("EventId")
    try:
        yield
    except Failure:
        new = takewhile(lambda event: event["EventId"] != last, events(cloudformation, stack))
        # Deleting an export that is in use fails no resource; the rollback has the reason.
        ends = ("_FAILED", "ROLLBACK_IN_PROGRESS")
        failed = [event for event in new if event["ResourceStatus"].endswith(ends)]
        if not failed:
            raise
        first = failed[-1]  # the others are its consequences
        reason = first.get("ResourceStatusReason")
        raise Failure(f"{first['LogicalResourceId']}: {reason}") from None


def read_exports(file: Path) -> dict[str, str]:
    """The variables that a file for shells sets; none if there is no such file."""
    try:
        return dict(re.findall(r"^export (AWS_\w+)=(.*)$", file.read_text(), re.MULTILINE))
    except FileNotFoundError:
        return {}


def directory_of(port: int) -> Path:
    """The directory with the files of the emulator that `make run` starts on a port."""
    return ROOT / ".local" / str(port)


def variable(port: int) -> str:
    """The end of a `make` command that is for this port."""
    return f" PORT={port}" if port != DEFAULT_PORT else ""


def elsewhere(port: int) -> str:
    return f"`make run PORT={port + 1 if port < 65535 else DEFAULT_PORT}`"
