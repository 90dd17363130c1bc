"""Applies all patches to MiniStack 1.5.33; those here are for its credentials and user pools.

They patch MiniStack's internals; the exact version in requirements/emulator.txt makes this safe.
"""

import json
import os
from functools import partial
from typing import Any, TextIO

from ministack import app
from ministack.core import iam_evaluator

from emulator import api_gateway, cloudformation, functions, resources
from emulator.gate import Gate


def apply(output: TextIO) -> None:
    """Applies all patches; the functions' logs are printed to `output`."""
    # It answered pages of any origin, under any host name, and many requests without a signature.
    app.app = Gate(app.app, int(app._resolve_port()))

    # It took "test", an empty key and every account's number for the owner's key, and checked no
    # signature made with one of these.
    iam_evaluator.is_root_access_key = lambda key: key == os.environ["AWS_ACCESS_KEY_ID"]
    iam_evaluator._is_root_key = lambda key: False

    # It gave the keys of user pools another address than AWS does ("Verifying JSON web tokens").
    app._handle_cognito_get_request = partial(discover, app._handle_cognito_get_request)

    functions.apply(output)
    cloudformation.apply()
    resources.apply()
    api_gateway.apply()


async def discover(original: Any, method: str, path: str, *arguments: Any) -> Any:
    """The answer of Cognito; a pool's discovery document has the address of its keys on AWS."""
    answer = await original(method, path, *arguments)
    if answer is None or not path.endswith("/openid-configuration"):
        return answer
    status, headers, body = answer
    document = json.loads(body)
    document["jwks_uri"] = f"{document['issuer']}/.well-known/jwks.json"
    return status, headers, json.dumps(document).encode()
