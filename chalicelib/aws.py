"""AWS itself: the clients' configuration, the address of the posts, an invocation's deadline."""

import math
import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import boto3
from botocore.config import Config

# boto3's own variable for the address of the `@connections` API. The template sets it on every
# function: an event's domain name is that of a custom domain, where posts are not accepted.
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"

# One call may take 4 attempts of 4 s and 7 s of back-off: it fits, with room for the answer,
# into the 29 s that API Gateway waits for an integration.
CLIENT_CONFIG = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 4},
)

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)  # of time.monotonic()


def required(variable: str, purpose: str) -> str:
    """An environment variable. Raises `RuntimeError` if it is missing or empty."""
    value = os.environ.get(variable)
    if not value:
        raise RuntimeError(
            f"The environment variable {variable} is not set. It names {purpose}: "
            "resources.json sets it on every function; elsewhere, set it yourself."
        )
    return value


def open_table() -> Any:
    """The boto3 `Table` that the environment variable TABLE names; no request is made."""
    name = required("TABLE", "the DynamoDB table")
    return boto3.resource("dynamodb", config=CLIENT_CONFIG).Table(name)


def posts_endpoint() -> str:
    return required(ENDPOINT_VARIABLE, "the address of the API's stage")


def keep_deadline(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Chalice middleware: note when Lambda will end the invocation."""
    seconds = event.context.get_remaining_time_in_millis() / 1000
    token = _deadline.set(time.monotonic() + seconds)
    try:
        return get_response(event)
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Until Lambda ends the invocation under way; infinite outside of one."""
    return _deadline.get() - time.monotonic()
