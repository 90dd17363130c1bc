"""One invocation of a function: its deadline, its log lines and its metrics.

A log line is one JSON object, with the invocation's request id, connection id and route, and no
text of a user. The last line also has the metrics in CloudWatch's embedded metric format, so they
cost no request (CloudWatch Logs: "Specification: Embedded metric format").
"""

import json
import logging
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

LAST_SECONDS = 1.0  # before the deadline, in which nothing new starts
NAMESPACE = "ChaliceChat"

log = logging.getLogger("chalicelib")


@dataclass
class Invocation:
    """:ivar ends_at: when Lambda ends the invocation, by `time.monotonic()`."""

    ids: dict[str, Any] = field(default_factory=dict)
    ends_at: float = math.inf
    counted: Counter[str] = field(default_factory=Counter)


_current: ContextVar[Invocation | None] = ContextVar("invocation", default=None)


@contextmanager
def invocation(seconds: float = math.inf, **ids: Any) -> Iterator[Counter[str]]:
    """Run the block as an invocation, with a time limit and ids for the log; yields its counts."""
    new = Invocation(ids, time.monotonic() + seconds)
    token = _current.set(new)
    try:
        yield new.counted
    finally:
        _current.reset(token)


def in_invocation(event: Any, get_response: Callable[[Any], Any]) -> Any:
    """Chalice middleware: log the outcome of an invocation, and pass on its answer or exception.
    Without Lambda's context, as in a unit test, there is no deadline."""
    # An HTTP request's `context` is API Gateway's.
    context = getattr(event, "lambda_context", getattr(event, "context", None))
    milliseconds = getattr(context, "get_remaining_time_in_millis", lambda: math.inf)
    fields = event.to_dict()
    request = fields.get("requestContext", fields.get("context", {}))  # of a frame, or of the page
    start = time.perf_counter()
    with invocation(
        milliseconds() / 1000,
        request_id=getattr(context, "aws_request_id", None),
        connection_id=request.get("connectionId"),
        route=request.get("routeKey", request.get("resourcePath")),
    ) as counted:
        try:
            return get_response(event)
        except Exception:
            log.exception("failed")
            raise
        finally:
            duration = round((time.perf_counter() - start) * 1000, 1)
            log.info("done", extra=about(duration_ms=duration, **_embedded(counted)))


# The deadline


def seconds_left() -> float:
    """Seconds until Lambda ends the current invocation; infinite outside of one."""
    current = _current.get()
    return current.ends_at - time.monotonic() if current else math.inf


def is_ending() -> bool:
    """Whether the current invocation is too near its deadline to start anything new."""
    return seconds_left() < LAST_SECONDS


# The log


def write_json(*others: logging.Logger) -> None:
    """Write this log and others, such as Chalice's, as JSON to standard output, from INFO up."""
    logging.getLogger("botocore").setLevel(logging.WARNING)  # Lambda sets the root's level to INFO
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for logger in (log, *others):
        logger.handlers = [handler]
        logger.propagate = False  # Lambda's own handler would write each line again, as text
        logger.setLevel(logging.INFO)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; any traceback is in `exception`.

    Lambda expects `level` and `timestamp` (AWS Lambda: "Log-level filtering").
    """

    def format(self, record: logging.LogRecord) -> str:
        current = _current.get()
        line: dict[str, Any] = {
            "level": record.levelname,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "message": record.getMessage(),
            **(current.ids if current else {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, separators=(",", ":"))


def about(**fields: Any) -> dict[str, Any]:
    """Extra fields for one line: `log.error("...", extra=about(failed=3))`."""
    return {"fields": fields}


# Metrics


def count(**amounts: float) -> None:
    """Add to the metrics of the current invocation; does nothing outside of one."""
    current = _current.get()
    if current:
        current.counted.update(amounts)


def _embedded(counted: Counter[str]) -> dict[str, Any]:
    """The log fields from which CloudWatch makes metrics; their one dimension is the stack."""
    metrics = {name: amount for name, amount in counted.items() if amount}
    if not metrics:
        return {}
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [["Stack"]],
        "Metrics": [
            {"Name": name, "Unit": "Milliseconds" if name.endswith("Milliseconds") else "Count"}
            for name in metrics
        ],
    }
    return {
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
        "Stack": os.environ.get("STACK", "none"),
        **metrics,
    }
