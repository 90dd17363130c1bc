"""The functions' logs: one JSON object a line, with the ids needed to trace an event.

Every line has the request id, the connection id and the route of its invocation, and no text of
a user. The last line of an invocation also has its metrics.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from chalicelib import metrics
from chalicelib.aws import lambda_context

log = logging.getLogger("chalicelib")

_invocation: ContextVar[dict[str, Any] | None] = ContextVar("invocation", default=None)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; any traceback is in `exception`.

    Lambda expects `level` and `timestamp` (AWS Lambda: "Log-level filtering").
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "level": record.levelname,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "message": record.getMessage(),
        }
        line |= (_invocation.get() or {}) | getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, separators=(",", ":"))


def write_json(*others: logging.Logger) -> None:
    """Write this log, and other ones such as Chalice's, as JSON to standard output, from INFO up."""
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Lambda sets the root's level to INFO
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for logger in (log, *others):
        logger.handlers = [handler]
        logger.propagate = False  # Lambda's own handler would write each line again, as text
        logger.setLevel(logging.INFO)


def about(**fields: Any) -> dict[str, Any]:
    """Extra fields for one line: `log.error("...", extra=about(failed=3))`."""
    return {"fields": fields}


def log_invocation(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Chalice middleware: log an invocation's outcome, and pass on its answer or exception."""
    fields = event.to_dict()
    request = fields.get("requestContext", fields.get("context", {}))  # of a frame, or of the page
    token = _invocation.set(
        {
            "request_id": getattr(lambda_context(event), "aws_request_id", None),
            "connection_id": request.get("connectionId"),
            "route": request.get("routeKey", request.get("resourcePath")),
        }
    )
    start = time.perf_counter()
    with metrics.counting() as counted:
        try:
            return get_response(event)
        except Exception:
            log.exception("failed")
            raise
        finally:
            milliseconds = round((time.perf_counter() - start) * 1000, 1)
            fields = metrics.embedded(counted)
            log.info("done", extra=about(duration_ms=milliseconds, **fields))
            _invocation.reset(token)
