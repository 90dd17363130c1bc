"""One JSON object a line in the functions' logs, with what is needed to find an event again.

Every line carries the request id, the connection id and the route of the invocation that
wrote it. No line carries what somebody wrote. The last line of an invocation also carries
what it counted, in CloudWatch's embedded metric format, from which CloudWatch makes metrics.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

log = logging.getLogger("chalice-chat-example")  # Chalice's `app.log`, under the app's name

NAMESPACE = "ChaliceChat"

_fields: ContextVar[dict[str, Any] | None] = ContextVar("fields", default=None)
_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; the traceback, if there is one, in `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname, "message": record.getMessage()}
        line |= (_fields.get() or {}) | getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def write_json(logger: logging.Logger) -> None:
    """Make a logger's handlers write JSON, from level INFO up."""
    logger.setLevel(logging.INFO)
    for handler in logger.handlers:
        handler.setFormatter(JsonFormatter())


def about(**fields: Any) -> dict[str, Any]:
    """More fields for one line: `log.error("...", extra=about(room="tea"))`."""
    return {"fields": fields}


def count(**amounts: float) -> None:
    """Add to the metrics of the invocation under way; outside of one, nothing is counted."""
    counted = _counted.get()
    if counted is not None:
        counted.update(amounts)


def log_invocation(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Chalice middleware: log how an invocation went, and pass on what it answered or raised."""
    with _invocation(event) as counted:
        start = time.perf_counter()
        try:
            return get_response(event)
        except Exception:
            log.exception("failed")
            raise
        finally:
            milliseconds = round((time.perf_counter() - start) * 1000, 1)
            log.info("done", extra=about(duration_ms=milliseconds, **_metrics(counted)))


@contextmanager
def _invocation(event: Any) -> Iterator[Counter[str]]:
    request = event.to_dict().get("requestContext", {})
    counted: Counter[str] = Counter()
    fields = _fields.set(
        {
            "request_id": getattr(event.context, "aws_request_id", None),
            "connection_id": request.get("connectionId"),
            "route": request.get("routeKey"),
        }
    )
    counting = _counted.set(counted)
    try:
        yield counted
    finally:
        _counted.reset(counting)
        _fields.reset(fields)


def _metrics(counted: Counter[str]) -> dict[str, Any]:
    """CloudWatch Logs specification of the embedded metric format; one dimension, the stack."""
    metrics = {name: amount for name, amount in counted.items() if amount}
    if not metrics:
        return {}
    units = {name: "Milliseconds" if name.endswith("Milliseconds") else "Count" for name in metrics}
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [["Stack"]],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
    }
    return {
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
        "Stack": os.environ.get("STACK", "none"),
        **metrics,
    }
