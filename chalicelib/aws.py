"""AWS: the clients' configuration, the address for posts, an invocation's deadline."""

import math
import os
import ssl
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import boto3
from botocore.config import Config
from botocore.httpsession import get_cert_path

# boto3's own variable for the address of the `@connections` API. The template sets it on every
# function, since an event's domain name may be a custom domain, which does not accept posts.
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"

# A call takes at most 4 attempts of 4 s and 7 s of back-off. It fits, with room for the answer,
# into the 29 s that API Gateway waits for an integration.
CLIENT_CONFIG = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 4},
)

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)  # of time.monotonic()


def required(variable: str, purpose: str) -> str:
    """The value of an environment variable. Raises `RuntimeError` if it is missing or empty."""
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


def lambda_context(event: Any) -> Any:
    """Lambda's context for an event of Chalice: an HTTP request's `context` is API Gateway's."""
    return getattr(event, "lambda_context", event.context)


def tls_context(session: Any) -> ssl.SSLContext:
    """A context with the authorities that a boto3 session's clients trust; it checks host names.

    These come from AWS_CA_BUNDLE or `ca_bundle` of the configuration, REQUESTS_CA_BUNDLE, or
    botocore itself. Takes 20 ms of CPU. Raises `OSError` if the file cannot be read.
    """
    chosen = session._session.get_config_variable("ca_bundle")
    if chosen is None:
        chosen = os.environ.get("REQUESTS_CA_BUNDLE", True)
    return ssl.create_default_context(cafile=get_cert_path(chosen))


def keep_deadline(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Chalice middleware: record when Lambda will end the invocation."""
    seconds = lambda_context(event).get_remaining_time_in_millis() / 1000
    token = _deadline.set(time.monotonic() + seconds)
    try:
        return get_response(event)
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Seconds until Lambda ends the current invocation; infinite outside of one."""
    return _deadline.get() - time.monotonic()
