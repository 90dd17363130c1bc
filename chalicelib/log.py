"""One JSON object a line in the functions' logs, with what is needed to find an event again.

Every line carries the request id, the connection id and the route of the invocation that
wrote it. No line carries what somebody wrote.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

log = logging.getLogger("chalice-chat-example")  # Chalice's `app.log`, under the app's name

_invocation: ContextVar[dict[str, Any]] = ContextVar("invocation", default={})  # noqa: B039


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; the traceback, if there is one, in `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname, "message": record.getMessage(), **_invocation.get()}
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def write_json(logger: logging.Logger) -> None:
    """Make a logger's handlers write JSON, from level INFO up."""
    logger.setLevel(logging.INFO)
    for handler in logger.handlers:
        handler.setFormatter(JsonFormatter())


def log_invocation(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Chalice middleware: log how an invocation went, and pass on what it answered or raised."""
    request = event.to_dict()["requestContext"]
    with _fields(
        request_id=getattr(event.context, "aws_request_id", None),
        connection_id=request["connectionId"],
        route=request.get("routeKey"),
    ):
        start = time.perf_counter()
        try:
            response = get_response(event)
        except Exception:
            log.exception("failed", extra=_duration(start))
            raise
        log.info("done", extra=_duration(start))
        return response


@contextmanager
def _fields(**fields: Any) -> Iterator[None]:
    token = _invocation.set(fields)
    try:
        yield
    finally:
        _invocation.reset(token)


def _duration(start: float) -> dict[str, Any]:
    return {"fields": {"duration_ms": round((time.perf_counter() - start) * 1000, 1)}}
