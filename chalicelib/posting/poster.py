"""The poster and its promises, which `delivery` keeps."""

import ssl
import threading
from collections.abc import Iterable
from typing import Any

from .delivery import ANSWER_SECONDS, BROADCAST_SECONDS, AnyTarget, Delivery, Post, Result
from .http1 import Endpoint
from .pool import REAL_TIME, Clock, Pool
from .sigv4 import Credentials, Signer


class Poster:
    """Posts messages to the connections of one WebSocket API, and keeps its HTTP connections for
    the next message.

    :param endpoint: the address of the API's stage,
        `https://{api id}.execute-api.{region}.amazonaws.com/{stage}`, or an emulator's `http://`
        address.
    :param region: for the signature.
    :param credentials: from `boto3.Session().get_credentials()`; read again for every broadcast,
        since they are rotated.
    :param tls: the authorities to trust; by default those of the operating system, with checks
        of certificate and host.
    :param clock: for tests; by default real time.

    It opens no connection before the first post. Calls from several threads are safe, and wait
    for each other. Proxies (`HTTPS_PROXY`) are not supported.
    """

    def __init__(
        self,
        endpoint: str,
        region: str,
        credentials: Credentials,
        tls: ssl.SSLContext | None = None,
        clock: Clock = REAL_TIME,
    ) -> None:
        self._endpoint = Endpoint.parse(endpoint)
        self._region = region
        self._credentials = credentials
        self._pool = Pool[Post[Any]](self._endpoint, tls, ANSWER_SECONDS, clock)
        self._lock = threading.Lock()

    def post(
        self,
        targets: Iterable[AnyTarget],
        message: str | bytes,
        seconds: float = BROADCAST_SECONDS,
    ) -> Result[AnyTarget]:
        """Post `message` to the connection of each target, in no particular order.

        Targets are taken one by one as connections become free: the first post leaves before the
        second page is read. At most `POOL_SIZE + MAX_WAITING` are held at any time, and more
        only while posts hang. A target that is listed twice gets the message twice. While the iterator
        blocks (reading its next page), posts in flight continue but none starts, so a page should
        hold many: 10 ms each cost 20 % with 1,000 targets a page, and 65 % with 100.

        A failing post never stops the others:

        - 410: in `Result.gone`;
        - 429: that client's buffer is full. Up to `ATTEMPTS` attempts, within 2 s, after random,
          growing pauses; then in `Result.failed`. While many posts are refused, the account's quota
          is used up, and a 429 is retried for `POST_SECONDS` instead;
        - 5xx, no connection: the same, but never more than `ATTEMPTS` attempts;
        - any other status: in `Result.failed` with status and body, not retried;
        - no answer, only part of one, or one that is not HTTP/1: in `Result.failed`. The message
          may have been delivered, so the post is not retried. A post that hangs is given up after 1 s, or up to
          `ANSWER_SECONDS` (`seconds`, if that is less) while the API is slow or answers nothing;
        - a kept connection turns out to be closed before any byte of an answer: retried at once,
          over a new connection, once. RFC 9112, section 9.3.1, allows that for a request that was
          not carried out. A closed connection suggests this but does not prove it: if API Gateway
          had accepted the post, that client gets the message twice.

        Posts that hang hold up nobody for long: after 0.25 s they take up no room. At most
        `MAX_IN_FLIGHT` posts are in flight; if that many hang, the others wait until some are given
        up.

        After `seconds`, no post or retry starts. Targets are then left in the iterator, and
        `Result.stopped` says why. The same happens to targets once a post has used up its attempts to
        connect. Posts that are waiting for a retry when time is up are in `Result.failed`. The call
        returns within `seconds + ANSWER_SECONDS` (or twice `seconds`, if that is less), plus the
        time that the iterator and the resolver block; a target already taken is still
        posted to. With 0 seconds or less, nothing is posted and no target is taken.

        Cost: about 20 µs of CPU a post on a 2020s server core (30 µs with TLS), and 0.6 ms for a
        new TLS connection. Memory does not grow with the number of targets, except for those in the
        result.

        :param message: up to 128 KB (API Gateway answers 413 for more); text is sent as UTF-8.
            API Gateway splits it into frames of 32 KB.
        :raises Exception: from the iterator or the credentials, never for a post or the network.
            The targets before the iterator's exception are posted to first; their results are lost.
        """
        body = message.encode() if isinstance(message, str) else message
        with self._lock:
            credentials = self._credentials.get_frozen_credentials()
            signer = Signer(self._endpoint, self._region, credentials, body)
            return Delivery(self._pool, signer, iter(targets), seconds).run()

    def close(self) -> None:
        """Close the idle connections. The poster can be used again."""
        with self._lock:
            self._pool.close()
