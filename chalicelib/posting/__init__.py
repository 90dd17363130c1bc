"""Posts one message to many WebSocket connections, as fast as API Gateway answers.

API Gateway takes one request for each connection: `POST /{stage}/@connections/{connection id}`. Up
to `POOL_SIZE` requests are in flight at once, in one thread, over non-blocking sockets.

- `delivery`: the interface, its promises, and the policy that keeps them;
- `pool`: carries requests over kept channels;
- `channel`: one HTTP connection;
- `sigv4`: signs requests;
- `http1`: reads answers.

The standard library does this for a fiftieth of botocore's CPU, the scarcest resource of a small
Lambda function (see `benchmarks/`). Nothing runs between calls, so Lambda may freeze the process.
"""

from .delivery import ANSWER_SECONDS, BROADCAST_SECONDS, Poster, Result
from .pool import POOL_SIZE

__all__ = ["ANSWER_SECONDS", "BROADCAST_SECONDS", "POOL_SIZE", "Poster", "Result"]
