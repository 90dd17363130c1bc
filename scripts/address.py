"""`make url`: prints the addresses of a chat and its web page, here or on AWS.

Several chats can run here, each on its own port; PORT in the environment chooses.
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlsplit

import boto3
import websocket
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from emulator.emulator import (
    DEFAULT_PORT,
    HOST,
    STACK,
    Emulator,
    outputs,
    variable,
    with_this_machine,
)
from scripts import Failure


class Output(io.FileIO):
    """Standard output; ends the program once nobody reads the output, as in `make url | head -1`.

    The default action for SIGPIPE would also end the program when a server closes a connection
    (Python's documentation of `signal`, "Note on SIGPIPE"). Any other error, such as a full disk,
    also ends it, with a message.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os._exit(1)
        except OSError as error:
            print(f"The output cannot be written: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(1)


def run(main: Callable[[], int | None]) -> None:
    """Runs a command for a person: without a proxy to this machine, and without a traceback for a
    known error, a closed stream, or a character outside the terminal's encoding."""
    os.environ["no_proxy"] = with_this_machine(os.environ)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # gets `number`, the lowest free descriptor
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(Output(1, "w", closefd=False)),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=sys.stdout.isatty(),
    )
    try:
        sys.exit(main())
    except NoRegionError:
        sys.exit("Which region? For example: export AWS_DEFAULT_REGION=eu-west-1")
    except NoCredentialsError:
        sys.exit("No credentials for AWS: run `aws configure`, or export AWS_PROFILE.")
    except (Failure, BotoCoreError, ClientError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


@dataclass(frozen=True)
class Chat:
    """A chat; of one named by `--url`, only the address is known."""

    url: str
    page: str | None = None
    emulator: Emulator | None = None  # None on AWS
    outputs: Mapping[str, str] = field(default_factory=dict)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(message)


def new_parser(description: str | None) -> Parser:
    """A parser with the options that `chat_of` reads."""
    parser = Parser(description=description)
    parser.add_argument("--stack", help="the chat of this stack")
    parser.add_argument("--url", type=web_socket, help="the chat at this address")
    return parser


def web_socket(text: str) -> str:
    if not text:
        return text  # as if not given
    with suppress(ValueError):
        found = urlsplit(text)
        if text.startswith(("ws://", "wss://")) and found.hostname and found.port != 0:
            found.hostname.encode("idna")
            return text
    raise argparse.ArgumentTypeError("must be the address of a chat, as in URL=wss://...")


def above_0(text: str) -> int:
    if re.fullmatch("0*[1-9][0-9]{0,8}", text):
        return int(text)
    raise argparse.ArgumentTypeError("must be a whole number above 0")


def chat_of(arguments: argparse.Namespace) -> Chat:
    """The chat that the arguments name; a Failure says how to get one."""
    if arguments.url:
        return Chat(arguments.url)
    emulator, stack = emulator_of(arguments.stack), arguments.stack or STACK
    outputs = outputs_of(arguments.stack, emulator)
    url = required("WebsocketConnectEndpointURL", outputs)
    if emulator:
        return Chat(emulator.url(stack), emulator.page_url(stack), emulator, outputs)
    return Chat(url, outputs.get("EndpointURL"), outputs=outputs)


def emulator_of(stack: str | None) -> Emulator | None:
    """The emulator with the stack; without a stack, the one that runs here. None for AWS.

    A stack is on the emulator that the environment names. If the environment names neither an
    emulator nor a region, the stack is on the emulator that runs here.
    """
    endpoint = re.fullmatch(rf"http://{HOST}:(\d+)/?", os.environ.get("AWS_ENDPOINT_URL", ""))
    if stack and endpoint:
        return Emulator(int(endpoint[1]))
    emulator = Emulator(port())
    if emulator.is_running():
        return None if stack and boto3.Session().region_name else emulator
    if stack:
        return None
    raise Failure(
        f"No chat runs here on port {emulator.port}: start it with "
        f"`make run{variable(emulator.port)}`, or name the stack of one on AWS, as in "
        f"STACK={STACK}."
    )


def outputs_of(stack: str | None, emulator: Emulator | None) -> dict[str, str]:
    """The outputs of a stack on the emulator, or in the account and region of the environment."""
    client = (emulator or boto3).client("cloudformation")
    try:
        return outputs(client, stack or STACK)
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
        raise Failure(no_stack(stack, emulator, client.meta.region_name)) from None


def no_stack(stack: str | None, emulator: Emulator | None, region: str) -> str:
    if emulator is None or stack:
        here = f" of the emulator on port {emulator.port}" if emulator else ""
        return (
            f"There is no stack {stack} in {region}{here}: deploy one with `make deploy`, or name "
            "another, as in STACK=Other."
        )
    if emulator.is_deploying():
        return f"The chat on port {emulator.port} is not deployed yet; retry in a moment."
    return (
        f"The chat on port {emulator.port} was deleted, or never deployed; "
        f"`make redeploy{variable(emulator.port)}` deploys it."
    )


def required(name: str, outputs: Mapping[str, str]) -> str:
    if not outputs:
        raise Failure(
            f"Name the stack, as in STACK={STACK}: an address tells neither the table nor the log."
        )
    if name not in outputs:
        status = outputs["StackStatus"]
        raise Failure(f"The stack is {status}, without {name}; retry once it is deployed.")
    return outputs[name]


def port() -> int:
    text = os.environ.get("PORT") or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise Failure(
            f"PORT is a number from 1 to 65535, not {text!r}, as in `make run PORT=4567`."
        )
    return int(text)


def refusal(error: Exception, hint: str = "") -> str:
    """Why there is no connection, in a few words; `hint` is added if people must sign in."""
    if not isinstance(error, websocket.WebSocketBadStatusException):
        return str(error)
    if error.status_code == 401:
        return f"people sign in to this chat, and you have not{hint}"
    return f"the server answered with status {error.status_code}"


def main() -> None:
    chat = chat_of(new_parser(__doc__).parse_args())
    print(*filter(None, [chat.page, chat.url]), sep="\n")


if __name__ == "__main__":
    run(main)
