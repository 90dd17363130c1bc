"""AWS: the session and its clients, the address for posts, an invocation's deadline.

botocore is imported at its first use, so functions that need no AWS service start without it.
"""

import gc
import math
import os
import ssl
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Any

from chalicelib.table import Table

# boto3's own variable for the address of the `@connections` API. The template sets it on every
# function, since an event's domain name may be a custom domain, which does not accept posts.
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"

# By default, the garbage collector searches all that has been imported each time 700 objects are
# new: a fifth of a cold start's CPU, for nothing.
gc.set_threshold(50_000)

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)  # of time.monotonic()


class Session:
    """The part of boto3's `Session` that Chalice and this app use, over botocore alone.

    boto3 imports far more, such as transfers to S3 and multiprocessing. All instances share one
    botocore session, which is created at the first use.
    """

    @property
    def region_name(self) -> Any:
        return self._session.get_config_variable("region")

    def get_credentials(self) -> Any:
        return self._session.get_credentials()

    def client(self, service: str, **options: Any) -> Any:
        return self._session.create_client(service, **options)

    @property
    def _session(self) -> Any:
        return _botocore_session()


@cache
def _botocore_session() -> Any:
    from botocore.session import get_session

    return get_session()


@cache
def client_config() -> Any:
    """A call takes at most 4 attempts of 4 s and 7 s of back-off.

    It fits, with room for the answer, into the 29 s that API Gateway waits for an integration.
    """
    from botocore.config import Config

    return Config(
        connect_timeout=1,
        read_timeout=3,
        retries={"mode": "standard", "total_max_attempts": 4},
    )


def required(variable: str, purpose: str) -> str:
    """The value of an environment variable. Raises `RuntimeError` if it is missing or empty."""
    value = os.environ.get(variable)
    if not value:
        raise RuntimeError(
            f"The environment variable {variable} is not set. It names {purpose}: "
            "resources.json sets it on every function; elsewhere, set it yourself."
        )
    return value


def open_table() -> Table:
    """The table that the environment variable TABLE names; no request is made."""
    name = required("TABLE", "the DynamoDB table")
    return Table(name, Session().client("dynamodb", config=client_config()))


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
    from botocore.httpsession import get_cert_path

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
