"""AWS: the session and its clients, the address for posts, an invocation's deadline."""

import math
import os
import ssl
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import botocore
from botocore.exceptions import NoRegionError

from chalicelib.table import Client, Table

# boto3's own variable for the address of the `@connections` API. The template sets it on every
# function, since an event's domain name may be a custom domain, which does not accept posts.
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)  # of time.monotonic()


class Credentials(NamedTuple):
    """Credentials from the environment. Lambda sets them once, for the life of the process."""

    access_key: str
    secret_key: str
    token: str | None

    def get_frozen_credentials(self) -> "Credentials":
        return self


class Session:
    """The part of boto3's `Session` that Chalice and this app use.

    boto3 is imported only for a client, or where the environment lacks the variables that Lambda
    sets. Importing it takes longer than posting to a thousand people.
    """

    @property
    def region_name(self) -> Any:
        return os.environ.get("AWS_DEFAULT_REGION") or self._session.region_name

    def get_credentials(self) -> Any:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        key, secret, token = (os.environ.get(name) for name in names)
        return (
            Credentials(key, secret, token) if key and secret else self._session.get_credentials()
        )

    def client(self, service: str, **options: Any) -> Any:
        return self._session.client(service, **options)

    @cached_property
    def _session(self) -> Any:
        from boto3.session import Session

        return Session()


def client_config() -> Any:
    """A call makes at most 4 attempts of 4 s and backs off for at most 7 s, as in `table.py`."""
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
    return Table(required("TABLE", "the DynamoDB table"), dynamodb(Session()))


def dynamodb(session: Any) -> Any:
    """The client for the table, at the address that boto3 would use.

    Not supported: dual-stack and FIPS endpoints, and addresses in AWS's configuration file. Raises
    `NoRegionError` without a region.
    """
    region = session.region_name
    if region is None:
        raise NoRegionError()
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    url = (
        os.environ.get("AWS_ENDPOINT_URL_DYNAMODB")
        or os.environ.get("AWS_ENDPOINT_URL")
        or f"https://dynamodb.{region}.{suffix}"
    )
    tls = tls_context() if url.startswith("https:") else None
    return Client(url, region, session.get_credentials(), tls)


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
    return _trusting(chosen or str(Path(botocore.__file__).with_name("cacert.pem")))


@cache
def _trusting(file: str) -> ssl.SSLContext:
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
