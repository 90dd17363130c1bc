"""`make url`: prints the addresses of a chat and its web page, here or on AWS.

Several can run here, one on each port; PORT in the environment chooses.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from emulator.emulator import HOST, ROOT, STACK, Emulator, Failure, endpoint_of

DEFAULT_PORT = 4566
ADDRESS = "WebsocketConnectEndpointURL"
PAGE = "EndpointURL"


class NoOutput(Failure):
    """The stack has no such output."""


def address(arguments: argparse.Namespace) -> str:
    """The address of the chat that the arguments name; a Failure says how to get one."""
    if arguments.url:
        return str(arguments.url)
    if arguments.stack:
        return address_of(arguments.stack, ADDRESS, "ws://{}", "WebsocketAPIId")
    return address_here(port())


def page_address(arguments: argparse.Namespace) -> str | None:
    """The address of that chat's web page; None if it has none, or was named by its address."""
    if arguments.url:
        return None
    with suppress(NoOutput):
        return address_of(arguments.stack or STACK, PAGE, "http://{}/", "RestAPIId")
    return None


def address_of(stack: str, output: str, form: str, api: str) -> str:
    """The address that a stack's output has on AWS, or that its API has on the emulator."""
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    if endpoint.hostname != HOST or not endpoint.port:
        return output_of(stack, output)
    return form.format(endpoint_of(endpoint.port, output_of(stack, api)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stack", help="the chat of this stack on AWS")
    parser.add_argument("--url", help="the chat at this address")


def address_here(port: int) -> str:
    emulator = Emulator(port, directory_of(port))
    if not emulator.is_running():
        raise Failure(
            f"No chat runs here on port {port}: start it with `make run{variable(port)}`, or name "
            f"the stack of one on AWS, as in STACK={STACK}."
        )
    aws = {name: value for name, value in emulator.environment.items() if name.startswith("AWS_")}
    os.environ.update(aws)
    try:
        return address_of(STACK, ADDRESS, "ws://{}", "WebsocketAPIId")
    except Failure:
        raise Failure(f"The chat on port {port} is not deployed yet; retry in a moment.") from None


def output_of(stack: str, name: str) -> str:
    """An output of a stack in the account and region of the environment."""
    try:
        client = boto3.client("cloudformation")
        found = client.describe_stacks(StackName=stack)["Stacks"][0]
    except NoRegionError:
        raise Failure("Which region? For example: export AWS_DEFAULT_REGION=eu-west-1") from None
    except NoCredentialsError:
        raise Failure(
            "No credentials for AWS: run `aws configure`, or export AWS_PROFILE."
        ) from None
    except ClientError as error:
        if "does not exist" not in str(error):
            raise Failure(str(error)) from None
        region = client.meta.region_name
        raise Failure(
            f"There is no stack {stack} in {region}: deploy one with `make deploy`, or name another, "
            "as in STACK=Other."
        ) from None
    except BotoCoreError as error:
        raise Failure(str(error)) from None
    outputs: list[dict[str, Any]] = found.get("Outputs", [])
    for output in outputs:
        if output["OutputKey"] == name:
            return str(output["OutputValue"])
    raise NoOutput(f"The stack {stack} is {found['StackStatus']}, and has no output {name}.")


def port() -> int:
    text = os.environ.get("PORT") or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise Failure(
            f"PORT is a number from 1 to 65535, not {text!r}, as in `make run PORT=4567`."
        )
    return int(text)


def directory_of(port: int) -> Path:
    """The directory with the files of the emulator on a port."""
    return ROOT / ".local" / str(port)


def variable(port: int) -> str:
    """The end of a `make` command that is for this port."""
    return f" PORT={port}" if port != DEFAULT_PORT else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--output", help="print this output of the stack instead")
    arguments = parser.parse_args()
    try:
        if arguments.output:
            print(output_of(arguments.stack, arguments.output))
        else:
            chat = address(arguments)
            print(*filter(None, [page_address(arguments), chat]), sep="\n")
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
