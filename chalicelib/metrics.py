"""The metrics of an invocation, in CloudWatch's embedded metric format.

CloudWatch extracts them from the log lines, so they cost no request (CloudWatch Logs:
"Specification: Embedded metric format").
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

NAMESPACE = "ChaliceChat"

_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)


def count(**amounts: float) -> None:
    """Add to the metrics of the current invocation; does nothing outside of one."""
    counted = _counted.get()
    if counted is not None:
        counted.update(amounts)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Collect the counts made inside the block, for `embedded`."""
    counted: Counter[str] = Counter()
    token = _counted.set(counted)
    try:
        yield counted
    finally:
        _counted.reset(token)


def embedded(counted: Counter[str]) -> dict[str, Any]:
    """The log fields from which CloudWatch makes metrics; their one dimension is the stack."""
    metrics = {name: amount for name, amount in counted.items() if amount}
    if not metrics:
        return {}
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [["Stack"]],
        "Metrics": [{"Name": name, "Unit": _unit(name)} for name in metrics],
    }
    return {
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
        "Stack": os.environ.get("STACK", "none"),
        **metrics,
    }


def _unit(name: str) -> str:
    return "Milliseconds" if name.endswith("Milliseconds") else "Count"
