"""AWS: the session and its clients, the address for posts, an invocation's deadline."""

import math
import os
import ssl
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import botocore
from boto3.session import Session
from botocore.config import Config
from botocore.session import get_session

# boto3's own variable for the address of the `@connections` API. The template sets it on every
# function, since an event's domain name may be a custom domain, which does not accept posts.
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)  # of time.monotonic()


def new_session() -> Session:
    """boto3's session. A call of its clients gives up in time for a frame to be answered.

    A call makes at most 4 attempts of 4 s, and backs off for at most 7 s in all. So it fits into
    the 29 s that API Gateway waits for an integration.
    """
    session = get_session()
    session.set_default_client_config(
        Config(
            connect_timeout=1,
            read_timeout=3,
            retries={"mode": "standard", "total_max_attempts": 4},
        )
    )
    return Session(botocore_session=session)


def required(variable: str, purpose: str) -> str:
    """The value of an environment variable. Raises `RuntimeError` if it is missing or empty."""
    value = os.environ.get(variable)
    if not value:
        raise RuntimeError(
            f"The environment variable {variable} is not set. It names {purpose}. In "
            "resources.json, set it on each function that needs it; elsewhere, set it yourself."
        )
    return value


def is_starting_for_the_chat() -> bool:
    """Whether Lambda starts a function that uses the table. It gives a whole CPU meanwhile."""
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ and bool(os.environ.get("TABLE"))


def posts_endpoint() -> str:
    return required(ENDPOINT_VARIABLE, "the address of the API's stage")


def lambda_context(event: Any) -> Any:
    """Lambda's context for an event of Chalice, or anything else that a test gives as one.

    An HTTP request has it as `lambda_context`, since its `context` is API Gateway's.
    """
    return getattr(event, "lambda_context", getattr(event, "context", None))


def tls_context() -> ssl.SSLContext:
    """A context for AWS's servers, which checks host names.

    It trusts the authorities in the file that AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE names. If neither
    is set, it trusts those that come with botocore. Raises `OSError` if the file cannot be read.
    """
    chosen = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    file = chosen or str(Path(botocore.__file__).with_name("cacert.pem"))
    return ssl.create_default_context(cafile=file)


def keep_deadline(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Chalice middleware: record when Lambda will end the invocation.

    Without Lambda's context, as in a unit test, there is no deadline.
    """
    milliseconds = getattr(lambda_context(event), "get_remaining_time_in_millis", lambda: math.inf)
    token = _deadline.set(time.monotonic() + milliseconds() / 1000)
    try:
        return get_response(event)
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Seconds until Lambda ends the current invocation; infinite outside of one."""
    return _deadline.get() - time.monotonic()
