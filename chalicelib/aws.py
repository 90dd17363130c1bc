"""AWS: the session and its clients, and the address for posts."""

import os
import ssl
from pathlib import Path

import botocore
from boto3.session import Session
from botocore.config import Config
from botocore.session import get_session

# boto3's own variable for the address of the `@connections` API. The template sets it on every
# function, so that no event decides where a function sends its signed requests.
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"


def new_session() -> Session:
    """A boto3 session whose calls fit into the 29 s that API Gateway waits for an integration: at
    most 4 attempts of 4 s, with back-off of at most 7 s in all."""
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
    """Whether Lambda is starting a function that uses the table, and so gives it a whole CPU."""
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ and bool(os.environ.get("TABLE"))


def posts_endpoint() -> str:
    return required(ENDPOINT_VARIABLE, "the address of the API's stage")


def tls_context() -> ssl.SSLContext:
    """A TLS context for AWS's servers, which checks host names.

    It trusts the authorities in the file that AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE names, by default
    botocore's. Raises `OSError` if the file cannot be read.
    """
    chosen = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    file = chosen or str(Path(botocore.__file__).with_name("cacert.pem"))
    return ssl.create_default_context(cafile=file)
